//! One file that holds a node, words and all, as it was in one commit; and how a node comes out of it again.

use std::fs::{self, DirBuilder, File};
use std::path::Path;

use lightning::util::persist::{
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
};
use serde::{Deserialize, Serialize};

use crate::audit::STORE_FILE;
use crate::error::{NodeError, StoreError};
use crate::files::{draft_of, parent, publish, sync_folder};
use crate::journal::ldk_kind;
use crate::keys::{Seed, SEED_FILE};
use crate::log::now_ms;
use crate::recovery::{Marker, Origin};
use crate::store::lock::lock_node;
use crate::store::{Mark, SqliteStore, Store};

/// Under this name a backup says what it is.
const NOTE: &str = "backup";

/// What makes a copy of a store a backup.
#[derive(Serialize, Deserialize)]
struct Note {
    words: String,
    taken_at_ms: u64,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whose it is.
    pub node_id: String,
    /// Its network.
    pub network: String,
    /// When it was taken, ms since 1970.
    pub taken_at_ms: u64,
    /// The last commit in it.
    pub commit: u64,
    /// Channels with something in them to watch for.
    pub channels: usize,
    /// The file's size.
    pub bytes: u64,
}

/// Writes the node in `data_dir`, running or not, into the new file `to`, which only its owner can read.
///
/// # Errors
/// `config` if there is no node or the file is there already; `store` and its kin.
pub fn backup(data_dir: &Path, to: &Path) -> Result<Summary, NodeError> {
    let store = data_dir.join(STORE_FILE);
    if !store.is_file() {
        return Err(NodeError::config(format!(
            "there is no node in {}",
            data_dir.display()
        )));
    }
    if to.exists() {
        return Err(taken(to));
    }
    if !parent(to).is_dir() {
        return Err(NodeError::config(format!(
            "{} is no folder",
            parent(to).display()
        )));
    }
    let note = Note {
        words: Seed::read(data_dir)?.words(),
        taken_at_ms: now_ms(),
    };
    let text = serde_json::to_string(&note).map_err(|e| NodeError::internal(e.to_string()))?;
    let draft = draft_of(to);
    let written = SqliteStore::copy(&store, &draft)
        .and_then(|()| {
            let value = text.as_str();
            SqliteStore::mark(&draft, &Mark::Note { name: NOTE, value })
        })
        .map_err(NodeError::from)
        .and_then(|()| summary(&draft, &note));
    let published = written.and_then(|summary| {
        let synced = File::open(&draft).and_then(|file| file.sync_all());
        synced
            .and_then(|()| publish(&draft, to))
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => taken(to),
                _ => failed("the backup", &error),
            })?;
        Ok(summary)
    });
    if published.is_err() {
        let _ = fs::remove_file(&draft);
    }
    published
}

/// Makes a node of a backup in `data_dir`, which must be new or empty. It is one that only recovers.
///
/// # Errors
/// `config` if the folder is in use, `store_copy` if the node runs here, `store_corrupt` if the file is no backup.
pub fn restore(from: &Path, data_dir: &Path) -> Result<Summary, NodeError> {
    if !from.is_file() {
        return Err(NodeError::config(format!("{} is no file", from.display())));
    }
    if fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(NodeError::config(format!(
            "{} is not empty: nothing is restored over it",
            data_dir.display()
        )));
    }
    let no_backup = || StoreError::Corrupt("it is no backup".into());
    let text = SqliteStore::note(from, NOTE)?.ok_or_else(no_backup)?;
    let note: Note = serde_json::from_str(&text).map_err(|_| no_backup())?;
    let seed = Seed::parse(&note.words)?;
    let summary = summary(from, &note)?;

    match lock_node(&summary.node_id) {
        Ok(lock) => drop(lock),
        Err(error) => return Err(error.into()),
    }
    let made = make_folder(data_dir)?;
    let draft = draft_of(&data_dir.join(STORE_FILE));
    let written = write(from, &draft, note.taken_at_ms).and_then(|()| {
        // The store first: without it, words alone would make a node that has forgotten its channels.
        publish(&draft, &data_dir.join(STORE_FILE)).map_err(|e| failed("the store", &e))?;
        seed.create(&data_dir.join(SEED_FILE))
    });
    if let Err(error) = written {
        for file in [draft, data_dir.join(STORE_FILE)] {
            let _ = fs::remove_file(file);
        }
        if made {
            let _ = fs::remove_dir(data_dir);
        }
        return Err(error);
    }
    sync_folder(parent(data_dir));
    Ok(summary)
}

/// Whether the folder was not there.
fn make_folder(data_dir: &Path) -> Result<bool, NodeError> {
    if data_dir.is_dir() {
        return Ok(false);
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(data_dir)
        .map_err(|e| failed("the folder", &e))?;
    Ok(true)
}

fn write(from: &Path, draft: &Path, taken_at_ms: u64) -> Result<(), NodeError> {
    SqliteStore::copy(from, draft)?;
    SqliteStore::mark(draft, &Mark::NoNote { name: NOTE })?;
    let (kind, key, value) = Marker::new(Origin::Backup, taken_at_ms).put();
    let value = value.as_slice();
    let (kind, key) = (kind.as_str(), key.as_str());
    SqliteStore::mark(draft, &Mark::Put { kind, key, value })?;
    File::open(draft)
        .and_then(|file| file.sync_all())
        .map_err(|e| failed("the store", &e))
}

fn summary(path: &Path, note: &Note) -> Result<Summary, NodeError> {
    let (mut store, network) = SqliteStore::reader(path)?;
    let loaded = store.load()?;
    let monitor = ldk_kind(
        CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
        CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
    );
    let monitors = loaded.live.iter().filter(|(kind, _, _)| *kind == monitor);
    Ok(Summary {
        node_id: Seed::parse(&note.words)?.node_id()?.to_string(),
        network: network.to_string(),
        taken_at_ms: note.taken_at_ms,
        commit: loaded.seq,
        channels: monitors.count(),
        bytes: fs::metadata(path).map_or(0, |m| m.len()),
    })
}

fn taken(path: &Path) -> NodeError {
    NodeError::config(format!(
        "{} is there already: it is not overwritten",
        path.display()
    ))
}

fn failed(what: &str, error: &std::io::Error) -> NodeError {
    NodeError::new("store", format!("{what} cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::log::Log;
    use crate::store::Op;
    use crate::testing::TempDir;
    use bitcoin::Network;
    use std::path::PathBuf;

    /// A node that never ran: a seed, and a store with one value.
    fn node(dir: &TempDir) -> (PathBuf, SqliteStore) {
        let data = dir.path().join("node");
        fs::create_dir(&data).unwrap();
        Seed::load_or_create(&data, None, &Log::silent()).unwrap();
        let mut store = SqliteStore::open(&data.join(STORE_FILE), Network::Regtest).unwrap();
        store.commit(1, &[put(1)]).unwrap();
        (data, store)
    }

    fn put(value: u8) -> Op {
        Op::Put {
            kind: "k".into(),
            key: "a".into(),
            value: vec![value],
        }
    }

    #[test]
    fn what_is_restored_is_what_was_committed_and_only_recovers() {
        let dir = TempDir::new();
        let (data, mut store) = node(&dir);
        let file = dir.path().join("backup");
        let taken = backup(&data, &file).unwrap();
        assert_eq!((taken.commit, taken.network.as_str()), (1, "regtest"));
        store.commit(2, &[put(2)]).unwrap();

        let new = dir.path().join("new");
        // A folder that is there and empty does too.
        fs::create_dir(&new).unwrap();
        assert_eq!(restore(&file, &new).unwrap(), taken);
        let words = |dir: &Path| Seed::read(dir).unwrap().words();
        assert_eq!(words(&new), words(&data));
        let mut restored = SqliteStore::open(&new.join(STORE_FILE), Network::Regtest).unwrap();
        let loaded = restored.load().unwrap();
        assert_eq!(loaded.seq, 1);
        assert_eq!(restored.read("k", "a").unwrap(), Some(vec![1]));
        let marker = Marker::find(&loaded.live).unwrap().unwrap();
        assert_eq!(marker.from, Origin::Backup);
        // No word is left in the store.
        drop(restored);
        let first = words(&data).split(' ').next().unwrap().to_owned();
        let bytes = fs::read(new.join(STORE_FILE)).unwrap();
        let found = bytes.windows(first.len()).any(|w| w == first.as_bytes());
        assert!(!found || first.len() < 4);
    }

    #[test]
    fn nothing_is_written_over() {
        let dir = TempDir::new();
        let (data, _store) = node(&dir);
        let file = dir.path().join("backup");
        backup(&data, &file).unwrap();
        let before = fs::read(&file).unwrap();
        assert_eq!(backup(&data, &file).unwrap_err().code, "config");
        assert_eq!(fs::read(&file).unwrap(), before);
        assert_eq!(restore(&file, &data).unwrap_err().code, "config");
        let nowhere = dir.path().join("missing").join("backup");
        assert_eq!(backup(&data, &nowhere).unwrap_err().code, "config");
        assert_eq!(backup(dir.path(), &nowhere).unwrap_err().code, "config");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "no draft is left: {left:?}");
    }

    #[test]
    fn only_a_whole_backup_is_restored() {
        let dir = TempDir::new();
        let (data, _store) = node(&dir);
        let file = dir.path().join("backup");
        backup(&data, &file).unwrap();
        let to = dir.path().join("new");
        // A store is none, nor is half of one.
        let code = |from: &Path| restore(from, &to).unwrap_err().code;
        assert_eq!(code(&data.join(STORE_FILE)), "store_corrupt");
        assert_eq!(code(&dir.path().join("missing")), "config");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(code(&file), "store_corrupt");
        fs::write(&file, b"rubbish").unwrap();
        assert_eq!(code(&file), "store_corrupt");
        assert!(!to.exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let (data, _store) = node(&dir);
        let file = dir.path().join("backup");
        backup(&data, &file).unwrap();
        let new = dir.path().join("new");
        restore(&file, &new).unwrap();
        for path in [&file, &new, &new.join(STORE_FILE), &new.join(SEED_FILE)] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
}
