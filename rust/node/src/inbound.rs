//! LDK's channel manager as peers meet it, without LDK's limit of 250 inbound peers that have no channel: `door.rs` has ours.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    self, BaseMessageHandler, ChannelMessageHandler, Init, MessageSendEvent,
};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};

use crate::ldk::ChannelManager;
use crate::recovery::Told;
use crate::sync::{lock, wait_for};

/// How long the reason for a panic may take to be known.
const REASON: Duration = Duration::from_secs(1);

/// Whether LDK has panicked, as it does when a peer proves that our state is old: nothing of it may be used any more.
#[derive(Default)]
pub struct Fallen {
    by: Mutex<Option<PublicKey>>,
    known: Condvar,
}

impl Fallen {
    /// The peer that has proven it.
    pub fn by(&self) -> Option<PublicKey> {
        *lock(&self.by)
    }

    fn set(&self, peer: PublicKey) {
        lock(&self.by).get_or_insert(peer);
        self.known.notify_all();
    }

    /// As [`Fallen::by`], where LDK has panicked and the reason may be known at any moment.
    pub fn reason(&self) -> Option<PublicKey> {
        let by = lock(&self.by);
        match *by {
            Some(peer) => Some(peer),
            None => *wait_for(&self.known, by, REASON),
        }
    }
}

/// Passes everything on. Only who dialled whom is kept back, which LDK uses for that limit and for nothing else.
///
/// A node that recovers is another matter: its manager meets nobody, and peers that come with a channel are told to
/// close it.
pub struct Inbound {
    manager: Arc<ChannelManager>,
    way: Way,
}

enum Way {
    Open {
        fallen: Arc<Fallen>,
        /// Has the committer look at the manager.
        look: Box<dyn Fn() + Send + Sync>,
    },
    Recovering {
        told: Told,
        answers: Mutex<Vec<MessageSendEvent>>,
    },
}

impl Inbound {
    /// For a node that works.
    pub fn new(
        manager: Arc<ChannelManager>,
        fallen: Arc<Fallen>,
        look: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let look = Box::new(look);
        let way = Way::Open { fallen, look };
        Self { manager, way }
    }

    /// For a node that recovers.
    pub fn recovering(manager: Arc<ChannelManager>, told: Told) -> Self {
        let answers = Mutex::default();
        let way = Way::Recovering { told, answers };
        Self { manager, way }
    }

    /// The manager, unless it may meet nobody.
    fn open(&self) -> Option<&ChannelManager> {
        match &self.way {
            Way::Open { fallen, .. } if fallen.by().is_none() => Some(&self.manager),
            _ => None,
        }
    }

    /// Asks for a channel to be closed, as every implementation understands it: by commitment numbers that say that all
    /// is lost (LND closes on nothing else), and by an error.
    fn ask_to_close(&self, peer: PublicKey, channel_id: ChannelId) -> [MessageSendEvent; 2] {
        let lost = msgs::ChannelReestablish {
            channel_id,
            next_local_commitment_number: 0,
            next_remote_commitment_number: 0,
            your_last_per_commitment_secret: [1; 32],
            my_current_per_commitment_point: self.manager.get_our_node_id(),
            next_funding: None,
            my_current_funding_locked: None,
        };
        let error = msgs::ErrorMessage {
            channel_id,
            data: "the state of this channel is lost: please close it".into(),
        };
        [
            MessageSendEvent::SendChannelReestablish {
                node_id: peer,
                msg: lost,
            },
            MessageSendEvent::HandleError {
                node_id: peer,
                action: msgs::ErrorAction::SendErrorMessage { msg: error },
            },
        ]
    }
}

impl BaseMessageHandler for Inbound {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        match &self.way {
            Way::Open { .. } => self
                .open()
                .map(BaseMessageHandler::get_and_clear_pending_msg_events)
                .unwrap_or_default(),
            Way::Recovering { answers, .. } => std::mem::take(&mut lock(answers)),
        }
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        if let Some(manager) = self.open() {
            manager.peer_disconnected(peer);
        }
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.manager.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.manager.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, init: &Init, _inbound: bool) -> Result<(), ()> {
        match self.open() {
            Some(manager) => manager.peer_connected(peer, init, false),
            None => match self.way {
                Way::Open { .. } => Err(()),
                Way::Recovering { .. } => Ok(()),
            },
        }
    }
}

macro_rules! pass_on {
    ($($name:ident: $message:ty;)*) => {
        $(fn $name(&self, peer: PublicKey, message: $message) {
            if let Some(manager) = self.open() {
                ChannelMessageHandler::$name(manager, peer, message);
            }
        })*
    };
}

impl ChannelMessageHandler for Inbound {
    pass_on! {
        handle_open_channel: &msgs::OpenChannel;
        handle_open_channel_v2: &msgs::OpenChannelV2;
        handle_accept_channel: &msgs::AcceptChannel;
        handle_accept_channel_v2: &msgs::AcceptChannelV2;
        handle_funding_created: &msgs::FundingCreated;
        handle_funding_signed: &msgs::FundingSigned;
        handle_channel_ready: &msgs::ChannelReady;
        handle_peer_storage: msgs::PeerStorage;
        handle_peer_storage_retrieval: msgs::PeerStorageRetrieval;
        handle_shutdown: &msgs::Shutdown;
        handle_closing_signed: &msgs::ClosingSigned;
        handle_stfu: &msgs::Stfu;
        handle_splice_init: &msgs::SpliceInit;
        handle_splice_ack: &msgs::SpliceAck;
        handle_splice_locked: &msgs::SpliceLocked;
        handle_tx_add_input: &msgs::TxAddInput;
        handle_tx_add_output: &msgs::TxAddOutput;
        handle_tx_remove_input: &msgs::TxRemoveInput;
        handle_tx_remove_output: &msgs::TxRemoveOutput;
        handle_tx_complete: &msgs::TxComplete;
        handle_tx_signatures: &msgs::TxSignatures;
        handle_tx_init_rbf: &msgs::TxInitRbf;
        handle_tx_ack_rbf: &msgs::TxAckRbf;
        handle_tx_abort: &msgs::TxAbort;
        handle_update_add_htlc: &msgs::UpdateAddHTLC;
        handle_update_fulfill_htlc: msgs::UpdateFulfillHTLC;
        handle_update_fail_htlc: &msgs::UpdateFailHTLC;
        handle_update_fail_malformed_htlc: &msgs::UpdateFailMalformedHTLC;
        handle_commitment_signed: &msgs::CommitmentSigned;
        handle_revoke_and_ack: &msgs::RevokeAndACK;
        handle_update_fee: &msgs::UpdateFee;
        handle_announcement_signatures: &msgs::AnnouncementSignatures;
        handle_channel_update: &msgs::ChannelUpdate;
        handle_error: &msgs::ErrorMessage;
    }

    fn handle_commitment_signed_batch(
        &self,
        peer: PublicKey,
        channel_id: ChannelId,
        batch: Vec<msgs::CommitmentSigned>,
    ) {
        if let Some(manager) = self.open() {
            manager.handle_commitment_signed_batch(peer, channel_id, batch);
        }
    }

    /// LDK panics, its locks held, when a peer proves that our state is old: whatever it would publish is revoked. The
    /// committer finds it so, and ends the node.
    fn handle_channel_reestablish(&self, peer: PublicKey, message: &msgs::ChannelReestablish) {
        match &self.way {
            Way::Open { fallen, look } => {
                let Some(manager) = self.open() else {
                    return;
                };
                let handle = AssertUnwindSafe(|| {
                    ChannelMessageHandler::handle_channel_reestablish(manager, peer, message);
                });
                if catch_unwind(handle).is_err() {
                    fallen.set(peer);
                    look();
                }
            }
            Way::Recovering { told, answers } => {
                lock(answers).extend(self.ask_to_close(peer, message.channel_id));
                told(crate::convert::channel(&message.channel_id), peer);
            }
        }
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.manager.get_chain_hashes()
    }

    fn message_received(&self) {
        if let Some(manager) = self.open() {
            manager.message_received();
        }
    }
}
