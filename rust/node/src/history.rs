//! The history of a node for whoever asks: views over its store, read row by row while the node runs or not.

use std::path::Path;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};

use rusqlite::types::ValueRef;
use serde::Deserialize;
use serde_json::Value;

use crate::audit::STORE_FILE;
use crate::error::{NodeError, StoreError};
use crate::store::SqliteStore;

/// The SQL that makes the views, for any connection to the store.
pub const VIEWS: &str = include_str!("views.sql");

/// Rows in a page.
const PAGE: usize = 1_000;
/// Pages that wait for their reader at most.
const AHEAD: usize = 2;

/// A view. Its own words go into SQL; nothing that a caller writes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Every row of the ledger.
    Ledger,
    /// Channels sold.
    Orders,
    /// Channels there were.
    Channels,
    /// Payments that are over.
    Payments,
    /// What was earned.
    Fees,
    /// What was paid.
    Costs,
}

impl View {
    fn name(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Orders => "orders",
            Self::Channels => "channels",
            Self::Payments => "payments",
            Self::Fees => "fees",
            Self::Costs => "costs",
        }
    }

    /// Where a node id is looked for.
    fn client(self) -> &'static str {
        match self {
            Self::Ledger => "json_extract(entry, '$.client')",
            Self::Channels => "peer",
            Self::Payments => "NULL",
            Self::Orders | Self::Fees | Self::Costs => "client",
        }
    }

    /// Where a kind is looked for.
    fn kind(self) -> &'static str {
        match self {
            Self::Orders => "state",
            Self::Channels => "CASE WHEN ended_at_ms IS NULL THEN 'open' ELSE 'closed' END",
            Self::Payments => "direction",
            Self::Ledger | Self::Fees | Self::Costs => "kind",
        }
    }
}

/// Which rows are wanted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The view.
    pub view: View,
    /// From this instant on, ms since 1970.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// Before this instant, ms since 1970.
    #[serde(default)]
    pub until_ms: Option<i64>,
    /// Of this client.
    #[serde(default)]
    pub client: Option<String>,
    /// Of this kind.
    #[serde(default)]
    pub kind: Option<String>,
}

type Page = Result<Vec<Value>, NodeError>;

/// Rows on their way from the thread that reads them, which ends when nobody takes them any more.
pub struct Rows(Receiver<Page>);

impl Rows {
    /// Begins to read the store in a data directory; an error comes instead of the first page.
    #[must_use]
    pub fn of(data_dir: &Path, ask: Result<Ask, NodeError>) -> Self {
        let (to, rows) = sync_channel(AHEAD);
        let file = data_dir.join(STORE_FILE);
        let read = move || {
            let outcome = ask.and_then(|ask| {
                let (store, _) = SqliteStore::reader(&file)?;
                store.look(&ask, &to)
            });
            if let Err(error) = outcome {
                let _ = to.send(Err(error));
            }
        };
        let name = "ldkjit-history".to_owned();
        // Without a thread nobody sends, and the first page says so.
        let _ = std::thread::Builder::new().name(name).spawn(read);
        Self(rows)
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// `config` for what cannot be asked, `store_corrupt` and the like for what cannot be read.
    pub fn page(&mut self) -> Result<Vec<Value>, NodeError> {
        match self.0.recv() {
            Ok(page) => page,
            Err(_) => Ok(Vec::new()),
        }
    }
}

impl SqliteStore {
    fn look(&self, ask: &Ask, to: &SyncSender<Page>) -> Result<(), NodeError> {
        let failed = |e: rusqlite::Error| NodeError::from(StoreError::Failed(e.to_string()));
        let db = self.db()?;
        db.execute_batch(VIEWS).map_err(failed)?;
        let sql = format!(
            "SELECT * FROM {} WHERE (?1 IS NULL OR at_ms >= ?1) AND (?2 IS NULL OR at_ms < ?2) \
             AND (?3 IS NULL OR {} = ?3) AND (?4 IS NULL OR {} = ?4) ORDER BY seq",
            ask.view.name(),
            ask.view.client(),
            ask.view.kind(),
        );
        let mut query = db.prepare(&sql).map_err(failed)?;
        let columns = query.column_count();
        let wanted = (ask.since_ms, ask.until_ms, &ask.client, &ask.kind);
        let mut rows = query.query(wanted).map_err(failed)?;
        let mut page = Vec::with_capacity(PAGE);
        while let Some(row) = rows.next().map_err(failed)? {
            let values: Result<Vec<Value>, _> =
                (0..columns).map(|at| row.get_ref(at).map(value)).collect();
            page.push(Value::Array(values.map_err(failed)?));
            if page.len() >= PAGE && to.send(Ok(std::mem::take(&mut page))).is_err() {
                return Ok(());
            }
        }
        if !page.is_empty() {
            let _ = to.send(Ok(page));
        }
        Ok(())
    }
}

fn value(of: ValueRef<'_>) -> Value {
    match of {
        ValueRef::Integer(n) => n.into(),
        ValueRef::Real(n) => n.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Null | ValueRef::Blob(_) => Value::Null,
    }
}
