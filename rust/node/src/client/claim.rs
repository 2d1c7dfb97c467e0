//! The claim: what arrived is held against the order, the funding transaction against the channel, and only then the preimage goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::PublicKey;
use ldkjit_core::amount::Msat;
use ldkjit_core::funding::{judge, Seen, Verdict, Wait};
use ldkjit_core::ids::{ChannelId, PaymentHash};
use ldkjit_core::lsps2::{claim_check, may_be_paid_again, Arrived, Bought};
use ldkjit_core::menu::TrustModel;
use ldkjit_core::reason::Reason;
use lightning::ln::channel_state::ChannelDetails;
use lightning::types::payment::PaymentPreimage;

use super::{Client, ClientOrder, Status};
use crate::convert;
use crate::crash;
use crate::events::NodeEvent;
use crate::node::Node;

const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Client {
    /// A payment to us could be claimed.
    #[allow(clippy::too_many_arguments)]
    pub fn on_claimable(
        &self,
        node: &Arc<Node>,
        hash: PaymentHash,
        received_msat: u64,
        skimmed_msat: u64,
        channels: Vec<ChannelId>,
        deadline: Option<u32>,
        preimage: Option<[u8; 32]>,
    ) {
        #[cfg(feature = "faults")]
        if node.config.fault == Some(crate::lsp::Fault::ClientRefuses)
            && self.order(&hash).is_some()
            && node
                .timeline
                .of(&hash)
                .iter()
                .all(|s| s.stage != "claimable")
        {
            node.timeline.stamp(hash, "claimable");
            return fail(node, hash);
        }
        node.timeline.stamp(hash, "claimable");
        let order = self.order(&hash);
        let arrived = Arrived {
            received: Msat(received_msat),
            skimmed: Msat(skimmed_msat),
            by_lsp: order
                .as_ref()
                .and_then(|o| convert::public_key(&o.lsp))
                .is_some_and(|lsp| all_with(node, &lsp, &channels)),
        };
        let bought = order.as_ref().map(|o| Bought {
            params: o.params.clone(),
            size: o.size,
            max_fee: o.max_fee,
        });
        let checked = claim_check(bought.as_ref(), &arrived);
        let Some(preimage) = preimage else {
            node.parts.log.warn(
                "client",
                format_args!("payment {hash}: no preimage of ours, failed"),
            );
            fail(node, hash);
            return;
        };
        match (checked, order) {
            (Err(reason), order) => self.refuse(node, hash, order, reason),
            (Ok(_), None) => node.cm.claim_funds(PaymentPreimage(preimage)),
            (Ok(_), Some(mut order)) => {
                order.status = Status::Claiming {
                    received: arrived.received,
                    skimmed: arrived.skimmed,
                    deadline,
                    channels,
                    preimage: preimage.to_lower_hex_string(),
                };
                let trusting = order.trust == TrustModel::ClientTrustsLsp;
                self.keep(node, order.clone(), false);
                if trusting {
                    self.release(node, order);
                } else {
                    spawn(node, hash);
                }
            }
        }
    }

    /// Gives up the preimage. The caller holds the gate, so that the order and LDK's claim are one commit.
    fn release(&self, node: &Arc<Node>, mut order: ClientOrder) {
        let Status::Claiming {
            preimage, channels, ..
        } = &order.status
        else {
            return;
        };
        for details in node.cm.list_channels() {
            let channel = convert::channel(&details.channel_id);
            let unconfirmed = details.confirmations.unwrap_or(0) == 0 && !details.is_outbound;
            if let Some(txo) = details.funding_txo.filter(|_| unconfirmed) {
                if channels.contains(&channel) {
                    self.watches.add(node, channel, txo.into_bitcoin_outpoint());
                }
            }
        }
        self.promises.add(node, &order, channels);
        let Ok(preimage) = <[u8; 32]>::from_hex(preimage) else {
            return;
        };
        #[cfg(feature = "faults")]
        if node.config.fault == Some(crate::lsp::Fault::HangsUpAtClaim) {
            if let Some(lsp) = convert::public_key(&order.lsp) {
                node.hang_up(&lsp);
            }
        }
        order.status = Status::Claimed;
        self.keep(node, order, true);
        crash::point("claim:before");
        node.cm.claim_funds(PaymentPreimage(preimage));
        crash::point("claim:after");
        node.wake.notify_one();
        node.spawn(super::watch::look(Arc::clone(node)));
    }

    fn refuse(&self, node: &Node, hash: PaymentHash, order: Option<ClientOrder>, reason: Reason) {
        node.parts.log.warn(
            "client",
            format_args!("payment {hash} failed back: {}", reason.message()),
        );
        node.events.emit(&NodeEvent::JitRefused {
            payment_hash: hash,
            reason,
        });
        if let Some(mut order) = order.filter(|_| !may_be_paid_again(reason)) {
            order.status = Status::Refused { reason };
            self.keep(node, order, true);
        }
        fail(node, hash);
    }
}

fn fail(node: &Node, hash: PaymentHash) {
    let hash = lightning::types::payment::PaymentHash(hash.0);
    node.cm.fail_htlc_backwards(&hash);
    node.wake.notify_one();
}

fn all_with(node: &Node, lsp: &PublicKey, channels: &[ChannelId]) -> bool {
    let theirs: Vec<ChannelId> = node
        .cm
        .list_channels_with_counterparty(lsp)
        .iter()
        .map(|c| convert::channel(&c.channel_id))
        .collect();
    !channels.is_empty() && channels.iter().all(|c| theirs.contains(c))
}

/// Whether LDK still has every channel the payment came over: one that was closed first, by force and perhaps before
/// its funding existed, pays nobody for a preimage.
fn all_open(node: &Node, channels: &[ChannelId]) -> bool {
    let open = node.cm.list_channels();
    channels
        .iter()
        .all(|id| open.iter().any(|c| c.channel_id.0 == id.0))
}

/// Checks the funding transaction in a task of its own, then claims or fails back.
pub(super) fn spawn(node: &Arc<Node>, hash: PaymentHash) {
    let task_node = Arc::clone(node);
    node.spawn(async move { verify(&task_node, hash).await });
}

async fn verify(node: &Arc<Node>, hash: PaymentHash) {
    let started = Instant::now();
    let mut tip = node.tip.subscribe();
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(order) = node.client.order(&hash) else {
            return;
        };
        let Status::Claiming {
            channels, deadline, ..
        } = &order.status
        else {
            return;
        };
        let (confirmations, timeout_ms) = node.client.lsp(&order.lsp).map_or(
            // The LSP left the configuration while its payment was here: only what is in the chain counts.
            (1, 0),
            |lsp| (lsp.confirmations, lsp.verify_timeout_ms),
        );
        let wait = Wait {
            confirmations,
            elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            timeout_ms,
            height: node.height(),
            deadline: *deadline,
        };
        let refused = match judge(&look(node, &order, channels).await, &wait) {
            Verdict::Wait => None,
            Verdict::Claim => Some(None),
            Verdict::Refuse(reason) => Some(Some(reason)),
        };
        if let Some(refused) = refused {
            if refused.is_none() {
                node.timeline.stamp(hash, "funding_seen");
            }
            let _gate = node.parts.journal.gate().await;
            match refused {
                // It may have closed while its funding was looked at.
                None if !all_open(node, channels) => {
                    let why = Reason::ChannelClosed;
                    node.client.refuse(node, hash, Some(order), why);
                }
                None => node.client.release(node, order),
                Some(reason) => node.client.refuse(node, hash, Some(order), reason),
            }
            return;
        }
        tokio::select! {
            _ = tip.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// What can be seen of the funding output of every channel that the payment came over (J-04).
async fn look(node: &Node, order: &ClientOrder, channels: &[ChannelId]) -> Vec<Seen> {
    let Some(lsp) = convert::public_key(&order.lsp) else {
        return vec![Seen::Unknown];
    };
    let known = node.cm.list_channels_with_counterparty(&lsp);
    let mut outputs = Vec::new();
    for channel in channels {
        let details = known.iter().find(|c| c.channel_id.0 == channel.0);
        outputs.push(match details {
            None => Seen::Closed,
            // We funded it ourselves.
            Some(details) if details.is_outbound => Seen::Output {
                script_fits: true,
                value_fits: true,
                confirmations: u32::MAX,
            },
            Some(details) => look_at(node, details).await,
        });
    }
    outputs
}

async fn look_at(node: &Node, details: &ChannelDetails) -> Seen {
    let (Some(txo), Some(expected)) = (details.funding_txo, details.get_funding_output()) else {
        return Seen::Unknown;
    };
    match node.chain.tx_out(&txo.into_bitcoin_outpoint(), true).await {
        Ok(Some(found)) => Seen::Output {
            script_fits: found.output.script_pubkey == expected.script_pubkey,
            value_fits: found.output.value == expected.value,
            confirmations: found.confirmations,
        },
        Ok(None) => Seen::NotYet,
        Err(e) => {
            let log = &node.parts.log;
            log.warn("client", format_args!("funding {}: {e}", txo.txid));
            Seen::NotYet
        }
    }
}
