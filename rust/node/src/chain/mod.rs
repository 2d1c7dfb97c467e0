//! What the node asks of the block chain, whoever answers.

pub mod bitcoind;
pub mod headers;
mod http;

use crate::error::NodeError;
use bitcoin::{OutPoint, Transaction};
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that sources can be exchanged at run time.
pub type ChainFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ChainError>> + Send + 'a>>;

/// Why the chain source cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainError {
    /// No connection, no answer in time, or it is still starting.
    Unreachable(String),
    /// User or password are wrong.
    Auth,
    /// It serves another network.
    WrongNetwork {
        /// The network found.
        found: String,
        /// The network wanted.
        wanted: String,
    },
    /// Its answers contradict themselves, each other, or the protocol.
    Lying(String),
    /// It is still downloading the chain.
    Behind {
        /// Blocks it has.
        blocks: u32,
        /// Blocks it knows of.
        headers: u32,
    },
    /// It has deleted a block that is needed.
    Pruned,
    /// It refused this call.
    Refused {
        /// The RPC error code.
        code: i64,
        /// The RPC error message.
        message: String,
    },
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the chain source cannot be reached: {why}"),
            Self::Auth => write!(f, "the chain source refuses the user or password"),
            Self::WrongNetwork { found, wanted } => {
                write!(f, "the chain source serves {found}, not {wanted}")
            }
            Self::Lying(why) => write!(f, "the chain source answers inconsistently: {why}"),
            Self::Behind { blocks, headers } => {
                write!(
                    f,
                    "the chain source is still catching up: block {blocks} of {headers}"
                )
            }
            Self::Pruned => write!(
                f,
                "the chain source has pruned blocks that came since the node last ran; it needs one that has them"
            ),
            Self::Refused { code, message } => {
                write!(f, "the chain source refused ({code}): {message}")
            }
        }
    }
}

impl std::error::Error for ChainError {}

impl From<ChainError> for NodeError {
    fn from(error: ChainError) -> Self {
        let why = match &error {
            ChainError::Unreachable(_) => "unreachable",
            ChainError::Auth => "auth",
            ChainError::WrongNetwork { .. } => "wrong_network",
            ChainError::Lying(_) | ChainError::Refused { .. } => "lying",
            ChainError::Behind { .. } => "behind",
            ChainError::Pruned => "pruned",
        };
        Self::chain(why, error.to_string())
    }
}

/// What became of a transaction that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// It is in the mempool now, or was before.
    Accepted,
    /// It is in a block.
    Confirmed,
    /// An input is unknown, spent by a block, or spent by another transaction in the mempool.
    Conflict(String),
    /// The fee is too low for this mempool now.
    LowFee(String),
    /// Any other reason.
    Rejected(String),
}

/// What fees and broadcasts need.
pub trait ChainSource: Send + Sync {
    /// Satoshis per 1000 weight to be confirmed within `blocks`; nothing if it cannot say.
    fn estimate_fee(&self, blocks: u16) -> ChainFuture<'_, Option<u32>>;
    /// The lowest rate the mempool takes now, in satoshis per 1000 weight.
    fn minimum_fee(&self) -> ChainFuture<'_, u32>;
    /// Sends one transaction.
    fn send<'a>(&'a self, tx: &'a Transaction) -> ChainFuture<'a, SendOutcome>;
    /// Sends parents and their one child (last) together. The outcome is the child's.
    fn send_package<'a>(&'a self, txs: &'a [Transaction]) -> ChainFuture<'a, SendOutcome>;
    /// The transaction in the mempool that spends an output.
    fn unconfirmed_spender<'a>(
        &'a self,
        output: &'a OutPoint,
    ) -> ChainFuture<'a, Option<Transaction>>;
}
