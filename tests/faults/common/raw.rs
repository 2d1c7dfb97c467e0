//! A peer that is nothing but a connection: BOLT 8 by LDK's own peer manager, and any message under it. Cheap enough for
//! hundreds in one test.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::lsps0::MESSAGE_TYPE;
use ldkjit_node::log::Log;
use ldkjit_node::node::Node;
use lightning::io;
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::{
    CustomMessageHandler, ErroringMessageHandler, IgnoringMessageHandler, MessageHandler,
    PeerManager,
};
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};
use lightning_net_tokio::SocketDescriptor;
use serde_json::{json, Value};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use super::{address, id, PATIENCE};

/// A message of any type.
#[derive(Clone, Debug)]
pub struct Anything(pub u16, pub Vec<u8>);

impl Type for Anything {
    fn type_id(&self) -> u16 {
        self.0
    }
}

impl Writeable for Anything {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), io::Error> {
        writer.write_all(&self.1)
    }
}

/// Hands LSPS messages on, and sends whatever it is told to.
struct Hand {
    read: mpsc::UnboundedSender<Value>,
    write: Mutex<Vec<(PublicKey, Anything)>>,
    connected: watch::Sender<bool>,
}

impl CustomMessageReader for Hand {
    type CustomMessage = Anything;

    fn read<R: LengthLimitedRead>(
        &self,
        message_type: u16,
        buffer: &mut R,
    ) -> Result<Option<Anything>, DecodeError> {
        if message_type != MESSAGE_TYPE {
            return Ok(None);
        }
        let mut payload = vec![0; usize::try_from(buffer.remaining_bytes()).unwrap()];
        buffer.read_exact(&mut payload)?;
        Ok(Some(Anything(message_type, payload)))
    }
}

impl CustomMessageHandler for Hand {
    fn handle_custom_message(&self, message: Anything, _: PublicKey) -> Result<(), LightningError> {
        let _ = self.read.send(serde_json::from_slice(&message.1).unwrap());
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Anything)> {
        std::mem::take(&mut self.write.lock().unwrap())
    }

    fn peer_disconnected(&self, _: PublicKey) {
        self.connected.send_replace(false);
    }

    fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        self.connected.send_replace(true);
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

type Wire = PeerManager<
    SocketDescriptor,
    Arc<ErroringMessageHandler>,
    Arc<IgnoringMessageHandler>,
    Arc<IgnoringMessageHandler>,
    Arc<Log>,
    Arc<Hand>,
    Arc<KeysManager>,
    Arc<IgnoringMessageHandler>,
>;

/// A peer without a node, and its connection if it has one.
pub struct Raw {
    pub id: PublicKey,
    lsp: PublicKey,
    to: SocketAddr,
    from: IpAddr,
    hand: Arc<Hand>,
    wire: Arc<Wire>,
    answers: mpsc::UnboundedReceiver<Value>,
    requests: u64,
}

impl Raw {
    /// The n-th peer of this LSP, not connected yet; `from` is the address of this machine that it dials from.
    pub fn new(n: u32, lsp: &Node, from: &str) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let keys = Arc::new(KeysManager::new(&seed, 1, n, true));
        let (read, answers) = mpsc::unbounded_channel();
        let hand = Arc::new(Hand {
            read,
            write: Mutex::default(),
            connected: watch::channel(false).0,
        });
        let handlers = MessageHandler {
            chan_handler: Arc::new(ErroringMessageHandler::new()),
            route_handler: Arc::new(IgnoringMessageHandler {}),
            onion_message_handler: Arc::new(IgnoringMessageHandler {}),
            custom_message_handler: hand.clone(),
            send_only_message_handler: Arc::new(IgnoringMessageHandler {}),
        };
        let wire = Wire::new(handlers, 1, &seed, Log::silent(), keys.clone());
        Self {
            id: keys.get_node_id(Recipient::Node).unwrap(),
            lsp: id(lsp),
            to: address(lsp).parse().unwrap(),
            from: from.parse().unwrap(),
            hand,
            wire: Arc::new(wire),
            answers,
            requests: 0,
        }
    }

    /// A bare TCP connection, from the address that this peer dials from.
    pub async fn dial(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Whether the LSP took it in.
    pub async fn connect(&self) -> bool {
        let Ok(stream) = self.dial().await else {
            return false;
        };
        let stream = stream.into_std().unwrap();
        let connection = lightning_net_tokio::setup_outbound(self.wire.clone(), self.lsp, stream);
        let mut ended = tokio::spawn(connection);
        let mut connected = self.hand.connected.subscribe();
        let taken_in = connected.wait_for(|connected| *connected);
        tokio::select! {
            taken_in = tokio::time::timeout(PATIENCE, taken_in) => taken_in.unwrap().is_ok(),
            _ = &mut ended => false,
        }
    }

    /// Connects once the LSP has noticed that the connection before is over: it keeps one to a peer, the older.
    pub async fn connect_again(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.connect().await {
            assert!(tokio::time::Instant::now() < deadline, "not taken in again");
        }
    }

    pub fn is_connected(&self) -> bool {
        *self.hand.connected.borrow()
    }

    /// Waits until the LSP has hung up.
    pub async fn is_hung_up_on(&self) {
        let mut connected = self.hand.connected.subscribe();
        let gone = connected.wait_for(|connected| !connected);
        let waited = tokio::time::timeout(PATIENCE, gone).await;
        drop(waited.expect("still connected").unwrap());
    }

    pub fn hang_up(&self) {
        self.wire.disconnect_all_peers();
    }

    /// Sends a message of any type.
    pub fn send(&self, message_type: u16, bytes: Vec<u8>) {
        let message = Anything(message_type, bytes);
        self.hand.write.lock().unwrap().push((self.lsp, message));
        self.wire.process_events();
    }

    /// Sends a request and does not wait for the answer.
    pub fn request(&mut self, method: &str, params: &Value) {
        self.requests += 1;
        let id = self.requests.to_string();
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(MESSAGE_TYPE, request.to_string().into_bytes());
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Value {
        let answer = tokio::time::timeout(PATIENCE, self.answers.recv()).await;
        answer.expect("no answer").unwrap()
    }

    /// The next answer, or `None` if the LSP hangs up first.
    pub async fn answer_if_any(&mut self) -> Option<Value> {
        let mut connected = self.hand.connected.subscribe();
        tokio::select! {
            biased;
            answer = self.answers.recv() => answer,
            _ = connected.wait_for(|connected| !connected) => None,
        }
    }

    /// Answers to earlier requests are not read.
    pub fn forget_answers(&mut self) {
        while self.answers.try_recv().is_ok() {}
    }

    /// Asks and waits.
    pub async fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.request(method, params);
        self.answer().await
    }
}
