//! The ledger: one entry for every fee earned, cost paid and promise made.

use serde::{Deserialize, Serialize};

use crate::amount::Msat;
use crate::ids::{ChannelId, NodeId, OpenId, Outpoint, PartId, PaymentHash, Scid};
use crate::menu::TrustModel;
use crate::reason::Reason;

/// One row; its sequence number and time are the store's. Rows are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LedgerEntry {
    /// A channel was sold; nothing is earned yet.
    OrderSold {
        /// The jit scid sold.
        scid: Scid,
        /// The client who bought it.
        client: NodeId,
        /// The payment size agreed, msat; absent for a variable amount.
        size: Option<Msat>,
        /// The fee agreed, msat; absent for a variable amount.
        fee: Option<Msat>,
        /// Who trusts whom.
        trust: TrustModel,
        /// Coins promised until they are locked, sat.
        reserved_sat: u64,
    },
    /// A client left a channel unpaid, or held a payment too long.
    ClientScored {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
    },
    /// A channel was closed before the lifetime sold was over, by the operator's own decision.
    PromiseBroken {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// The channel.
        channel: ChannelId,
        /// Confirmations it had.
        age: u32,
        /// Confirmations sold.
        min_lifetime: u32,
        /// The operator's words.
        why: String,
    },
    /// Our LSP closed a channel before the lifetime that it sold was over.
    LspBrokePromise {
        /// The LSP.
        lsp: NodeId,
        /// The channel.
        channel: ChannelId,
        /// Confirmations it had.
        age: u32,
        /// Confirmations bought.
        min_lifetime: u32,
    },
    /// A channel was funded for an order.
    ChannelOpened {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// The attempt.
        open: OpenId,
        /// The channel.
        channel: ChannelId,
        /// Its funding output.
        funding: Outpoint,
        /// Its value, sat: capital bound, not spent.
        value_sat: u64,
    },
    /// A funding transaction was given to the network and costs this chain fee.
    ChainCost {
        /// The order's scid.
        scid: Scid,
        /// The attempt.
        open: OpenId,
        /// The transaction.
        txid: String,
        /// Its fee, sat.
        fee_sat: u64,
    },
    /// A claimed part earned this share of the opening fee.
    FeeEarned {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// The channel it was earned on.
        channel: ChannelId,
        /// The payment.
        payment_hash: PaymentHash,
        /// The share, msat.
        amount: Msat,
        /// Charged on a channel that was already paid for.
        reuse: bool,
    },
    /// The opening fee is wholly earned; from here the lifetime sold is owed (J-11).
    OrderPaid {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// The channel.
        channel: ChannelId,
        /// The whole fee, msat.
        fee: Msat,
        /// The lifetime promised, blocks after confirmation.
        min_lifetime: u32,
    },
    /// The order ended without its fee wholly earned.
    OrderEnded {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// What was earned before, msat.
        earned: Msat,
        /// Why it ended.
        reason: Reason,
    },
    /// A channel of an order closed.
    ChannelClosed {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// The channel.
        channel: ChannelId,
        /// Why, as far as it is known.
        reason: Reason,
    },
    /// A part came and is held.
    PartAccepted {
        /// The order's scid.
        scid: Scid,
        /// The part.
        part: PartId,
        /// Its payment.
        payment_hash: PaymentHash,
        /// What it declares, msat.
        declared: Msat,
    },
    /// A part was failed back, or let go by LDK.
    PartRefused {
        /// The order's scid.
        scid: Scid,
        /// The part.
        part: PartId,
        /// Its payment.
        payment_hash: PaymentHash,
        /// Why.
        reason: Reason,
    },
    /// The parts of a payment are complete.
    SetComplete {
        /// The order's scid.
        scid: Scid,
        /// The payment.
        payment_hash: PaymentHash,
        /// How many parts.
        parts: u32,
        /// Their sum, msat.
        sum: Msat,
        /// The fee to be taken from them, msat.
        fee: Msat,
    },
    /// The node was told to open a channel.
    OpenRequested {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// The attempt.
        open: OpenId,
        /// Its value, sat.
        value_sat: u64,
    },
    /// An attempt to open ended without a channel.
    OpenEnded {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// The attempt.
        open: OpenId,
        /// Why.
        reason: Reason,
    },
    /// A channel is open and the payment it was opened for did not pay for it.
    OrderOwed {
        /// The order's scid.
        scid: Scid,
        /// The client.
        client: NodeId,
        /// The channel.
        channel: ChannelId,
        /// What was earned so far, msat.
        earned: Msat,
    },
    /// An ordinary forward earned its routing fee.
    ForwardFee {
        /// The channel it came by.
        from: ChannelId,
        /// The channel it left by.
        to: ChannelId,
        /// Routing fee, msat.
        amount: Msat,
    },
}
