//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where a file is written before it is whole.
pub(crate) fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    name.into()
}

/// Gives a draft that is written and synced its name, never that of another file; the draft is gone either way.
pub(crate) fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    // Unlike a rename, a link fails if the name is taken.
    let linked = fs::hard_link(draft, path);
    let removed = fs::remove_file(draft);
    linked?;
    removed?;
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
