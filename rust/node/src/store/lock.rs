//! A lock on a file, held by one process, which it names; and one for each node id, so that two copies of one node do not
//! run on one machine.

use super::{Loaded, Op, Row, Store, StoreError};
use crate::files::{create_new, draft_of};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How often a lock that is just being given up is tried for.
const TRIES: u32 = 100;

/// A lock file, and the process that holds it.
pub(crate) struct Lock {
    file: File,
    holder: u32,
}

impl Lock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(path: &Path) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| StoreError::Failed(format!("the lock file: {error}"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Where locks also bar reading, the holder stays unnamed.
                let _ = file.take(32).read_to_string(&mut text);
                return Err(StoreError::Locked {
                    pid: text.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let holder = std::process::id();
        writeln!(file, "{holder}").map_err(io)?;
        Ok(Self { file, holder })
    }

    #[cfg(unix)]
    fn is_at(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let id = |found: std::io::Result<fs::Metadata>| found.ok().map(|m| (m.dev(), m.ino()));
        let held = id(self.file.metadata());
        held.is_some() && held == id(fs::metadata(path))
    }

    #[cfg(not(unix))]
    fn is_at(&self, path: &Path) -> bool {
        path.exists()
    }

    #[cfg(test)]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Lock {
    /// Closing the file is not enough: a child process that is being born has it open too until it runs its program.
    fn drop(&mut self) {
        if self.holder == std::process::id() {
            let _ = self.file.unlock();
        }
    }
}

/// The lock of a node id on this machine, for those that run as the same user.
///
/// # Errors
/// [`StoreError::Copy`] if it is taken; [`StoreError::Failed`] if there is no place for it.
pub(crate) fn lock_node(node_id: &str) -> Result<NodeLock, StoreError> {
    let path = lock_folder()?.join(format!("{node_id}.lock"));
    for _ in 0..TRIES {
        let lock = Lock::take(&path).map_err(|error| match error {
            StoreError::Locked { pid } => StoreError::Copy { pid },
            other => other,
        })?;
        // Whoever had it may have removed the file between our opening and our locking it.
        if lock.is_at(&path) {
            return Ok(NodeLock { path, lock });
        }
    }
    Err(StoreError::Copy { pid: None })
}

/// The lock of a node id; its file goes with it.
pub(crate) struct NodeLock {
    path: PathBuf,
    /// Given up after the file is removed.
    lock: Lock,
}

impl Drop for NodeLock {
    fn drop(&mut self) {
        // Unless somebody has cleaned up and another has the name by now.
        if self.lock.holder == std::process::id() && self.lock.is_at(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One folder for all of a user's nodes, whether they are services or run in a shell: no environment variable has a say.
fn lock_folder() -> Result<PathBuf, StoreError> {
    let io = |error: std::io::Error| StoreError::Failed(format!("no place for locks: {error}"));
    let everybodys = if cfg!(unix) {
        PathBuf::from("/tmp")
    } else {
        std::env::temp_dir()
    };
    let user = user(&everybodys).map_err(io)?;
    let folder = everybodys.join(format!("ldkjit-{user}"));
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    // Anybody may write there: a folder of somebody else's tells nothing.
    if owner(&folder).map_err(io)? != user {
        return Err(StoreError::Failed(format!(
            "no place for locks: {} is somebody else's",
            folder.display()
        )));
    }
    Ok(folder)
}

/// Who runs this: the owner of a file that it makes.
fn user(folder: &Path) -> std::io::Result<u32> {
    let probe = draft_of(&folder.join("ldkjit"));
    create_new(&probe)?;
    let owner = owner(&probe);
    fs::remove_file(&probe)?;
    owner
}

#[cfg(unix)]
fn owner(path: &Path) -> std::io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::symlink_metadata(path)?.uid())
}

#[cfg(not(unix))]
fn owner(_: &Path) -> std::io::Result<u32> {
    Ok(0)
}

/// A store whose node is the only one with its id here, as long as it is open.
pub(crate) struct Only {
    /// Dropped first.
    pub(crate) store: Box<dyn Store>,
    pub(crate) _lock: NodeLock,
}

impl Store for Only {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.store.load()
    }
    fn load_all(&mut self) -> Result<Loaded, StoreError> {
        self.store.load_all()
    }
    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError> {
        self.store.commit(seq, batch)
    }
    fn read(&mut self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(kind, key)
    }
    fn rows(&mut self, kind: &str, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store.rows(kind, after, limit)
    }
    fn close(&mut self) -> Result<(), StoreError> {
        self.store.close()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_node_id_is_held_once() {
        let id = format!("test-{}", std::process::id());
        let first = lock_node(&id).unwrap();
        let pid = Some(std::process::id());
        assert_eq!(lock_node(&id).err(), Some(StoreError::Copy { pid }));
        let other = format!("{id}-other");
        drop(lock_node(&other).unwrap());
        drop(first);
        // A file that somebody left behind is no lock.
        let left = lock_folder().unwrap().join(format!("{id}.lock"));
        assert!(!left.exists());
        fs::write(&left, "1").unwrap();
        drop(lock_node(&id).unwrap());
        assert!(!left.exists());
    }
}
