//! Transactions that wait for a block: what bitcoind's mempool takes with its default policy, replaces and refuses.
//!
//! Left out, as no test chain comes near it: the limit of its size, expiry, clusters, and what is special to
//! transactions of version 3.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};

use crate::chain::{coins_of, Chain, Changed};
use crate::rules::{self, Coin};

/// Of a new mempool, satoshi for 1,000 virtual bytes: what it takes, and what a replacement pays more.
pub const MIN_RELAY_FEE: u64 = 100;
/// Transactions that one may hang on, or that may hang on one, itself included.
const MAX_CHAIN: usize = 25;
/// Transactions that one may replace.
const MAX_REPLACED: usize = 100;
const MAX_PACKAGE: usize = 25;
const MAX_STANDARD_WEIGHT: u64 = 400_000;
const MIN_BASE_SIZE: usize = 65;
const MAX_SCRIPT_SIG: usize = 1_650;
const MAX_DATA: usize = 83;
const MAX_VERSION: i32 = 3;
/// Transactions of this version may pay nothing, if their child does.
const TRUC: i32 = 3;
const RELAY: &str = "min relay fee not met";

/// Why a transaction is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// bitcoind's words.
    pub reason: String,
    /// An input is not there.
    pub missing: bool,
    /// It may do with a child that pays for it.
    pub reconsiderable: bool,
}

impl Rejected {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            missing: false,
            reconsiderable: false,
        }
    }
    fn fee(reason: String) -> Self {
        Self {
            reconsiderable: true,
            ..Self::new(reason)
        }
    }
}

impl From<rules::Refusal> for Rejected {
    fn from(refusal: rules::Refusal) -> Self {
        Self::new(refusal.0)
    }
}

/// A transaction that waits.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The transaction.
    pub tx: Transaction,
    /// What it pays, satoshi.
    pub fee: u64,
    /// What the miner pretends it pays more, satoshi.
    pub delta: i64,
    /// When it came, seconds.
    pub time: u32,
    /// The tip's height then.
    pub height: u32,
    /// The order of arrival: parents come first.
    order: u64,
}

impl Entry {
    /// Virtual bytes.
    #[must_use]
    pub fn vsize(&self) -> u64 {
        vsize(&self.tx)
    }

    /// The fee as the miner sees it, satoshi.
    #[must_use]
    pub fn modified_fee(&self) -> i64 {
        signed(self.fee).saturating_add(self.delta)
    }
}

/// A transaction that was looked at and may enter.
struct Candidate {
    tx: Transaction,
    coins: Vec<Coin>,
    fee: u64,
    /// Those in the mempool that spend what it spends.
    direct: BTreeSet<Txid>,
    /// Those and what hangs on them.
    conflicts: BTreeSet<Txid>,
}

impl Candidate {
    fn verify_scripts(&self) -> Result<(), Rejected> {
        Ok(rules::verify_scripts(&self.tx, &self.coins, "mempool")?)
    }
}

/// What became of one transaction of a package.
pub type PackageResults = Vec<(Wtxid, Txid, Result<(), Rejected>)>;

/// The mempool.
#[derive(Debug)]
pub struct Mempool {
    entries: HashMap<Txid, Entry>,
    spends: HashMap<OutPoint, Txid>,
    /// Kept for transactions that come later, as bitcoind does.
    deltas: HashMap<Txid, i64>,
    arrivals: u64,
    /// The least it takes now, satoshi for 1,000 virtual bytes.
    pub minimum: u64,
}

impl Default for Mempool {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            spends: HashMap::new(),
            deltas: HashMap::new(),
            arrivals: 0,
            minimum: MIN_RELAY_FEE,
        }
    }
}

impl Mempool {
    /// A transaction that waits.
    #[must_use]
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    /// Which transaction spends an output.
    #[must_use]
    pub fn spender(&self, at: &OutPoint) -> Option<Txid> {
        self.spends.get(at).copied()
    }

    /// All, parents before their children.
    #[must_use]
    pub fn in_order(&self) -> Vec<&Entry> {
        let mut all: Vec<&Entry> = self.entries.values().collect();
        all.sort_unstable_by_key(|entry| entry.order);
        all
    }

    /// An output of a transaction that waits.
    #[must_use]
    pub fn coin(&self, at: &OutPoint, height: u32) -> Option<Coin> {
        let entry = self.entries.get(&at.txid)?;
        let output = entry.tx.output.get(at.vout as usize)?.clone();
        Some(Coin {
            output,
            height,
            coinbase: false,
        })
    }

    /// What a transaction spends of others that wait, without itself.
    #[must_use]
    pub fn ancestors(&self, tx: &Transaction) -> BTreeSet<Txid> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<Txid> = tx.input.iter().map(|i| i.previous_output.txid).collect();
        while let Some(txid) = todo.pop() {
            let Some(entry) = self.entries.get(&txid) else {
                continue;
            };
            if found.insert(txid) {
                todo.extend(entry.tx.input.iter().map(|i| i.previous_output.txid));
            }
        }
        found
    }

    /// Those that spend an output of this one.
    pub fn children<'a>(&'a self, tx: &'a Transaction) -> impl Iterator<Item = Txid> + 'a {
        let txid = tx.compute_txid();
        let outputs = (0u32..).zip(&tx.output);
        outputs.filter_map(move |(vout, _)| self.spender(&OutPoint::new(txid, vout)))
    }

    /// What hangs on a transaction, without itself.
    #[must_use]
    pub fn descendants(&self, txid: &Txid) -> BTreeSet<Txid> {
        let mut found = BTreeSet::new();
        let mut todo = vec![*txid];
        while let Some(at) = todo.pop() {
            let Some(entry) = self.entries.get(&at) else {
                continue;
            };
            for child in self.children(&entry.tx) {
                if found.insert(child) {
                    todo.push(child);
                }
            }
        }
        found
    }

    /// Let the miner think that it pays more, or less, satoshi.
    pub fn prioritise(&mut self, txid: Txid, delta: i64) {
        let all = self.deltas.entry(txid).or_default();
        *all = all.saturating_add(delta);
        if let Some(entry) = self.entries.get_mut(&txid) {
            entry.delta = *all;
        }
    }

    /// Takes a transaction.
    ///
    /// # Errors
    /// bitcoind's reason.
    pub fn accept(
        &mut self,
        chain: &mut Chain,
        tx: &Transaction,
        now: u32,
    ) -> Result<(), Rejected> {
        let candidate = self.check(chain, tx)?;
        candidate.verify_scripts()?;
        self.enter(chain, candidate, now);
        Ok(())
    }

    /// All but its scripts.
    fn check(&self, chain: &Chain, tx: &Transaction) -> Result<Candidate, Rejected> {
        let candidate = self.look_at(chain, tx, &HashMap::new())?;
        self.check_fee(&[&candidate])?;
        if !candidate.direct.is_empty() {
            self.check_replacement(&[&candidate])?;
        }
        Ok(candidate)
    }

    /// Whether it would be taken.
    ///
    /// # Errors
    /// bitcoind's reason.
    pub fn would_accept(&self, chain: &Chain, tx: &Transaction) -> Result<u64, Rejected> {
        let candidate = self.check(chain, tx)?;
        candidate.verify_scripts()?;
        Ok(candidate.fee)
    }

    /// Takes parents and their one child, which comes last and may pay for them.
    ///
    /// # Errors
    /// They are no such package. What became of each is no error.
    pub fn accept_package(
        &mut self,
        chain: &mut Chain,
        txs: &[Transaction],
        now: u32,
    ) -> Result<PackageResults, Rejected> {
        check_package(txs)?;
        let mut results = Vec::new();
        let mut rest: Vec<&Transaction> = Vec::new();
        let mut hopeless = false;
        for tx in txs {
            let known = self.entries.contains_key(&tx.compute_txid());
            let result = match known {
                true => Ok(()),
                false => self.accept(chain, tx, now),
            };
            match &result {
                Err(why) if why.reconsiderable || (why.missing && !rest.is_empty()) => {
                    rest.push(tx)
                }
                Err(_) => hopeless = true,
                Ok(()) => {}
            }
            results.push((tx.compute_wtxid(), tx.compute_txid(), result));
        }
        if rest.is_empty() || hopeless {
            return Ok(results);
        }
        let together = self.accept_together(chain, &rest, now);
        for (wtxid, _, result) in &mut results {
            if rest.iter().any(|tx| tx.compute_wtxid() == *wtxid) {
                result.clone_from(&together);
            }
        }
        Ok(results)
    }

    fn accept_together(
        &mut self,
        chain: &mut Chain,
        txs: &[&Transaction],
        now: u32,
    ) -> Result<(), Rejected> {
        let mut made = HashMap::new();
        let mut candidates = Vec::new();
        for tx in txs {
            candidates.push(self.look_at(chain, tx, &made)?);
            made.extend(coins_of(tx, chain.height().saturating_add(1)));
        }
        let all: Vec<&Candidate> = candidates.iter().collect();
        // A child pays for what a full mempool asks for more, not for what each must pay to be relayed.
        for candidate in all.iter().filter(|c| c.tx.version.0 != TRUC) {
            self.check_rate(&[candidate], MIN_RELAY_FEE, RELAY)?;
        }
        self.check_fee(&all)?;
        let spent: HashSet<OutPoint> = (txs.iter())
            .flat_map(|tx| tx.input.iter().map(|i| i.previous_output))
            .collect();
        if !txs.iter().all(|tx| dust(tx).all(|at| spent.contains(&at))) {
            return Err(Rejected::new("missing-ephemeral-spends"));
        }
        if candidates.iter().any(|c| !c.direct.is_empty()) {
            if candidates.len() != 2 {
                let why = "package RBF failed: package must be 1-parent-1-child";
                return Err(Rejected::new(why));
            }
            if txs.iter().any(|tx| !self.ancestors(tx).is_empty()) {
                let why = "package RBF failed: new transaction cannot have mempool ancestors";
                return Err(Rejected::new(why));
            }
            self.check_replacement(&all)?;
        }
        // All or none: what none of them may fail for any more is checked before the first enters.
        for candidate in &candidates {
            candidate.verify_scripts()?;
        }
        for candidate in candidates {
            self.enter(chain, candidate, now);
        }
        Ok(())
    }

    /// What a new block has, and what conflicts with it, waits no more.
    pub fn follow(&mut self, chain: &mut Chain, changed: &Changed, now: u32) {
        let connected = changed
            .connected
            .iter()
            .filter_map(|hash| chain.block(hash));
        let connected: Vec<Transaction> = connected
            .flat_map(|(block, _)| block.txdata.iter().skip(1).cloned())
            .collect();
        for tx in &connected {
            let txid = tx.compute_txid();
            self.take_out(&txid);
            self.deltas.remove(&txid);
            for input in &tx.input {
                if let Some(conflict) = self.spender(&input.previous_output) {
                    self.take_out_all(&conflict);
                }
            }
        }
        if !changed.went_back {
            return;
        }
        // After a reorganisation everything is looked at again, whatever it pays.
        let waiting = self.in_order().into_iter().map(|entry| entry.tx.clone());
        let again: Vec<Transaction> = changed
            .disconnected
            .iter()
            .cloned()
            .chain(waiting)
            .collect();
        self.entries.clear();
        self.spends.clear();
        for tx in again {
            if let Ok(candidate) = self.look_at(chain, &tx, &HashMap::new()) {
                // What does not hold any more is gone, as in bitcoind.
                if candidate.direct.is_empty() && candidate.verify_scripts().is_ok() {
                    self.enter(chain, candidate, now);
                }
            }
        }
    }

    /// All that can be said before fees.
    fn look_at(
        &self,
        chain: &Chain,
        tx: &Transaction,
        made: &HashMap<OutPoint, Coin>,
    ) -> Result<Candidate, Rejected> {
        rules::check_alone(tx)?;
        if tx.is_coinbase() {
            return Err(Rejected::new("coinbase"));
        }
        check_standard(tx)?;
        let next = chain.height().saturating_add(1);
        if !rules::is_final(tx, next, chain.median_time(chain.height())) {
            return Err(Rejected::new("non-final"));
        }
        let txid = tx.compute_txid();
        if let Some(known) = self.entries.get(&txid) {
            return Err(Rejected::new(
                match known.tx.compute_wtxid() == tx.compute_wtxid() {
                    true => "txn-already-in-mempool",
                    false => "txn-same-nonwitness-data-in-mempool",
                },
            ));
        }
        let mut coins = Vec::with_capacity(tx.input.len());
        for input in &tx.input {
            let at = &input.previous_output;
            let found = (chain.coin(at).cloned())
                .or_else(|| self.coin(at, next))
                .or_else(|| made.get(at).cloned());
            let Some(coin) = found else {
                if coins_of(tx, next).any(|(at, _)| chain.coin(&at).is_some()) {
                    return Err(Rejected::new("txn-already-known"));
                }
                return Err(Rejected {
                    missing: true,
                    ..Rejected::new("bad-txns-inputs-missingorspent")
                });
            };
            coins.push(coin);
        }
        if !rules::locks_are_over(tx, &coins, next, |height| chain.median_time(height)) {
            return Err(Rejected::new("non-BIP68-final"));
        }
        let fee = rules::fee(tx, &coins, next)?;
        if (fee > 0 || self.delta(&txid) != 0) && dust(tx).next().is_some() {
            return Err(Rejected::new("dust"));
        }
        let spenders = tx.input.iter().map(|i| self.spender(&i.previous_output));
        let direct: BTreeSet<Txid> = spenders.flatten().collect();
        let hanging = direct.iter().flat_map(|txid| self.descendants(txid));
        let conflicts: BTreeSet<Txid> = direct.iter().copied().chain(hanging).collect();
        let ancestors = self.ancestors(tx);
        if ancestors.iter().any(|txid| conflicts.contains(txid)) {
            return Err(Rejected::new("bad-txns-spends-conflicting-tx"));
        }
        let kept = |txid: &Txid| !conflicts.contains(txid);
        let too_long = ancestors.len() >= MAX_CHAIN
            || ancestors.iter().any(|txid| {
                self.descendants(txid).iter().filter(|d| kept(d)).count()
                    >= MAX_CHAIN.saturating_sub(1)
            });
        if too_long {
            return Err(Rejected::new("too-long-mempool-chain"));
        }
        Ok(Candidate {
            tx: tx.clone(),
            coins,
            fee,
            direct,
            conflicts,
        })
    }

    /// Whether they pay enough together.
    fn check_fee(&self, candidates: &[&Candidate]) -> Result<(), Rejected> {
        // A full mempool asks for more than what is relayed.
        if self.minimum > MIN_RELAY_FEE {
            self.check_rate(candidates, self.minimum, "mempool min fee not met")?;
        }
        self.check_rate(candidates, MIN_RELAY_FEE, RELAY)
    }

    fn check_rate(&self, candidates: &[&Candidate], rate: u64, name: &str) -> Result<(), Rejected> {
        let (fee, least) = (
            self.modified(candidates),
            signed(at_rate(rate, size_of(candidates))),
        );
        if fee < least {
            return Err(Rejected::fee(format!("{name}, {fee} < {least}")));
        }
        Ok(())
    }

    fn delta(&self, txid: &Txid) -> i64 {
        self.deltas.get(txid).copied().unwrap_or(0)
    }

    fn modified(&self, candidates: &[&Candidate]) -> i64 {
        let of = |c: &&Candidate| signed(c.fee).saturating_add(self.delta(&c.tx.compute_txid()));
        candidates.iter().map(of).fold(0, i64::saturating_add)
    }

    /// Whether they may take the place of what conflicts with them (BIP 125, for transactions that signal it or not).
    fn check_replacement(&self, candidates: &[&Candidate]) -> Result<(), Rejected> {
        let conflicts: BTreeSet<Txid> = candidates
            .iter()
            .flat_map(|c| &c.conflicts)
            .copied()
            .collect();
        let direct: BTreeSet<Txid> = candidates.iter().flat_map(|c| &c.direct).copied().collect();
        if conflicts.len() > MAX_REPLACED {
            let why = format!(
                "too many potential replacements, rejecting replacement; too many potential replacements ({} > {MAX_REPLACED})",
                conflicts.len()
            );
            return Err(Rejected::new(why));
        }
        let size = size_of(candidates);
        let fee = self.modified(candidates);
        let insufficient = |why: String| {
            Err(Rejected::fee(format!(
                "insufficient fee, rejecting replacement; {why}"
            )))
        };
        let mut replaced = 0i64;
        for entry in conflicts.iter().filter_map(|txid| self.entries.get(txid)) {
            replaced = replaced.saturating_add(entry.modified_fee());
            let is_direct = direct.contains(&entry.tx.compute_txid());
            let (ours, theirs) = (rate(fee, size), rate(entry.modified_fee(), entry.vsize()));
            if is_direct && ours <= theirs {
                return insufficient(format!("new feerate {ours} <= old feerate {theirs}"));
            }
        }
        if fee < replaced {
            return insufficient(format!(
                "less fees than conflicting txs; {fee} < {replaced}"
            ));
        }
        let least = signed(at_rate(MIN_RELAY_FEE, size));
        if fee.saturating_sub(replaced) < least {
            return insufficient(format!(
                "not enough additional fees to relay; {} < {least}",
                fee.saturating_sub(replaced)
            ));
        }
        Ok(())
    }

    /// What was looked at, and whose scripts were verified, makes way and enters.
    fn enter(&mut self, chain: &mut Chain, candidate: Candidate, now: u32) {
        chain.remember_verified(candidate.tx.compute_wtxid());
        for conflict in &candidate.conflicts {
            self.take_out(conflict);
        }
        let txid = candidate.tx.compute_txid();
        for input in &candidate.tx.input {
            self.spends.insert(input.previous_output, txid);
        }
        self.arrivals = self.arrivals.saturating_add(1);
        let entry = Entry {
            fee: candidate.fee,
            delta: self.delta(&txid),
            time: now,
            height: chain.height(),
            order: self.arrivals,
            tx: candidate.tx,
        };
        self.entries.insert(txid, entry);
    }

    fn take_out(&mut self, txid: &Txid) {
        if let Some(entry) = self.entries.remove(txid) {
            for input in &entry.tx.input {
                self.spends.remove(&input.previous_output);
            }
        }
    }

    fn take_out_all(&mut self, txid: &Txid) {
        for each in self.descendants(txid) {
            self.take_out(&each);
        }
        self.take_out(txid);
    }

    /// What goes into the next block, parents first: what pays the minimum, or has a child that pays for both.
    ///
    /// In the order of arrival: blocks of a test chain are never full, and what does not fit waits for the next one.
    #[must_use]
    pub fn for_block(&self, max_weight: u64) -> Vec<(&Transaction, u64)> {
        let mut chosen: BTreeMap<u64, &Entry> = BTreeMap::new();
        let mut left = max_weight;
        for entry in self.in_order() {
            // With those it hangs on that are not chosen yet: they are, or it is, too cheap alone.
            let ancestors = self.ancestors(&entry.tx);
            let ancestors = ancestors.iter().filter_map(|txid| self.entries.get(txid));
            let set: Vec<&Entry> = ancestors
                .filter(|ancestor| !chosen.contains_key(&ancestor.order))
                .chain([entry])
                .collect();
            let fee = set
                .iter()
                .map(|e| e.modified_fee())
                .fold(0, i64::saturating_add);
            let size = set.iter().map(|e| e.vsize()).fold(0, u64::saturating_add);
            let weight = set
                .iter()
                .map(|e| e.tx.weight().to_wu())
                .fold(0, u64::saturating_add);
            if fee < signed(at_rate(1, size)) || weight > left {
                continue;
            }
            left = left.saturating_sub(weight);
            chosen.extend(set.into_iter().map(|entry| (entry.order, entry)));
        }
        chosen
            .into_values()
            .map(|entry| (&entry.tx, entry.fee))
            .collect()
    }
}

fn size_of(candidates: &[&Candidate]) -> u64 {
    let sizes = candidates.iter().map(|c| vsize(&c.tx));
    sizes.fold(0, u64::saturating_add)
}

/// Satoshi for so many virtual bytes at a rate for 1,000.
#[must_use]
pub fn at_rate(per_1000: u64, size: u64) -> u64 {
    per_1000.saturating_mul(size).div_ceil(1_000)
}

/// Virtual bytes.
#[must_use]
pub fn vsize(tx: &Transaction) -> u64 {
    tx.weight().to_wu().div_ceil(4)
}

/// Satoshi for 1,000 virtual bytes.
fn rate(fee: i64, size: u64) -> i64 {
    fee.saturating_mul(1_000)
        .checked_div(signed(size))
        .unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Parents and one child, each parent before who spends it.
fn check_package(txs: &[Transaction]) -> Result<(), Rejected> {
    if txs.len() > MAX_PACKAGE {
        return Err(Rejected::new("package-too-many-transactions"));
    }
    let ids: Vec<Txid> = txs.iter().map(Transaction::compute_txid).collect();
    let mut spent = HashSet::new();
    for (index, tx) in txs.iter().enumerate() {
        let later = ids.iter().skip(index);
        let later: HashSet<&Txid> = later.collect();
        if tx
            .input
            .iter()
            .any(|i| later.contains(&i.previous_output.txid))
        {
            return Err(Rejected::new("package-not-sorted"));
        }
        if !tx.input.iter().all(|i| spent.insert(i.previous_output)) {
            return Err(Rejected::new("conflict-in-package"));
        }
    }
    if let Some((child, parents)) = txs.split_last() {
        let spends: HashSet<Txid> = child.input.iter().map(|i| i.previous_output.txid).collect();
        if !parents
            .iter()
            .all(|parent| spends.contains(&parent.compute_txid()))
        {
            let why = "package topology disallowed. not child-with-parents or parents depend on each other.";
            return Err(Rejected::new(why));
        }
    }
    Ok(())
}

/// The outputs that are too small to be worth spending.
fn dust(tx: &Transaction) -> impl Iterator<Item = OutPoint> + '_ {
    let txid = tx.compute_txid();
    let outputs = (0u32..).zip(&tx.output);
    let small = outputs.filter(|(_, output)| {
        let script = &output.script_pubkey;
        !script.is_op_return() && output.value < script.minimal_non_dust()
    });
    small.map(move |(vout, _)| OutPoint::new(txid, vout))
}

/// What bitcoind relays of all that is valid.
fn check_standard(tx: &Transaction) -> Result<(), Rejected> {
    let refuse = |why: &str| Err(Rejected::new(why));
    if !(1..=MAX_VERSION).contains(&tx.version.0) {
        return refuse("version");
    }
    if tx.weight().to_wu() > MAX_STANDARD_WEIGHT {
        return refuse("tx-size");
    }
    if tx.base_size() < MIN_BASE_SIZE {
        return refuse("tx-size-small");
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG {
            return refuse("scriptsig-size");
        }
        if !input.script_sig.is_push_only() {
            return refuse("scriptsig-not-pushonly");
        }
    }
    for output in &tx.output {
        let script = &output.script_pubkey;
        if script.is_op_return() {
            if script.len() > MAX_DATA {
                return refuse("datacarrier");
            }
            continue;
        }
        let standard = script.is_witness_program()
            || script.is_p2pkh()
            || script.is_p2sh()
            || script.is_p2pk()
            || script.is_multisig();
        if !standard {
            return refuse("scriptpubkey");
        }
    }
    // One may be there, if the transaction pays nothing and its child in a package spends it.
    if dust(tx).count() > 1 {
        return refuse("dust");
    }
    Ok(())
}
