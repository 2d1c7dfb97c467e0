//! LSPS0 transport: BOLT 8 messages of type 37913 in and out, and which peers come and go (T-01).

use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::lsps0::{MAX_PAYLOAD, MESSAGE_TYPE};
#[cfg(feature = "faults")]
use lightning::events::Event;
use lightning::io;
use lightning::ln::msgs::{DecodeError, Init, LightningError};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};
use tokio::sync::{mpsc, Notify};

use crate::sync::lock;

/// The feature bit of an LSP (T-12): never set by a client.
const FEATURE_BIT: usize = 729;
/// Messages that may wait for us; beyond it the newest is dropped, and its sender times out.
const INBOX: usize = 4_096;

/// One LSPS0 message: JSON text, not yet looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(pub Vec<u8>);

impl Type for Message {
    fn type_id(&self) -> u16 {
        MESSAGE_TYPE
    }
}

impl Writeable for Message {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), io::Error> {
        writer.write_all(&self.0)
    }
}

/// What happened on the wire.
#[derive(Debug)]
pub enum Incoming {
    /// A peer sent a message.
    Message(PublicKey, Vec<u8>),
    /// A peer finished its handshake.
    Connected(PublicKey),
    /// A peer's last connection ended.
    Disconnected(PublicKey),
}

/// Somebody else's LSPS2 on this node, for tests of ours against it: sees first what happens, and answers what it leaves to us.
#[cfg(feature = "faults")]
pub trait Foreign: std::fmt::Debug + Send + Sync {
    /// What happens on the wire.
    fn wire(&self, incoming: Incoming) -> Option<Incoming>;
    /// What happens in LDK.
    fn ldk(&self, event: Event) -> Option<Event>;
}

/// The custom message handler: queues only, since LDK calls it under its locks.
pub struct Transport {
    service: bool,
    messages: mpsc::Sender<Incoming>,
    presence: mpsc::UnboundedSender<Incoming>,
    outbox: Mutex<Vec<(PublicKey, Message)>>,
    /// Told when something waits in the outbox, so that the driver flushes it.
    pub flush: Arc<Notify>,
}

/// The receiving ends; presence first, since it is never dropped.
pub struct Inbox {
    messages: mpsc::Receiver<Incoming>,
    presence: mpsc::UnboundedReceiver<Incoming>,
}

impl Inbox {
    /// The next thing that happened; `None` when the transport is gone.
    pub async fn next(&mut self) -> Option<Incoming> {
        tokio::select! {
            biased;
            event = self.presence.recv() => event,
            event = self.messages.recv() => event,
        }
    }
}

impl Transport {
    /// A transport and its inbox. `service` sets the LSP's feature bit.
    #[must_use]
    pub fn new(service: bool, flush: Arc<Notify>) -> (Arc<Self>, Inbox) {
        let (messages, messages_rx) = mpsc::channel(INBOX);
        let (presence, presence_rx) = mpsc::unbounded_channel();
        let transport = Self {
            service,
            messages,
            presence,
            outbox: Mutex::default(),
            flush,
        };
        let inbox = Inbox {
            messages: messages_rx,
            presence: presence_rx,
        };
        (Arc::new(transport), inbox)
    }

    /// Queues a message; LDK drops it when the peer is gone (T-17).
    pub fn send(&self, peer: PublicKey, payload: Vec<u8>) {
        lock(&self.outbox).push((peer, Message(payload)));
        self.flush.notify_one();
    }
}

impl CustomMessageReader for Transport {
    type CustomMessage = Message;

    fn read<R: LengthLimitedRead>(
        &self,
        message_type: u16,
        buffer: &mut R,
    ) -> Result<Option<Message>, DecodeError> {
        if message_type != MESSAGE_TYPE {
            return Ok(None);
        }
        let size = usize::try_from(buffer.remaining_bytes()).unwrap_or(usize::MAX);
        let mut payload = vec![0; size.min(MAX_PAYLOAD)];
        buffer.read_exact(&mut payload)?;
        Ok(Some(Message(payload)))
    }
}

impl CustomMessageHandler for Transport {
    fn handle_custom_message(
        &self,
        message: Message,
        sender: PublicKey,
    ) -> Result<(), LightningError> {
        // A full inbox means that we are overloaded: the sender's own timeout is the answer.
        let _ = self.messages.try_send(Incoming::Message(sender, message.0));
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Message)> {
        std::mem::take(&mut lock(&self.outbox))
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        let _ = self.presence.send(Incoming::Disconnected(peer));
    }

    fn peer_connected(&self, peer: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        let _ = self.presence.send(Incoming::Connected(peer));
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        let mut features = NodeFeatures::empty();
        if self.service {
            let _ = features.set_optional_custom_bit(FEATURE_BIT);
        }
        features
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        let mut features = InitFeatures::empty();
        if self.service {
            let _ = features.set_optional_custom_bit(FEATURE_BIT);
        }
        features
    }
}
