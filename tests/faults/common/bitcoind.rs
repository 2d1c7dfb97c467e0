//! A regtest bitcoind for one test: `BITCOIND_EXE` names the program; it ends, and its folder goes, with the test.

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
use serde_json::json;

/// A bitcoind that ends with the test.
pub struct Running {
    child: Child,
    command: Command,
    /// For bitcoind and the nodes of the test.
    pub folder: PathBuf,
    pub config: BitcoindConfig,
}

impl Running {
    /// Starts one and waits until it answers; `None`, said aloud, where there is no bitcoind to start.
    pub async fn start(flags: &[&str]) -> Option<(Self, Arc<Bitcoind>)> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(exe) = std::env::var("BITCOIND_EXE") else {
            assert!(std::env::var("CI").is_err(), "CI has no BITCOIND_EXE");
            eprintln!("BITCOIND_EXE is not set: nothing was tested");
            return None;
        };
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("ldkjit-bitcoind-{}-{n}", std::process::id()));
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
            child: command.spawn().unwrap(),
            command,
            folder,
            config: BitcoindConfig {
                url: format!("http://127.0.0.1:{port}"),
                user: "u".into(),
                password: "p".into(),
                poll_ms: 50,
            },
        };
        let chain = Arc::new(Bitcoind::new(&running.config, Network::Regtest).unwrap());
        running.answers(&chain).await;
        Some((running, chain))
    }

    /// Kills it -9, blocks written, and what is unconfirmed lost; `back` starts it again.
    pub async fn dies(&mut self, chain: &Bitcoind) {
        let flush = json!(["none"]);
        chain.call("gettxoutsetinfo", flush).await.unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with these flags too.
    pub async fn back(&mut self, chain: &Bitcoind, flags: &[&str]) {
        self.command.args(flags);
        self.child = self.command.spawn().unwrap();
        self.answers(chain).await;
    }

    /// Until it answers. It ends when it finds its port taken, for a moment, by a neighbour's look for one: again, then.
    async fn answers(&mut self, chain: &Bitcoind) {
        let mut starts = 1;
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = chain.check().await {
            assert!(matches!(error, ChainError::Unreachable(_)), "{error:?}");
            assert!(Instant::now() < end, "bitcoind does not answer");
            if let Some(status) = self.child.try_wait().unwrap() {
                let words = || std::fs::read_to_string(self.folder.join("words")).unwrap();
                assert!(starts < 5, "bitcoind ends, {status}: {}", words());
                starts += 1;
                self.child = self.command.spawn().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
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
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
