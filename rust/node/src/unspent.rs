//! Holds what wallet and LDK take for unspent in blocks against bitcoind: the ledger is checked against what they believe.

use std::time::Duration;

use bitcoin::{Amount, OutPoint};
use ldkjit_core::audit::Verdict;
use serde::Serialize;

use crate::error::NodeError;
use crate::node::Node;

/// The node is in step with bitcoind within a moment; a chain that moves all the time is not waited for.
const TRIES: u32 = 50;
/// So often in a row, and what is absent is.
const SURE: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// The ledger against wallet and LDK, and these against the chain.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The ledger's, which is not ok either if something is absent.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What bitcoind does not have; `None` if it could not be asked.
    pub absent: Option<Vec<OutPoint>>,
}

/// What the ledger's check found, and what bitcoind says to it.
pub(crate) async fn checked(node: &Node, mut verdict: Verdict) -> Checked {
    let absent = match absent(node).await {
        Ok(absent) => Some(absent),
        Err(e) => {
            let log = &node.parts.log;
            log.warn("ledger", format_args!("not held against the chain: {e}"));
            None
        }
    };
    verdict.ok &= absent.as_ref().is_none_or(Vec::is_empty);
    Checked { verdict, absent }
}

/// Coins of the wallet and fundings of open channels, confirmed as far as this node knows, that bitcoind does not have
/// unspent in its blocks, or not with this value.
///
/// # Errors
/// `chain` when bitcoind does not answer or its tip does not stay for long enough.
async fn absent(node: &Node) -> Result<Vec<OutPoint>, NodeError> {
    let mut believed = believed(node);
    let mut looks = 0_u32;
    for _ in 0..TRIES {
        let before = *node.tip.borrow();
        let mut absent = Vec::new();
        for (outpoint, value) in believed {
            let found = node.chain.tx_out(&outpoint, false).await?;
            if found.is_none_or(|found| found.output.value != value) {
                absent.push(outpoint);
            }
        }
        // Both of one tip, before and after.
        let of_one_tip = node.chain.best_block().await?.block_hash == before.hash
            && node.tip.borrow().hash == before.hash;
        looks = if of_one_tip {
            looks.saturating_add(1)
        } else {
            0
        };
        if of_one_tip && (absent.is_empty() || looks >= SURE) {
            return Ok(absent);
        }
        tokio::time::sleep(PAUSE).await;
        // What a block has just spent is believed in until its events are handled.
        believed = self::believed(node);
        if of_one_tip {
            believed.retain(|(outpoint, _)| absent.contains(outpoint));
        }
    }
    Err(NodeError::new("chain", "the chain does not stand still"))
}

fn believed(node: &Node) -> Vec<(OutPoint, Amount)> {
    let mut believed = node.parts.wallet.in_blocks();
    for channel in node.cm.list_channels() {
        let is_in_a_block = channel.confirmations.is_some_and(|depth| depth > 0);
        if let Some(funding) = channel.funding_txo.filter(|_| is_in_a_block) {
            let value = Amount::from_sat(channel.channel_value_satoshis);
            believed.push((funding.into_bitcoin_outpoint(), value));
        }
    }
    believed
}
