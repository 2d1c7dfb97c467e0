//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Where a file is written before it is whole: a name that nobody has.
pub(crate) fn draft_of(path: &Path) -> PathBuf {
    let mut random = [0; 8];
    // Without randomness the name is only less of a secret; whoever makes the file makes it anew or not at all.
    let _ = getrandom::fill(&mut random);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{:016x}", u64::from_be_bytes(random)));
    name.into()
}

/// Makes a new file that only its owner can read.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Gives a draft that is written and synced its name, never that of another file; the draft is gone either way.
pub(crate) fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    // Unlike a rename, a link fails if the name is taken. Where there are no links, the name is taken first.
    let published = match fs::hard_link(draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            create_new(path).and_then(|_| fs::rename(draft, path))
        }
        linked => linked.and_then(|()| fs::remove_file(draft)),
    };
    if published.is_err() {
        let _ = fs::remove_file(draft);
    }
    published?;
    sync_folder(parent(path));
    Ok(())
}

/// The folder that a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes new names in a folder durable. On some systems a folder cannot be opened for this; what is in it is safe anyway.
pub(crate) fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
