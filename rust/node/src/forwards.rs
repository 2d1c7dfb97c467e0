//! Which forwards LDK has told of, by the HTLC that went out. LDK tells of one again when its payee reconnects and repeats the
//! preimage, and the payer's channel is closed by then: its event names no HTLC, what the payee said does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ldkjit_core::ids::ChannelId;
use lightning::events::Event;
use lightning::ln::channel_state::OutboundHTLCDetails;
use lightning::ln::msgs::UpdateFulfillHTLC;
use lightning::types::payment::PaymentHash;
use serde::{Deserialize, Serialize};

use crate::closings::Closings;
use crate::commit::read_kind;
use crate::convert;
use crate::error::NodeError;
use crate::journal::Journal;
use crate::sync::lock;

const KIND: &str = "forwards";

/// An HTLC whose preimage its payee has given. Until both commitment transactions are without it, the payee may repeat that.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Fulfilled {
    id: u64,
    msat: u64,
    /// LDK has told of it. Never so of a payment of this node's own.
    told: bool,
}

/// What payees have given preimages for, and what of it was told, by the channel it went out by.
///
/// Each is kept before LDK hears of it, and as told in the commit that books it: what LDK had still to tell when a node
/// crashed is told for the first time after its start.
pub struct Forwards {
    journal: Arc<Journal>,
    closings: Arc<Closings>,
    channels: Mutex<BTreeMap<ChannelId, Vec<Fulfilled>>>,
}

impl Forwards {
    /// As the store left them.
    ///
    /// # Errors
    /// `store_corrupt`.
    pub fn load(
        journal: Arc<Journal>,
        closings: Arc<Closings>,
        live: &[(String, String, Vec<u8>)],
    ) -> Result<Self, NodeError> {
        let channels = read_kind(live, KIND, "the forwards of channel")?;
        Ok(Self {
            journal,
            closings,
            channels: Mutex::new(channels),
        })
    }

    /// A payee gives a preimage for one of these HTLCs. To be called before LDK hears of it.
    pub fn fulfilled(&self, message: &UpdateFulfillHTLC, pending: &[OutboundHTLCDetails]) {
        let hash = PaymentHash::from(message.payment_preimage);
        let is_it =
            |h: &&OutboundHTLCDetails| h.htlc_id == Some(message.htlc_id) && h.payment_hash == hash;
        let Some(htlc) = pending.iter().find(is_it) else {
            return;
        };
        let channel = convert::channel(&message.channel_id);
        let mut channels = lock(&self.channels);
        let of = channels.entry(channel).or_default();
        if of.iter().any(|f| f.id == message.htlc_id) {
            return;
        }
        of.retain(|f| pending.iter().any(|h| h.htlc_id == Some(f.id)));
        of.push(Fulfilled {
            id: message.htlc_id,
            msat: htlc.amount_msat,
            told: false,
        });
        self.put(&channel, of);
    }

    /// Whether LDK has told of this forward before. If not, it has now.
    pub fn is_told_again(&self, event: &Event) -> bool {
        let Event::PaymentForwarded {
            prev_channel_id,
            next_channel_id: Some(to),
            next_user_channel_id,
            total_fee_earned_msat,
            outbound_amount_forwarded_msat,
            ..
        } = event
        else {
            return false;
        };
        // LDK does not know what came by a channel that is closed.
        let closed = total_fee_earned_msat.is_none();
        // One that was closed by agreement had nothing on it any more. Of that LDK also tells again at a start.
        let quiet = |from| self.closings.of_channel(from).is_some();
        if closed && prev_channel_id.as_ref().is_some_and(quiet) {
            return true;
        }
        let to = convert::channel(to);
        let mut channels = lock(&self.channels);
        let Some(of) = channels.get_mut(&to) else {
            return false;
        };
        let of_amount = |f: &Fulfilled| Some(f.msat) == *outbound_amount_forwarded_msat;
        match of.iter_mut().find(|f| of_amount(f) && !f.told) {
            Some(first) => {
                first.told = true;
                self.put(&to, of);
                false
            }
            // Without its channel's number it is from the chain, or of a start, not from a message.
            None => closed && next_user_channel_id.is_some() && of.iter().any(of_amount),
        }
    }

    /// Nobody repeats anything on a channel that is closed.
    pub fn on_closed(&self, channel: &ChannelId) {
        if lock(&self.channels).remove(channel).is_some() {
            self.journal.delete(KIND, channel.to_string());
        }
    }

    fn put(&self, channel: &ChannelId, of: &[Fulfilled]) {
        // Plain numbers: writing them has no error.
        let value = serde_json::to_vec(of).unwrap_or_default();
        self.journal.put(KIND, channel.to_string(), value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::commit::{Boot, Committer};
    use crate::log::Log;
    use crate::store::{MemoryStore, Store};
    use lightning::ln::types::ChannelId as LdkId;
    use lightning::types::payment::PaymentPreimage;

    const TO: LdkId = LdkId([7; 32]);

    fn start(store: Box<dyn Store>) -> (Committer, Arc<Journal>, Boot) {
        let (committer, journal, boot) = Committer::start(store, Log::silent()).unwrap();
        (committer, Arc::new(journal), boot)
    }

    fn load(journal: &Arc<Journal>, boot: &Boot) -> Forwards {
        let closings = Closings::load(journal.clone(), &boot.live, false).unwrap();
        Forwards::load(journal.clone(), Arc::new(closings), &boot.live).unwrap()
    }

    fn preimage(id: u64) -> PaymentPreimage {
        PaymentPreimage([u8::try_from(id).unwrap(); 32])
    }

    fn htlc(id: u64, amount_msat: u64) -> OutboundHTLCDetails {
        OutboundHTLCDetails {
            htlc_id: Some(id),
            amount_msat,
            cltv_expiry: 1_000,
            payment_hash: preimage(id).into(),
            state: None,
            skimmed_fee_msat: None,
            is_dust: false,
        }
    }

    fn fulfil(htlc_id: u64, payment_preimage: PaymentPreimage) -> UpdateFulfillHTLC {
        UpdateFulfillHTLC {
            channel_id: TO,
            htlc_id,
            payment_preimage,
            attribution_data: None,
        }
    }

    /// A forward of this amount; without a fee if the channel that it came by is closed.
    fn told(amount: u64, fee: Option<u64>, message: bool) -> Event {
        Event::PaymentForwarded {
            prev_channel_id: Some(LdkId([6; 32])),
            next_channel_id: Some(TO),
            prev_user_channel_id: None,
            next_user_channel_id: message.then_some(5),
            prev_node_id: None,
            next_node_id: None,
            total_fee_earned_msat: fee,
            skimmed_fee_msat: None,
            claim_from_onchain_tx: false,
            outbound_amount_forwarded_msat: Some(amount),
        }
    }

    #[test]
    fn each_htlc_is_told_of_once() {
        let (_committer, journal, boot) = start(Box::new(MemoryStore::new()));
        let forwards = load(&journal, &boot);
        let pending = [htlc(1, 500), htlc(2, 500), htlc(3, 600)];
        let (open, closed) = (told(500, Some(9), true), told(500, None, true));
        assert!(!forwards.is_told_again(&closed), "nothing is known of it");
        forwards.fulfilled(&fulfil(1, preimage(1)), &pending);
        assert!(!forwards.is_told_again(&open));
        forwards.fulfilled(&fulfil(1, preimage(1)), &pending);
        assert!(forwards.is_told_again(&closed), "repeated");
        assert!(forwards.is_told_again(&closed), "and once more");
        assert!(
            !forwards.is_told_again(&told(600, None, true)),
            "another amount"
        );
        assert!(
            !forwards.is_told_again(&told(500, None, false)),
            "from the chain"
        );
        assert!(
            !forwards.is_told_again(&open),
            "what brings a fee was not told"
        );
        forwards.fulfilled(&fulfil(2, preimage(3)), &pending);
        assert!(
            forwards.is_told_again(&closed),
            "that was no preimage of it"
        );
        forwards.fulfilled(&fulfil(2, preimage(2)), &pending);
        assert!(!forwards.is_told_again(&closed), "another of that amount");
        assert!(forwards.is_told_again(&closed));
        forwards.fulfilled(&fulfil(3, preimage(3)), &pending[2..]);
        assert!(!forwards.is_told_again(&closed), "those are long over");
        forwards.on_closed(&convert::channel(&TO));
        assert!(!forwards.is_told_again(&told(600, None, true)));
        assert!(!forwards.is_told_again(&told(600, None, true)));
    }

    #[tokio::test]
    async fn a_start_knows_what_was_told() {
        let store = MemoryStore::new();
        let (committer, journal, boot) = start(Box::new(store.clone()));
        let forwards = load(&journal, &boot);
        let pending = [htlc(1, 500), htlc(2, 600)];
        for id in [1, 2] {
            forwards.fulfilled(&fulfil(id, preimage(id)), &pending);
        }
        assert!(!forwards.is_told_again(&told(500, Some(9), true)));
        committer.shutdown().await.unwrap();
        let (_committer, journal, boot) = start(Box::new(store));
        let forwards = load(&journal, &boot);
        assert!(forwards.is_told_again(&told(500, None, true)));
        assert!(
            !forwards.is_told_again(&told(600, None, true)),
            "the crash came before"
        );
        assert!(forwards.is_told_again(&told(600, None, true)));
    }
}
