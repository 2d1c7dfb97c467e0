//! The service's coins: what it can sell channels from, locks, and the pool that is kept filled.

use std::time::Duration;

use ldkjit_core::amount::Msat;
use ldkjit_core::ids::OpenId;
use ldkjit_core::liquidity::Stock;
use ldkjit_core::order::{Input, OpenFailure};
use ldkjit_core::pool::Spent;

use super::Service;
use crate::alarms::Alarm;
use crate::log::now_ms;
use crate::node::Node;

const POOL: &str = "pool";
const SPENT: &str = "spent";
/// The weight of a funding transaction with two inputs and change.
const FUNDING_WEIGHT: u64 = 884;

impl Service {
    /// What there is to sell from, counted at most this long ago.
    pub(super) fn stock(&self, node: &Node, max_age: Duration) -> Stock {
        let capacity = node.capacity(max_age);
        let rate = node.parts.fees.fresh().map_or(0, |rates| rates.normal);
        let funding = FUNDING_WEIGHT
            .saturating_mul(u64::from(rate))
            .div_ceil(1_000);
        Stock {
            // Without an estimate of fees nothing can be opened.
            coins_sat: if rate == 0 { 0 } else { capacity.coins_sat },
            overhead_sat: node.reserve().per_channel_sat().saturating_add(funding),
            chain_fee_sat: funding,
            sizing: self.sizing(node),
            inbound: Msat(capacity.inbound_msat),
        }
    }

    /// Locks coins ahead of an open.
    pub(super) fn lock_coins(&self, node: &Node, open: OpenId, value_sat: u64) -> Option<Input> {
        let locked = self.choose_coins(node, open, value_sat);
        locked.err().map(|_| Input::NotLocked { open })
    }

    /// Coins for an open, those that are locked for it already first.
    pub(super) fn choose_coins(
        &self,
        node: &Node,
        open: OpenId,
        value_sat: u64,
    ) -> Result<(), OpenFailure> {
        let log = &node.parts.log;
        let rate = match node.parts.fees.fresh() {
            Ok(rates) => rates.normal,
            Err(e) => {
                log.error("lsp", format_args!("no channel opened: {e}"));
                return Err(OpenFailure::Other);
            }
        };
        node.set_reserve(1);
        let depth = self.config.lending.coin_confirmations;
        let wallet = &node.parts.wallet;
        let locked = wallet.select_and_lock(open.0, value_sat, rate, depth);
        node.forget_capacity();
        match locked {
            Ok(_) => {
                node.clear(Alarm::Coins);
                Ok(())
            }
            Err(e) => {
                node.raise(Alarm::Coins, format!("no coins for a channel: {e}"));
                Err(OpenFailure::NoCoins)
            }
        }
    }

    /// Splits coins if the pool wants it and fees allow it: after each block.
    pub async fn fill_pool(&self, node: &Node) {
        let pool = self.config.pool;
        let Ok(rates) = node.parts.fees.fresh() else {
            return;
        };
        if pool.coins == 0 {
            return;
        }
        let journal = &node.parts.journal;
        let Ok(stored) = journal.read(POOL, SPENT).await else {
            return;
        };
        let spent: Spent = stored
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let spent = spent.at(now_ms());
        node.set_reserve(0);
        let made = {
            // Transaction and expense are one commit.
            let _gate = journal.gate().await;
            let depth = self.config.lending.coin_confirmations;
            let wallet = &node.parts.wallet;
            let made = wallet.fill_pool(&pool, rates.background, spent, depth);
            if let Ok(Some((_, fee_sat))) = &made {
                let spent = spent.plus(*fee_sat, now_ms());
                if let Ok(bytes) = serde_json::to_vec(&spent) {
                    journal.put(POOL, SPENT, bytes);
                }
            }
            made
        };
        let log = &node.parts.log;
        match made {
            Ok(None) => {}
            Ok(Some((tx, fee_sat))) => {
                log.info(
                    "lsp",
                    format_args!(
                        "coin pool: {} outputs in {}, fee {fee_sat} sat",
                        tx.output.len(),
                        tx.compute_txid()
                    ),
                );
                if journal.durable().await.is_ok() {
                    let _ = node.parts.broadcaster.broadcast(vec![tx]).await;
                }
            }
            Err(e) => log.error("lsp", format_args!("coin pool not filled: {e}")),
        }
    }
}
