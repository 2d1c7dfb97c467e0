//! What makes a transaction valid in a block: Bitcoin's consensus rules of today, as regtest has them from its first block.
//!
//! Scripts are verified by Bitcoin Core's own library. Left out: the limit of signature operations in a block, and the
//! policy flags of scripts (low S, minimal pushes), which a mempool of bitcoind checks and its library does not offer.

use std::collections::HashSet;

use bitcoin::absolute::LOCK_TIME_THRESHOLD;
use bitcoin::consensus::encode::serialize;
use bitcoin::{OutPoint, Sequence, Transaction, TxOut, Weight};
use bitcoinconsensus::Utxo;

/// An unspent output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// What it holds.
    pub output: TxOut,
    /// Of the block that has it; of the next one while none has.
    pub height: u32,
    /// Whether a miner made it.
    pub coinbase: bool,
}

/// Why not, in bitcoind's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    /// The words.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// All that will ever be, satoshi.
const MAX_MONEY: u64 = 21_000_000 * 100_000_000;
/// Blocks after which a coinbase can be spent.
pub const MATURITY: u32 = 100;
/// Units of a relative lock by time, as a power of two of seconds.
const LOCK_GRANULARITY: u32 = 9;

fn refuse<T>(why: &str) -> Result<T, Refusal> {
    Err(Refusal::new(why))
}

/// What can be said of a transaction without knowing any other.
///
/// # Errors
/// bitcoind's reason.
pub fn check_alone(tx: &Transaction) -> Result<(), Refusal> {
    if tx.input.is_empty() {
        return refuse("bad-txns-vin-empty");
    }
    if tx.output.is_empty() {
        return refuse("bad-txns-vout-empty");
    }
    if tx.base_size().saturating_mul(4) > Weight::MAX_BLOCK.to_wu() as usize {
        return refuse("bad-txns-oversize");
    }
    let mut total = 0u64;
    for output in &tx.output {
        let value = output.value.to_sat();
        if value > MAX_MONEY {
            return refuse("bad-txns-vout-toolarge");
        }
        total = total.saturating_add(value);
        if total > MAX_MONEY {
            return refuse("bad-txns-txouttotal-toolarge");
        }
    }
    let mut inputs = HashSet::new();
    if !tx.input.iter().all(|i| inputs.insert(i.previous_output)) {
        return refuse("bad-txns-inputs-duplicate");
    }
    if tx.is_coinbase() {
        let length = tx.input.first().map_or(0, |input| input.script_sig.len());
        if !(2..=100).contains(&length) {
            return refuse("bad-cb-length");
        }
    } else if tx
        .input
        .iter()
        .any(|i| i.previous_output == OutPoint::null())
    {
        return refuse("bad-txns-prevout-null");
    }
    Ok(())
}

/// Whether a transaction may be in a block of this height, whose predecessors have this median time.
#[must_use]
pub fn is_final(tx: &Transaction, height: u32, median_time: u32) -> bool {
    let lock = tx.lock_time.to_consensus_u32();
    let now = if lock < LOCK_TIME_THRESHOLD {
        height
    } else {
        median_time
    };
    lock == 0 || lock < now || tx.input.iter().all(|i| i.sequence == Sequence::MAX)
}

/// Whether the relative locks of a transaction are over in a block of this height (BIP 68).
///
/// # Arguments
/// `coins`: of each input; `median_time_at`: that of the eleven blocks up to a height.
pub fn locks_are_over(
    tx: &Transaction,
    coins: &[Coin],
    height: u32,
    median_time_at: impl Fn(u32) -> u32,
) -> bool {
    if tx.version.0 < 2 {
        return true;
    }
    let before = height.saturating_sub(1);
    tx.input.iter().zip(coins).all(|(input, coin)| {
        let Some(lock) = input.sequence.to_relative_lock_time() else {
            return true;
        };
        match lock {
            bitcoin::relative::LockTime::Blocks(blocks) => {
                coin.height.saturating_add(u32::from(blocks.value())) <= height
            }
            bitcoin::relative::LockTime::Time(time) => {
                let since = median_time_at(coin.height.saturating_sub(1));
                let least = since.saturating_add(u32::from(time.value()) << LOCK_GRANULARITY);
                least <= median_time_at(before)
            }
        }
    })
}

/// The fee of a transaction in a block of this height.
///
/// # Errors
/// It spends an unripe coinbase, or more than there is.
pub fn fee(tx: &Transaction, coins: &[Coin], height: u32) -> Result<u64, Refusal> {
    let mut spent = 0u64;
    for coin in coins {
        let depth = height.saturating_sub(coin.height);
        if coin.coinbase && depth < MATURITY {
            return Err(Refusal::new(format!(
                "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth {depth}"
            )));
        }
        spent = spent.saturating_add(coin.output.value.to_sat());
    }
    let paid = tx.output.iter().map(|o| o.value.to_sat());
    let paid = paid.fold(0u64, u64::saturating_add);
    spent
        .checked_sub(paid)
        .ok_or_else(|| Refusal::new("bad-txns-in-belowout"))
}

/// Verifies the script of each input, for a `mempool` or a `block`.
///
/// # Errors
/// One does not hold.
pub fn verify_scripts(tx: &Transaction, coins: &[Coin], whose: &str) -> Result<(), Refusal> {
    let raw = serialize(tx);
    let spent: Vec<Utxo> = coins
        .iter()
        .map(|coin| Utxo {
            script_pubkey: coin.output.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: u32::try_from(coin.output.script_pubkey.len()).unwrap_or(u32::MAX),
            value: i64::try_from(coin.output.value.to_sat()).unwrap_or(i64::MAX),
        })
        .collect();
    for (index, coin) in coins.iter().enumerate() {
        let verified = bitcoinconsensus::verify(
            coin.output.script_pubkey.as_bytes(),
            coin.output.value.to_sat(),
            &raw,
            Some(&spent),
            index,
        );
        if verified.is_err() {
            return Err(Refusal::new(format!(
                "{whose}-script-verify-flag-failed (input {index} of {})",
                tx.compute_txid()
            )));
        }
    }
    Ok(())
}
