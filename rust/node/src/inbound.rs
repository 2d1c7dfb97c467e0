//! LDK's channel manager as peers meet it, without LDK's limit of 250 inbound peers that have no channel: `door.rs` has ours.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    self, BaseMessageHandler, ChannelMessageHandler, Init, MessageSendEvent,
};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};

use crate::ldk::ChannelManager;

/// Passes everything on. Only who dialled whom is kept back, which LDK uses for that limit and for nothing else.
pub struct Inbound(pub Arc<ChannelManager>);

impl BaseMessageHandler for Inbound {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        self.0.get_and_clear_pending_msg_events()
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.0.peer_disconnected(peer);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.0.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.0.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, init: &Init, _inbound: bool) -> Result<(), ()> {
        self.0.peer_connected(peer, init, false)
    }
}

macro_rules! pass_on {
    ($($name:ident: $message:ty;)*) => {
        $(fn $name(&self, peer: PublicKey, message: $message) {
            ChannelMessageHandler::$name(&*self.0, peer, message);
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
        handle_channel_reestablish: &msgs::ChannelReestablish;
        handle_channel_update: &msgs::ChannelUpdate;
        handle_error: &msgs::ErrorMessage;
    }

    fn handle_commitment_signed_batch(
        &self,
        peer: PublicKey,
        channel_id: ChannelId,
        batch: Vec<msgs::CommitmentSigned>,
    ) {
        self.0
            .handle_commitment_signed_batch(peer, channel_id, batch);
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.0.get_chain_hashes()
    }

    fn message_received(&self) {
        self.0.message_received();
    }
}
