//! The default store: one SQLite file, one writer, one fsync a commit.

use super::lock::Lock;
use super::{follows, rows_follow, Loaded, Op, Row, Store, StoreError, ARCHIVE, SCHEMA_VERSION};
use crate::files::create_new;
use bitcoin::Network;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Pages in the log before they are moved into the database (32 MB). With SQLite's default of 4 MB a checkpoint, and its
/// own fsyncs, would come many times a second on a busy node.
const CHECKPOINT_PAGES: u32 = 8192;

const SCHEMA: &str = "
CREATE TABLE meta(name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL);
CREATE TABLE kv(kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, UNIQUE(kind, key));
CREATE TABLE history(kind TEXT NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY(kind, seq));
CREATE INDEX history_by_key ON history(kind, key, seq);
";
/// What leads from each version of the tables to the next, from version 1 on; with every step comes a dump of its outcome,
/// `tests/stores/dumps/sqlite-N.sql`, that all later releases migrate in their tests.
const STEPS: &[&str] = &[];
const PUT: &str =
    "INSERT INTO kv(kind, key, value) VALUES(?1, ?2, ?3) ON CONFLICT(kind, key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM kv WHERE kind = ?1 AND key = ?2";
const APPEND: &str = "INSERT INTO history(kind, seq, key, value) VALUES(?1, ?2, ?3, ?4)";
const SEQ: &str = "UPDATE meta SET value = ?1 WHERE name = 'seq'";

/// A store in one file, `node.sqlite`, beside its lock.
pub struct SqliteStore {
    db: Option<Connection>,
    seq: u64,
    last_row: BTreeMap<String, u64>,
    /// Released last; absent where nothing can be written.
    _lock: Option<Lock>,
}

impl SqliteStore {
    /// Opens or creates the store of `network` at `path`. Refused while another process has it.
    pub fn open(path: &Path, network: Network) -> Result<Self, StoreError> {
        let guard = Lock::take(&lock_path(path))?;
        create_private(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(path, flags).map_err(failed)?;
        let mode: String = db
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(failed)?;
        if mode != "wal" {
            return Err(StoreError::Failed(format!(
                "the file system allows only the journal mode {mode}"
            )));
        }
        db.execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA cell_size_check = ON; \
             PRAGMA trusted_schema = OFF;"
        ))
        .map_err(failed)?;
        // Otherwise a prepared statement is planned again whenever it is bound to another value.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .map_err(failed)?;
        db.set_prepared_statement_cache_capacity(16);
        prepare_schema(&mut db, network, STEPS)?;
        let (seq, last_row) = counters(&db)?;
        Ok(Self {
            db: Some(db),
            seq,
            last_row,
            _lock: Some(guard),
        })
    }

    /// The store at `path` as it is at this moment, to be read while another process writes on. Answers its network too.
    pub fn reader(path: &Path) -> Result<(Self, Network), StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(failed)?;
        // Everything that follows sees one commit.
        db.execute_batch("PRAGMA trusted_schema = OFF; BEGIN")
            .map_err(failed)?;
        let found: u32 = number(&db, "version")?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::Version {
                found,
                known: SCHEMA_VERSION,
            });
        }
        let network = meta(&db, "network")?
            .parse()
            .map_err(|_| StoreError::Corrupt("network is not one".into()))?;
        let (seq, last_row) = counters(&db)?;
        let store = Self {
            db: Some(db),
            seq,
            last_row,
            _lock: None,
        };
        Ok((store, network))
    }

    /// Writes the store at `from` into the new file `to`, as it is in one commit, whether somebody writes on or not.
    pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
        drop(Self::reader(from)?);
        create_new(to).map_err(|e| StoreError::Failed(format!("the copy: {e}")))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(from, flags).map_err(failed)?;
        let to = to.to_str().ok_or_else(|| {
            StoreError::Failed("the file's name must be valid Unicode".to_owned())
        })?;
        db.execute("VACUUM INTO ?1", [to]).map_err(failed)?;
        db.close().map_err(|(_, error)| failed(error))
    }

    /// Changes a copy that nobody uses: what is said of it, and what is put into it.
    pub(crate) fn mark(path: &Path, change: &Mark<'_>) -> Result<(), StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(path, flags).map_err(failed)?;
        // What is taken out is overwritten, words above all.
        db.execute_batch("PRAGMA secure_delete = ON; PRAGMA trusted_schema = OFF;")
            .map_err(failed)?;
        let tx = db.transaction().map_err(failed)?;
        match *change {
            Mark::Note { name, value } => tx.execute(
                "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                (name, value),
            ),
            Mark::NoNote { name } => tx.execute("DELETE FROM meta WHERE name = ?1", [name]),
            Mark::Put { kind, key, value } => tx.execute(PUT, (kind, key, value)),
        }
        .map_err(failed)?;
        tx.commit().map_err(failed)?;
        db.close().map_err(|(_, error)| failed(error))
    }

    /// What is said of the store at `path`, if that is; every page of it is looked at first.
    pub(crate) fn note(path: &Path, name: &str) -> Result<Option<String>, StoreError> {
        let (store, _) = Self::reader(path)?;
        let db = store.db()?;
        let sound: String = db
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(failed)?;
        if sound != "ok" {
            return Err(StoreError::Corrupt(sound));
        }
        db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed)
    }

    /// Everything live, but kinds of this pattern.
    fn load_but(&self, pattern: &str) -> Result<Loaded, StoreError> {
        let mut query = self
            .db()?
            .prepare("SELECT kind, key, value FROM kv WHERE kind NOT GLOB ?1")
            .map_err(failed)?;
        let live = query
            .query_map([pattern], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .and_then(Iterator::collect)
            .map_err(failed)?;
        Ok(Loaded {
            seq: self.seq,
            live,
            last_row: self.last_row.clone(),
        })
    }

    pub(crate) fn db(&self) -> Result<&Connection, StoreError> {
        self.db.as_ref().ok_or(StoreError::Closed)
    }
}

/// A change to a copy.
pub(crate) enum Mark<'a> {
    /// Something is said of it.
    Note { name: &'a str, value: &'a str },
    /// Something is said no more.
    NoNote { name: &'a str },
    /// As [`Op::Put`].
    Put {
        kind: &'a str,
        key: &'a str,
        value: &'a [u8],
    },
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.load_but(&format!("{ARCHIVE}*"))
    }

    fn load_all(&mut self) -> Result<Loaded, StoreError> {
        self.load_but("")
    }

    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError> {
        let db = self.db.as_mut().ok_or(StoreError::Closed)?;
        follows(self.seq, seq)?;
        let next = rows_follow(&self.last_row, batch)?;
        write(db, seq, batch).map_err(failed)?;
        self.seq = seq;
        self.last_row
            .extend(next.into_iter().map(|(kind, seq)| (kind.to_owned(), seq)));
        Ok(())
    }

    fn read(&mut self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let db = self.db()?;
        let live = db
            .prepare_cached("SELECT value FROM kv WHERE kind = ?1 AND key = ?2")
            .and_then(|mut query| query.query_row((kind, key), |row| row.get(0)).optional())
            .map_err(failed)?;
        if live.is_some() {
            return Ok(live);
        }
        db.prepare_cached(
            "SELECT value FROM history WHERE kind = ?1 AND key = ?2 ORDER BY seq DESC LIMIT 1",
        )
        .and_then(|mut query| query.query_row((kind, key), |row| row.get(0)).optional())
        .map_err(failed)
    }

    fn rows(&mut self, kind: &str, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.db()?
            .prepare_cached("SELECT seq, key, value FROM history WHERE kind = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3")
            .and_then(|mut query| {
                query
                    .query_map((kind, after, limit), |row| {
                        Ok(Row { seq: row.get::<_, i64>(0)?.unsigned_abs(), key: row.get(1)?, value: row.get(2)? })
                    })?
                    .collect()
            })
            .map_err(failed)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        match self.db.take() {
            None => Ok(()),
            Some(db) => {
                db.flush_prepared_statement_cache();
                db.close().map_err(|(_, error)| failed(error))
            }
        }
    }
}

fn write(db: &mut Connection, seq: u64, batch: &[Op]) -> rusqlite::Result<()> {
    // Rolled back when dropped without a commit, so that an error half-way leaves nothing behind.
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for op in batch {
        match op {
            Op::Put { kind, key, value } => tx.prepare_cached(PUT)?.execute((kind, key, value))?,
            Op::Delete { kind, key } => tx.prepare_cached(DELETE)?.execute((kind, key))?,
            Op::Row {
                kind,
                seq,
                key,
                value,
            } => tx.prepare_cached(APPEND)?.execute((
                &**kind,
                i64::try_from(*seq).unwrap_or(i64::MAX),
                key,
                value,
            ))?,
        };
    }
    tx.prepare_cached(SEQ)?.execute([seq.to_string()])?;
    crate::crash::point("commit:inside");
    tx.commit()
}

fn prepare_schema(db: &mut Connection, network: Network, steps: &[&str]) -> Result<(), StoreError> {
    let known = steps.iter().fold(1u32, |n, _| n.saturating_add(1));
    let wanted = network.to_string();
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if tables == 0 {
        let tx = db.transaction().map_err(failed)?;
        tx.execute_batch(SCHEMA).map_err(failed)?;
        for (name, value) in [
            ("version", known.to_string()),
            ("network", wanted.clone()),
            ("seq", "0".to_owned()),
        ] {
            tx.execute(
                "INSERT INTO meta(name, value) VALUES(?1, ?2)",
                (name, value),
            )
            .map_err(failed)?;
        }
        tx.commit().map_err(failed)?;
    }
    let version: u32 = number(db, "version")?;
    if version > known {
        return Err(StoreError::Version {
            found: version,
            known,
        });
    }
    let found = meta(db, "network")?;
    if found != wanted {
        return Err(StoreError::Network { found, wanted });
    }
    migrate(db, version, steps)
}

/// From a version to the latest, all steps or none.
fn migrate(db: &mut Connection, from: u32, steps: &[&str]) -> Result<(), StoreError> {
    let tx = db.transaction().map_err(failed)?;
    for (version, step) in (1u32..).zip(steps).filter(|(version, _)| *version >= from) {
        let next = version.saturating_add(1);
        tx.execute_batch(step).map_err(|error| {
            StoreError::Failed(format!(
                "it cannot be led from version {version} to {next}: {error}"
            ))
        })?;
        tx.execute(
            "UPDATE meta SET value = ?1 WHERE name = 'version'",
            [next.to_string()],
        )
        .map_err(failed)?;
    }
    tx.commit().map_err(failed)
}

fn counters(db: &Connection) -> Result<(u64, BTreeMap<String, u64>), StoreError> {
    let mut query = db
        .prepare("SELECT kind, max(seq) FROM history GROUP BY kind")
        .map_err(failed)?;
    let last_row = query
        .query_map([], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
        })
        .and_then(Iterator::collect)
        .map_err(failed)?;
    Ok((number(db, "seq")?, last_row))
}

fn meta(db: &Connection, name: &str) -> Result<String, StoreError> {
    let found = db
        .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()
        // A database of something else has no such table.
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    found.ok_or_else(|| StoreError::Corrupt(format!("{name} is missing")))
}

fn number<T: std::str::FromStr>(db: &Connection, name: &str) -> Result<T, StoreError> {
    meta(db, name)?
        .parse()
        .map_err(|_| StoreError::Corrupt(format!("{name} is not a number")))
}

fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt(error.to_string())
        }
        // Another program has the file open past our lock file, which it does not know.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Locked { pid: None }
        }
        _ => StoreError::Failed(error.to_string()),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Creates the file, if it is not there, readable by its owner only; SQLite gives its log the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    match create_new(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::Failed(format!("the database file: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )]
    use super::*;
    use crate::testing::TempDir;

    fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(path, Network::Regtest)
    }

    #[test]
    fn one_holder_at_a_time_and_the_other_is_named() {
        let dir = TempDir::new();
        let path = dir.path().join("s.sqlite");
        let first = open(&path).unwrap();
        assert_eq!(
            open(&path).err(),
            Some(StoreError::Locked {
                pid: Some(std::process::id())
            })
        );
        drop(first);
        open(&path).unwrap();
    }

    #[test]
    fn a_child_process_that_has_the_files_does_not_keep_the_lock() {
        let dir = TempDir::new();
        let path = dir.path().join("s.sqlite");
        let store = open(&path).unwrap();
        let inherited = store._lock.as_ref().unwrap().file().try_clone().unwrap();
        drop(store);
        open(&path).unwrap();
        drop(inherited);
    }

    #[test]
    fn later_version_other_network_and_rubbish_are_told_apart() {
        let dir = TempDir::new();
        let path = dir.path().join("s.sqlite");
        drop(open(&path).unwrap());
        assert!(matches!(
            SqliteStore::open(&path, Network::Signet).err(),
            Some(StoreError::Network { .. })
        ));
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE meta SET value = '99' WHERE name = 'version'", [])
            .unwrap();
        drop(db);
        assert_eq!(
            open(&path).err(),
            Some(StoreError::Version {
                found: 99,
                known: SCHEMA_VERSION
            })
        );

        let path = dir.path().join("rubbish.sqlite");
        std::fs::write(&path, vec![7u8; 9000]).unwrap();
        assert!(matches!(open(&path).err(), Some(StoreError::Corrupt(_))));

        let path = dir.path().join("other.sqlite");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE t(x)")
            .unwrap();
        assert!(matches!(open(&path).err(), Some(StoreError::Corrupt(_))));
    }

    /// A store that some release wrote, from its dump.
    fn written(path: &Path, dump: &str) {
        let db = Connection::open(path).unwrap();
        db.execute_batch(dump).unwrap();
    }

    fn content(store: &mut SqliteStore) -> (Loaded, Vec<Row>) {
        let loaded = store.load_all().unwrap();
        (loaded, store.rows("event", 0, 100).unwrap())
    }

    const DUMPS: &[&str] = &[include_str!("../../../../tests/stores/dumps/sqlite-1.sql")];

    #[test]
    fn every_version_has_a_dump_and_this_release_opens_it() {
        assert_eq!(DUMPS.len(), usize::try_from(SCHEMA_VERSION).unwrap());
        assert_eq!(DUMPS.len(), STEPS.len() + 1);
        for (number, dump) in DUMPS.iter().enumerate() {
            let dir = TempDir::new();
            let path = dir.path().join("s.sqlite");
            written(&path, dump);
            let mut store = open(&path).unwrap();
            let text = |text: &str| text.to_owned();
            let (loaded, rows) = content(&mut store);
            assert_eq!(loaded.seq, 2, "version {}", number + 1);
            assert_eq!(
                loaded.live,
                vec![
                    (text("archive/k"), text("z"), b"old".to_vec()),
                    (text("k"), text("a'\u{1f980}"), (0..=255).collect()),
                ]
            );
            assert_eq!(rows.len(), 2);
            assert_eq!((rows[0].key.as_str(), &*rows[0].value), ("x", &b"\0e1"[..]));
            store.commit(3, &[]).unwrap();
        }
    }

    #[test]
    fn an_older_version_is_migrated_whole_or_not_at_all() {
        let dir = TempDir::new();
        let path = dir.path().join("s.sqlite");
        written(&path, DUMPS[0]);
        let before = content(&mut open(&path).unwrap());
        let prepare = |steps: &[&str]| {
            let mut db = Connection::open(&path).unwrap();
            prepare_schema(&mut db, Network::Regtest, steps)
        };
        let broken = ["ALTER TABLE kv ADD COLUMN note TEXT", "SELECT nonsense"];
        let why = prepare(&broken).unwrap_err();
        assert!(
            matches!(&why, StoreError::Failed(text) if text.contains("from version 2 to 3")),
            "{why}"
        );
        assert_eq!(content(&mut open(&path).unwrap()), before);
        // And the way that a later release goes.
        let steps = [
            "ALTER TABLE kv ADD COLUMN note TEXT",
            "UPDATE kv SET note = 'old'",
        ];
        prepare(&steps).unwrap();
        prepare(&steps).unwrap();
        let db = Connection::open(&path).unwrap();
        let old: i64 = db
            .query_row("SELECT count(*) FROM kv WHERE note = 'old'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(old, 2);
        let later = Some(StoreError::Version { found: 3, known: 1 });
        assert_eq!(open(&path).err(), later);
        let reader = SqliteStore::reader(&path).err();
        assert_eq!(reader, later);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let path = dir.path().join("s.sqlite");
        let mut store = open(&path).unwrap();
        store
            .commit(
                1,
                &[Op::Put {
                    kind: "k".into(),
                    key: "a".into(),
                    value: vec![1],
                }],
            )
            .unwrap();
        for name in ["s.sqlite", "s.sqlite-wal"] {
            let mode = std::fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
    }
}
