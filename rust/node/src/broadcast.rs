//! Sends transactions, and goes on until they are in a block.

use crate::chain::{ChainError, ChainSource, SendOutcome};
use crate::closings::{self, Closings};
use crate::log::Log;
use crate::sync::lock;
use bitcoin::block::Header;
use bitcoin::{OutPoint, Transaction, Txid};
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BestBlock, Listen};
use lightning::ln::types::ChannelId;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, Notify};

const TARGET: &str = "ldkjit::broadcast";
const AGREED: &str = "its channel was closed by agreement";
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Also how often what a mempool took is sent again: it may have been dropped since.
const LAST_DELAY: Duration = Duration::from_secs(600);
/// After so many blocks without success a transaction is forgotten. LDK offers its own again.
const FORGET_BLOCKS: u32 = 1_008;
/// Inputs that are missing for so many blocks do not come back by themselves: a reorganisation is over by then.
const HOPELESS_BLOCKS: u32 = 12;
/// Above this many, those a mempool took are forgotten first; what was never sent is always kept.
const MANY: usize = 10_000;

/// Told of every transaction that a mempool took for the first time.
pub type Accepted = Arc<dyn Fn(&Transaction) + Send + Sync>;

/// LDK's broadcaster and ours.
pub struct Broadcaster {
    pending: Mutex<HashMap<Txid, Pending>>,
    wake: Notify,
    height: AtomicU32,
    accepted: Accepted,
    closings: Arc<Closings>,
    log: Arc<Log>,
}

struct Pending {
    /// Parents first; the last one gives the key.
    txs: Vec<Transaction>,
    due: Instant,
    delay: Duration,
    since: u32,
    /// The height since which each attempt found inputs missing or spent.
    conflict_since: Option<u32>,
    last: Option<SendOutcome>,
    waiters: Vec<oneshot::Sender<SendOutcome>>,
}

impl Broadcaster {
    /// Sends nothing until [`Broadcaster::run`].
    pub fn new(accepted: Accepted, closings: Arc<Closings>, log: Arc<Log>) -> Self {
        Self {
            pending: Mutex::new(HashMap::new()),
            wake: Notify::new(),
            height: AtomicU32::new(0),
            accepted,
            closings,
            log,
        }
    }

    /// Sends a transaction, or a child with its parents in any order, and goes on until it is confirmed.
    /// The future answers what came of the next attempt; it need not be awaited.
    pub fn broadcast(
        &self,
        txs: Vec<Transaction>,
    ) -> impl Future<Output = Option<SendOutcome>> + Send + 'static {
        let (waiter, answer) = oneshot::channel();
        let txs = child_last(txs);
        if let Some(key) = txs.last().map(Transaction::compute_txid) {
            let mut pending = lock(&self.pending);
            forget_superseded(&mut pending, &txs);
            make_room(&mut pending);
            let height = self.height.load(Ordering::Relaxed);
            let entry = pending.entry(key).or_insert_with(|| Pending {
                txs: Vec::new(),
                due: Instant::now(),
                delay: FIRST_DELAY,
                since: height,
                conflict_since: None,
                last: None,
                waiters: Vec::new(),
            });
            if entry.txs.len() < txs.len() {
                entry.txs = txs;
            }
            match &entry.last {
                // LDK asks again at every turn: what the mempool has is not sent again for that.
                Some(SendOutcome::Accepted) => drop(waiter.send(SendOutcome::Accepted)),
                _ => entry.waiters.push(waiter),
            }
            drop(pending);
            self.wake.notify_one();
        }
        async move { answer.await.ok() }
    }

    /// Sends a transaction alone, unless it is being sent with a child.
    pub fn at_least(&self, tx: &Transaction) {
        let txid = tx.compute_txid();
        let is_it = |other: &Transaction| other.compute_txid() == txid;
        let sent = |entry: &Pending| entry.txs.iter().any(is_it);
        let is_sent = lock(&self.pending).values().any(sent);
        if !is_sent {
            self.broadcast_transactions(&[tx]);
        }
    }

    /// What is being sent, and what came of it last.
    pub fn pending(&self) -> Vec<(Txid, Option<SendOutcome>)> {
        lock(&self.pending)
            .iter()
            .map(|(txid, entry)| (*txid, entry.last.clone()))
            .collect()
    }

    /// Whether the mempool has the transaction by which this channel was closed by agreement, while no block has: asked
    /// anew, since a reorganisation or a crash of bitcoind takes out what was in it. None if there is no such transaction.
    pub fn close_is_known(
        &self,
        channel: &ChannelId,
    ) -> Option<impl Future<Output = bool> + Send + 'static> {
        let txid = self.closings.of_channel(channel)?;
        let (waiter, answer) = oneshot::channel();
        let mut pending = lock(&self.pending);
        let entry = pending.get_mut(&txid)?;
        entry.waiters.push(waiter);
        entry.due = Instant::now();
        drop(pending);
        self.wake.notify_one();
        Some(async move {
            let known = Ok(SendOutcome::Accepted);
            answer.await == known
        })
    }

    /// A new tip: what was refused may be taken now.
    pub fn new_block(&self, height: u32) {
        self.height.store(height, Ordering::Relaxed);
        let now = Instant::now();
        lock(&self.pending).retain(|txid, entry| {
            if entry.since == 0 {
                entry.since = height;
            }
            if height.saturating_sub(entry.since) > FORGET_BLOCKS {
                self.log
                    .warn(TARGET, format_args!("{txid} is given up: {:?}", entry.last));
                return false;
            }
            // One look at what was taken also finds that it is confirmed.
            entry.due = now;
            true
        });
        self.wake.notify_one();
    }

    /// What spends inputs that have been missing, or spent by others, for long.
    pub fn hopeless(&self) -> Vec<Transaction> {
        let height = self.height.load(Ordering::Relaxed);
        let long = |since: u32| height.saturating_sub(since) >= HOPELESS_BLOCKS;
        let pending = lock(&self.pending);
        let hopeless = pending
            .values()
            .filter(|entry| entry.conflict_since.is_some_and(long));
        hopeless
            .filter_map(|entry| entry.txs.last().cloned())
            .collect()
    }

    /// Sends a transaction no more: what it spends is gone.
    pub fn give_up(&self, txid: &Txid) {
        if lock(&self.pending).remove(txid).is_some() {
            self.log.info(
                TARGET,
                format_args!("{txid} is given up: what it spends is gone"),
            );
        }
    }

    /// Sends what is due, until the future is dropped. Nothing is lost by dropping it.
    pub async fn run(&self, source: &dyn ChainSource) {
        loop {
            while let Some((key, txs)) = self.next_due() {
                self.attempt(source, key, &txs).await;
            }
            let next = lock(&self.pending).values().map(|entry| entry.due).min();
            match next {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due.into(), self.wake.notified()).await;
                }
                None => self.wake.notified().await,
            }
        }
    }

    fn next_due(&self) -> Option<(Txid, Vec<Transaction>)> {
        let now = Instant::now();
        let mut pending = lock(&self.pending);
        // What was never tried goes before what is tried again.
        let due = pending.iter_mut().filter(|(_, entry)| entry.due <= now);
        let (key, entry) = due.min_by_key(|(_, entry)| (entry.last.is_some(), entry.due))?;
        entry.due = now.checked_add(entry.delay).unwrap_or(now);
        entry.delay = entry.delay.saturating_mul(2).min(LAST_DELAY);
        Some((*key, entry.txs.clone()))
    }

    /// Whether a commitment transaction is among these whose channel was closed by agreement. A crash may have come before
    /// that was kept, and the other side has the channel no more: then the mempool tells.
    async fn is_closed_by_agreement(
        &self,
        source: &dyn ChainSource,
        txs: &[Transaction],
    ) -> Result<bool, ChainError> {
        let Some(funding) = txs.iter().find_map(closings::ended_by_force) else {
            return Ok(false);
        };
        if !self.closings.agreed(&funding) {
            match source.unconfirmed_spender(&funding).await {
                Ok(Some(spender)) => {
                    self.closings.allow(&[&spender]);
                    if self.closings.agreed(&funding) {
                        drop(self.broadcast(vec![spender]));
                    }
                }
                // One that cannot tell is no reason to keep a commitment transaction back.
                Ok(None) | Err(ChainError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.closings.agreed(&funding))
    }

    async fn attempt(&self, source: &dyn ChainSource, key: Txid, txs: &[Transaction]) {
        match self.is_closed_by_agreement(source, txs).await {
            Ok(false) => {}
            Ok(true) => {
                self.log
                    .info(TARGET, format_args!("{key} is not sent: {AGREED}"));
                lock(&self.pending).remove(&key);
                return;
            }
            Err(error) => {
                self.log
                    .warn(TARGET, format_args!("{key} cannot be sent now: {error}"));
                return;
            }
        }
        crate::crash::point("broadcast:before");
        let sent = send(source, txs).await;
        crate::crash::point("broadcast:after");
        let outcome = match sent {
            Ok(outcome) => outcome,
            Err(error) => {
                self.log
                    .warn(TARGET, format_args!("{key} cannot be sent now: {error}"));
                return;
            }
        };
        let mut first = false;
        let mut pending = lock(&self.pending);
        if let Some(entry) = pending.get_mut(&key) {
            let before = entry.last.replace(outcome.clone());
            first = before != Some(SendOutcome::Accepted);
            if before.as_ref() != Some(&outcome) {
                match &outcome {
                    SendOutcome::Accepted | SendOutcome::Confirmed => {
                        self.log.info(TARGET, format_args!("{key}: {outcome:?}"));
                    }
                    _ => self.log.warn(
                        TARGET,
                        format_args!("{key}: {outcome:?}; tried again later"),
                    ),
                }
            }
            entry.conflict_since = match outcome {
                SendOutcome::Conflict(_) => {
                    let now = self.height.load(Ordering::Relaxed);
                    entry.conflict_since.or(Some(now).filter(|now| *now > 0))
                }
                _ => None,
            };
            if outcome == SendOutcome::Accepted {
                entry.delay = LAST_DELAY;
                entry.due = Instant::now().checked_add(LAST_DELAY).unwrap_or(entry.due);
            }
            for waiter in entry.waiters.drain(..) {
                let _ = waiter.send(outcome.clone());
            }
        }
        if outcome == SendOutcome::Confirmed {
            pending.remove(&key);
        }
        drop(pending);
        if first && outcome == SendOutcome::Accepted {
            txs.iter().for_each(|tx| (self.accepted)(tx));
        }
    }
}

async fn send(
    source: &dyn ChainSource,
    txs: &[Transaction],
) -> Result<SendOutcome, crate::chain::ChainError> {
    let [parents @ .., child] = txs else {
        return Ok(SendOutcome::Rejected("nothing".into()));
    };
    if parents.is_empty() {
        return source.send(child).await;
    }
    let together = source.send_package(txs).await?;
    if matches!(together, SendOutcome::Accepted | SendOutcome::Confirmed) {
        return Ok(together);
    }
    // A source without packages, or a parent that is known already: one by one, and the child decides.
    for parent in parents {
        source.send(parent).await?;
    }
    match source.send(child).await? {
        alone @ (SendOutcome::Accepted | SendOutcome::Confirmed) => Ok(alone),
        _ => Ok(together),
    }
}

/// The child is the one that nobody else spends.
fn child_last(mut txs: Vec<Transaction>) -> Vec<Transaction> {
    let spent: HashSet<Txid> = txs
        .iter()
        .flat_map(|tx| tx.input.iter().map(|input| input.previous_output.txid))
        .collect();
    txs.sort_by_key(|tx| !spent.contains(&tx.compute_txid()));
    txs
}

/// LDK makes a claim or a sweep anew with every block: what no mempool took of the one before is of no use any more.
fn forget_superseded(pending: &mut HashMap<Txid, Pending>, txs: &[Transaction]) {
    let Some(child) = txs.last() else { return };
    let txid = child.compute_txid();
    let inputs = child.input.iter().map(|input| input.previous_output);
    let spent: HashSet<OutPoint> = inputs.collect();
    let spends_the_same = |tx: &Transaction| {
        let mut inputs = tx.input.iter();
        tx.input.len() == spent.len() && inputs.all(|i| spent.contains(&i.previous_output))
    };
    pending.retain(|key, entry| {
        let refused = matches!(
            entry.last,
            Some(SendOutcome::Rejected(_) | SendOutcome::Conflict(_))
        );
        let alone = *key != txid && entry.waiters.is_empty();
        !(refused && alone && entry.txs.last().is_some_and(spends_the_same))
    });
}

fn make_room(pending: &mut HashMap<Txid, Pending>) {
    if pending.len() < MANY {
        return;
    }
    let taken = pending
        .iter()
        .filter(|(_, entry)| entry.last == Some(SendOutcome::Accepted));
    if let Some(oldest) = taken
        .min_by_key(|(_, entry)| entry.since)
        .map(|(txid, _)| *txid)
    {
        pending.remove(&oldest);
    }
}

impl Listen for Broadcaster {
    fn filtered_block_connected(&self, _: &Header, txdata: &TransactionData<'_>, height: u32) {
        let mut pending = lock(&self.pending);
        if !pending.is_empty() {
            for (_, tx) in txdata {
                pending.remove(&tx.compute_txid());
            }
        }
        drop(pending);
        self.new_block(height);
    }

    /// A bitcoind puts what it disconnects back into its mempool by itself.
    fn blocks_disconnected(&self, _: BestBlock) {}
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        if !self.closings.allow(txs) {
            self.log.info(
                TARGET,
                format_args!(
                    "a commitment transaction is not sent: {AGREED}, or it may be revoked"
                ),
            );
            return;
        }
        if txs.iter().any(|tx| tx.output.is_empty()) {
            self.log.debug(
                TARGET,
                format_args!("a sweep of less than it costs is not sent"),
            );
            return;
        }
        drop(self.broadcast(txs.iter().map(|tx| (*tx).clone()).collect()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )]
    use super::*;
    use crate::chain::{ChainError, ChainFuture};
    use bitcoin::hashes::Hash;
    use bitcoin::{absolute, transaction, Amount, ScriptBuf, TxIn, TxOut};

    /// Takes each call's answer from a list; notes what was sent.
    #[derive(Default)]
    struct Source {
        answers: Mutex<Vec<Result<SendOutcome, ChainError>>>,
        sent: Mutex<Vec<Vec<Txid>>>,
    }
    impl Source {
        fn answer(&self, txs: &[Transaction]) -> ChainFuture<'_, SendOutcome> {
            lock(&self.sent).push(txs.iter().map(Transaction::compute_txid).collect());
            let mut answers = lock(&self.answers);
            let answer = if answers.is_empty() {
                Ok(SendOutcome::Accepted)
            } else {
                answers.remove(0)
            };
            Box::pin(async move { answer })
        }
        fn count(&self) -> usize {
            lock(&self.sent).len()
        }
    }
    impl ChainSource for Source {
        fn estimate_fee(&self, _: u16) -> ChainFuture<'_, Option<u32>> {
            Box::pin(async { Ok(None) })
        }
        fn minimum_fee(&self) -> ChainFuture<'_, u32> {
            Box::pin(async { Ok(0) })
        }
        fn send<'a>(&'a self, tx: &'a Transaction) -> ChainFuture<'a, SendOutcome> {
            self.answer(std::slice::from_ref(tx))
        }
        fn send_package<'a>(&'a self, txs: &'a [Transaction]) -> ChainFuture<'a, SendOutcome> {
            self.answer(txs)
        }
        fn unconfirmed_spender<'a>(
            &'a self,
            _: &'a OutPoint,
        ) -> ChainFuture<'a, Option<Transaction>> {
            Box::pin(async { Ok(None) })
        }
    }

    fn tx(n: u8, parent: Txid) -> Transaction {
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint {
                    txid: parent,
                    vout: 0,
                },
                ..TxIn::default()
            }],
            output: vec![TxOut {
                value: Amount::from_sat(u64::from(n)),
                script_pubkey: ScriptBuf::new(),
            }],
        }
    }

    fn closings() -> Arc<Closings> {
        let store = Box::new(crate::store::MemoryStore::new());
        let (_, journal, boot) = crate::commit::Committer::start(store, Log::silent()).unwrap();
        Arc::new(Closings::load(Arc::new(journal), &boot.live, false).unwrap())
    }

    fn start(
        answers: Vec<Result<SendOutcome, ChainError>>,
    ) -> (Arc<Broadcaster>, Arc<Source>, Arc<Mutex<Vec<Txid>>>) {
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let seen = accepted.clone();
        let told: Accepted = Arc::new(move |tx| lock(&seen).push(tx.compute_txid()));
        let caster = Broadcaster::new(told, closings(), Log::silent());
        let caster = Arc::new(caster);
        let source = Arc::new(Source {
            answers: Mutex::new(answers),
            ..Source::default()
        });
        let (c, s) = (caster.clone(), source.clone());
        tokio::spawn(async move { c.run(&*s).await });
        (caster, source, accepted)
    }

    async fn settle() {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }

    #[tokio::test]
    async fn sent_once_while_the_mempool_has_it_and_forgotten_when_confirmed() {
        let confirmed = Ok(SendOutcome::Confirmed);
        let (caster, source, accepted) = start(vec![Ok(SendOutcome::Accepted), confirmed]);
        let tx = tx(1, Txid::all_zeros());
        assert_eq!(
            caster.broadcast(vec![tx.clone()]).await,
            Some(SendOutcome::Accepted)
        );
        for _ in 0..20 {
            caster.broadcast_transactions(&[&tx]);
        }
        settle().await;
        assert_eq!(source.count(), 1);
        assert_eq!(*lock(&accepted), vec![tx.compute_txid()]);
        caster.new_block(10);
        settle().await;
        assert_eq!(source.count(), 2);
        assert!(caster.pending().is_empty());
    }

    #[tokio::test]
    async fn a_block_ends_it() {
        let (caster, source, _) = start(vec![]);
        let tx = tx(1, Txid::all_zeros());
        caster.broadcast(vec![tx.clone()]).await;
        let header = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
        caster.filtered_block_connected(&header, &[(3, &tx)], 7);
        settle().await;
        assert!(caster.pending().is_empty());
        assert_eq!(source.count(), 1);
    }

    #[tokio::test]
    async fn failures_are_tried_again() {
        let down = Err(ChainError::Unreachable("x".into()));
        let conflict = SendOutcome::Conflict("missingorspent".into());
        let (caster, source, accepted) =
            start(vec![down, Ok(conflict.clone()), Ok(SendOutcome::Accepted)]);
        let waits = caster.broadcast(vec![tx(1, Txid::all_zeros())]);
        settle().await;
        assert_eq!(source.count(), 1, "backs off");
        caster.new_block(5);
        assert_eq!(waits.await, Some(conflict));
        assert!(lock(&accepted).is_empty());
        caster.new_block(6);
        settle().await;
        assert_eq!(lock(&accepted).len(), 1);
        caster.new_block(6 + FORGET_BLOCKS);
        settle().await;
        assert!(caster.pending().is_empty());
    }

    #[tokio::test]
    async fn what_is_made_anew_takes_the_place_of_what_was_refused() {
        let taken = Ok(SendOutcome::Accepted);
        let no = || Ok(SendOutcome::Conflict("missingorspent".into()));
        let (caster, source, _) = start(vec![taken, no(), no()]);
        let other = Txid::from_byte_array([9; 32]);
        caster.broadcast(vec![tx(1, Txid::all_zeros())]).await;
        caster.broadcast(vec![tx(2, other)]).await;
        caster.broadcast(vec![tx(3, Txid::all_zeros())]).await;
        assert_eq!(caster.pending().len(), 3, "one is in the mempool");
        caster.broadcast(vec![tx(4, other)]).await;
        let mut left: Vec<_> = caster.pending().into_iter().map(|(txid, _)| txid).collect();
        let mut wanted = [
            tx(1, Txid::all_zeros()),
            tx(3, Txid::all_zeros()),
            tx(4, other),
        ]
        .map(|tx| tx.compute_txid());
        left.sort();
        wanted.sort();
        assert_eq!(left, wanted);

        let mut empty = tx(5, other);
        empty.output.clear();
        caster.broadcast_transactions(&[&empty]);
        settle().await;
        assert_eq!(source.count(), 4, "worth nothing");
    }

    #[tokio::test]
    async fn what_can_never_be_is_hopeless_after_long_and_is_given_up() {
        let gone = || Ok(SendOutcome::Conflict("missingorspent".into()));
        let answers = std::iter::repeat_with(gone).take(40).collect();
        let (caster, _, _) = start(answers);
        caster.new_block(100);
        let tx = tx(1, Txid::all_zeros());
        caster.broadcast(vec![tx.clone()]).await;
        caster.new_block(99 + HOPELESS_BLOCKS);
        settle().await;
        assert_eq!(caster.hopeless(), []);
        caster.new_block(100 + HOPELESS_BLOCKS);
        assert_eq!(caster.hopeless(), vec![tx.clone()]);
        assert_eq!(caster.pending().len(), 1, "until it is said so");
        caster.give_up(&tx.compute_txid());
        assert!(caster.pending().is_empty());
    }

    #[tokio::test]
    async fn packages_are_ordered_and_fall_back() {
        let parent = tx(1, Txid::all_zeros());
        let child = tx(2, parent.compute_txid());
        let no = Ok(SendOutcome::Rejected("no such method".into()));
        let (caster, source, accepted) = start(vec![no]);
        let answer = caster.broadcast(vec![child.clone(), parent.clone()]).await;
        assert_eq!(answer, Some(SendOutcome::Accepted));
        let (p, c) = (parent.compute_txid(), child.compute_txid());
        assert_eq!(*lock(&source.sent), vec![vec![p, c], vec![p], vec![c]]);
        assert_eq!(*lock(&accepted), vec![p, c]);
    }

    #[tokio::test]
    async fn nothing_unsent_is_dropped() {
        let caster = Broadcaster::new(Arc::new(|_| {}), closings(), Log::silent());
        for n in 0..MANY + 5 {
            let mut tx = tx(0, Txid::all_zeros());
            tx.lock_time = absolute::LockTime::from_consensus(n as u32);
            caster.broadcast_transactions(&[&tx]);
        }
        assert_eq!(caster.pending().len(), MANY + 5);
    }
}
