//! One POST over https to an address that a stranger chose: no redirects, no proxies, nothing read but the status.
//!
//! hyper speaks HTTP and rustls TLS, on a connection that is made here: so that it goes to the very address that was looked
//! at, whatever the name resolves to a moment later (W-28).

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::header::{HeaderValue, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::Request;
use hyper_util::rt::TokioIo;
use ldkjit_core::lsps5::{is_public, Url, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::error::NodeError;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 3;
/// The head of an answer may have so many bytes and headers.
const MAX_HEAD: usize = 16_384;
const MAX_HEADERS: usize = 64;
const AGENT: &str = concat!("ldkjit/", env!("CARGO_PKG_VERSION"));

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The name has no address.
    Name,
    /// The name has only addresses that are not public.
    Private,
    /// Nobody answers there.
    Connect,
    /// No TLS, or a certificate that is not the name's; what rustls says of it.
    Tls(String),
    /// What answers does not speak HTTP.
    Http,
    /// It took too long.
    Timeout,
}

impl PostError {
    /// One stable word, to count by.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Private => "private_address",
            Self::Connect => "connect",
            Self::Tls(_) => "tls",
            Self::Http => "http",
            Self::Timeout => "timeout",
        }
    }

    /// Whether another attempt soon may go otherwise.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Name | Self::Connect | Self::Timeout)
    }
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("its name has no address"),
            Self::Private => f.write_str("its address is not public"),
            Self::Connect => f.write_str("nobody answers there"),
            Self::Tls(why) => write!(f, "no TLS: {why}"),
            Self::Http => f.write_str("what answers there does not speak HTTP"),
            Self::Timeout => f.write_str("it took too long"),
        }
    }
}

/// What is sent.
pub struct Letter<'a> {
    /// Where to.
    pub url: &'a Url,
    /// Sent as a header.
    pub timestamp: &'a str,
    /// Sent as a header.
    pub signature: &'a str,
    /// JSON.
    pub body: String,
}

/// Sends letters, so many at a time.
pub struct Https {
    tls: TlsConnector,
    allow_private: bool,
    timeout: Duration,
    turns: Arc<Semaphore>,
    /// A lookup goes on in its thread when its caller has given up: these have a bound of their own.
    lookups: Arc<Semaphore>,
}

impl Https {
    /// A sender that trusts the web's certificate authorities and those in a PEM file.
    ///
    /// # Errors
    /// `config` when the file cannot be read or has no certificate.
    pub fn new(
        root_ca: Option<&Path>,
        allow_private: bool,
        timeout: Duration,
        max_concurrent: u32,
    ) -> Result<Self, NodeError> {
        let mut roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        if let Some(path) = root_ca {
            let bad = |why: &dyn fmt::Display| {
                NodeError::config(format!("lsp.webhooks.root_ca: {}: {why}", path.display()))
            };
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))? {
                let certificate = certificate.map_err(|e| bad(&e))?;
                roots.add(certificate).map_err(|e| bad(&e))?;
            }
            if roots.len() == before {
                return Err(bad(&"there is no certificate in it"));
            }
        }
        // Named, as there is no default where two providers could be.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| NodeError::internal(format!("TLS: {e}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let turns = usize::try_from(max_concurrent).unwrap_or(1);
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            allow_private,
            timeout,
            turns: Arc::new(Semaphore::new(turns)),
            lookups: Arc::new(Semaphore::new(turns)),
        })
    }

    /// Waits for a turn; whatever is made of it should be new, such as a timestamp.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.ok()
    }

    /// Sends one letter: the status of the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(
        &self,
        _turn: &OwnedSemaphorePermit,
        letter: Letter<'_>,
    ) -> Result<u16, PostError> {
        tokio::time::timeout(self.timeout, self.exchange(letter))
            .await
            .unwrap_or(Err(PostError::Timeout))
    }

    async fn exchange(&self, letter: Letter<'_>) -> Result<u16, PostError> {
        let url = letter.url;
        let tcp = self.connect(self.resolve(url).await?).await?;
        let name = url.host().strip_suffix('.').unwrap_or(url.host());
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| PostError::Tls("the name is none".into()))?;
        let tls = self.tls.connect(name, tcp).await;
        let tls = tls.map_err(|e| PostError::Tls(e.to_string()))?;
        let request = request(letter).ok_or(PostError::Http)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake::<_, String>(TokioIo::new(tls))
            .await
            .map_err(|_| PostError::Http)?;
        let (mut connection, mut answer) = (pin!(connection), pin!(sender.send_request(request)));
        let answer = tokio::select! {
            answer = &mut answer => answer,
            // It may have answered and hung up at once.
            _ = &mut connection => answer.await,
        };
        // Headers and body of the answer are nobody's business (W-19): the connection ends here.
        answer
            .map(|answer| answer.status().as_u16())
            .map_err(|_| PostError::Http)
    }

    /// The addresses that may be connected to.
    async fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>, PostError> {
        let found = match url.host().parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, url.port())],
            Err(_) => {
                let lookup = self.lookups.clone().acquire_owned().await;
                let lookup = lookup.map_err(|_| PostError::Name)?;
                let at = (url.host().to_owned(), url.port());
                let resolved = tokio::task::spawn_blocking(move || {
                    let found = at.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
                    drop(lookup);
                    found
                });
                match resolved.await {
                    Ok(Ok(found)) if !found.is_empty() => found,
                    _ => return Err(PostError::Name),
                }
            }
        };
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|at| self.allow_private || is_public(at.ip()))
            .take(MAX_ADDRESSES)
            .collect();
        if allowed.is_empty() {
            return Err(PostError::Private);
        }
        Ok(allowed)
    }

    async fn connect(&self, addresses: Vec<SocketAddr>) -> Result<TcpStream, PostError> {
        // One that does not answer at all leaves time for the others.
        let share = u32::try_from(addresses.len()).unwrap_or(1);
        let patience = self.timeout.checked_div(share).unwrap_or(self.timeout);
        let mut last = PostError::Connect;
        for address in addresses {
            match tokio::time::timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(_)) => last = PostError::Connect,
                Err(_) => last = PostError::Timeout,
            }
        }
        Err(last)
    }
}

fn request(letter: Letter<'_>) -> Option<Request<String>> {
    let header = |text: &str| HeaderValue::from_str(text).ok();
    Request::post(letter.url.target())
        .header(HOST, header(&letter.url.host_header())?)
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .header(TIMESTAMP_HEADER, header(letter.timestamp)?)
        .header(SIGNATURE_HEADER, header(letter.signature)?)
        .body(letter.body)
        .ok()
}
