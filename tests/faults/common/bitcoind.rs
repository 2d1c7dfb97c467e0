//! A regtest bitcoind for one test: `BITCOIND_EXE` names the program; it ends, and its folder goes, with the test.
//!
//! With `LDKJIT_REGTEST=boxed` the chain is in this process instead, for tests that give bitcoind no flags and do not kill it.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::Network;
use ldkjit_node::chain::bitcoind::{Bitcoind, BitcoindConfig};
use ldkjit_node::chain::ChainError;
use ldkjit_regtest::Regtest;
use serde_json::json;

enum Server {
    Bitcoind { child: Child, command: Command },
    // It ends when it is dropped.
    Boxed { _regtest: Regtest },
}

/// A bitcoind that ends with the test.
pub struct Running {
    server: Server,
    /// For bitcoind and the nodes of the test.
    pub folder: PathBuf,
    pub config: BitcoindConfig,
}

impl Running {
    /// Starts one and waits until it answers; `None`, said aloud, where there is no bitcoind to start.
    pub async fn start(flags: &[&str]) -> Option<(Self, Arc<Bitcoind>)> {
        if flags.is_empty() && std::env::var("LDKJIT_REGTEST").is_ok_and(|kind| kind == "boxed") {
            return Some(Self::boxed().await);
        }
        let Ok(exe) = std::env::var("BITCOIND_EXE") else {
            assert!(std::env::var("CI").is_err(), "CI has no BITCOIND_EXE");
            eprintln!("BITCOIND_EXE is not set: nothing was tested");
            return None;
        };
        let folder = new_folder();
        let data = folder.join("bitcoind");
        std::fs::create_dir_all(&data).unwrap();
        let port = free_port();
        let mut command = Command::new(&exe);
        command
            .arg(format!("-datadir={}", data.display()))
            .arg(format!("-rpcport={port}"));
        command.args([
            "-regtest",
            "-server=1",
            "-listen=0",
            "-dnsseed=0",
            "-rpcuser=u",
            "-rpcpassword=p",
            "-disablewallet=1",
        ]);
        command.args(flags);
        let version = Command::new(&exe).arg("--version").output().unwrap();
        if String::from_utf8_lossy(&version.stdout).contains("Knots") {
            command.arg("-corepolicy=1");
        }
        let words = File::create(folder.join("words")).unwrap();
        command.stdout(Stdio::null()).stderr(words);
        let mut running = Self {
            server: Server::Bitcoind {
                child: command.spawn().unwrap(),
                command,
            },
            folder,
            config: config(port),
        };
        let chain = Arc::new(Bitcoind::new(&running.config, Network::Regtest).unwrap());
        running.answers(&chain).await;
        Some((running, chain))
    }

    /// The chain in this process.
    pub async fn boxed() -> (Self, Arc<Bitcoind>) {
        let regtest = Regtest::start("u", "p").unwrap();
        let running = Self {
            folder: new_folder(),
            config: config(regtest.port),
            server: Server::Boxed { _regtest: regtest },
        };
        std::fs::create_dir_all(&running.folder).unwrap();
        let chain = Arc::new(Bitcoind::new(&running.config, Network::Regtest).unwrap());
        chain.check().await.unwrap();
        (running, chain)
    }

    /// Kills it -9, blocks written, and what is unconfirmed lost; `back` starts it again.
    pub async fn dies(&mut self, chain: &Bitcoind) {
        let flush = json!(["none"]);
        chain.call("gettxoutsetinfo", flush).await.unwrap();
        let (child, _) = self.program();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn program(&mut self) -> (&mut Child, &mut Command) {
        match &mut self.server {
            Server::Bitcoind { child, command } => (child, command),
            Server::Boxed { .. } => panic!("not for a chain in this process"),
        }
    }

    /// Starts it again, with these flags too.
    pub async fn back(&mut self, chain: &Bitcoind, flags: &[&str]) {
        let (child, command) = self.program();
        *child = command.args(flags).spawn().unwrap();
        self.answers(chain).await;
    }

    /// Until it answers. It ends when it finds its port taken, for a moment, by a neighbour's look for one: again, then.
    async fn answers(&mut self, chain: &Bitcoind) {
        let mut starts = 1;
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = chain.check().await {
            assert!(matches!(error, ChainError::Unreachable(_)), "{error:?}");
            assert!(Instant::now() < end, "bitcoind does not answer");
            let words = self.folder.join("words");
            let (child, command) = self.program();
            if let Some(status) = child.try_wait().unwrap() {
                let words = || std::fs::read_to_string(&words).unwrap();
                assert!(starts < 5, "bitcoind ends, {status}: {}", words());
                starts += 1;
                *child = command.spawn().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ldkjit-bitcoind-{}-{n}", std::process::id()))
}

fn config(port: u16) -> BitcoindConfig {
    BitcoindConfig {
        url: format!("http://127.0.0.1:{port}"),
        user: "u".into(),
        password: "p".into(),
        poll_ms: 50,
    }
}

/// One that nobody listens on, and below those the system lends to outgoing connections, which would take it.
fn free_port() -> u16 {
    loop {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let port = 15_000 + u16::from_le_bytes(random) % 17_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Server::Bitcoind { child, .. } = &mut self.server {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
