//! Over TCP on loopback, as the LSPs are measured: payer, LSP and clients with threads of their own.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lightning::ln::peer_handler::{self, IgnoringMessageHandler, MessageHandler};
use lightning::sign::KeysManager;
use lightning::types::payment::PaymentHash;
use lightning_net_tokio::SocketDescriptor;
use serde_json::{json, Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::alone::{events_of, settings, Manager, Monitors, Node, Nothing, Trade};
use crate::median;

/// Payments one after the other.
const ONE_BY_ONE: usize = 60;
/// Clients of the rates, and payments in all.
const CLIENTS: usize = 16;
const OPENS: usize = 96;
const FORWARDS: usize = 480;
const IDLE: usize = 500;
const AWAY_AT_ONCE: usize = 100;
const THREADS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(10);

type Peers = peer_handler::PeerManager<
    SocketDescriptor,
    Arc<Manager>,
    Arc<IgnoringMessageHandler>,
    Arc<IgnoringMessageHandler>,
    Arc<Nothing>,
    Arc<IgnoringMessageHandler>,
    Arc<KeysManager>,
    Arc<Monitors>,
>;

/// A node that runs.
struct Running {
    node: Arc<Node>,
    peers: Arc<Peers>,
}

impl Running {
    fn new(node: Node, trade: &Arc<Trade>, runtime: &Runtime) -> Self {
        let node = Arc::new(node);
        let ignoring = Arc::new(IgnoringMessageHandler {});
        let handlers = MessageHandler {
            chan_handler: node.manager.clone(),
            route_handler: Arc::clone(&ignoring),
            onion_message_handler: Arc::clone(&ignoring),
            custom_message_handler: ignoring,
            send_only_message_handler: node.monitors.clone(),
        };
        let random = [7; 32];
        let peers = Peers::new(handlers, 1, &random, Arc::new(Nothing), node.keys.clone());
        let peers = Arc::new(peers);
        runtime.spawn(drive(node.clone(), peers.clone(), trade.clone()));
        Self { node, peers }
    }
}

/// Events, forwards and messages, as soon as there are any.
async fn drive(node: Arc<Node>, peers: Arc<Peers>, trade: Arc<Trade>) {
    loop {
        let news = node.manager.get_event_or_persistence_needed_future();
        loop {
            let events = events_of(&node.manager);
            let forwards = node.manager.needs_pending_htlc_processing();
            if events.is_empty() && !forwards {
                break;
            }
            for event in events {
                trade.answer(&node, event);
            }
            if forwards {
                node.manager.process_pending_htlc_forwards();
            }
        }
        peers.process_events();
        news.await;
    }
}

async fn listen(listener: TcpListener, peers: Arc<Peers>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let stream = stream.into_std().unwrap();
        tokio::spawn(lightning_net_tokio::setup_inbound(peers.clone(), stream));
    }
}

/// CPU time of the threads with this name.
fn cpu_of(name: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of = |task: std::io::Result<fs::DirEntry>| {
        let path = task.ok()?.path();
        let comm = fs::read_to_string(path.join("comm")).ok()?;
        let spent = fs::read_to_string(path.join("schedstat")).ok()?;
        let spent = spent.split(' ').next()?.parse().ok()?;
        (comm.trim() == name).then(|| Duration::from_nanos(spent))
    };
    tasks.filter_map(of).sum()
}

/// Payer and LSP with channels between them, and the clients that came so far.
struct Town {
    trade: Arc<Trade>,
    arrived: Receiver<PaymentHash>,
    payer: Running,
    lsp: Running,
    door: SocketAddr,
    clients: u32,
    /// Ends with this.
    _of_lsp: Runtime,
    of_payer: Runtime,
    of_clients: Runtime,
}

impl Town {
    fn new() -> Self {
        let runtime = |name: &str| {
            let mut builder = Builder::new_multi_thread();
            let builder = builder.worker_threads(THREADS).thread_name(name);
            builder.enable_all().build().unwrap()
        };
        let (of_lsp, of_payer) = (runtime("lsp"), runtime("payer"));
        let lsp = Node::new(2, 0, settings());
        let (trade, arrived) = Trade::new(&lsp);
        let trade = Arc::new(trade);
        let payer = Running::new(Node::new(1, 0, settings()), &trade, &of_payer);
        let lsp = Running::new(lsp, &trade, &of_lsp);
        let listener = of_lsp.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let door = listener.local_addr().unwrap();
        of_lsp.spawn(listen(listener, lsp.peers.clone()));
        let town = Self {
            trade,
            arrived,
            payer,
            lsp,
            door,
            clients: 0,
            _of_lsp: of_lsp,
            of_payer,
            of_clients: runtime("clients"),
        };
        town.connect(&town.payer, &town.of_payer);
        Trade::stock(&town.payer.node, &town.lsp.node);
        town.payer.peers.process_events();
        wait_for(|| Trade::is_stocked(&town.payer.node));
        town
    }

    fn connect(&self, from: &Running, runtime: &Runtime) {
        let stream = runtime.block_on(TcpStream::connect(self.door)).unwrap();
        stream.set_nodelay(true).unwrap();
        let (peers, lsp) = (from.peers.clone(), self.lsp.node.id);
        let stream = stream.into_std().unwrap();
        runtime.spawn(async move {
            lightning_net_tokio::setup_outbound(peers, lsp, stream).await;
        });
        wait_for(|| {
            let known = from.peers.peer_by_node_id(&self.lsp.node.id).is_some();
            known && self.lsp.peers.peer_by_node_id(&from.node.id).is_some()
        });
    }

    /// New clients, connected.
    fn clients(&mut self, count: usize) -> Vec<Running> {
        let new = |_| {
            self.clients += 1;
            let node = Node::new(3, self.clients, settings());
            let client = Running::new(node, &self.trade, &self.of_clients);
            self.connect(&client, &self.of_clients);
            client
        };
        (0..count).map(new).collect()
    }

    /// Payments, each to the client with this number, so many under way at once (to each, if `each`), until all have
    /// arrived: how long each took, the rate, and what the LSP's threads spent on each.
    fn pay(&self, clients: &[Running], to: &[usize], in_flight: usize, each: bool) -> Value {
        let (payer, lsp) = (&self.payer.node, &self.lsp.node);
        let mut left: HashMap<usize, VecDeque<usize>> = HashMap::new();
        for client in to {
            let queue = if each { *client } else { 0 };
            left.entry(queue).or_default().push_back(*client);
        }
        let mut under_way: HashMap<PaymentHash, (usize, Instant)> = HashMap::new();
        let mut times = Vec::new();
        let (began, spent) = (Instant::now(), cpu_of("lsp"));
        let mut start = |queue: usize, under_way: &mut HashMap<_, _>| {
            let Some(client) = left.get_mut(&queue).and_then(VecDeque::pop_front) else {
                return;
            };
            let now = Instant::now();
            let client = &clients[client].node;
            let hash = if client.manager.list_channels().is_empty() {
                self.trade.buy(payer, lsp, client)
            } else {
                self.trade.forward(payer, lsp, client)
            };
            under_way.insert(hash, (queue, now));
        };
        let queues = if each { clients.len() } else { 1 };
        for _ in 0..in_flight {
            (0..queues).for_each(|queue| start(queue, &mut under_way));
        }
        while !under_way.is_empty() {
            let hash = self
                .arrived
                .recv_timeout(PATIENCE)
                .expect("a payment hangs");
            let (queue, since) = under_way.remove(&hash).unwrap();
            times.push(since.elapsed().as_secs_f64() * 1e3);
            start(queue, &mut under_way);
        }
        let (wall, cpu) = (began.elapsed(), cpu_of("lsp") - spent);
        assert_eq!(times.len(), to.len());
        #[allow(clippy::cast_precision_loss)]
        let count = times.len() as f64;
        json!({
            "payments": times.len(),
            "p50_ms": median(times),
            "per_s": count / wall.as_secs_f64(),
            "lsp_us": cpu.as_secs_f64() * 1e6 / count,
        })
    }

    /// A channel for each of these clients.
    fn open(&self, clients: &[Running], at_once: usize) -> Value {
        let each: Vec<usize> = (0..clients.len()).collect();
        self.pay(clients, &each, at_once, false)
    }

    /// Forwards to each of these clients, so many under way to each.
    fn forward(&self, clients: &[Running], in_flight: usize, count: usize) -> Value {
        let to: Vec<usize> = (0..count).map(|n| n % clients.len()).collect();
        self.pay(clients, &to, in_flight, true)
    }
}

fn wait_for(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "nothing comes of it");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn one_by_one() -> (Town, Vec<Running>) {
    let mut town = Town::new();
    let clients = town.clients(ONE_BY_ONE);
    (town, clients)
}

/// What is wanted, each in a town of its own.
pub fn measure(wanted: impl Fn(&str) -> bool) -> Value {
    let mut told = Map::new();
    let mut tell = |name: &str, measure: &dyn Fn() -> Value| {
        if wanted(name) {
            told.insert(name.to_owned(), measure());
        }
    };
    tell("jit", &|| {
        let (town, clients) = one_by_one();
        town.open(&clients, 1)
    });
    tell("forward", &|| {
        let (town, clients) = one_by_one();
        town.open(&clients[..1], 1);
        town.forward(&clients[..1], 1, ONE_BY_ONE)
    });
    tell("jit_at_once", &|| {
        let mut town = Town::new();
        let clients = town.clients(OPENS);
        town.open(&clients, CLIENTS)
    });
    let forwards = |in_flight, idle| {
        let mut town = Town::new();
        // In parts: each has a socket at either end, and a process may open a thousand files.
        for _ in 0..idle / AWAY_AT_ONCE {
            let away = town.clients(AWAY_AT_ONCE);
            town.open(&away, CLIENTS);
            for client in &away {
                client.peers.disconnect_all_peers();
            }
        }
        let clients = town.clients(CLIENTS);
        town.open(&clients, CLIENTS);
        town.forward(&clients, in_flight, FORWARDS)
    };
    tell("forwards_3", &|| forwards(3, 0));
    tell("forwards_8", &|| forwards(8, 0));
    tell("forwards_3_idle_500", &|| forwards(3, IDLE));
    Value::Object(told)
}
