//! The HTTP that a bitcoind speaks: one POST, one answer, basic authentication, on a loopback port and a thread of its own.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bitcoin::base64::prelude::{Engine, BASE64_STANDARD};
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderValue, AUTHORIZATION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{json, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::rpc::{self, State};

/// A block of 4 MB in hex, and room around it.
const MAX_BODY: usize = 10_000_000;

/// Why it did not start.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the regtest of this process did not start: {}", self.0)
    }
}

impl std::error::Error for StartError {}

/// A regtest that answers on a port of 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub struct Regtest {
    /// The port.
    pub port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Regtest {
    /// Starts one, on a port that is free, for this user.
    ///
    /// # Errors
    /// There is no port, or no thread.
    pub fn start(user: &str, password: &str) -> Result<Self, StartError> {
        let failed = |e: std::io::Error| StartError(e.to_string());
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::new(Shared {
            authorization: format!(
                "Basic {}",
                BASE64_STANDARD.encode(format!("{user}:{password}"))
            ),
            state: Mutex::new(State::default()),
        });
        let thread = std::thread::Builder::new()
            .name("ldkjit-regtest".into())
            .spawn(move || runtime.block_on(serve(listener, shared, stopped)))
            .map_err(failed)?;
        Ok(Self {
            port,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Ends it, and waits until it has.
    pub fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of its own was told on stderr.
            let _ = thread.join();
        }
    }
}

impl Drop for Regtest {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Shared {
    authorization: String,
    state: Mutex<State>,
}

async fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    tokio::select! {
        _ = stopped => {}
        () = accept(listener, shared) => {}
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(converse(stream, Arc::clone(&shared)));
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    // Whoever breaks off does not hear more.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<String> {
    let authorization = request.headers().get(AUTHORIZATION);
    if authorization.map(HeaderValue::as_bytes) != Some(shared.authorization.as_bytes()) {
        return respond(StatusCode::UNAUTHORIZED, String::new());
    }
    let Some(body) = read(request.into_body()).await else {
        return respond(StatusCode::PAYLOAD_TOO_LARGE, String::new());
    };
    let Ok(Value::Object(call)) = serde_json::from_slice(&body) else {
        let error = json!({ "code": -32_700, "message": "Parse error" });
        return told(Value::Null, Err(error), StatusCode::INTERNAL_SERVER_ERROR);
    };
    let id = call.get("id").cloned().unwrap_or_default();
    let method = call
        .get("method")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let params = call
        .get("params")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    match rpc::call(&mut state, method, &params) {
        Ok(result) => told(id, Ok(result), StatusCode::OK),
        Err(error) => {
            let status = match error.code {
                rpc::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            let error = json!({ "code": error.code, "message": error.message });
            told(id, Err(error), status)
        }
    }
}

async fn read(mut body: Incoming) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            all.extend_from_slice(&data);
        }
        if all.len() > MAX_BODY {
            return None;
        }
    }
    Some(all)
}

fn told(id: Value, result: Result<Value, Value>, status: StatusCode) -> Response<String> {
    let (result, error) = match result {
        Ok(result) => (result, Value::Null),
        Err(error) => (Value::Null, error),
    };
    respond(
        status,
        json!({ "result": result, "error": error, "id": id }).to_string(),
    )
}

fn respond(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
