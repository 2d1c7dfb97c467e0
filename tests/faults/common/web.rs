//! A web server that webhooks point to: real TLS with a certificate of its own, requests taken down, answers as a test says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ldkjit_node::error::NodeError;
use ldkjit_node::log::now_ms;
use ldkjit_node::node::Node;
use ldkjit_node::verify::{verify, Received};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::{id, PATIENCE};

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// `POST /path HTTP/1.1`.
    pub line: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// When it came, ms.
    pub at_ms: u64,
}

impl Call {
    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    pub fn method(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["method"].as_str().unwrap().to_owned()
    }

    /// As an app's server would check it.
    pub fn verified_by(&self, lsp: &Node) -> Result<Value, NodeError> {
        let lsp = id(lsp).to_string();
        let received = Received {
            body: self.body.as_bytes(),
            timestamp: &self.headers["x-lsps5-timestamp"],
            signature: &self.headers["x-lsps5-signature"],
            lsp: &lsp,
            recipient: "",
        };
        verify(&received, 60_000, now_ms(), None)
    }
}

/// What a request is answered with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These bytes, and then the end.
    Text(String),
    /// Nothing, for ever.
    Silence,
    /// This, again and again.
    Flood(String),
}

type Script = dyn Fn(&Call) -> Answer + Send + Sync;

/// A running server.
pub struct Web {
    pub port: u16,
    /// Its certificate, PEM.
    pub ca: PathBuf,
    calls: Arc<Mutex<Vec<Call>>>,
    /// TCP connections so far, TLS or not.
    pub connections: Arc<AtomicUsize>,
}

impl Web {
    /// One that answers 200.
    pub async fn start(folder: &Path) -> Self {
        Self::answering(folder, 0, |_| Answer::Text(OK.into())).await
    }

    /// One at this port (0: any), which answers as it is told.
    pub async fn answering(
        folder: &Path,
        port: u16,
        script: impl Fn(&Call) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tls, ca) = certificate(folder);
        let (calls, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let web = Self {
            port,
            ca,
            calls: Arc::clone(&calls),
            connections: Arc::clone(&connections),
        };
        let script: Arc<Script> = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, tls.clone(), calls.clone(), script.clone()));
            }
        });
        web
    }

    /// A webhook here.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Every request so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The methods of all notifications so far, with the paths they went to.
    pub fn told(&self) -> Vec<(String, String)> {
        let calls = self.calls();
        let told = calls.iter().map(|c| (c.path().to_owned(), c.method()));
        told.collect()
    }

    /// How often this was said.
    pub fn count(&self, method: &str) -> usize {
        self.calls().iter().filter(|c| c.method() == method).count()
    }

    /// The n-th request (from 0), waited for.
    pub async fn call(&self, n: usize) -> Call {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(call) = self.calls().get(n) {
                return call.clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "no request {n}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The same server certificate for all of one test's servers, which clients are told to trust.
fn certificate(folder: &Path) -> (TlsAcceptor, PathBuf) {
    let (pem, key_file) = (folder.join("web.pem"), folder.join("web.key"));
    if !pem.exists() {
        let names = ["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(&pem, made.cert.pem()).unwrap();
        std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    }
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    let certificate = CertificateDer::from_pem_file(&pem).unwrap();
    let key = PrivateKeyDer::from_pem_file(&key_file).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pem)
}

async fn serve(
    stream: TcpStream,
    tls: TlsAcceptor,
    calls: Arc<Mutex<Vec<Call>>>,
    script: Arc<Script>,
) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let mut stream = BufReader::new(stream);
    let Some(call) = read(&mut stream).await else {
        return;
    };
    let answer = script(&call);
    calls.lock().unwrap().push(call);
    match answer {
        Answer::Text(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Answer::Silence => tokio::time::sleep(PATIENCE * 10).await,
        Answer::Flood(text) => while stream.write_all(text.as_bytes()).await.is_ok() {},
    }
}

async fn read(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Call> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Call {
        line: line.trim_end().to_owned(),
        headers,
        body: String::from_utf8(body).ok()?,
        at_ms: now_ms(),
    })
}
