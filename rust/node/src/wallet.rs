//! The on-chain wallet: BDK's, written through the journal, with coins set aside for channels being opened.

mod coins;
mod view;

use crate::books::{transactions, Books, Put};
use crate::commit::Boot;
use crate::error::NodeError;
use crate::journal::Journal;
use crate::keys::{Account, Addresses, Seed};
use crate::log::{now_ms, Log};
use crate::sync::lock;
use bdk_wallet::chain::local_chain::CannotConnectError;
use bdk_wallet::chain::{
    BlockId, ChainPosition, CheckPoint, ConfirmationBlockTime, Merge, TxUpdate,
};
use bdk_wallet::coin_selection::DefaultCoinSelectionAlgorithm;
use bdk_wallet::error::CreateTxError;
use bdk_wallet::{
    ChangeSet, KeychainKind, LoadParams, LocalOutput, TxBuilder, Update, Wallet as Bdk,
};
use bitcoin::block::{Block, Header};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    psbt, Address, Amount, FeeRate, Network, OutPoint, Psbt, Script, ScriptBuf, Sequence,
    Transaction, Txid, WPubkeyHash, WScriptHash, Weight, Witness,
};
use coins::Kind;
use ldkjit_core::ids::{ChannelId, OpenId};
use ldkjit_core::pool::{Pool, Spent};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BestBlock, Listen};
use lightning::events::bump_transaction::{Utxo, WalletSource};
use lightning::sign::ChangeDestinationSource;
use lightning::util::async_poll::AsyncResult;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use view::View;

const CHANGES: &str = "wallet/changes";
const LOCKS: &str = "lock/coins";
const BUMPS: &str = "lock/bump";
const TARGET: &str = "ldkjit::wallet";
/// Addresses looked at ahead of the last one given out: with every address in the store, none is needed.
pub const LOOKAHEAD: u32 = 25;
/// More entries than this are merged into one at the start.
const MAX_CHANGES: usize = 200;
/// A funding transaction this deep needs its lock no more.
const LOCK_DEPTH: u32 = 6;
/// So many blocks after LDK last had a coin signed for a fee bump, the bump is not coming any more.
const BUMP_BLOCKS: u32 = 36;
/// Coins that are in a block at all.
pub const ANY_DEPTH: u32 = 1;
const NETWORKS: [Network; 5] = [
    Network::Bitcoin,
    Network::Testnet,
    Network::Testnet4,
    Network::Signet,
    Network::Regtest,
];

/// The on-chain wallet.
pub struct Wallet {
    state: Mutex<State>,
    journal: Journal,
    network: Network,
    reserve_sat: AtomicU64,
    log: Arc<Log>,
}

struct State {
    bdk: View,
    account: Account,
    next_change: u64,
    locks: BTreeMap<u128, Lock>,
    /// Funding transactions whose script is not known yet.
    drafts: BTreeMap<u128, Draft>,
    /// Coins that pay for fee bumps of LDK's, with the heights at which they were signed last. Until a mempool has the
    /// transaction nothing else says that they are spent, and a crash may come before that is known.
    bumps: BTreeMap<OutPoint, u32>,
    received: Vec<Received>,
    books: Books,
}

/// Coins set aside for one open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lock {
    inputs: Vec<OutPoint>,
    /// The signed funding transaction, once there is one.
    tx: Option<String>,
}

impl Lock {
    fn funding(&self) -> Option<Transaction> {
        deserialize_hex(self.tx.as_ref()?).ok()
    }
}

struct Draft {
    psbt: Psbt,
    dummy: ScriptBuf,
    value: Amount,
}

/// A confirmed payment to one of this wallet's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Received {
    /// The output.
    pub outpoint: OutPoint,
    /// Its value.
    pub value_sat: u64,
    /// The block that holds it.
    pub height: u32,
}

/// What the wallet holds. Every coin is counted once, except that locked coins are also part of the sum they
/// come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Balances {
    /// In blocks, and mature.
    pub confirmed_sat: u64,
    /// Change of this wallet's own transactions, not yet in a block.
    pub unconfirmed_sat: u64,
    /// Sent by others, or replaceable, and not yet in a block.
    pub untrusted_sat: u64,
    /// Mined, and not yet mature.
    pub immature_sat: u64,
    /// Set aside for channels being opened and for fee bumps on their way.
    pub locked_sat: u64,
    /// Kept for fees of channels that are closed by force.
    pub anchor_reserve_sat: u64,
    /// What can be sent or put into channels now.
    pub spendable_sat: u64,
}

/// A transaction that is built and not signed.
struct Built {
    psbt: Psbt,
    fee_sat: u64,
}

impl Wallet {
    /// Whether the store holds no wallet yet.
    pub fn is_new(boot: &Boot) -> bool {
        boot.live.iter().all(|(kind, _, _)| kind != CHANGES)
    }

    /// The wallet of `seed` as the store knows it, or a new one that looks for coins after the last of these blocks,
    /// which follow each other (from the first block on if there are none). As many of them may be reorganised: a
    /// block is only taken in if it follows one that is known.
    pub fn open(
        seed: &Seed,
        network: Network,
        birthday: &[BestBlock],
        lookahead: u32,
        journal: Journal,
        boot: &mut Boot,
        log: Arc<Log>,
    ) -> Result<Self, NodeError> {
        let account = seed.account(network)?;
        let entries = boot.take(CHANGES);
        let (bdk, next_change) = if entries.is_empty() {
            let mut bdk = Bdk::create(account.external.clone(), account.internal.clone())
                .network(network)
                .lookahead(lookahead)
                .create_wallet_no_persist()
                .map_err(|error| {
                    NodeError::internal(format!("the wallet cannot be created: {error}"))
                })?;
            if !birthday.is_empty() {
                let genesis = bdk.latest_checkpoint().block_id();
                let known = birthday.iter().filter(|b| b.height > 0).map(|b| BlockId {
                    height: b.height,
                    hash: b.block_hash,
                });
                let chain = CheckPoint::from_block_ids(std::iter::once(genesis).chain(known)).ok();
                bdk.apply_update(Update {
                    chain,
                    ..Update::default()
                })
                .map_err(|error| {
                    NodeError::internal(format!("the wallet cannot start at a block: {error}"))
                })?;
            }
            (bdk, 0)
        } else {
            load(&entries, &account, network, lookahead, &journal)?
        };
        let mut state = State {
            bdk: View::new(bdk),
            account,
            next_change,
            locks: BTreeMap::new(),
            drafts: BTreeMap::new(),
            bumps: BTreeMap::new(),
            received: Vec::new(),
            books: Books::load(boot)?,
        };
        state.books.open(&state.bdk);
        for (key, value) in boot.take(LOCKS) {
            let open = u128::from_str_radix(&key, 16).map_err(|_| corrupt("a coin lock's key"))?;
            let lock = serde_json::from_slice(&value).map_err(|_| corrupt("a coin lock"))?;
            state.locks.insert(open, lock);
        }
        for (key, value) in boot.take(BUMPS) {
            let coin = key.parse().map_err(|_| corrupt("a bump's coin"))?;
            let height = serde_json::from_slice(&value).map_err(|_| corrupt("a bump's height"))?;
            state.bumps.insert(coin, height);
        }
        let wallet = Self {
            state: Mutex::new(state),
            journal,
            network,
            reserve_sat: AtomicU64::new(0),
            log,
        };
        wallet.persist(&mut wallet.state())?;
        Ok(wallet)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Queues what changed. Durable with the next commit, in order with everything else.
    fn persist(&self, state: &mut State) -> Result<(), NodeError> {
        let changes = state.bdk.rest().take_staged();
        let State {
            bdk, books, locks, ..
        } = state;
        let mut puts = Vec::new();
        if let Some(changes) = &changes {
            books.changed(bdk, changes, &|tx| funds(locks, tx));
            puts.push(change_put(state.next_change, changes)?);
            state.next_change = state.next_change.saturating_add(1);
        }
        let (more, rows) = state.books.take();
        puts.extend(more);
        // Together: the rows say what the wallet has learnt.
        self.journal.book_with(puts, &rows);
        Ok(())
    }

    /// Up to which block the wallet knows the chain.
    pub fn best_block(&self) -> BestBlock {
        let tip = self.state().bdk.latest_checkpoint();
        BestBlock::new(tip.hash(), tip.height())
    }

    /// A new address for others to pay to.
    pub fn new_address(&self) -> Result<Address, NodeError> {
        self.reveal(KeychainKind::External)
    }

    fn reveal(&self, keychain: KeychainKind) -> Result<Address, NodeError> {
        let mut state = self.state();
        let address = state.bdk.rest().reveal_next_address(keychain).address;
        self.persist(&mut state)?;
        Ok(address)
    }

    /// Keeps this much out of what can be sent or put into channels.
    pub fn set_reserve(&self, sat: u64) {
        self.reserve_sat.store(sat, Ordering::Relaxed);
    }

    /// What the wallet holds.
    pub fn balances(&self) -> Balances {
        let state = self.state();
        let locked = state.spoken_for();
        let tip = state.bdk.latest_checkpoint().height();
        let mut balances = Balances {
            anchor_reserve_sat: self.reserve_sat.load(Ordering::Relaxed),
            ..Balances::default()
        };
        let mut available = 0u64;
        for coin in state.bdk.unspent() {
            let value = coin.txout.value.to_sat();
            let kind = state.kind(coin, tip);
            let sum = match kind {
                Kind::Confirmed => &mut balances.confirmed_sat,
                Kind::Change => &mut balances.unconfirmed_sat,
                Kind::Foreign => &mut balances.untrusted_sat,
                Kind::Immature => &mut balances.immature_sat,
            };
            *sum = sum.saturating_add(value);
            if locked.contains(&coin.outpoint) {
                balances.locked_sat = balances.locked_sat.saturating_add(value);
            } else if state.usable(coin, kind, tip, ANY_DEPTH) {
                available = available.saturating_add(value);
            }
        }
        balances.spendable_sat = available.saturating_sub(balances.anchor_reserve_sat);
        balances
    }

    /// What channels can be funded with now, from coins that are settled this deep, sat.
    pub fn fundable_sat(&self, depth: u32) -> u64 {
        let reserve = self.reserve_sat.load(Ordering::Relaxed);
        let available = self.state().spendable(depth).sum_sat;
        available.saturating_sub(reserve)
    }

    /// Parses an address of this wallet's network.
    pub fn parse_address(&self, text: &str) -> Result<Address, NodeError> {
        let address = Address::from_str(text.trim())
            .map_err(|error| NodeError::address(format!("the address is malformed: {error}")))?;
        // The test networks share prefixes: an address may be of several.
        let networks: Vec<_> = NETWORKS
            .iter()
            .filter(|network| address.is_valid_for_network(**network))
            .map(Network::to_string)
            .collect();
        address.require_network(self.network).map_err(|_| {
            NodeError::address(format!(
                "the address is of {}, this node runs on {}",
                networks.join(" or "),
                self.network
            ))
        })
    }

    /// A signed transaction that pays `amount_sat` (or everything but the reserve) to `script`. It counts as
    /// sent: wait until it is durable, then broadcast it.
    pub fn send(
        &self,
        script: &Script,
        amount_sat: Option<u64>,
        fee_rate: u32,
    ) -> Result<Transaction, NodeError> {
        let mut state = self.state();
        let reserve = self.reserve_sat.load(Ordering::Relaxed);
        let mut built = match amount_sat {
            Some(sat) => {
                let value = Amount::from_sat(sat);
                state.build(script, value, fee_rate, reserve, ANY_DEPTH, &[])
            }
            None => state.drain(script, fee_rate, reserve),
        }
        .inspect_err(|_| self.persist_quietly(&mut state))?;
        let tx = state.sign(&mut built.psbt)?;
        state.bdk.sent(&tx, seconds());
        self.persist(&mut state)?;
        Ok(tx)
    }

    fn persist_quietly(&self, state: &mut State) {
        if let Err(error) = self.persist(state) {
            self.log.error(TARGET, format_args!("{error}"));
        }
    }

    /// Chooses and locks coins for an open whose funding script is not known yet, and answers the fee of the
    /// funding transaction in satoshis. Coins that are locked for it already are taken if they suffice.
    ///
    /// # Errors
    /// `insufficient_funds`; what was locked before stays locked.
    pub fn select_and_lock(
        &self,
        open: u128,
        value_sat: u64,
        fee_rate: u32,
        depth: u32,
    ) -> Result<u64, NodeError> {
        let mut state = self.state();
        let value = Amount::from_sat(value_sat);
        let before = state.locks.remove(&open);
        let draft = state.drafts.remove(&open);
        let result = match (&before, draft) {
            (Some(Lock { tx: Some(_), .. }), _) => Err(NodeError::internal(format!(
                "open {open:032x} has its funding transaction already"
            ))),
            (Some(lock), Some(draft))
                if draft.value == value && state.are_free(&lock.inputs, depth) =>
            {
                Ok((draft, lock.inputs.clone()))
            }
            (before, _) => {
                let had = before.as_ref().map_or(&[][..], |lock| &lock.inputs);
                self.draft(&mut state, open, value, fee_rate, depth, had)
            }
        };
        let (draft, inputs) = match result {
            Ok(drafted) => drafted,
            Err(error) => {
                state.locks.extend(before.map(|lock| (open, lock)));
                self.persist_quietly(&mut state);
                return Err(error);
            }
        };
        let fee_sat = fee_of(&draft.psbt)?;
        state.drafts.insert(open, draft);
        self.put_lock(&mut state, open, Lock { inputs, tx: None })?;
        self.persist(&mut state)?;
        Ok(fee_sat)
    }

    fn draft(
        &self,
        state: &mut State,
        open: u128,
        value: Amount,
        fee_rate: u32,
        depth: u32,
        had: &[OutPoint],
    ) -> Result<(Draft, Vec<OutPoint>), NodeError> {
        // Of the size of the script to come, and found again when that is known.
        let dummy = ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array(
            sha256::Hash::hash(&open.to_be_bytes()).to_byte_array(),
        ));
        let reserve = self.reserve_sat.load(Ordering::Relaxed);
        let Built { psbt, .. } = state.build(&dummy, value, fee_rate, reserve, depth, had)?;
        let inputs = psbt.unsigned_tx.input.iter();
        let inputs = inputs.map(|input| input.previous_output).collect();
        Ok((Draft { psbt, dummy, value }, inputs))
    }

    /// A signed transaction that splits large coins for the pool, with its fee in satoshis, if the pool wants one. It
    /// counts as sent: wait until it is durable, then broadcast it.
    ///
    /// # Errors
    /// `internal`: nothing is sent then.
    pub fn fill_pool(
        &self,
        pool: &Pool,
        fee_rate: u32,
        spent: Spent,
        depth: u32,
    ) -> Result<Option<(Transaction, u64)>, NodeError> {
        let mut state = self.state();
        let reserve = self.reserve_sat.load(Ordering::Relaxed);
        let Some(mut built) = state
            .build_split(pool, fee_rate, reserve, spent, depth)
            .inspect_err(|_| self.persist_quietly(&mut state))?
        else {
            self.persist(&mut state)?;
            return Ok(None);
        };
        let tx = state.sign(&mut built.psbt)?;
        state.bdk.sent(&tx, seconds());
        self.persist(&mut state)?;
        Ok(Some((tx, built.fee_sat)))
    }

    /// Signs the funding transaction for coins locked before, now that its script is known.
    pub fn fund_locked(
        &self,
        open: u128,
        script: &Script,
        value_sat: u64,
    ) -> Result<Transaction, NodeError> {
        let mut state = self.state();
        let mut draft = state.drafts.remove(&open).ok_or_else(|| {
            NodeError::not_found(format!("no coins are locked for open {open:032x}"))
        })?;
        let fits = draft.value == Amount::from_sat(value_sat) && script.is_p2wsh();
        let output = draft
            .psbt
            .unsigned_tx
            .output
            .iter_mut()
            .find(|output| output.script_pubkey == draft.dummy);
        match output {
            Some(output) if fits => output.script_pubkey = script.to_owned(),
            _ => {
                state.drafts.insert(open, draft);
                return Err(NodeError::internal(
                    "the channel is not the one that coins were locked for",
                ));
            }
        }
        let tx = state.sign(&mut draft.psbt)?;
        let inputs = tx.input.iter().map(|input| input.previous_output).collect();
        self.put_lock(
            &mut state,
            open,
            Lock {
                inputs,
                tx: Some(serialize_hex(&tx)),
            },
        )?;
        Ok(tx)
    }

    /// [`Wallet::select_and_lock`] and [`Wallet::fund_locked`] at once.
    pub fn fund(
        &self,
        open: u128,
        script: &Script,
        value_sat: u64,
        fee_rate: u32,
    ) -> Result<Transaction, NodeError> {
        self.select_and_lock(open, value_sat, fee_rate, ANY_DEPTH)?;
        self.fund_locked(open, script, value_sat)
            .inspect_err(|_| self.unlock(open))
    }

    /// The signed funding transaction of an open, after a restart too.
    pub fn funding(&self, open: u128) -> Option<Transaction> {
        self.state().locks.get(&open)?.funding()
    }

    /// The open whose signed funding transaction this is, while its coins are locked.
    pub fn funded_by(&self, txid: &Txid) -> Option<u128> {
        let state = self.state();
        let funded = |lock: &&Lock| {
            let tx = lock.funding();
            tx.is_some_and(|tx| tx.compute_txid() == *txid)
        };
        let mut locks = state.locks.iter();
        locks.find(|(_, lock)| funded(lock)).map(|(open, _)| *open)
    }

    /// What the signed funding transaction of an open costs, sat.
    pub fn funding_fee(&self, open: u128) -> Option<u64> {
        let tx = self.funding(open)?;
        let fee = self.state().bdk.calculate_fee(&tx).ok()?;
        Some(fee.to_sat())
    }

    /// The opens that hold coins. After a restart those without a channel are to be unlocked.
    pub fn locked(&self) -> Vec<u128> {
        self.state().locks.keys().copied().collect()
    }

    /// Gives the coins of an open back. Not to be called once its funding transaction may be out.
    pub fn unlock(&self, open: u128) {
        let mut state = self.state();
        state.drafts.remove(&open);
        if state.locks.remove(&open).is_some() {
            self.journal.delete(LOCKS, lock_key(open));
        }
    }

    /// The same transaction with another output at `index`, signed again; a smaller value leaves the rest to the fee.
    ///
    /// # Errors
    /// When there is no such output, or an input is not this wallet's.
    #[cfg(feature = "faults")]
    pub fn replace_output(
        &self,
        tx: &Transaction,
        index: usize,
        script: ScriptBuf,
        value: Amount,
    ) -> Result<(Transaction, u16), NodeError> {
        let internal = |why: &str| NodeError::internal(format!("output {index}: {why}"));
        let state = self.state();
        let mut unsigned = tx.clone();
        for input in &mut unsigned.input {
            input.witness = Witness::new();
        }
        let output = unsigned
            .output
            .get_mut(index)
            .ok_or_else(|| internal("not there"))?;
        *output = bitcoin::TxOut {
            value,
            script_pubkey: script,
        };
        let mut psbt =
            Psbt::from_unsigned_tx(unsigned).map_err(|error| internal(&error.to_string()))?;
        for (input, spent) in psbt.inputs.iter_mut().zip(&tx.input) {
            let coin = state.bdk.tx_graph().get_txout(spent.previous_output);
            input.witness_utxo = coin.cloned();
        }
        let index = u16::try_from(index).map_err(|_| internal("too many"))?;
        Ok((state.sign(&mut psbt)?, index))
    }

    fn put_lock(&self, state: &mut State, open: u128, lock: Lock) -> Result<(), NodeError> {
        self.journal.put(LOCKS, lock_key(open), json(&lock)?);
        state.locks.insert(open, lock);
        Ok(())
    }

    /// A transaction was handed to the network: its outputs to this wallet exist from now on.
    pub fn broadcasted(&self, tx: &Transaction) {
        let mut state = self.state();
        let State { bdk, books, .. } = &mut *state;
        books.watch(bdk, tx, true);
        bdk.sent(tx, seconds());
        self.persist_quietly(&mut state);
    }

    /// What it spends has been gone for long. It is forgotten, and the wallet's own coins in it are free again, if that
    /// cannot come back by this wallet's doing: some of it was never the wallet's, or hangs on a transaction of others that
    /// is `gone` itself. False if it is kept. One that comes to be all the same is found in its block.
    pub fn forget(&self, tx: &Transaction, gone: &HashSet<Txid>) -> bool {
        let mut state = self.state();
        let txid = tx.compute_txid();
        if confirmed_at(&state.bdk, &txid).is_some() || !state.hangs_on_gone(tx, gone) {
            return false;
        }
        state.bdk.change().apply_evicted_txs([(txid, seconds())]);
        if state.bdk.stands(&txid) {
            // As long as what spends its change is not forgotten.
            self.persist_quietly(&mut state);
            return false;
        }
        for input in &tx.input {
            let coin = input.previous_output;
            if state.bumps.remove(&coin).is_some() {
                self.journal.delete(BUMPS, coin.to_string());
            }
        }
        self.persist_quietly(&mut state);
        true
    }

    /// Every transaction that a mempool once took, or a block that is gone, and that is in no block; oldest first.
    pub fn unconfirmed(&self) -> Vec<Transaction> {
        let state = self.state();
        let all = state.bdk.transactions();
        let mut sent: Vec<_> = all
            .filter_map(|tx| match tx.chain_position {
                // A crash may have come before it was written that a mempool took it.
                ChainPosition::Unconfirmed { last_seen, .. } => Some((last_seen, tx.tx_node.tx)),
                ChainPosition::Confirmed { .. } => None,
            })
            .collect();
        sent.sort_by_key(|(seen, _)| *seen);
        sent.iter().map(|(_, tx)| tx.as_ref().clone()).collect()
    }

    /// A channel came to be: what will spend its funding output is booked on it.
    pub fn track(&self, funding: OutPoint, channel: ChannelId, value_sat: u64) {
        let mut state = self.state();
        state.books.track(funding, channel, value_sat);
        self.persist_quietly(&mut state);
    }

    /// Whether a channel was ever tracked.
    pub fn tracks(&self, channel: &ChannelId) -> bool {
        self.state().books.knows(channel)
    }

    /// What the ledger is held against: each transaction and what it changes, and the sum of all coins, sat.
    pub fn truth(&self) -> (BTreeMap<String, i64>, u64) {
        let state = self.state();
        let all = transactions(&state.bdk);
        let sum = state.bdk.list_unspent().fold(0_u64, |sum, coin| {
            sum.saturating_add(coin.txout.value.to_sat())
        });
        let all = all.into_iter().map(|(txid, sat)| (txid.to_string(), sat));
        (all.collect(), sum)
    }

    /// Payments to this wallet's addresses that were confirmed since the last call.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.state().received)
    }

    /// The block that holds a transaction of this wallet.
    pub fn confirmed_at(&self, txid: &Txid) -> Option<u32> {
        confirmed_at(&self.state().bdk, txid)
    }

    /// Whether a transaction to or from this wallet, in a block or in a mempool, spends this output.
    pub fn knows_spender(&self, spent: &OutPoint) -> bool {
        let state = self.state();
        let spenders = state.bdk.tx_graph().outspends(*spent);
        spenders.iter().any(|id| state.bdk.stands(id))
    }

    /// The transaction to or from this wallet, or closing a channel, that spends this output in a block, and its height.
    pub fn spender_in_block(&self, spent: &OutPoint) -> Option<(Arc<Transaction>, u32)> {
        let state = self.state();
        let graph = state.bdk.tx_graph();
        let mut spenders = graph.outspends(*spent).iter();
        spenders.find_map(|id| Some((graph.get_tx(*id)?, confirmed_at(&state.bdk, id)?)))
    }

    /// Whether a transaction of this wallet's is in no block and given up: what would spend it can never be.
    pub fn has_forgotten(&self, txid: &Txid) -> bool {
        self.state().has_forgotten(txid)
    }

    fn connect(&self, block: &Block, height: u32) {
        let mut state = self.state();
        let known = state
            .bdk
            .local_chain()
            .get(height)
            .is_some_and(|point| point.hash() == block.block_hash());
        if known {
            return;
        }
        {
            let State { bdk, books, .. } = &mut *state;
            for tx in &block.txdata {
                books.watch(bdk, tx, false);
            }
        }
        if let Err(error) = state.bdk.change().apply_block(block, height) {
            self.log.error(
                TARGET,
                format_args!("block {height} does not connect to the wallet: {error}"),
            );
            return;
        }
        if let Err(error) = state.keep_closes(block, height) {
            self.log
                .error(TARGET, format_args!("block {height}: {error}"));
        }
        let received = received(&state.bdk, block, height);
        state.received.extend(received);
        let done: Vec<u128> = state
            .locks
            .iter()
            .filter(|(_, lock)| {
                let tx = lock.funding();
                let at = tx.and_then(|tx| confirmed_at(&state.bdk, &tx.compute_txid()));
                at.is_some_and(|at| height.saturating_sub(at) >= LOCK_DEPTH)
            })
            .map(|(open, _)| *open)
            .collect();
        for open in done {
            state.locks.remove(&open);
            self.journal.delete(LOCKS, lock_key(open));
        }
        state.bumps.retain(|coin, since| {
            let comes = height.saturating_sub(*since) < BUMP_BLOCKS;
            if !comes {
                self.journal.delete(BUMPS, coin.to_string());
            }
            comes
        });
        self.persist_quietly(&mut state);
    }

    /// From now on these coins are spent by a fee bump, unless one was locked for an open since LDK chose it.
    fn spend_on_bump(&self, state: &mut State, tx: &Transaction) -> Result<(), NodeError> {
        let coins = tx.input.iter().map(|input| input.previous_output);
        let own: Vec<_> = coins
            .filter(|at| state.bdk.unspent().iter().any(|coin| coin.outpoint == *at))
            .collect();
        let locked = state.locked();
        if let Some(coin) = own.iter().find(|coin| locked.contains(coin)) {
            return Err(NodeError::new(
                "insufficient_funds",
                format!("{coin} was locked for an open meanwhile"),
            ));
        }
        let height = state.bdk.latest_checkpoint().height();
        for coin in own {
            if state.bumps.insert(coin, height) != Some(height) {
                self.journal.put(BUMPS, coin.to_string(), json(&height)?);
            }
        }
        Ok(())
    }

    /// All coins in blocks, with what each is worth.
    pub(crate) fn in_blocks(&self) -> Vec<(OutPoint, Amount)> {
        let state = self.state();
        let coins = state.bdk.unspent().iter();
        coins
            .filter(|coin| coin.chain_position.is_confirmed())
            .map(|coin| (coin.outpoint, coin.txout.value))
            .collect()
    }

    fn confirmed_coins(&self) -> Vec<Utxo> {
        let state = self.state();
        let locked = state.locked();
        let tip = state.bdk.latest_checkpoint().height();
        state
            .bdk
            .unspent()
            .iter()
            .filter(|coin| {
                !locked.contains(&coin.outpoint) && state.kind(coin, tip) == Kind::Confirmed
            })
            .filter_map(|coin| {
                let program = coin.txout.script_pubkey.as_bytes().get(2..)?;
                let hash = WPubkeyHash::from_slice(program).ok()?;
                Some(Utxo::new_v0_p2wpkh(coin.outpoint, coin.txout.value, &hash))
            })
            .collect()
    }
}

impl State {
    fn locked(&self) -> HashSet<OutPoint> {
        self.locks
            .values()
            .flat_map(|lock| lock.inputs.iter().copied())
            .collect()
    }

    fn has_forgotten(&self, txid: &Txid) -> bool {
        self.bdk.tx_graph().get_tx(*txid).is_some() && !self.bdk.stands(txid)
    }

    /// Has the wallet keep the transactions of this block that close channels, which are none of its own. After a
    /// reorganisation a block may have another one for the same channel: only whoever knows both can tell that what was
    /// claimed from the first is gone.
    fn keep_closes(&mut self, block: &Block, height: u32) -> Result<(), CannotConnectError> {
        let closes = block.txdata.iter().filter(|tx| self.books.closes(tx));
        let txs: Vec<_> = closes.cloned().map(Arc::new).collect();
        if txs.is_empty() {
            return Ok(());
        }
        let block_id = BlockId {
            height,
            hash: block.block_hash(),
        };
        let anchor = ConfirmationBlockTime {
            block_id,
            confirmation_time: block.header.time.into(),
        };
        let mut tx_update = TxUpdate::default();
        tx_update.anchors = txs.iter().map(|tx| (anchor, tx.compute_txid())).collect();
        tx_update.txs = txs;
        self.bdk.change().apply_update(Update {
            tx_update,
            ..Update::default()
        })
    }

    /// Whether a coin of this wallet's is spent with one that never was, or hangs on a transaction of others that is gone;
    /// or whether a claim is not counted any more.
    fn hangs_on_gone(&self, tx: &Transaction, gone: &HashSet<Txid>) -> bool {
        let (own, others) = self.spent_by(tx);
        // A payment of somebody else's may come back by itself, and holds nothing of ours.
        if own.is_empty() {
            return self.has_forgotten(&tx.compute_txid());
        }
        if !others.is_empty() {
            return true;
        }
        let (mut seen, mut todo) = (HashSet::new(), own);
        while let Some(OutPoint { txid, .. }) = todo.pop() {
            if confirmed_at(&self.bdk, &txid).is_some() || !seen.insert(txid) {
                continue;
            }
            let Some(parent) = self.bdk.tx_graph().get_tx(txid) else {
                continue;
            };
            let (own, others) = self.spent_by(&parent);
            let lost = || gone.contains(&txid) || !self.bdk.stands(&txid);
            if !others.is_empty() && lost() {
                return true;
            }
            todo.extend(own);
        }
        false
    }

    /// Coins that are spoken for: locked for an open, or spent on a fee bump.
    fn spoken_for(&self) -> HashSet<OutPoint> {
        let mut coins = self.locked();
        coins.extend(self.bumps.keys().copied());
        coins
    }

    /// These coins, and the weight of a witness for each.
    fn inputs(&self, coins: &[OutPoint]) -> Result<Vec<(LocalOutput, Weight)>, NodeError> {
        let unspent = self.bdk.unspent();
        let find = |at: &OutPoint| {
            let coin = unspent.iter().find(|coin| coin.outpoint == *at)?;
            let descriptor = self.bdk.public_descriptor(coin.keychain);
            let weight = descriptor.max_weight_to_satisfy().ok()?;
            Some((coin.clone(), weight))
        };
        let found: Option<Vec<_>> = coins.iter().map(find).collect();
        found.ok_or_else(|| NodeError::internal("a chosen coin is not there"))
    }

    /// Pays `value` to `script`: from the coins in `had` if they suffice, else from the smallest coin that does, so that
    /// the others stay free for channels opened at the same time, else from as many as it takes.
    fn build(
        &mut self,
        script: &Script,
        value: Amount,
        fee_rate: u32,
        reserve_sat: u64,
        depth: u32,
        had: &[OutPoint],
    ) -> Result<Built, NodeError> {
        let coins = self.spendable(depth);
        let available = coins.sum_sat.saturating_sub(reserve_sat);
        let least = coins::least_for(&coins.free, value.to_sat(), fee_rate);
        // A reorganisation may have come since.
        let had = if coins.hold(had) { had } else { &[] };
        let choices = [Some(had), Some(least.as_slice()), None];
        for chosen in choices.into_iter().filter(|c| *c != Some(&[])) {
            let inputs = chosen.map(|chosen| self.inputs(chosen)).transpose()?;
            let mut builder = self.bdk.rest().build_tx();
            builder
                .fee_rate(FeeRate::from_sat_per_kwu(u64::from(fee_rate)))
                .only_witness_utxo()
                .add_recipient(script.to_owned(), value);
            match inputs {
                Some(inputs) => add(&mut builder, inputs)?,
                None => {
                    builder.unspendable(coins.barred.clone());
                }
            }
            let psbt = match builder.finish() {
                Ok(psbt) => psbt,
                Err(_) if chosen.is_some() => continue,
                Err(error) => return Err(cannot_build(error, value.to_sat(), available)),
            };
            let fee_sat = fee_of(&psbt)?;
            let needed = value.to_sat().saturating_add(fee_sat);
            if needed > available {
                self.give_back(&psbt);
                return Err(insufficient(needed, available));
            }
            return Ok(Built { psbt, fee_sat });
        }
        Err(insufficient(value.to_sat(), available))
    }

    /// The transaction that the pool wants now.
    fn build_split(
        &mut self,
        pool: &Pool,
        fee_rate: u32,
        reserve_sat: u64,
        spent: Spent,
        depth: u32,
    ) -> Result<Option<Built>, NodeError> {
        let mut free = self.spendable(depth).free;
        let values: Vec<u64> = free.iter().map(|coin| coin.value_sat).collect();
        let Some(split) = pool.split(&values, reserve_sat, fee_rate, spent) else {
            return Ok(None);
        };
        free.sort_by_key(|coin| std::cmp::Reverse(coin.value_sat));
        let inputs = usize::try_from(split.inputs).unwrap_or(usize::MAX);
        let chosen: Vec<OutPoint> = free.iter().take(inputs).map(|coin| coin.outpoint).collect();
        let scripts: Vec<ScriptBuf> = (0..split.outputs)
            .map(|_| {
                let next = self.bdk.rest().reveal_next_address(KeychainKind::Internal);
                next.script_pubkey()
            })
            .collect();
        let inputs = self.inputs(&chosen)?;
        let mut builder = self.bdk.rest().build_tx();
        builder
            .fee_rate(FeeRate::from_sat_per_kwu(u64::from(fee_rate)))
            .only_witness_utxo();
        add(&mut builder, inputs)?;
        for script in scripts {
            builder.add_recipient(script, Amount::from_sat(pool.coin_sat));
        }
        let psbt = builder
            .finish()
            .map_err(|error| cannot_build(error, pool.coin_sat, 0))?;
        let fee_sat = fee_of(&psbt)?;
        if fee_sat > split.max_fee_sat {
            self.give_back(&psbt);
            return Ok(None);
        }
        Ok(Some(Built { psbt, fee_sat }))
    }

    fn drain(
        &mut self,
        script: &Script,
        fee_rate: u32,
        reserve_sat: u64,
    ) -> Result<Built, NodeError> {
        let coins = self.spendable(ANY_DEPTH);
        let available = coins.sum_sat.saturating_sub(reserve_sat);
        let kept = (reserve_sat > 0).then(|| {
            self.bdk
                .rest()
                .next_unused_address(KeychainKind::Internal)
                .script_pubkey()
        });
        let mut builder = self.bdk.rest().build_tx();
        builder
            .unspendable(coins.barred)
            .fee_rate(FeeRate::from_sat_per_kwu(u64::from(fee_rate)))
            .only_witness_utxo();
        builder.drain_wallet().drain_to(script.to_owned());
        if let Some(kept) = kept {
            // A reserve too small for an output of its own would be lost to the fee.
            builder.add_recipient(
                kept.clone(),
                Amount::from_sat(reserve_sat).max(kept.minimal_non_dust()),
            );
        }
        let psbt = builder
            .finish()
            .map_err(|error| cannot_build(error, 0, available))?;
        // With nothing left for the recipient the rest would go to the fee.
        if !psbt
            .unsigned_tx
            .output
            .iter()
            .any(|output| *output.script_pubkey == *script)
        {
            return Err(insufficient(1, available));
        }
        let fee_sat = fee_of(&psbt)?;
        Ok(Built { psbt, fee_sat })
    }

    /// The change address of a transaction that will not be can serve the next one.
    fn give_back(&mut self, psbt: &Psbt) {
        for output in &psbt.unsigned_tx.output {
            if let Some((keychain, index)) =
                self.bdk.derivation_of_spk(output.script_pubkey.clone())
            {
                self.bdk.rest().unmark_used(keychain, index);
            }
        }
    }

    /// Signs what was built here.
    fn sign(&self, psbt: &mut Psbt) -> Result<Transaction, NodeError> {
        if self.sign_own(psbt)? != psbt.inputs.len() {
            return Err(NodeError::internal("the wallet cannot sign what it built"));
        }
        psbt.clone()
            .extract_tx()
            .map_err(|error| NodeError::internal(format!("the fee is absurd: {error}")))
    }

    /// Signs the inputs that are this wallet's and answers how many they were.
    fn sign_own(&self, psbt: &mut Psbt) -> Result<usize, NodeError> {
        let internal =
            |error: &dyn std::fmt::Display| NodeError::internal(format!("signing: {error}"));
        let secp = self.account.secp();
        let tx = psbt.unsigned_tx.clone();
        let mut hashes = SighashCache::new(&tx);
        let mut signed = 0usize;
        for (n, input) in psbt.inputs.iter_mut().enumerate() {
            let Some(spent) = &input.witness_utxo else {
                continue;
            };
            let Some((keychain, index)) = self.bdk.derivation_of_spk(spent.script_pubkey.clone())
            else {
                continue;
            };
            let key = self
                .account
                .key(keychain == KeychainKind::Internal, index)?;
            let kind = EcdsaSighashType::All;
            let hash = hashes
                .p2wpkh_signature_hash(n, &spent.script_pubkey, spent.value, kind)
                .map_err(|error| internal(&error))?;
            let signature =
                secp.sign_ecdsa_low_r(&Message::from_digest(hash.to_byte_array()), &key);
            let signature = bitcoin::ecdsa::Signature {
                signature,
                sighash_type: kind,
            };
            input.final_script_witness = Some(Witness::p2wpkh(&signature, &key.public_key(secp)));
            signed = signed.saturating_add(1);
        }
        Ok(signed)
    }
}

fn confirmed_at(bdk: &Bdk, txid: &Txid) -> Option<u32> {
    let node = bdk.tx_graph().get_tx_node(*txid)?;
    let chain = bdk.local_chain();
    let in_chain = |block: &BlockId| {
        chain
            .get(block.height)
            .is_some_and(|point| point.hash() == block.hash)
    };
    node.anchors
        .iter()
        .map(|anchor| anchor.block_id)
        .find(in_chain)
        .map(|block| block.height)
}

fn received(bdk: &Bdk, block: &Block, height: u32) -> Vec<Received> {
    let mut all = Vec::new();
    for tx in &block.txdata {
        for (vout, output) in (0u32..).zip(&tx.output) {
            let mine = bdk.derivation_of_spk(output.script_pubkey.clone());
            if matches!(mine, Some((KeychainKind::External, _))) {
                let outpoint = OutPoint {
                    txid: tx.compute_txid(),
                    vout,
                };
                all.push(Received {
                    outpoint,
                    value_sat: output.value.to_sat(),
                    height,
                });
            }
        }
    }
    all
}

fn load(
    entries: &[(String, Vec<u8>)],
    account: &Account,
    network: Network,
    lookahead: u32,
    journal: &Journal,
) -> Result<(Bdk, u64), NodeError> {
    let mut all = ChangeSet::default();
    let mut next = 0u64;
    for (key, value) in entries {
        all.merge(serde_json::from_slice(value).map_err(|_| corrupt("a wallet change"))?);
        let number: u64 = key.parse().map_err(|_| corrupt("a wallet change's key"))?;
        next = next.max(number.saturating_add(1));
    }
    if entries.len() > MAX_CHANGES {
        // The whole comes last in order, so that a crash between these leaves it in force.
        let (kind, key, value) = change_put(next, &all)?;
        journal.put(kind, key, value);
        next = next.saturating_add(1);
        entries
            .iter()
            .for_each(|(key, _)| journal.delete(CHANGES, key.clone()));
    }
    let bdk = LoadParams::new()
        .descriptor(KeychainKind::External, Some(account.external.clone()))
        .descriptor(KeychainKind::Internal, Some(account.internal.clone()))
        .check_network(network)
        .lookahead(lookahead)
        .load_wallet_no_persist(all)
        .map_err(|error| {
            NodeError::config(format!(
                "the store does not belong to this seed and network: {error}"
            ))
        })?
        .ok_or_else(|| corrupt("the wallet"))?;
    Ok((bdk, next))
}

fn change_put(number: u64, changes: &ChangeSet) -> Result<Put, NodeError> {
    Ok((CHANGES.into(), format!("{number:020}"), json(changes)?))
}

/// The open that a transaction funds.
fn funds(locks: &BTreeMap<u128, Lock>, tx: &Transaction) -> Option<OpenId> {
    let hex = serialize_hex(tx);
    let lock = locks
        .iter()
        .find(|(_, lock)| lock.tx.as_ref() == Some(&hex));
    lock.map(|(open, _)| OpenId(*open))
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, NodeError> {
    serde_json::to_vec(value)
        .map_err(|error| NodeError::internal(format!("the wallet cannot be written: {error}")))
}

fn lock_key(open: u128) -> String {
    format!("{open:032x}")
}

fn corrupt(what: &str) -> NodeError {
    NodeError::new(
        "store_corrupt",
        format!("{what} in the store is not what it should be"),
    )
}

fn seconds() -> u64 {
    now_ms().div_euclid(1_000)
}

fn fee_of(psbt: &Psbt) -> Result<u64, NodeError> {
    psbt.fee()
        .map(Amount::to_sat)
        .map_err(|error| NodeError::internal(format!("the fee is unknown: {error}")))
}

fn insufficient(needed_sat: u64, available_sat: u64) -> NodeError {
    NodeError::insufficient_funds(
        needed_sat.saturating_mul(1_000),
        available_sat.saturating_mul(1_000),
    )
}

/// Has a transaction spend these coins and no others. Not by `add_utxos`, which walks through all transactions for them.
fn add(
    builder: &mut TxBuilder<'_, DefaultCoinSelectionAlgorithm>,
    coins: Vec<(LocalOutput, Weight)>,
) -> Result<(), NodeError> {
    builder.manually_selected_only();
    for (coin, weight) in coins {
        let input = psbt::Input {
            witness_utxo: Some(coin.txout),
            ..psbt::Input::default()
        };
        let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        builder
            .add_foreign_utxo_with_sequence(coin.outpoint, input, weight, sequence)
            .map_err(|error| NodeError::internal(format!("a chosen coin: {error}")))?;
    }
    Ok(())
}

fn cannot_build(error: CreateTxError, needed_sat: u64, available_sat: u64) -> NodeError {
    match error {
        CreateTxError::CoinSelection(short) => {
            insufficient(short.needed.to_sat().max(needed_sat), available_sat)
        }
        CreateTxError::NoUtxosSelected => insufficient(needed_sat.max(1), available_sat),
        CreateTxError::OutputBelowDustLimit(_) => {
            NodeError::amount("the amount is too small for an output")
        }
        other => NodeError::internal(format!("the transaction cannot be built: {other}")),
    }
}

impl Addresses for Wallet {
    fn next_script(&self) -> Option<ScriptBuf> {
        let address = self.reveal(KeychainKind::External);
        address
            .inspect_err(|error| self.log.error(TARGET, format_args!("{error}")))
            .ok()
            .map(|a| a.script_pubkey())
    }

    fn is_gone(&self, at: &OutPoint) -> bool {
        let state = self.state();
        let known = state.bdk.tx_graph().get_tx(at.txid).is_some();
        known && confirmed_at(&state.bdk, &at.txid).is_none()
    }
}

impl Listen for Wallet {
    fn block_connected(&self, block: &Block, height: u32) {
        self.connect(block, height);
    }

    fn filtered_block_connected(&self, header: &Header, txdata: &TransactionData<'_>, height: u32) {
        let txdata = txdata.iter().map(|(_, tx)| (*tx).clone()).collect();
        self.connect(
            &Block {
                header: *header,
                txdata,
            },
            height,
        );
    }

    /// The next block that is connected replaces those that are gone.
    fn blocks_disconnected(&self, fork_point: BestBlock) {
        self.log.info(
            TARGET,
            format_args!("reorganisation: back to block {}", fork_point.height),
        );
    }
}

impl WalletSource for Wallet {
    fn list_confirmed_utxos<'a>(&'a self) -> AsyncResult<'a, Vec<Utxo>, ()> {
        Box::pin(async { Ok(self.confirmed_coins()) })
    }

    /// Not a change address: LDK replaces what it bumps, so its change must not be spent unconfirmed.
    fn get_change_script<'a>(&'a self) -> AsyncResult<'a, ScriptBuf, ()> {
        Box::pin(async { self.next_script().ok_or(()) })
    }

    fn sign_psbt<'a>(&'a self, psbt: Psbt) -> AsyncResult<'a, Transaction, ()> {
        Box::pin(async move {
            let mut psbt = psbt;
            let durable = {
                let mut state = self.state();
                let spent = self.spend_on_bump(&mut state, &psbt.unsigned_tx);
                // Inputs of the channel are signed by LDK: the whole is never final here.
                let signed = spent.and_then(|()| state.sign_own(&mut psbt));
                signed.map_err(|error| {
                    self.log
                        .error(TARGET, format_args!("a fee bump cannot be signed: {error}"));
                })?;
                self.journal.durable()
            };
            durable.await.map_err(drop)?;
            Ok(psbt.extract_tx_unchecked_fee_rate())
        })
    }
}

impl ChangeDestinationSource for Wallet {
    fn get_change_destination_script<'a>(&'a self) -> AsyncResult<'a, ScriptBuf, ()> {
        Box::pin(async { self.next_script().ok_or(()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        non_snake_case,
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )]
    use super::*;
    use crate::commit::Committer;
    use crate::store::{MemoryStore, Store as _};
    use bitcoin::block::Version as BlockVersion;
    use bitcoin::{absolute, transaction, CompactTarget, Sequence, TxIn, TxMerkleNode, TxOut};

    const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    /// A chain that only the wallet sees.
    struct Net {
        store: MemoryStore,
        committer: Option<Committer>,
        wallet: Wallet,
        tip: BestBlock,
        salt: u32,
    }

    impl Net {
        fn new() -> Self {
            let genesis = bitcoin::constants::genesis_block(Network::Regtest).block_hash();
            let mut net = Self::born(&[]);
            net.tip = BestBlock::new(genesis, 0);
            net
        }

        fn born(after: &[BestBlock]) -> Self {
            let store = MemoryStore::new();
            let (committer, wallet) = open(&store, WORDS, after).unwrap();
            Self {
                tip: wallet.best_block(),
                store,
                committer: Some(committer),
                wallet,
                salt: 0,
            }
        }

        /// What is kept of BDK's view is what BDK would say now.
        fn is_up_to_date(&self) {
            let state = self.wallet.state();
            let unspent: Vec<_> = state.bdk.list_unspent().collect();
            assert_eq!(state.bdk.unspent(), unspent);
            for tx in state.bdk.tx_graph().full_txs() {
                let stands = state.bdk.get_tx(tx.txid).is_some();
                assert_eq!(state.bdk.stands(&tx.txid), stands, "{}", tx.txid);
            }
        }

        fn mine_on(&mut self, parent: BestBlock, txdata: Vec<Transaction>) -> BestBlock {
            self.is_up_to_date();
            self.salt += 1;
            let header = Header {
                version: BlockVersion::TWO,
                prev_blockhash: parent.block_hash,
                merkle_root: TxMerkleNode::all_zeros(),
                time: self.salt,
                bits: CompactTarget::from_consensus(0),
                nonce: self.salt,
            };
            let block = Block { header, txdata };
            self.tip = BestBlock::new(block.block_hash(), parent.height + 1);
            self.wallet.block_connected(&block, self.tip.height);
            self.is_up_to_date();
            self.tip
        }

        fn mine(&mut self, txdata: Vec<Transaction>) -> BestBlock {
            self.mine_on(self.tip, txdata)
        }

        fn pay(&mut self, sat: u64) -> Transaction {
            self.salt += 1;
            let script = self.wallet.new_address().unwrap().script_pubkey();
            foreign(self.salt, vec![(script, sat)])
        }

        fn restart(&mut self, crash: bool) {
            now(async {
                if crash {
                    self.wallet.journal.durable().await.unwrap();
                } else {
                    self.committer.take().unwrap().shutdown().await.unwrap();
                }
            });
            self.committer = None;
            let (committer, wallet) = open(&self.store, WORDS, &[]).unwrap();
            self.committer = Some(committer);
            self.wallet = wallet;
        }
    }

    fn now<T>(future: impl std::future::Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn open(
        store: &MemoryStore,
        words: &str,
        birthday: &[BestBlock],
    ) -> Result<(Committer, Wallet), NodeError> {
        let (committer, journal, mut boot) =
            Committer::start(Box::new(store.clone()), Log::silent())?;
        let seed = Seed::parse(words)?;
        let wallet = Wallet::open(
            &seed,
            Network::Regtest,
            birthday,
            LOOKAHEAD,
            journal,
            &mut boot,
            Log::silent(),
        )?;
        Ok((committer, wallet))
    }

    fn foreign(salt: u32, outputs: Vec<(ScriptBuf, u64)>) -> Transaction {
        let previous_output = OutPoint {
            txid: Txid::from_byte_array([7; 32]),
            vout: salt,
        };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output,
                sequence: Sequence::MAX,
                ..TxIn::default()
            }],
            output: outputs
                .into_iter()
                .map(|(script_pubkey, sat)| TxOut {
                    value: Amount::from_sat(sat),
                    script_pubkey,
                })
                .collect(),
        }
    }

    fn elsewhere() -> ScriptBuf {
        ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([9; 32]))
    }

    fn inputs(tx: &Transaction) -> HashSet<OutPoint> {
        tx.input.iter().map(|input| input.previous_output).collect()
    }

    #[test]
    fn receives_sends_and_keeps_the_reserve() {
        let mut net = Net::new();
        let pay = net.pay(1_000_000);
        net.wallet.broadcasted(&pay);
        assert_eq!(net.wallet.balances().untrusted_sat, 1_000_000);
        assert_eq!(net.wallet.balances().spendable_sat, 0);
        net.mine(vec![pay.clone()]);
        assert_eq!(net.wallet.balances().confirmed_sat, 1_000_000);
        let received = net.wallet.take_received();
        assert_eq!(
            (received.len(), received[0].value_sat, received[0].height),
            (1, 1_000_000, 1)
        );

        net.wallet.set_reserve(400_000);
        assert_eq!(net.wallet.balances().spendable_sat, 600_000);
        let error = net
            .wallet
            .send(&elsewhere(), Some(600_000), 1_000)
            .unwrap_err();
        assert_eq!(error.code, "insufficient_funds");
        assert_eq!(error.details["available_msat"], 600_000_000);
        assert_eq!(
            net.wallet
                .send(&elsewhere(), Some(10), 1_000)
                .unwrap_err()
                .code,
            "amount"
        );
        let tx = net.wallet.send(&elsewhere(), Some(500_000), 1_000).unwrap();
        let after = net.wallet.balances();
        let fee = 1_000_000 - 500_000 - after.unconfirmed_sat;
        let weight = tx.weight().to_wu();
        assert!(fee >= weight && fee <= weight + 20, "{fee} for {weight}");
        // The script and witness are what a node would check.
        assert_eq!(tx.input[0].witness.len(), 2);

        // Everything but the reserve; the change is spendable before it is confirmed.
        let all = net.wallet.send(&elsewhere(), None, 1_000).unwrap();
        assert_eq!(all.output.len(), 2);
        assert_eq!(net.wallet.balances().unconfirmed_sat, 400_000);
        assert_eq!(net.wallet.balances().spendable_sat, 0);
        assert_eq!(
            net.wallet.send(&elsewhere(), None, 1_000).unwrap_err().code,
            "insufficient_funds"
        );
        net.wallet.set_reserve(0);
        net.wallet.send(&elsewhere(), None, 1_000).unwrap();
        assert_eq!(net.wallet.balances(), Balances::default());
    }

    #[test]
    fn a_coin_of_a_fee_bump_is_spent_by_nothing_else() {
        let mut net = Net::new();
        let pay = net.pay(1_000_000);
        net.mine(vec![pay]);
        let bump = |net: &Net| {
            let coin = net.wallet.confirmed_coins().remove(0);
            let tx = Transaction {
                input: vec![TxIn {
                    previous_output: coin.outpoint,
                    ..TxIn::default()
                }],
                ..foreign(0, vec![(elsewhere(), 900_000)])
            };
            let mut psbt = Psbt::from_unsigned_tx(tx).unwrap();
            psbt.inputs[0].witness_utxo = Some(coin.output);
            now(WalletSource::sign_psbt(&net.wallet, psbt))
        };
        let open = |net: &Net| net.wallet.select_and_lock(1, 100_000, 1_000, ANY_DEPTH);
        assert!(!bump(&net).unwrap().input[0].witness.is_empty());
        assert_eq!(open(&net).unwrap_err().code, "insufficient_funds");
        assert!(net.wallet.send(&elsewhere(), None, 1_000).is_err());
        assert_eq!(net.wallet.balances().spendable_sat, 0);
        // A crash before any mempool has it.
        net.restart(true);
        assert_eq!(open(&net).unwrap_err().code, "insufficient_funds");
        assert!(bump(&net).is_ok(), "raised as often as it takes");

        for _ in 1..BUMP_BLOCKS {
            net.mine(vec![]);
        }
        assert!(open(&net).is_err());
        net.mine(vec![]);
        let listed = net.wallet.confirmed_coins().remove(0);
        open(&net).unwrap();
        assert!(net.wallet.confirmed_coins().is_empty(), "{listed:?}");
    }

    #[test]
    fn what_a_bump_can_never_be_gives_its_coin_back() {
        let mut net = Net::new();
        let pay = net.pay(1_000_000);
        net.mine(vec![pay]);
        let coin = net.wallet.confirmed_coins().remove(0).outpoint;
        let change = net.wallet.next_script().unwrap();
        let mut child = foreign(99, vec![(change, 990_000)]);
        child.input.push(TxIn {
            previous_output: coin,
            ..TxIn::default()
        });
        net.wallet.broadcasted(&child);
        let stuck = net.wallet.balances();
        assert_eq!((stuck.untrusted_sat, stuck.spendable_sat), (990_000, 0));
        assert!(net.wallet.forget(&child, &HashSet::new()));
        net.restart(false);
        let free = net.wallet.balances();
        assert_eq!((free.untrusted_sat, free.spendable_sat), (0, 1_000_000));

        // It comes to be all the same, and stays.
        net.mine(vec![child.clone()]);
        assert_eq!(net.wallet.balances().confirmed_sat, 990_000);
        assert!(!net.wallet.forget(&child, &HashSet::new()));
        let own = net.wallet.send(&elsewhere(), None, 1_000).unwrap();
        let all = HashSet::from([own.compute_txid()]);
        assert!(!net.wallet.forget(&own, &all), "its own coins alone");
    }

    #[test]
    fn a_claim_from_a_commitment_that_another_has_replaced_is_not_counted() {
        let mut net = Net::new();
        let at = OutPoint::new(Txid::all_zeros(), 7);
        net.wallet.track(at, ChannelId([5; 32]), 100_000);
        let commitment = |sat| {
            let mut tx = foreign(1, vec![(elsewhere(), sat)]);
            tx.input[0].previous_output = at;
            tx
        };
        let spends = |of: &Transaction, script: ScriptBuf, sat| {
            let mut tx = foreign(1, vec![(script, sat)]);
            tx.input[0].previous_output = OutPoint::new(of.compute_txid(), 0);
            tx
        };
        let (theirs, ours) = (commitment(90_000), commitment(91_000));
        let before = net.mine(vec![]);
        net.mine(vec![theirs.clone()]);
        let claim = spends(&theirs, net.wallet.next_script().unwrap(), 89_000);
        net.wallet.broadcasted(&claim);
        net.mine(vec![claim.clone()]);
        let next = spends(&claim, net.wallet.next_script().unwrap(), 88_000);
        net.wallet.broadcasted(&next);
        let held = |net: &Net| {
            let all = net.wallet.balances();
            all.confirmed_sat + all.unconfirmed_sat + all.untrusted_sat
        };
        assert_eq!(held(&net), 88_000);

        let left = OutPoint::new(theirs.compute_txid(), 0);
        assert!(!net.wallet.is_gone(&left));

        // The chain goes back, and the other one is mined.
        net.wallet.blocks_disconnected(before);
        net.mine_on(before, vec![]);
        assert!(net.wallet.is_gone(&left));
        assert!(
            !net.wallet.forget(&claim, &HashSet::new()),
            "it may be mined again"
        );
        net.mine(vec![ours.clone()]);
        for _ in 0..2 {
            assert_eq!(held(&net), 0);
            assert!(net.wallet.is_gone(&left));
            assert!(!net.wallet.is_gone(&OutPoint::new(ours.compute_txid(), 0)));
            net.restart(true);
        }
        assert!(
            net.wallet.forget(&claim, &HashSet::new()),
            "it is sent no more"
        );
        let rows = net.store.clone().rows("ledger", 0, usize::MAX).unwrap();
        let rows: Vec<String> = rows
            .into_iter()
            .map(|row| String::from_utf8(row.value).unwrap())
            .collect();
        for tx in [&claim, &next] {
            let txid = tx.compute_txid().to_string();
            let undone = |row: &&String| row.contains("chain_undone") && row.contains(&txid);
            assert_eq!(rows.iter().filter(undone).count(), 1, "{txid}");
        }

        // And back again.
        net.wallet.blocks_disconnected(before);
        net.mine_on(before, vec![theirs]);
        net.mine(vec![claim]);
        assert_eq!(held(&net), 88_000);
        assert!(!net.wallet.is_gone(&left));
    }

    #[test]
    fn what_a_client_relies_on_hangs_on_nothing_young_of_others() {
        let mut net = Net::new();
        let pay = net.pay(1_000_000);
        net.mine(vec![pay]);
        let fund = |net: &Net, open| net.wallet.select_and_lock(open, 100_000, 1_000, 6);
        for _ in 1..6 {
            assert_eq!(net.wallet.fundable_sat(6), 0);
            assert_eq!(fund(&net, 1).unwrap_err().code, "insufficient_funds");
            assert_eq!(net.wallet.balances().spendable_sat, 1_000_000);
            net.mine(vec![]);
        }
        fund(&net, 1).unwrap();
        // Its change may be young, and need not even be in a block: it can be sent again.
        let first = net.wallet.fund_locked(1, &elsewhere(), 100_000).unwrap();
        net.wallet.broadcasted(&first);
        fund(&net, 2).unwrap();
        let second = net.wallet.fund_locked(2, &elsewhere(), 100_000).unwrap();
        net.wallet.broadcasted(&second);
        net.mine(vec![first, second]);
        fund(&net, 3).unwrap();
        // With a young coin of others in it, it is as young as that.
        net.wallet.unlock(3);
        let young = net.pay(700_000);
        net.mine(vec![young]);
        let all = net
            .wallet
            .send(&elsewhere(), Some(1_400_000), 1_000)
            .unwrap();
        assert_eq!(all.input.len(), 2);
        assert_eq!(
            (fund(&net, 4).is_err(), net.wallet.fundable_sat(6)),
            (true, 0)
        );
    }

    #[test]
    fn a_funding_whose_coin_no_chain_has_any_more_is_forgotten() {
        let mut net = Net::new();
        let before = net.mine(vec![]);
        let pay = net.pay(1_000_000);
        net.mine(vec![pay.clone()]);
        let funding = net.wallet.fund(1, &elsewhere(), 500_000, 1_000).unwrap();
        net.wallet.broadcasted(&funding);
        assert_eq!(net.wallet.funded_by(&funding.compute_txid()), Some(1));
        // While the coin is there, what is missing may be missing for other reasons.
        let gone = HashSet::from([pay.compute_txid()]);
        assert!(!net.wallet.forget(&funding, &gone));
        // What spends its change hangs on the same coin.
        let second = net.wallet.fund(2, &elsewhere(), 400_000, 1_000).unwrap();
        net.wallet.broadcasted(&second);

        net.wallet.blocks_disconnected(before);
        net.mine_on(before, vec![]);
        assert!(
            !net.wallet.forget(&second, &HashSet::new()),
            "not mined yet"
        );
        assert!(!net.wallet.forget(&pay, &gone), "nothing of ours is in it");
        assert!(!net.wallet.forget(&funding, &gone), "its change is spent");
        assert!(net.wallet.forget(&second, &gone) && net.wallet.forget(&funding, &gone));
        assert!(net.wallet.has_forgotten(&funding.compute_txid()));
        net.wallet.unlock(1);
        net.wallet.unlock(2);
        for late in [false, true] {
            let after = net.wallet.balances();
            let all = (
                after.confirmed_sat,
                after.unconfirmed_sat,
                after.untrusted_sat,
            );
            // The payment itself may come back.
            assert_eq!(all, (0, 0, 1_000_000), "after a restart: {late}");
            net.restart(true);
        }
        assert!(net.wallet.locked().is_empty());
        let left = net.wallet.unconfirmed();
        assert_eq!(left, vec![pay], "which is sent again");
    }

    #[test]
    fn what_was_known_by_its_block_alone_is_sent_again() {
        let mut net = Net::new();
        let pay = net.pay(1_000_000);
        net.mine(vec![pay]);
        let before = net.mine(vec![]);
        let funding = net.wallet.fund(1, &elsewhere(), 500_000, 1_000).unwrap();
        net.mine(vec![funding.clone()]);
        assert!(net.wallet.unconfirmed().is_empty());
        net.wallet.blocks_disconnected(before);
        net.mine_on(before, vec![]);
        for _ in 0..2 {
            assert_eq!(net.wallet.unconfirmed(), vec![funding.clone()]);
            net.restart(true);
        }
    }

    #[test]
    fn what_is_sent_is_taken_in_without_a_walk_only_if_it_conflicts_with_nothing() {
        let mut net = Net::new();
        let pay = net.pay(1_000_000);
        net.mine(vec![pay.clone()]);
        let first_of = |tx: &Transaction| OutPoint::new(tx.compute_txid(), 0);
        let spend = |net: &mut Net, coin: OutPoint, sat: u64| {
            let mut tx = net.pay(sat);
            tx.input[0].previous_output = coin;
            tx
        };
        let first = spend(&mut net, first_of(&pay), 900_000);
        let child = spend(&mut net, first_of(&first), 800_000);
        let second = spend(&mut net, first_of(&pay), 850_000);
        let grandchild = spend(&mut net, first_of(&child), 700_000);
        let third = spend(&mut net, first_of(&pay), 840_000);
        for tx in [&first, &child, &second, &first] {
            net.wallet.broadcasted(tx);
            net.is_up_to_date();
        }
        net.mine(vec![second]);
        // One hangs on what is not to be any more, one conflicts with a block.
        for tx in [grandchild, third] {
            net.wallet.broadcasted(&tx);
            net.is_up_to_date();
        }
        let parent = net.pay(50_000);
        let child = spend(&mut net, first_of(&parent), 40_000);
        for tx in [child, parent] {
            net.wallet.broadcasted(&tx);
            net.is_up_to_date();
        }
    }

    #[test]
    fn opens_never_share_coins_and_locks_survive() {
        let mut net = Net::new();
        let pays: Vec<_> = (0..3).map(|_| net.pay(200_000)).collect();
        net.mine(pays);
        let fee = net
            .wallet
            .select_and_lock(1, 100_000, 1_000, ANY_DEPTH)
            .unwrap();
        let other = net.wallet.fund(2, &elsewhere(), 100_000, 1_000).unwrap();
        let again = net.wallet.select_and_lock(1, 100_000, 1_000, ANY_DEPTH);
        assert_eq!(again.unwrap(), fee, "it has its coins already");
        // The script becomes known: same size, same fee.
        let script = ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([3; 32]));
        assert!(net.wallet.fund_locked(1, &script, 99_999).is_err());
        let tx = net.wallet.fund_locked(1, &script, 100_000).unwrap();
        assert!(tx
            .output
            .iter()
            .any(|o| o.script_pubkey == script && o.value.to_sat() == 100_000));
        let paid: u64 = 200_000 * tx.input.len() as u64
            - tx.output.iter().map(|o| o.value.to_sat()).sum::<u64>();
        assert_eq!(paid, fee);
        assert!(inputs(&tx).is_disjoint(&inputs(&other)));
        assert_eq!(net.wallet.balances().locked_sat, 400_000);
        assert_eq!(
            now(WalletSource::list_confirmed_utxos(&net.wallet))
                .unwrap()
                .len(),
            1
        );
        assert_eq!(
            net.wallet
                .fund(3, &script, 300_000, 1_000)
                .unwrap_err()
                .code,
            "insufficient_funds"
        );
        assert_eq!(net.wallet.locked(), vec![1, 2]);

        for crash in [true, false] {
            net.restart(crash);
            assert_eq!(net.wallet.locked(), vec![1, 2]);
            assert_eq!(net.wallet.funding(1), Some(tx.clone()));
            assert_eq!(net.wallet.balances().locked_sat, 400_000);
        }
        net.wallet.unlock(2);
        assert_eq!(net.wallet.balances().locked_sat, 200_000);
        net.restart(true);
        assert_eq!(net.wallet.locked(), vec![1]);

        // Confirmed and deep: the lock goes by itself.
        net.wallet.broadcasted(&tx);
        net.mine(vec![tx.clone()]);
        assert_eq!(net.wallet.confirmed_at(&tx.compute_txid()), Some(2));
        for _ in 0..LOCK_DEPTH {
            net.mine(vec![]);
        }
        assert!(net.wallet.locked().is_empty());
    }

    #[test]
    fn test_S_46_two_hundred_opens_at_once_have_coins_of_their_own() {
        let mut net = Net::new();
        let pays: Vec<_> = (0..200).map(|_| net.pay(200_000)).collect();
        net.mine(pays);
        let wallet = &net.wallet;
        let chosen: Vec<HashSet<OutPoint>> = std::thread::scope(|scope| {
            let opens: Vec<_> = (1..=200u128)
                .map(|open| {
                    scope.spawn(move || {
                        wallet
                            .select_and_lock(open, 100_000, 1_000, ANY_DEPTH)
                            .unwrap();
                        let tx = wallet.fund_locked(open, &elsewhere(), 100_000).unwrap();
                        inputs(&tx)
                    })
                })
                .collect();
            opens.into_iter().map(|open| open.join().unwrap()).collect()
        });
        let all: HashSet<_> = chosen.iter().flatten().copied().collect();
        assert_eq!(all.len(), 200, "each has one coin, and nobody else has it");
        assert!(wallet
            .select_and_lock(201, 100_000, 1_000, ANY_DEPTH)
            .is_err());
        assert_eq!(wallet.balances().locked_sat, 200 * 200_000);
    }

    #[test]
    fn the_smallest_coin_that_suffices_is_taken() {
        let mut net = Net::new();
        let pays = [50_000, 900_000, 120_000, 130_000].map(|sat| net.pay(sat));
        net.mine(pays.to_vec());
        let spent = |tx: &Transaction, pay: usize| {
            inputs(tx)
                .iter()
                .all(|c| c.txid == pays[pay].compute_txid())
        };
        let tx = net.wallet.fund(1, &elsewhere(), 100_000, 1_000).unwrap();
        assert!(spent(&tx, 2));
        let tx = net.wallet.fund(2, &elsewhere(), 100_000, 1_000).unwrap();
        assert!(spent(&tx, 3));
        let tx = net.wallet.fund(3, &elsewhere(), 100_000, 1_000).unwrap();
        assert!(spent(&tx, 1));
        // None alone suffices any more.
        assert!(net.wallet.fund(4, &elsewhere(), 100_000, 1_000).is_err());
        net.wallet.unlock(2);
        let tx = net.wallet.fund(4, &elsewhere(), 150_000, 1_000).unwrap();
        assert_eq!(tx.input.len(), 2);
    }

    #[test]
    fn coins_locked_ahead_are_taken_by_the_open() {
        let mut net = Net::new();
        let pays: Vec<_> = (0..2).map(|_| net.pay(200_000)).collect();
        net.mine(pays);
        let ahead = |wallet: &Wallet, sat| wallet.select_and_lock(7, sat, 1_000, ANY_DEPTH);
        let fee = ahead(&net.wallet, 100_000).unwrap();
        assert_eq!(net.wallet.balances().locked_sat, 200_000);
        let coins = net.wallet.state().locks[&7].inputs.clone();
        // The same value, another, and after a restart.
        assert_eq!(ahead(&net.wallet, 100_000).unwrap(), fee);
        ahead(&net.wallet, 120_000).unwrap();
        assert_eq!(net.wallet.state().locks[&7].inputs, coins);
        net.restart(true);
        assert_eq!(net.wallet.locked(), vec![7]);
        ahead(&net.wallet, 130_000).unwrap();
        assert_eq!(net.wallet.state().locks[&7].inputs, coins);
        // One coin is too little now, all are not: what was locked stays when even these do not suffice.
        ahead(&net.wallet, 300_000).unwrap();
        assert_eq!(net.wallet.balances().locked_sat, 400_000);
        assert!(ahead(&net.wallet, 500_000).is_err());
        assert_eq!(net.wallet.balances().locked_sat, 400_000);
        let tx = net.wallet.fund_locked(7, &elsewhere(), 300_000);
        assert!(tx.is_err(), "the draft is gone with the attempt");
        ahead(&net.wallet, 300_000).unwrap();
        net.wallet.fund_locked(7, &elsewhere(), 300_000).unwrap();
        assert_eq!(ahead(&net.wallet, 300_000).unwrap_err().code, "internal");
        assert!(net.wallet.funding(7).is_some());
    }

    #[test]
    fn the_pool_is_filled_from_large_coins() {
        let mut net = Net::new();
        let pay = net.pay(10_000_000);
        net.mine(vec![pay.clone()]);
        let pool = Pool {
            coins: 30,
            coin_sat: 200_000,
            max_sat_per_kw: 1_000,
            max_fee_sat_per_day: 5_000,
        };
        let fill = |wallet: &Wallet, rate| {
            wallet
                .fill_pool(&pool, rate, Spent::default(), ANY_DEPTH)
                .unwrap()
        };
        assert!(fill(&net.wallet, 1_001).is_none(), "too dear");
        let locked = net
            .wallet
            .select_and_lock(1, 100_000, 300, ANY_DEPTH)
            .unwrap();
        assert!(
            locked > 0 && fill(&net.wallet, 300).is_none(),
            "its coin is locked"
        );
        net.wallet.unlock(1);
        let (tx, fee) = fill(&net.wallet, 300).unwrap();
        assert_eq!(
            tx.output
                .iter()
                .filter(|o| o.value.to_sat() == 200_000)
                .count(),
            30
        );
        let kept: u64 = tx.output.iter().map(|o| o.value.to_sat()).sum();
        assert_eq!(10_000_000 - kept, fee);
        assert_eq!(
            inputs(&tx),
            [OutPoint {
                txid: pay.compute_txid(),
                vout: 0
            }]
            .into()
        );
        assert!(fill(&net.wallet, 300).is_none(), "it is full");
        // Unconfirmed coins that hang together are few enough for any mempool.
        let opens = (10..40u128)
            .take_while(|open| net.wallet.fund(*open, &elsewhere(), 100_000, 300).is_ok())
            .count();
        assert_eq!(opens, coins::MAX_CLUSTER - 1);
        net.mine(vec![tx]);
        net.wallet.fund(50, &elsewhere(), 100_000, 300).unwrap();
    }

    #[test]
    fn test_S_45_coins_of_others_and_long_chains_are_not_used() {
        let mut net = Net::new();
        let pay = net.pay(1_000_000);
        net.wallet.broadcasted(&pay);
        assert_eq!(
            net.wallet
                .fund(1, &elsewhere(), 100_000, 300)
                .unwrap_err()
                .code,
            "insufficient_funds"
        );
        net.mine(vec![pay]);
        let mut sent = Vec::new();
        let mut open = 10u128;
        loop {
            match net.wallet.fund(open, &elsewhere(), 20_000, 300) {
                Ok(tx) => {
                    net.wallet.broadcasted(&tx);
                    sent.push(tx);
                    open += 1;
                }
                Err(error) => {
                    assert_eq!(error.code, "insufficient_funds");
                    break;
                }
            }
        }
        assert_eq!(sent.len(), coins::MAX_CLUSTER);
        // What LDK may replace is not change.
        let script = now(WalletSource::get_change_script(&net.wallet)).unwrap();
        net.wallet
            .broadcasted(&foreign(99, vec![(script, 500_000)]));
        assert!(net.wallet.fund(open, &elsewhere(), 20_000, 300).is_err());
        net.mine(sent);
        net.wallet.fund(open, &elsewhere(), 20_000, 300).unwrap();
    }

    #[test]
    fn follows_a_reorganisation_and_a_restart_in_it() {
        let mut net = Net::new();
        let base = net.mine(vec![]);
        let pay = net.pay(50_000);
        net.mine(vec![pay.clone()]);
        net.mine(vec![]);
        assert_eq!(net.wallet.balances().confirmed_sat, 50_000);
        net.restart(true);
        assert_eq!(net.wallet.best_block(), net.tip);
        net.wallet.blocks_disconnected(base);
        net.mine_on(base, vec![]);
        assert_eq!(net.wallet.balances().confirmed_sat, 0);
        net.mine(vec![]);
        net.mine(vec![pay]);
        assert_eq!(net.wallet.balances().confirmed_sat, 50_000);
        net.restart(false);
        assert_eq!(net.wallet.best_block(), net.tip);
        assert_eq!(net.wallet.balances().confirmed_sat, 50_000);
        // A block known already changes nothing; a filtered one is as good.
        let again = net.wallet.balances();
        let pay = net.pay(7_000);
        net.salt += 1;
        let header = Header {
            version: BlockVersion::TWO,
            prev_blockhash: net.tip.block_hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: net.salt,
            bits: CompactTarget::from_consensus(0),
            nonce: net.salt,
        };
        for _ in 0..2 {
            net.wallet
                .filtered_block_connected(&header, &[(5, &pay)], net.tip.height + 1);
        }
        assert_eq!(
            net.wallet.balances().confirmed_sat,
            again.confirmed_sat + 7_000
        );
    }

    #[test]
    fn a_new_wallet_follows_a_reorganisation_of_the_blocks_before_it() {
        let block = |n: u8| {
            let hash = bitcoin::BlockHash::from_byte_array([n; 32]);
            BestBlock::new(hash, 800_000 + u32::from(n))
        };
        let mut net = Net::born(&[1, 2, 3, 4].map(block));
        assert_eq!(net.tip, block(4));
        let pay = net.pay(50_000);
        net.mine(vec![pay.clone()]);
        assert_eq!(net.wallet.balances().confirmed_sat, 50_000);
        net.wallet.blocks_disconnected(block(1));
        net.mine_on(block(1), vec![]);
        assert_eq!(net.wallet.best_block(), net.tip);
        assert_eq!(net.wallet.balances().confirmed_sat, 0);
        for txdata in [vec![], vec![pay]] {
            net.mine(txdata);
            assert_eq!(net.wallet.best_block(), net.tip);
        }
        assert_eq!(net.wallet.balances().confirmed_sat, 50_000);
        net.restart(true);
        assert_eq!(net.wallet.best_block(), net.tip);
    }

    #[test]
    fn what_was_sent_is_unconfirmed_until_a_block_has_it_and_again_when_that_is_gone() {
        let mut net = Net::new();
        let pay = net.pay(500_000);
        let fork = net.mine(vec![pay]);
        let first = net.wallet.fund(1, &elsewhere(), 20_000, 300).unwrap();
        assert!(net.wallet.unconfirmed().is_empty(), "not sent yet");
        net.wallet.broadcasted(&first);
        assert_eq!(net.wallet.unconfirmed(), std::slice::from_ref(&first));
        assert!(net.wallet.knows_spender(&first.input[0].previous_output));
        net.restart(true);
        assert_eq!(net.wallet.unconfirmed(), std::slice::from_ref(&first));
        net.mine(vec![first.clone()]);
        assert!(net.wallet.unconfirmed().is_empty());
        net.wallet.blocks_disconnected(fork);
        net.mine_on(fork, vec![]);
        assert_eq!(net.wallet.unconfirmed(), [first]);
    }

    #[test]
    fn another_seed_is_refused_and_many_changes_are_merged() {
        let mut net = Net::new();
        for _ in 0..MAX_CHANGES + 50 {
            net.mine(vec![]);
        }
        let pay = net.pay(50_000);
        net.mine(vec![pay]);
        for _ in 0..3 {
            net.restart(false);
            assert_eq!(net.wallet.balances().confirmed_sat, 50_000);
            assert_eq!(net.wallet.best_block(), net.tip);
        }
        now(net.committer.take().unwrap().shutdown()).unwrap();
        use crate::store::Store;
        let live = net.store.clone().load().unwrap().live;
        assert!(live.iter().filter(|(kind, _, _)| kind == CHANGES).count() < 5);
        let other = "legal winner thank year wave sausage worth useful legal winner thank yellow";
        assert_eq!(
            open(&net.store, other, &[]).err().map(|error| error.code),
            Some("config")
        );
    }

    #[test]
    fn a_new_wallet_starts_at_its_birthday() {
        let birthday = BestBlock::new(bitcoin::BlockHash::from_byte_array([5; 32]), 800_000);
        let (_committer, wallet) = open(&MemoryStore::new(), WORDS, &[birthday]).unwrap();
        assert_eq!(wallet.best_block(), birthday);
        for (foreign, networks) in [
            ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bitcoin"),
            (
                "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
                "testnet or testnet4 or signet",
            ),
        ] {
            let error = wallet.parse_address(foreign).unwrap_err();
            assert_eq!(error.code, "address");
            assert_eq!(
                error.message,
                format!("the address is of {networks}, this node runs on regtest")
            );
        }
        assert_eq!(
            wallet.parse_address("nonsense").unwrap_err().code,
            "address"
        );
    }
}
