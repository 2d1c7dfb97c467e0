//! The ledger: one entry for every fee earned, cost paid and promise made, and for whatever moves the node's own money.

use std::collections::BTreeMap;

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
        /// What it was sold by; absent in rows of before it was written down.
        tier: Option<SoldTier>,
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
    /// Another's payment went through: what came in belongs to us on one channel, what went out left another.
    Forwarded {
        /// The channel it came by.
        from: Option<ChannelId>,
        /// The channel it left by.
        to: Option<ChannelId>,
        /// What came in, msat; absent if it is claimed on chain, where only the chain tells.
        received: Option<Msat>,
        /// What went out, msat; absent if LDK told of the same claim before.
        sent: Option<Msat>,
        /// Opening fee taken from it, msat; the rest of what stays is the routing fee.
        skim: Msat,
        /// Settled on chain, or found so at a start: LDK does not say how much of it was an opening fee.
        late: bool,
    },
    /// A transaction changed what the wallet holds, from the moment the wallet knew of it.
    Chain {
        /// The transaction.
        txid: String,
        /// What the wallet holds more or, below zero, less, sat.
        delta_sat: i64,
        /// What it pays to others or into a channel, sat.
        paid_sat: u64,
        /// Its fee, sat, if this node pays it.
        fee_sat: Option<u64>,
        /// What it is for.
        purpose: Purpose,
        /// The open whose channel it funds.
        open: Option<OpenId>,
        /// What of it comes out of channels that are closed.
        parts: Vec<ChainPart>,
    },
    /// A transaction will not be after all: another took its coins, or it was dropped for good.
    ChainUndone {
        /// The transaction.
        txid: String,
        /// What the wallet had more or less by it, sat.
        delta_sat: i64,
    },
    /// A channel came to be, whoever opened it.
    ChannelFunded {
        /// The channel.
        channel: ChannelId,
        /// The other side.
        peer: NodeId,
        /// The attempt; ours too for a channel that the peer opened.
        open: OpenId,
        /// Its funding output.
        funding: Outpoint,
        /// Its value, sat.
        value_sat: u64,
        /// What of it is ours, msat; absent if it was gone before it could be looked at.
        balance: Option<Msat>,
        /// This node funds it, and pays for its commitment transactions.
        by_us: bool,
    },
    /// One path of a payment of ours arrived.
    PathPaid {
        /// The payment.
        payment_hash: PaymentHash,
        /// The channel it left by; absent if that was closed before.
        channel: Option<ChannelId>,
        /// What left the channel, msat, routing fee and all.
        amount: Msat,
        /// The routing fee in it, msat.
        fee: Msat,
    },
    /// A part of a payment to us was claimed.
    HtlcClaimed {
        /// The payment.
        payment_hash: PaymentHash,
        /// The channel it came by.
        channel: ChannelId,
        /// What came, msat.
        amount: Msat,
        /// What the peer withheld as its opening fee, msat.
        skimmed: Msat,
    },
    /// A channel is closed: what it holds comes back by the chain.
    ChannelEnded {
        /// The channel.
        channel: ChannelId,
        /// Our part as LDK last knew it, msat.
        balance: Option<Msat>,
        /// LDK's words.
        reason: String,
    },
    /// A transaction spends a channel's funding output.
    ChannelSpent {
        /// The channel.
        channel: ChannelId,
        /// The transaction.
        txid: String,
        /// Its fee, sat, taken from the channel.
        fee_sat: u64,
    },
    /// The node came back from what it knew at this time. Channels that were open then may have gone on without it: how
    /// they end tells nothing of the rows before.
    Recovered {
        /// The time, ms since 1970.
        since_ms: u64,
    },
    /// Requests were refused since the last such row.
    Refused {
        /// How many, by reason.
        counts: BTreeMap<String, u64>,
    },
}

/// What is the same in all offers of one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SoldTier {
    /// Least opening fee, msat.
    pub min_fee: Msat,
    /// Opening fee as a share of the payment, ppm.
    pub proportional_ppm: u32,
    /// Smallest payment, msat.
    pub min_payment: Msat,
    /// Largest payment, msat.
    pub max_payment: Msat,
    /// How long the channel stays open at least, blocks after confirmation.
    pub min_lifetime: u32,
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Others pay to the wallet.
    Received,
    /// The wallet pays others.
    Sent,
    /// The wallet pays itself.
    Split,
    /// A channel is funded.
    Funding,
    /// A channel is closed by both sides, and pays the wallet.
    Close,
    /// What a channel closed by force holds is claimed or swept.
    Claim,
    /// The wallet adds a fee to what a channel must get into a block.
    Bump,
}

/// What a transaction takes out of one closed channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPart {
    /// The channel.
    pub channel: ChannelId,
    /// How much, sat, before the transaction's fee.
    pub sat: u64,
}
