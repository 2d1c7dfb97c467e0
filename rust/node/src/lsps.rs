//! LSPS0 transport: BOLT 8 messages of type 37913 in and out, and which peers come and go (T-01).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use ldkjit_core::lsps0::{MAX_PAYLOAD, MESSAGE_TYPE};
#[cfg(feature = "faults")]
use lightning::events::Event;
use lightning::io;
use lightning::ln::msgs::{DecodeError, ErrorAction, Init, LightningError, WarningMessage};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::types::ChannelId;
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};
use tokio::sync::{mpsc, Notify};

use crate::sync::lock;

/// The feature bit of an LSP (T-12): never set by a client.
const FEATURE_BIT: usize = 729;
/// Messages of one peer that may wait for us, and how large they may be together before the last one, bytes: one that
/// sends more is hung up on.
const MAX_WAITING: usize = 64;
const MAX_WAITING_BYTES: usize = MAX_PAYLOAD;

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
    /// A peer sent so much that it is hung up on.
    Flooded(PublicKey),
}

/// Messages that wait, by peer: each peer has its turn, so that a flood delays its own sender.
#[derive(Default)]
struct Waiting {
    lines: Mutex<Lines>,
    news: Notify,
}

#[derive(Default)]
struct Lines {
    by_peer: HashMap<PublicKey, VecDeque<Vec<u8>>>,
    turns: VecDeque<PublicKey>,
}

impl Waiting {
    /// Whether there was room.
    fn push(&self, peer: PublicKey, payload: Vec<u8>) -> bool {
        let mut lines = lock(&self.lines);
        let Lines { by_peer, turns } = &mut *lines;
        let queue = by_peer.entry(peer).or_default();
        let bytes = queue.iter().fold(0_usize, |n, p| n.saturating_add(p.len()));
        if queue.len() >= MAX_WAITING || bytes >= MAX_WAITING_BYTES {
            return false;
        }
        if queue.is_empty() {
            turns.push_back(peer);
        }
        queue.push_back(payload);
        drop(lines);
        self.news.notify_one();
        true
    }

    fn pop(&self) -> Option<Incoming> {
        let mut lines = lock(&self.lines);
        let Lines { by_peer, turns } = &mut *lines;
        while let Some(peer) = turns.pop_front() {
            let Some(queue) = by_peer.get_mut(&peer) else {
                continue;
            };
            let first = queue.pop_front();
            if queue.is_empty() {
                by_peer.remove(&peer);
            } else {
                turns.push_back(peer);
            }
            if let Some(payload) = first {
                return Some(Incoming::Message(peer, payload));
            }
        }
        None
    }

    fn forget(&self, peer: &PublicKey) {
        let mut lines = lock(&self.lines);
        lines.by_peer.remove(peer);
        lines.turns.retain(|p| p != peer);
    }
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
    waiting: Arc<Waiting>,
    presence: mpsc::UnboundedSender<Incoming>,
    outbox: Mutex<Vec<(PublicKey, Message)>>,
    /// Told when something waits in the outbox, so that the driver flushes it.
    pub flush: Arc<Notify>,
}

/// The receiving ends; presence first, since it is never dropped.
pub struct Inbox {
    waiting: Arc<Waiting>,
    presence: mpsc::UnboundedReceiver<Incoming>,
}

impl Inbox {
    /// The next thing that happened; `None` when the transport is gone.
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            if let Ok(event) = self.presence.try_recv() {
                return Some(event);
            }
            // However much there is to read, others have their turn.
            tokio::task::coop::consume_budget().await;
            if let Some(message) = self.waiting.pop() {
                return Some(message);
            }
            tokio::select! {
                event = self.presence.recv() => return event,
                () = self.waiting.news.notified() => {}
            }
        }
    }
}

impl Transport {
    /// A transport and its inbox. `service` sets the LSP's feature bit.
    #[must_use]
    pub fn new(service: bool, flush: Arc<Notify>) -> (Arc<Self>, Inbox) {
        let waiting = Arc::new(Waiting::default());
        let (presence, presence_rx) = mpsc::unbounded_channel();
        let transport = Self {
            service,
            waiting: waiting.clone(),
            presence,
            outbox: Mutex::default(),
            flush,
        };
        let inbox = Inbox {
            waiting,
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
        if self.waiting.push(sender, message.0) {
            return Ok(());
        }
        let _ = self.presence.send(Incoming::Flooded(sender));
        let err = "too many LSPS messages at once".to_owned();
        Err(LightningError {
            err: err.clone(),
            action: ErrorAction::DisconnectPeerWithWarning {
                msg: WarningMessage {
                    channel_id: ChannelId::new_zero(),
                    data: err,
                },
            },
        })
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Message)> {
        std::mem::take(&mut lock(&self.outbox))
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.waiting.forget(&peer);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    fn peer(n: u8) -> PublicKey {
        let key = SecretKey::from_slice(&[n; 32]).unwrap();
        PublicKey::from_secret_key(&Secp256k1::new(), &key)
    }

    fn read(waiting: &Waiting) -> Option<(PublicKey, Vec<u8>)> {
        match waiting.pop() {
            Some(Incoming::Message(peer, payload)) => Some((peer, payload)),
            other => {
                assert!(other.is_none(), "{other:?}");
                None
            }
        }
    }

    #[test]
    fn each_peer_has_its_turn_and_its_share() {
        let waiting = Waiting::default();
        for n in 0..MAX_WAITING {
            assert!(waiting.push(peer(1), vec![u8::try_from(n).unwrap()]));
        }
        assert!(!waiting.push(peer(1), vec![]), "its share is used");
        assert!(waiting.push(peer(2), vec![200]));
        assert_eq!(read(&waiting), Some((peer(1), vec![0])));
        assert_eq!(read(&waiting), Some((peer(2), vec![200])), "next in turn");
        assert_eq!(read(&waiting), Some((peer(1), vec![1])));
        waiting.forget(&peer(1));
        assert_eq!(read(&waiting), None);
        // Large ones are fewer.
        assert!(waiting.push(peer(1), vec![0; MAX_PAYLOAD - 1]));
        assert!(waiting.push(peer(1), vec![0; MAX_PAYLOAD]));
        assert!(!waiting.push(peer(1), vec![0]));
        assert_eq!(read(&waiting).unwrap().1.len(), MAX_PAYLOAD - 1);
        assert_eq!(read(&waiting).unwrap().1.len(), MAX_PAYLOAD);
        assert_eq!(read(&waiting), None);
        let left = lock(&waiting.lines);
        assert!(left.by_peer.is_empty() && left.turns.is_empty());
    }
}
