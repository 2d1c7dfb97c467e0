//! The words of the order: what it consists of, what it is told and what it orders.

use serde::{Deserialize, Serialize};

use crate::amount::Msat;
use crate::ids::{ChannelId, NodeId, OpenId, Outpoint, PartId, PaymentHash, Scid};
use crate::ledger::LedgerEntry;
use crate::menu::{FeeParams, TrustModel};
use crate::reason::{FailCode, Reason};
use crate::sizing::Sizing;
use crate::time::Millis;

/// What was sold; never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The jit scid.
    pub scid: Scid,
    /// The client who bought it.
    pub client: NodeId,
    /// The payment size agreed; `None` for a variable amount.
    pub size: Option<Msat>,
    /// The menu entry bought.
    pub params: FeeParams,
    /// Who trusts whom.
    pub trust: TrustModel,
    /// The CLTV delta promised to the client.
    pub cltv_delta: u16,
    /// When it was sold.
    pub sold_at: Millis,
    /// The token it was bought with.
    pub token: Option<String>,
    /// Only a hook knows that token: its client stays a stranger to the limits.
    #[serde(default)]
    pub unknown_token: bool,
    /// Coins promised to it until they are locked, sat.
    pub reserved_sat: u64,
}

impl Terms {
    /// Whether strangers' shares and limits apply: anybody may bring a token that the rules do not name.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.token.is_none() || self.unknown_token
    }
}

/// Where the order stands; the last three are ends, and only parts already forwarded can still change then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for a payment.
    Sold,
    /// Parts are held that are no complete payment yet.
    Collecting,
    /// A complete payment waits for the client.
    Waking,
    /// A channel is being opened.
    Opening,
    /// The channel is there: the payment goes out, or is on its way.
    Forwarding,
    /// The fee is wholly earned; the jit scid is an ordinary alias from here on.
    Paid,
    /// The order's channel is open and its fee is not earned yet.
    Owed,
    /// Not used in time.
    Expired,
    /// Given up.
    Failed(Reason),
    /// Its channel closed.
    Closed,
}

impl State {
    /// Whether this is an end.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Expired | Self::Failed(_) | Self::Closed)
    }
}

/// What became of one intercepted HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartStatus {
    /// LDK holds it for us.
    Held,
    /// Sent to the client.
    Forwarding {
        /// The channel it was given to; LDK may choose another one with this client.
        channel: ChannelId,
        /// What the client gets.
        amount: Msat,
        /// What was taken for the fee.
        skim: Msat,
    },
    /// We have ordered LDK to fail it.
    Failing {
        /// What the payer is to see.
        code: FailCode,
        /// Why.
        reason: Reason,
    },
    /// The client took it.
    Claimed,
    /// Failed back to the payer.
    Failed,
}

/// One intercepted HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The payment it belongs to.
    pub hash: PaymentHash,
    /// What it delivers to us.
    pub inbound: Msat,
    /// What its onion asks us to forward.
    pub declared: Msat,
    /// When it came.
    pub arrived: Millis,
    /// Its place among all parts of the order.
    pub seq: u64,
    /// From this height on it may not be held.
    pub release_by: u32,
    /// What became of it.
    pub status: PartStatus,
}

/// How far an attempt to open the channel has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenPhase {
    /// The operator's rule was asked.
    Asking,
    /// It said yes.
    Granted,
    /// The node was told to open; coins may be locked.
    Requested,
    /// The client has signed; the funding transaction is ours to use.
    Pending,
    /// Both sides sent `channel_ready`.
    Ready,
    /// The channel closed after it had been ready.
    Closed,
}

/// One attempt to open the order's channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// LDK's `user_channel_id`.
    pub id: OpenId,
    /// The channel, once it has an id.
    pub channel: Option<ChannelId>,
    /// Its funding output.
    pub funding: Option<Outpoint>,
    /// Its value, sat.
    pub value_sat: u64,
    /// How far it has come.
    pub phase: OpenPhase,
    /// When the attempt began, or the node restarted during it.
    pub started: Millis,
    /// A preimage is known that was claimed through this channel: a withheld funding transaction must be published.
    pub broadcast: bool,
    /// The height at which it was last given to the network.
    pub broadcast_at: Option<u32>,
    /// The funding transaction was seen outside this node.
    pub seen: bool,
    /// Confirmations of the funding transaction.
    pub depth: u32,
    /// It was confirmed, and is no longer.
    pub reorged: bool,
    /// Ordinary forwarding over it was enabled.
    pub enabled: bool,
    /// Its coins were given back.
    pub unlocked: bool,
    /// What its funding transaction costs, sat.
    pub fee_sat: u64,
}

/// Coins locked for an attempt that has not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// The attempt.
    pub open: OpenId,
    /// The value reckoned with, sat.
    pub value_sat: u64,
}

/// What is so at the moment of a step.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    /// Wall clock.
    pub now: Millis,
    /// Height of the best block.
    pub height: u32,
    /// The client is connected.
    pub connected: bool,
    /// All channels with this client whose funding is signed; one that is shutting down has limit 0.
    pub channels: &'a [ChannelView],
    /// The operator's limits.
    pub limits: &'a OrderLimits,
    /// HTLCs held for this client, those of this order included.
    pub held_for_client: u32,
    /// HTLCs held for all clients without a token.
    pub held_of_strangers: u32,
    /// HTLCs held in all.
    pub held: u32,
}

/// One channel with the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// The channel.
    pub id: ChannelId,
    /// The attempt it came from, if it is a JIT channel.
    pub open_id: Option<OpenId>,
    /// It can take an HTLC right now.
    pub usable: bool,
    /// Largest single HTLC (`next_outbound_htlc_limit`).
    pub outbound_limit: Msat,
    /// What all HTLCs together may carry.
    pub outbound_capacity: Msat,
    /// Smallest HTLC the client takes.
    pub htlc_minimum: Msat,
    /// Opened by an order whose fee is still owed.
    pub unpaid: bool,
}

/// The operator's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderLimits {
    /// How long parts are collected from the first, ms (J-48: at least 90,000).
    pub collect_ms: u64,
    /// How long a complete payment waits for the client, ms.
    pub wake_ms: u64,
    /// How long an open may take, ms.
    pub open_ms: u64,
    /// How long after `valid_until` an unpaid channel is left open, ms.
    pub grace_ms: u64,
    /// How long a client may hold a payment that it got before that counts against it, ms.
    pub claim_ms: u64,
    /// HTLCs that are held for one client.
    pub max_held_per_client: u32,
    /// HTLCs that are held in all.
    pub max_held: u32,
    /// The share of it that clients without a token have together.
    pub max_held_of_strangers: u32,
    /// Smallest HTLC assumed before the channel exists (B-8).
    pub htlc_minimum: Msat,
    /// How many opens may fail before the order does.
    pub max_opens: u32,
    /// Charge the fee also where a channel that is paid for carries the payment.
    pub charge_on_reuse: bool,
    /// Ask the operator's rule before each open.
    pub ask_policy: bool,
    /// How large a channel is made.
    pub sizing: Sizing,
}

/// What the operator's rule grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTerms {
    /// The channel's value, sat; what the payment needs if that is more.
    pub value_sat: u64,
}

/// Why an open failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenFailure {
    /// The client sent `error` (J-61).
    ClientError,
    /// The client disconnected before `funding_signed` (J-62).
    Disconnected,
    /// The client does not offer what such a channel needs (J-58, S-48).
    ClientUnable,
    /// No coins (S-37).
    NoCoins,
    /// Anything on our side: tried again while the payment is held (J-64).
    Other,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// LDK intercepted an HTLC for the jit scid.
    Part {
        /// Its id.
        id: PartId,
        /// Its payment.
        hash: PaymentHash,
        /// What it delivers.
        inbound: Msat,
        /// What its onion asks for.
        declared: Msat,
        /// From this height on it may not be held.
        release_by: u32,
    },
    /// The client connected.
    Connected,
    /// The client disconnected.
    Disconnected,
    /// The operator's rule answered.
    PolicyAnswered {
        /// The attempt it was asked about.
        open: OpenId,
        /// Its answer.
        answer: Result<ChannelTerms, Reason>,
    },
    /// The client signed; the channel has an id and a funding transaction.
    ChannelPending {
        /// The attempt.
        open: OpenId,
        /// The channel.
        channel: ChannelId,
        /// Its funding output.
        funding: Outpoint,
        /// What the funding transaction costs, sat.
        fee_sat: u64,
    },
    /// Both sides sent `channel_ready`.
    ChannelReady {
        /// The attempt.
        open: OpenId,
        /// The channel.
        channel: ChannelId,
    },
    /// The open ended without a channel.
    OpenFailed {
        /// The attempt.
        open: OpenId,
        /// Why.
        why: OpenFailure,
    },
    /// There are no coins to lock ahead; the answer to `Lock`.
    NotLocked {
        /// The attempt.
        open: OpenId,
    },
    /// The client took a forwarded part.
    PartClaimed {
        /// The part.
        id: PartId,
    },
    /// A part failed at LDK or at the client.
    PartFailed {
        /// The part.
        id: PartId,
    },
    /// LDK no longer holds a part that was to be held or failed; also the answer to a `Fail` that was carried out.
    PartGone {
        /// The part.
        id: PartId,
    },
    /// The channel that a held part came over is closed: it could be taken on the chain only, at a cost that no fee counts.
    PartStranded {
        /// The part.
        id: PartId,
    },
    /// LDK refused a `Forward` and holds the part still; it is tried again at the next input.
    PartHeld {
        /// The part.
        id: PartId,
    },
    /// Something that is no part of this order was claimed through its channel (S-70).
    ClaimedOver {
        /// The channel.
        channel: ChannelId,
    },
    /// The funding transaction was seen in a mempool.
    FundingSeen,
    /// It is in the chain.
    FundingConfirmed {
        /// Number of confirmations.
        depth: u32,
    },
    /// It left the chain, or was double-spent.
    FundingReorged,
    /// A channel with the client closed.
    ChannelClosed {
        /// The channel.
        channel: ChannelId,
    },
    /// Time or height went on, or anything else in `Env` changed.
    Tick,
}

/// Something is to be done, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Fail a held part, then answer `PartGone`.
    Fail {
        /// The part.
        part: PartId,
        /// What the payer is to see.
        code: FailCode,
        /// Why.
        reason: Reason,
    },
    /// Wake the client.
    Wake,
    /// Ask the operator's rule.
    AskPolicy {
        /// The attempt.
        open: OpenId,
        /// The value intended, sat.
        value_sat: u64,
    },
    /// Choose and lock coins for an open that is to come; if there are none, answer `NotLocked`. Told again after a
    /// restart, for coins that are locked already.
    Lock {
        /// The attempt.
        open: OpenId,
        /// Its value as far as it can be known, sat.
        value_sat: u64,
    },
    /// Choose and lock coins, unless they are locked already, then create the channel.
    Open {
        /// The attempt.
        open: OpenId,
        /// Its value, sat.
        value_sat: u64,
        /// The longest `to_self_delay` the client may ask for (J-59).
        max_to_self_delay: u16,
    },
    /// Close whatever exists of this attempt; coins are only given back by `Unlock`.
    AbandonOpen {
        /// The attempt.
        open: OpenId,
        /// Its channel, if known.
        channel: Option<ChannelId>,
    },
    /// Give back the coins of an open that came to nothing.
    Unlock {
        /// The attempt.
        open: OpenId,
    },
    /// Forward a held part; if LDK refuses, answer `PartHeld`, or `PartFailed` if it does not know the part.
    Forward {
        /// The part.
        part: PartId,
        /// The channel.
        channel: ChannelId,
        /// What the client gets.
        amount: Msat,
        /// What is taken for the fee: declared − amount.
        skim: Msat,
    },
    /// Client trusts LSP: publish the funding transaction (again).
    Broadcast {
        /// The attempt.
        open: OpenId,
    },
    /// The channel is paid for: ordinary forwarding fee from now on.
    EnableForwarding {
        /// The channel.
        channel: ChannelId,
    },
    /// The client left a channel unpaid, or holds a payment too long: once an order.
    Score,
    /// Close a channel.
    Close {
        /// The channel.
        channel: ChannelId,
        /// Why.
        reason: Reason,
    },
    /// Write a row.
    Record(LedgerEntry),
}
