//! LDK's channel manager as peers meet it, without LDK's limit of 250 inbound peers that have no channel: `door.rs` has ours.

use std::any::Any;
use std::collections::HashSet;
use std::ops::Deref;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, RwLockReadGuard, Weak};
use std::time::{Duration, Instant};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    self, BaseMessageHandler, ChannelMessageHandler, Init, MessageSendEvent,
};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};
use tokio::sync::Notify;

use crate::broadcast::Broadcaster;
use crate::forwards::Forwards;
use crate::journal::Journal;
use crate::ldk::{ChainMonitor, ChannelManager};
use crate::recovery::Told;
use crate::sync::{lock, wait_for};

/// How long the reason for a panic may take to be known.
const REASON: Duration = Duration::from_secs(1);
/// What LDK says when a peer proves that our state is old.
const FALLEN_BEHIND: &str = "We have fallen behind";

/// Whether LDK has panicked, as it does when a peer proves that our state is old: nothing of it may be used any more.
#[derive(Default)]
pub struct Fallen {
    /// Set once it has; with the peer that has proven it, if that is why.
    state: Mutex<Option<Option<PublicKey>>>,
    known: Condvar,
}

impl Fallen {
    /// Whether nothing of LDK may be used.
    pub fn has(&self) -> bool {
        lock(&self.state).is_some()
    }

    fn set(&self, peer: PublicKey) {
        lock(&self.state).get_or_insert(Some(peer));
        self.known.notify_all();
    }

    /// LDK has panicked, whatever the reason.
    pub fn close(&self) {
        lock(&self.state).get_or_insert(None);
        self.known.notify_all();
    }

    /// The peer that has proven it, where LDK has panicked and the reason may be known at any moment.
    pub fn reason(&self) -> Option<PublicKey> {
        let until = Instant::now().checked_add(REASON);
        let mut state = lock(&self.state);
        while state.is_none() {
            let left = until.and_then(|until| until.checked_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                break;
            };
            state = wait_for(&self.known, state, left);
        }
        state.flatten()
    }
}

/// The words of a panic.
fn says(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
}

/// Passes everything on. Only who dialled whom is kept back, which LDK uses for that limit and for nothing else.
///
/// A node that recovers is another matter: its manager meets nobody, and peers that come with a channel are told to
/// close it.
pub struct Inbound {
    manager: Arc<ChannelManager>,
    way: Way,
    /// What goes out besides the manager's messages.
    own: Mutex<Vec<MessageSendEvent>>,
    /// Our signatures for funding and closing transactions, until that is durable which the other side may rely on then.
    signed: Mutex<Vec<Signed>>,
    /// Channels that a peer wants to take up again, and of whose closing transaction the mempool is being asked.
    asking: Arc<Mutex<HashSet<ChannelId>>>,
    /// Held while LDK ends a channel by agreement: its message is not taken before its transaction is queued.
    ending: Mutex<()>,
    /// Only in builds for tests: hangs up instead of signing, once.
    #[cfg(feature = "faults")]
    hangs_up: std::sync::atomic::AtomicBool,
    /// Only in builds for tests: who is not heard any more, and whether anybody has still to be chosen.
    #[cfg(feature = "faults")]
    deaf: Mutex<(bool, Option<PublicKey>)>,
    /// Only in builds for tests: what waits until channels may be taken up again.
    #[cfg(feature = "faults")]
    late: Mutex<Late>,
}

/// Both sides' `channel_reestablish` until then.
#[cfg(feature = "faults")]
#[derive(Default)]
struct Late {
    until: Option<Instant>,
    said: Vec<MessageSendEvent>,
    heard: Vec<(PublicKey, msgs::ChannelReestablish)>,
}

#[cfg(feature = "faults")]
impl Late {
    fn waits(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// The manager, no commit in between: LDK 0.2.7 panics at a start, by the order of its maps, over a manager that knows of an
/// update to one monitor that is not in the same commit, while another channel waits to let that one go on.
struct Entered<'a> {
    manager: &'a ChannelManager,
    _change: RwLockReadGuard<'a, ()>,
}

impl Deref for Entered<'_> {
    type Target = ChannelManager;

    fn deref(&self) -> &ChannelManager {
        self.manager
    }
}

/// A signature that waits.
struct Signed {
    event: MessageSendEvent,
    peer: PublicKey,
    until: Until,
}

/// What it waits for.
enum Until {
    /// The channel's first monitor.
    Monitor(ChannelId),
    /// What was queued when LDK signed: the end of the channel, if that is what it signed, is in it.
    Commit(u64),
}

/// LDK panics, its locks held, when a peer proves that our state is old: whatever it would publish is revoked. The
/// committer finds it so, and ends the node.
fn take_up(
    manager: &ChannelManager,
    fallen: &Fallen,
    journal: &Journal,
    peer: PublicKey,
    message: &msgs::ChannelReestablish,
) {
    if fallen.has() {
        return;
    }
    let _change = journal.change();
    let handle = AssertUnwindSafe(|| {
        ChannelMessageHandler::handle_channel_reestablish(manager, peer, message);
    });
    if let Err(panic) = catch_unwind(handle) {
        match says(&*panic) {
            // Only this is a proof; it cannot be forged, as the peer must know our secret of a later state.
            Some(text) if text.starts_with(FALLEN_BEHIND) => fallen.set(peer),
            _ => fallen.close(),
        }
        journal.kick();
    }
}

enum Way {
    Open {
        monitors: Arc<ChainMonitor>,
        fallen: Arc<Fallen>,
        journal: Arc<Journal>,
        broadcaster: Arc<Broadcaster>,
        forwards: Arc<Forwards>,
        /// Has whoever asks for messages ask again.
        wake: Arc<Notify>,
    },
    Recovering {
        told: Told,
    },
}

impl Inbound {
    /// For a node that works.
    pub fn new(
        manager: Arc<ChannelManager>,
        monitors: Arc<ChainMonitor>,
        fallen: Arc<Fallen>,
        journal: Arc<Journal>,
        broadcaster: Arc<Broadcaster>,
        forwards: Arc<Forwards>,
        wake: Arc<Notify>,
    ) -> Self {
        let way = Way::Open {
            monitors,
            fallen,
            journal,
            broadcaster,
            forwards,
            wake,
        };
        Self::with(manager, way)
    }

    /// For a node that recovers.
    pub fn recovering(manager: Arc<ChannelManager>, told: Told) -> Self {
        Self::with(manager, Way::Recovering { told })
    }

    fn with(manager: Arc<ChannelManager>, way: Way) -> Self {
        Self {
            manager,
            way,
            own: Mutex::default(),
            signed: Mutex::default(),
            asking: Arc::default(),
            ending: Mutex::default(),
            #[cfg(feature = "faults")]
            hangs_up: false.into(),
            #[cfg(feature = "faults")]
            deaf: Mutex::default(),
            #[cfg(feature = "faults")]
            late: Mutex::default(),
        }
    }

    /// Only in builds for tests: with this fault, if it is one of this place.
    #[cfg(feature = "faults")]
    pub fn with_fault(self, fault: Option<crate::lsp::Fault>) -> Self {
        use crate::lsp::Fault;
        match fault {
            Some(Fault::HangsUpAtFunding) => Self {
                hangs_up: true.into(),
                ..self
            },
            Some(Fault::DeafAfterPreimage) => Self {
                deaf: Mutex::new((true, None)),
                ..self
            },
            Some(Fault::TakesUpLate(seconds)) => {
                lock(&self.late).until = Instant::now().checked_add(Duration::from_secs(seconds));
                self
            }
            _ => self,
        }
    }

    /// Only in builds for tests: what goes out of this, and first what has waited long enough.
    #[cfg(feature = "faults")]
    fn delayed(&self, new: Vec<MessageSendEvent>) -> Vec<MessageSendEvent> {
        let mut late = lock(&self.late);
        if late.waits() {
            let is_late = |e: &_| matches!(e, MessageSendEvent::SendChannelReestablish { .. });
            let (wait, going): (Vec<_>, Vec<_>) = new.into_iter().partition(is_late);
            late.said.extend(wait);
            return going;
        }
        let Late { said, heard, .. } = std::mem::take(&mut *late);
        drop(late);
        for (peer, message) in heard {
            self.handle_channel_reestablish(peer, &message);
        }
        said.into_iter().chain(new).collect()
    }

    /// The manager, unless it may meet nobody.
    fn open(&self) -> Option<Entered<'_>> {
        match &self.way {
            Way::Open {
                fallen, journal, ..
            } if !fallen.has() => Some(Entered {
                manager: &self.manager,
                _change: journal.change(),
            }),
            _ => None,
        }
    }

    /// LDK signs for a funding transaction before it has the channel in its store, and for a closing transaction before it
    /// has there that the channel is over: who lost power then would not know the channel that the other side has just
    /// paid for, or take up one that the other side has closed, and force the close. It waits for that, and all that
    /// follows on it with it, since LDK itself says no more before the channel is durable, or after its end.
    fn once_durable(
        &self,
        monitors: &ChainMonitor,
        journal: &Journal,
        wake: &Arc<Notify>,
        new: Vec<MessageSendEvent>,
    ) -> Vec<MessageSendEvent> {
        let signature = |event: &MessageSendEvent| match event {
            MessageSendEvent::SendFundingSigned { node_id, msg } => {
                Some((*node_id, Until::Monitor(msg.channel_id)))
            }
            MessageSendEvent::SendClosingSigned { node_id, .. } => {
                Some((*node_id, Until::Commit(journal.place())))
            }
            _ => None,
        };
        let mut signed = lock(&self.signed);
        if signed.is_empty() && !new.iter().any(|event| signature(event).is_some()) {
            return new;
        }
        let mut pending = monitors.list_pending_monitor_updates();
        pending.retain(|_, updates| !updates.is_empty());
        let waits = |until: &Until| match until {
            Until::Monitor(channel) => pending.contains_key(channel),
            Until::Commit(place) => !journal.has(*place),
        };
        let (wait, ready): (Vec<_>, Vec<_>) =
            signed.drain(..).partition(|signed| waits(&signed.until));
        *signed = wait;
        let mut going: Vec<_> = ready.into_iter().map(|signed| signed.event).collect();
        let mut closes = false;
        for event in new {
            match signature(&event) {
                Some((peer, until)) if waits(&until) => {
                    closes |= matches!(until, Until::Commit(_));
                    signed.push(Signed { event, peer, until });
                }
                _ => going.push(event),
            }
        }
        drop(signed);
        // Without a runtime the node has ended.
        if let (true, Ok(runtime)) = (closes, tokio::runtime::Handle::try_current()) {
            let (durable, wake) = (journal.durable(), wake.clone());
            runtime.spawn(async move {
                let _ = durable.await;
                wake.notify_one();
            });
        }
        going
    }

    /// Asks for a channel to be closed, as every implementation understands it: by commitment numbers that say that all
    /// is lost (LND closes on nothing else), and by an error.
    fn ask_to_close(&self, peer: PublicKey, channel_id: ChannelId) -> [MessageSendEvent; 2] {
        let lost = msgs::ChannelReestablish {
            channel_id,
            next_local_commitment_number: 0,
            next_remote_commitment_number: 0,
            your_last_per_commitment_secret: [1; 32],
            my_current_per_commitment_point: self.manager.get_our_node_id(),
            next_funding: None,
            my_current_funding_locked: None,
        };
        let error = msgs::ErrorMessage {
            channel_id,
            data: "the state of this channel is lost: please close it".into(),
        };
        [
            MessageSendEvent::SendChannelReestablish {
                node_id: peer,
                msg: lost,
            },
            MessageSendEvent::HandleError {
                node_id: peer,
                action: msgs::ErrorAction::SendErrorMessage { msg: error },
            },
        ]
    }
}

impl BaseMessageHandler for Inbound {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let mut events = std::mem::take(&mut *lock(&self.own));
        // LDK may find that it has the other side's signature already.
        let ending = lock(&self.ending);
        if let (
            Some(manager),
            Way::Open {
                monitors,
                journal,
                wake,
                ..
            },
        ) = (self.open(), &self.way)
        {
            let new = manager.get_and_clear_pending_msg_events();
            drop((manager, ending));
            events.append(&mut self.once_durable(monitors, journal, wake, new));
        }
        #[cfg(feature = "faults")]
        let events = self.delayed(events);
        events
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        if let Some(manager) = self.open() {
            manager.peer_disconnected(peer);
        }
        #[cfg(feature = "faults")]
        lock(&self.deaf).1.take_if(|deaf| *deaf == peer);
        // On another connection it would be about a channel that the other side has given up, or closes anew.
        lock(&self.signed).retain(|signed| signed.peer != peer);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.manager.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.manager.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, init: &Init, _inbound: bool) -> Result<(), ()> {
        match self.open() {
            Some(manager) => manager.peer_connected(peer, init, false),
            None => match self.way {
                Way::Open { .. } => Err(()),
                Way::Recovering { .. } => Ok(()),
            },
        }
    }
}

macro_rules! pass_on {
    ($($name:ident: $message:ty;)*) => {
        $(fn $name(&self, peer: PublicKey, message: $message) {
            #[cfg(feature = "faults")]
            if lock(&self.deaf).1 == Some(peer) {
                return;
            }
            if let Some(manager) = self.open() {
                ChannelMessageHandler::$name(&*manager, peer, message);
            }
        })*
    };
}

impl ChannelMessageHandler for Inbound {
    pass_on! {
        handle_open_channel: &msgs::OpenChannel;
        handle_open_channel_v2: &msgs::OpenChannelV2;
        handle_accept_channel: &msgs::AcceptChannel;
        handle_accept_channel_v2: &msgs::AcceptChannelV2;
        handle_funding_signed: &msgs::FundingSigned;
        handle_channel_ready: &msgs::ChannelReady;
        handle_peer_storage: msgs::PeerStorage;
        handle_peer_storage_retrieval: msgs::PeerStorageRetrieval;
        handle_shutdown: &msgs::Shutdown;
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
        handle_update_fail_htlc: &msgs::UpdateFailHTLC;
        handle_update_fail_malformed_htlc: &msgs::UpdateFailMalformedHTLC;
        handle_commitment_signed: &msgs::CommitmentSigned;
        handle_revoke_and_ack: &msgs::RevokeAndACK;
        handle_update_fee: &msgs::UpdateFee;
        handle_announcement_signatures: &msgs::AnnouncementSignatures;
        handle_channel_update: &msgs::ChannelUpdate;
        handle_error: &msgs::ErrorMessage;
    }

    fn handle_update_fulfill_htlc(&self, peer: PublicKey, message: msgs::UpdateFulfillHTLC) {
        if let (Some(manager), Way::Open { forwards, .. }) = (self.open(), &self.way) {
            let channels = manager.list_channels_with_counterparty(&peer);
            let channel = channels.iter().find(|c| c.channel_id == message.channel_id);
            if let Some(channel) = channel {
                forwards.fulfilled(&message, &channel.pending_outbound_htlcs);
            }
            manager.handle_update_fulfill_htlc(peer, message);
        }
        #[cfg(feature = "faults")]
        {
            let mut deaf = lock(&self.deaf);
            if std::mem::take(&mut deaf.0) {
                deaf.1 = Some(peer);
            }
        }
    }

    fn handle_funding_created(&self, peer: PublicKey, message: &msgs::FundingCreated) {
        #[cfg(feature = "faults")]
        if self
            .hangs_up
            .swap(false, std::sync::atomic::Ordering::Relaxed)
        {
            lock(&self.own).push(MessageSendEvent::HandleError {
                node_id: peer,
                action: msgs::ErrorAction::DisconnectPeer { msg: None },
            });
            return;
        }
        if let Some(manager) = self.open() {
            manager.handle_funding_created(peer, message);
        }
    }

    fn handle_closing_signed(&self, peer: PublicKey, message: &msgs::ClosingSigned) {
        let _ending = lock(&self.ending);
        if let Some(manager) = self.open() {
            manager.handle_closing_signed(peer, message);
        }
    }

    fn handle_commitment_signed_batch(
        &self,
        peer: PublicKey,
        channel_id: ChannelId,
        batch: Vec<msgs::CommitmentSigned>,
    ) {
        if let Some(manager) = self.open() {
            manager.handle_commitment_signed_batch(peer, channel_id, batch);
        }
    }

    fn handle_channel_reestablish(&self, peer: PublicKey, message: &msgs::ChannelReestablish) {
        #[cfg(feature = "faults")]
        {
            let mut late = lock(&self.late);
            if late.waits() {
                late.heard.push((peer, message.clone()));
                return;
            }
        }
        match &self.way {
            Way::Open {
                fallen,
                journal,
                broadcaster,
                wake,
                ..
            } => {
                let channel = message.channel_id;
                let mut asking = lock(&self.asking);
                if asking.contains(&channel) {
                    return;
                }
                // It has lost that it closed this channel with us. To hear that there is none makes it publish its commitment
                // transaction, unless its mempool has the closing one: it hears nothing before.
                let Some(known) = broadcaster.close_is_known(&channel) else {
                    drop(asking);
                    return take_up(&self.manager, fallen, journal, peer, message);
                };
                // Without a runtime the node has ended.
                let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                    return;
                };
                asking.insert(channel);
                let (asking, wake) = (self.asking.clone(), wake.clone());
                let (fallen, journal) = (fallen.clone(), journal.clone());
                // A node that ends meanwhile is not kept by this.
                let manager: Weak<ChannelManager> = Arc::downgrade(&self.manager);
                let message = message.clone();
                runtime.spawn(async move {
                    if known.await {
                        if let Some(manager) = manager.upgrade() {
                            take_up(&manager, &fallen, &journal, peer, &message);
                            wake.notify_one();
                        }
                    }
                    lock(&asking).remove(&channel);
                });
            }
            Way::Recovering { told } => {
                lock(&self.own).extend(self.ask_to_close(peer, message.channel_id));
                told(crate::convert::channel(&message.channel_id), peer);
            }
        }
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.manager.get_chain_hashes()
    }

    fn message_received(&self) {
        if let Some(manager) = self.open() {
            manager.message_received();
        }
    }
}
