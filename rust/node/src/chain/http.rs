//! JSON-RPC over HTTP/1.1, just enough for bitcoind.
//!
//! Not `lightning_block_sync::rpc::RpcClient`: it connects by blocking, waits up to ten minutes, and hides
//! the status code that tells a wrong password from anything else.

use super::ChainError;
use crate::sync::lock;
use bitcoin::base64::prelude::{Engine, BASE64_STANDARD};
use serde_json::{json, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A block of 4 MB in hex, and room around it.
const MAX_BODY: usize = 10_000_000;
const MAX_LINE: u64 = 8_192;
const MAX_HEADERS: usize = 64;
/// Connections kept for reuse.
const MAX_IDLE: usize = 4;

type Connection = BufReader<TcpStream>;

pub(super) struct Http {
    host: String,
    address: String,
    path: String,
    authorization: String,
    timeout: Duration,
    idle: Mutex<Vec<Connection>>,
    id: AtomicU64,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    keep: bool,
}

impl Http {
    /// `url` as in `http://127.0.0.1:8332/wallet`.
    pub(super) fn new(
        url: &str,
        user: &str,
        password: &str,
        timeout: Duration,
    ) -> Result<Self, String> {
        let rest = url
            .strip_prefix("http://")
            .ok_or("the URL must start with http://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, port) = host.rsplit_once(':').ok_or("the URL must name a port")?;
        if name.is_empty()
            || name.contains(['@', ' ', '\r', '\n'])
            || path.contains([' ', '\r', '\n'])
        {
            return Err("the URL is malformed".into());
        }
        port.parse::<u16>()
            .map_err(|_| "the URL's port is not a number below 65536")?;
        Ok(Self {
            host: host.to_owned(),
            address: host.to_owned(),
            path: format!("/{path}"),
            authorization: BASE64_STANDARD.encode(format!("{user}:{password}")),
            timeout,
            idle: Mutex::new(Vec::new()),
            id: AtomicU64::new(0),
        })
    }

    /// Calls a method. Every method used here may be called twice.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        self.call_within(self.timeout, method, params).await
    }

    /// Calls a method that may take longer, or must not.
    pub(super) async fn call_within(
        &self,
        timeout: Duration,
        method: &str,
        params: Value,
    ) -> Result<Value, ChainError> {
        let id = self.id.fetch_add(1, Ordering::Relaxed);
        let body =
            json!({ "jsonrpc": "1.0", "id": id, "method": method, "params": params }).to_string();
        let answer = match tokio::time::timeout(timeout, self.post(&body)).await {
            Err(_) => {
                return Err(ChainError::Unreachable(format!(
                    "no answer to {method} within {timeout:?}"
                )));
            }
            Ok(Err(error)) => return Err(ChainError::Unreachable(format!("{method}: {error}"))),
            Ok(Ok(answer)) => answer,
        };
        match answer.status {
            401 | 403 => return Err(ChainError::Auth),
            // "Work queue depth exceeded".
            503 => return Err(ChainError::Unreachable("it is overloaded".into())),
            _ => {}
        }
        let mut value: Value = serde_json::from_slice(&answer.body).map_err(|_| {
            ChainError::Lying(format!(
                "status {}, no JSON in answer to {method}",
                answer.status
            ))
        })?;
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            let code = error.get("code").and_then(Value::as_i64).unwrap_or(0);
            let message = error
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or("")
                .chars()
                .take(500)
                .collect();
            return Err(match code {
                -28 => ChainError::Unreachable(format!("it is starting: {message}")),
                _ => ChainError::Refused { code, message },
            });
        }
        if value.get("id").and_then(Value::as_u64) != Some(id) {
            return Err(ChainError::Lying(format!(
                "the answer to {method} has another id"
            )));
        }
        match value.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(ChainError::Lying(format!(
                "the answer to {method} has no result"
            ))),
        }
    }

    async fn post(&self, body: &str) -> std::io::Result<Answer> {
        let reused = lock(&self.idle).pop();
        if let Some(mut connection) = reused {
            // An idle connection may have been closed meanwhile: then once more on a new one.
            if let Ok(answer) = self.exchange(&mut connection, body).await {
                self.keep(connection, &answer);
                return Ok(answer);
            }
        }
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let mut connection = BufReader::new(stream);
        let answer = self.exchange(&mut connection, body).await?;
        self.keep(connection, &answer);
        Ok(answer)
    }

    fn keep(&self, connection: Connection, answer: &Answer) {
        let mut idle = lock(&self.idle);
        if answer.keep && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    async fn exchange(&self, connection: &mut Connection, body: &str) -> std::io::Result<Answer> {
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.path,
            self.host,
            self.authorization,
            body.len()
        );
        connection.get_mut().write_all(request.as_bytes()).await?;
        read_answer(connection).await
    }
}

async fn read_answer(connection: &mut Connection) -> std::io::Result<Answer> {
    let status = line(connection).await?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = code
        .filter(|_| status.starts_with("HTTP/1."))
        .ok_or_else(|| bad("no HTTP answer"))?;
    let (mut length, mut chunked, mut keep) = (None, false, true);
    for n in 0.. {
        let header = line(connection).await?;
        if header.is_empty() {
            break;
        }
        if n == MAX_HEADERS {
            return Err(bad("too many headers"));
        }
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| bad("a header without a colon"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                length = Some(
                    value
                        .parse::<usize>()
                        .map_err(|_| bad("a length that is no number"))?,
                )
            }
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => keep = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let size = line(connection).await?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| bad("a chunk without a size"))?;
            take(connection, size, &mut body).await?;
            line(connection).await?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = length {
        take(connection, length, &mut body).await?;
    } else {
        keep = false;
        let limit = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
        connection.take(limit).read_to_end(&mut body).await?;
    }
    Ok(Answer { status, body, keep })
}

async fn take(
    connection: &mut Connection,
    length: usize,
    body: &mut Vec<u8>,
) -> std::io::Result<()> {
    let start = body.len();
    let end = start
        .checked_add(length)
        .filter(|end| *end <= MAX_BODY)
        .ok_or_else(|| bad("an answer too long"))?;
    body.resize(end, 0);
    match body.get_mut(start..) {
        Some(room) => connection.read_exact(room).await.map(drop),
        None => Ok(()),
    }
}

async fn line(connection: &mut Connection) -> std::io::Result<String> {
    let mut line = String::new();
    connection.take(MAX_LINE).read_line(&mut line).await?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
        None => Err(bad("the connection ended, or a line is too long")),
    }
}

fn bad(why: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use std::io::{Read, Write};

    /// Answers each connection's requests with the given texts, then hangs up.
    fn server(connections: Vec<Vec<String>>) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    let mut seen = Vec::new();
                    let mut buffer = [0u8; 4096];
                    while !seen.ends_with(b"}") {
                        let n = stream.read(&mut buffer).unwrap();
                        seen.extend(buffer.iter().take(n));
                    }
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        url
    }
    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
    fn client(url: &str) -> Http {
        Http::new(url, "u", "p", Duration::from_secs(5)).unwrap()
    }

    #[tokio::test]
    async fn reuses_connections_and_outlives_closed_ones() {
        let url = server(vec![
            vec![ok(r#"{"result":1,"error":null,"id":0}"#), ok(r#"{"result":2,"error":null,"id":1}"#)],
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"result\":3,\"id\"\r\n3\r\n:2}\r\n0\r\n\r\n".into()],
        ]);
        let http = client(&url);
        for n in 1..=3 {
            assert_eq!(http.call("m", json!([])).await.unwrap(), json!(n));
        }
    }

    #[tokio::test]
    async fn errors_are_told_apart() {
        let refused = r#"{"result":null,"error":{"code":-5,"message":"no"},"id":0}"#;
        type Check = fn(&ChainError) -> bool;
        let cases: Vec<(String, Check)> = vec![
            (
                "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into(),
                |e| *e == ChainError::Auth,
            ),
            ("HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n".into(), |e| {
                matches!(e, ChainError::Unreachable(_))
            }),
            (
                format!(
                    "HTTP/1.1 500 x\r\nContent-Length: {}\r\n\r\n{refused}",
                    refused.len()
                ),
                |e| matches!(e, ChainError::Refused { code: -5, .. }),
            ),
            (ok("<html>"), |e| matches!(e, ChainError::Lying(_))),
            (ok(r#"{"result":1,"id":77}"#), |e| {
                matches!(e, ChainError::Lying(_))
            }),
            (
                ok(r#"{"error":{"code":-28,"message":"Loading"},"id":0}"#),
                |e| matches!(e, ChainError::Unreachable(_)),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".into(),
                |e| matches!(e, ChainError::Unreachable(_)),
            ),
            ("SSH-2.0\r\n".into(), |e| {
                matches!(e, ChainError::Unreachable(_))
            }),
        ];
        for (answer, expected) in cases {
            let error = client(&server(vec![vec![answer.clone()]]))
                .call("m", json!([]))
                .await
                .unwrap_err();
            assert!(expected(&error), "{answer}: {error:?}");
        }
        // Nobody listens; somebody listens and is silent.
        let error = client("http://127.0.0.1:1")
            .call("m", json!([]))
            .await
            .unwrap_err();
        assert!(matches!(error, ChainError::Unreachable(_)));
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let http = Http::new(&url, "u", "p", Duration::from_millis(100)).unwrap();
        assert!(matches!(
            http.call("m", json!([])).await,
            Err(ChainError::Unreachable(_))
        ));
    }

    #[test]
    fn urls() {
        for bad in [
            "https://a:1",
            "http://a",
            "http://:1",
            "http://a:99999",
            "http://u:p@a:1",
            "http://a:1/x y",
        ] {
            assert!(Http::new(bad, "u", "p", Duration::ZERO).is_err(), "{bad}");
        }
        assert!(Http::new("http://[::1]:8332/", "u", "p", Duration::ZERO).is_ok());
    }
}
