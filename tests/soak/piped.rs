//! A store in another process, which the soak's node talks with by JSON lines: how it runs on a store of Python's.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bitcoin::hex::{DisplayHex, FromHex};
use ldkjit_node::store::{Loaded, Op, Row, Store, StoreError};
use serde_json::{json, Value};

/// The process and both ends; it ends with this.
pub struct PipedStore {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

fn failed(why: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(why.to_string())
}

fn bytes(value: &Value) -> Result<Vec<u8>, StoreError> {
    Vec::from_hex(value.as_str().unwrap_or("?")).map_err(failed)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl PipedStore {
    /// Starts a program that serves a store.
    pub fn start(command: &[String]) -> Self {
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            to: child.stdin.take(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn ask(&mut self, request: &Value) -> Result<Value, StoreError> {
        let to = self.to.as_mut().ok_or(StoreError::Closed)?;
        writeln!(to, "{request}")
            .and_then(|()| to.flush())
            .map_err(failed)?;
        let mut line = String::new();
        self.from.read_line(&mut line).map_err(failed)?;
        let mut answer: Value = serde_json::from_str(&line).map_err(failed)?;
        match answer["error"].as_str() {
            Some(why) => Err(match answer["code"].as_str() {
                Some("store_locked") => StoreError::Locked { pid: None },
                Some("store_fenced") => StoreError::Fenced(why.to_owned()),
                _ => failed(why),
            }),
            None => Ok(answer["ok"].take()),
        }
    }

    fn loaded(&mut self, all: bool) -> Result<Loaded, StoreError> {
        let told = self.ask(&json!(["load", all]))?;
        let live = told["live"].as_array().into_iter().flatten();
        Ok(Loaded {
            seq: told["seq"].as_u64().unwrap_or_default(),
            live: live
                .map(|each| Ok((text(&each[0]), text(&each[1]), bytes(&each[2])?)))
                .collect::<Result<_, StoreError>>()?,
            last_row: serde_json::from_value(told["last_row"].clone()).map_err(failed)?,
        })
    }
}

impl Store for PipedStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.loaded(false)
    }

    fn load_all(&mut self) -> Result<Loaded, StoreError> {
        self.loaded(true)
    }

    fn commit(&mut self, seq: u64, batch: &[Op]) -> Result<(), StoreError> {
        let ops: Vec<Value> = batch
            .iter()
            .map(|op| match op {
                Op::Put { kind, key, value } => {
                    json!(["put", kind, key, value.as_hex().to_string()])
                }
                Op::Delete { kind, key } => json!(["delete", kind, key]),
                Op::Row {
                    kind,
                    seq,
                    key,
                    value,
                } => json!(["row", kind, seq, key, value.as_hex().to_string()]),
            })
            .collect();
        self.ask(&json!(["commit", seq, ops])).map(drop)
    }

    fn read(&mut self, kind: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.ask(&json!(["read", kind, key]))?;
        (!found.is_null()).then(|| bytes(&found)).transpose()
    }

    fn rows(&mut self, kind: &str, after: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let found = self.ask(&json!(["rows", kind, after, limit]))?;
        let rows = found.as_array().into_iter().flatten();
        rows.map(|row| {
            Ok(Row {
                seq: row[0].as_u64().unwrap_or_default(),
                key: text(&row[1]),
                value: bytes(&row[2])?,
            })
        })
        .collect()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.ask(&json!(["close"])).map(drop)
    }
}

impl Drop for PipedStore {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.to = None;
        let _ = self.child.wait();
    }
}
