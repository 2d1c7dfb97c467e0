//! Blocks, which of them is the best, and the coins that it leaves.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use bitcoin::block::Block;
use bitcoin::constants::genesis_block;
use bitcoin::script::Builder;
use bitcoin::{Amount, BlockHash, Network, OutPoint, Transaction, Txid, Weight, Wtxid};

use crate::rules::{self, Coin, Refusal};

/// Blocks of regtest until the reward is halved.
const HALVING: u32 = 150;
/// How far a block's time may be ahead, seconds.
const MAX_AHEAD_S: u32 = 7_200;
const MEDIAN_OF: u32 = 11;

/// A block that is known, in the best chain or not.
#[derive(Debug)]
struct Stored {
    block: Block,
    height: u32,
    /// The coins that it spends, to go back. Known once it was connected.
    spent: Vec<(OutPoint, Coin)>,
    /// It, or one before it, breaks a rule or was declared invalid.
    invalid: bool,
    /// The order of arrival: of two best the first one stays.
    arrival: usize,
}

/// What became of the best chain.
#[derive(Debug, Default)]
pub struct Changed {
    /// Transactions that no block has any more, in the order of the blocks that had them.
    pub disconnected: Vec<Transaction>,
    /// Whether any block is not in the best chain any more: coins may be unripe again, locks not over.
    pub went_back: bool,
    /// Blocks that are in the best chain now and were not.
    pub connected: Vec<BlockHash>,
}

/// The chain.
#[derive(Debug)]
pub struct Chain {
    stored: HashMap<BlockHash, Stored>,
    active: Vec<BlockHash>,
    coins: HashMap<OutPoint, Coin>,
    places: HashMap<Txid, BlockHash>,
    /// Transactions whose scripts were verified before, in the mempool.
    verified: HashSet<Wtxid>,
}

impl Chain {
    /// With the genesis block, whose coin nobody can spend.
    #[must_use]
    pub fn new() -> Self {
        let block = genesis_block(Network::Regtest);
        let hash = block.block_hash();
        let genesis = Stored {
            block,
            height: 0,
            spent: Vec::new(),
            invalid: false,
            arrival: 0,
        };
        Self {
            stored: HashMap::from([(hash, genesis)]),
            active: vec![hash],
            coins: HashMap::new(),
            places: HashMap::new(),
            verified: HashSet::new(),
        }
    }

    /// Of the last block.
    #[must_use]
    pub fn height(&self) -> u32 {
        u32::try_from(self.active.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The last block.
    #[must_use]
    pub fn tip(&self) -> BlockHash {
        self.active
            .last()
            .copied()
            .unwrap_or_else(|| genesis_block(Network::Regtest).block_hash())
    }

    /// The best chain's block of this height.
    #[must_use]
    pub fn at(&self, height: u32) -> Option<BlockHash> {
        self.active.get(height as usize).copied()
    }

    /// A block, and its height.
    #[must_use]
    pub fn block(&self, hash: &BlockHash) -> Option<(&Block, u32)> {
        let stored = self.stored.get(hash)?;
        Some((&stored.block, stored.height))
    }

    /// Whether a block is in the best chain.
    #[must_use]
    pub fn is_active(&self, hash: &BlockHash) -> bool {
        self.block(hash)
            .is_some_and(|(_, height)| self.at(height).as_ref() == Some(hash))
    }

    /// An unspent output.
    #[must_use]
    pub fn coin(&self, at: &OutPoint) -> Option<&Coin> {
        self.coins.get(at)
    }

    /// Every unspent output.
    pub fn coins(&self) -> impl Iterator<Item = (&OutPoint, &Coin)> {
        self.coins.iter()
    }

    /// The block of the best chain that has a transaction, and the transaction.
    #[must_use]
    pub fn transaction(&self, txid: &Txid) -> Option<(BlockHash, &Transaction)> {
        let hash = self.places.get(txid)?;
        let (block, _) = self.block(hash)?;
        let found = block.txdata.iter().find(|tx| tx.compute_txid() == *txid)?;
        Some((*hash, found))
    }

    /// The median time of the eleven blocks up to this height.
    #[must_use]
    pub fn median_time(&self, height: u32) -> u32 {
        let first = height.saturating_sub(MEDIAN_OF.saturating_sub(1));
        let mut times: Vec<u32> = (first..=height)
            .filter_map(|height| Some(self.block(&self.at(height)?)?.0.header.time))
            .collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    /// What a miner may pay itself besides the fees, satoshi.
    #[must_use]
    pub fn subsidy(height: u32) -> u64 {
        (Amount::ONE_BTC.to_sat().saturating_mul(50))
            .checked_shr(height / HALVING)
            .unwrap_or(0)
    }

    /// The scripts of this transaction need not be verified again.
    pub fn remember_verified(&mut self, wtxid: Wtxid) {
        self.verified.insert(wtxid);
    }

    /// Adds a block, and makes it the tip if it is higher than that one.
    ///
    /// # Errors
    /// It is known, has no place, or breaks a rule.
    pub fn add(&mut self, block: Block, now: u32) -> Result<Changed, Refusal> {
        let hash = block.block_hash();
        if let Some(known) = self.stored.get(&hash) {
            return Err(Refusal::new(match known.invalid {
                true => "duplicate-invalid",
                false => "duplicate",
            }));
        }
        let Some(parent) = self.stored.get(&block.header.prev_blockhash) else {
            return Err(Refusal::new("prev-blk-not-found"));
        };
        if parent.invalid {
            return Err(Refusal::new("bad-prevblk"));
        }
        let height = parent.height.saturating_add(1);
        self.check(&block, height, now)?;
        let stored = Stored {
            block,
            height,
            spent: Vec::new(),
            invalid: false,
            arrival: self.stored.len(),
        };
        let next = stored.block.header.prev_blockhash == self.tip();
        self.stored.insert(hash, stored);
        if next {
            if let Err(refusal) = self.connect(&hash) {
                self.mark(&hash, true);
                return Err(refusal);
            }
            return Ok(Changed {
                connected: vec![hash],
                ..Changed::default()
            });
        }
        let (changed, refused) = self.activate_best();
        match refused.into_iter().find(|(of, _)| *of == hash) {
            Some((_, refusal)) => Err(refusal),
            None => Ok(changed),
        }
    }

    /// A block is invalid from now on, with all that follow it.
    ///
    /// # Errors
    /// It is unknown, or the first one.
    pub fn invalidate(&mut self, hash: &BlockHash) -> Result<Changed, Refusal> {
        match self.stored.get(hash) {
            None => return Err(Refusal::new("Block not found")),
            Some(genesis) if genesis.height == 0 => return Err(Refusal::new("genesis block")),
            Some(_) => {}
        }
        self.mark(hash, true);
        Ok(self.activate_best().0)
    }

    /// A block may be valid after all, with those before it and all that follow.
    ///
    /// # Errors
    /// It is unknown.
    pub fn reconsider(&mut self, hash: &BlockHash) -> Result<Changed, Refusal> {
        if !self.stored.contains_key(hash) {
            return Err(Refusal::new("Block not found"));
        }
        self.mark(hash, false);
        let mut at = *hash;
        while let Some(stored) = self.stored.get_mut(&at) {
            stored.invalid = false;
            if stored.height == 0 {
                break;
            }
            at = stored.block.header.prev_blockhash;
        }
        Ok(self.activate_best().0)
    }

    /// The block and all that follow it.
    fn mark(&mut self, hash: &BlockHash, invalid: bool) {
        let mut marked = vec![*hash];
        while let Some(at) = marked.pop() {
            if let Some(stored) = self.stored.get_mut(&at) {
                stored.invalid = invalid;
            }
            let children = self.stored.iter();
            let children =
                children.filter(|(_, s)| s.block.header.prev_blockhash == at && s.height > 0);
            marked.extend(children.map(|(hash, _)| *hash));
        }
    }

    /// What a block must be before it is connected.
    fn check(&self, block: &Block, height: u32, now: u32) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal::new(why));
        let header = &block.header;
        let genesis = genesis_block(Network::Regtest).header;
        if header.bits != genesis.bits {
            return refuse("bad-diffbits");
        }
        if header.validate_pow(header.target()).is_err() {
            return refuse("high-hash");
        }
        if header.time <= self.median_of_branch(&header.prev_blockhash) {
            return refuse("time-too-old");
        }
        if header.time > now.saturating_add(MAX_AHEAD_S) {
            return refuse("time-too-new");
        }
        if !block.check_merkle_root() {
            return refuse("bad-txnmrklroot");
        }
        if block.weight() > Weight::MAX_BLOCK {
            return refuse("bad-blk-weight");
        }
        let mut coinbases = block.txdata.iter().map(Transaction::is_coinbase);
        if coinbases.next() != Some(true) {
            return refuse("bad-cb-missing");
        }
        if coinbases.any(|is| is) {
            return refuse("bad-cb-multiple");
        }
        let begins = Builder::new().push_int(i64::from(height)).into_script();
        let coinbase = block.coinbase().and_then(|tx| tx.input.first());
        if !coinbase.is_some_and(|i| i.script_sig.as_bytes().starts_with(begins.as_bytes())) {
            return refuse("bad-cb-height");
        }
        if !block.check_witness_commitment() {
            return refuse("bad-witness-merkle-match");
        }
        block.txdata.iter().try_for_each(rules::check_alone)
    }

    /// The median time of the eleven blocks up to this one, in whatever chain it is.
    fn median_of_branch(&self, hash: &BlockHash) -> u32 {
        let mut times = Vec::new();
        let mut at = *hash;
        while let Some(stored) = self.stored.get(&at) {
            times.push(stored.block.header.time);
            if stored.height == 0 || times.len() == MEDIAN_OF as usize {
                break;
            }
            at = stored.block.header.prev_blockhash;
        }
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    /// Goes to the best chain; blocks that turn out to break a rule on the way are marked, and told.
    fn activate_best(&mut self) -> (Changed, Vec<(BlockHash, Refusal)>) {
        let before: Vec<BlockHash> = self.active.clone();
        let mut refused = Vec::new();
        // Each round ends at the best, or finds one block invalid.
        while let Some(best) = self.best() {
            if best == self.tip() {
                break;
            }
            let mut path = Vec::new();
            let mut at = best;
            while !self.is_active(&at) {
                path.push(at);
                match self.stored.get(&at) {
                    Some(stored) => at = stored.block.header.prev_blockhash,
                    None => break,
                }
            }
            while self.tip() != at && self.height() > 0 {
                self.disconnect();
            }
            for hash in path.into_iter().rev() {
                if let Err(refusal) = self.connect(&hash) {
                    self.mark(&hash, true);
                    refused.push((hash, refusal));
                    break;
                }
            }
        }
        let same = before
            .iter()
            .zip(&self.active)
            .take_while(|(a, b)| a == b)
            .count();
        let gone = before.iter().skip(same).filter_map(|hash| self.block(hash));
        let changed = Changed {
            went_back: same < before.len(),
            disconnected: gone
                .flat_map(|(block, _)| block.txdata.iter().skip(1).cloned())
                .collect(),
            connected: self.active.iter().skip(same).copied().collect(),
        };
        (changed, refused)
    }

    /// The highest valid block; of several the first that came.
    fn best(&self) -> Option<BlockHash> {
        let valid = self.stored.iter().filter(|(_, stored)| !stored.invalid);
        let best = valid.max_by_key(|(_, stored)| (stored.height, Reverse(stored.arrival)));
        best.map(|(hash, _)| *hash)
    }

    fn disconnect(&mut self) {
        let Some(stored) = self
            .active
            .pop()
            .and_then(|hash| self.stored.get_mut(&hash))
        else {
            return;
        };
        for tx in &stored.block.txdata {
            let txid = tx.compute_txid();
            self.places.remove(&txid);
            for vout in 0..tx.output.len() {
                let vout = u32::try_from(vout).unwrap_or(u32::MAX);
                self.coins.remove(&OutPoint::new(txid, vout));
            }
        }
        self.coins.extend(stored.spent.drain(..));
    }

    /// Connects a block whose parent is the tip.
    fn connect(&mut self, hash: &BlockHash) -> Result<(), Refusal> {
        let Some(stored) = self.stored.get(hash) else {
            return Err(Refusal::new("Block not found"));
        };
        let height = stored.height;
        let mut made: HashMap<OutPoint, Coin> = HashMap::new();
        let mut spent: Vec<(OutPoint, Coin)> = Vec::new();
        let mut gone: HashSet<OutPoint> = HashSet::new();
        let mut fees = 0u64;
        let median_time = self.median_time(height.saturating_sub(1));
        for tx in &stored.block.txdata {
            if !rules::is_final(tx, height, median_time) {
                return Err(Refusal::new("bad-txns-nonfinal"));
            }
            if !tx.is_coinbase() {
                let mut coins = Vec::with_capacity(tx.input.len());
                for input in &tx.input {
                    let at = input.previous_output;
                    let coin = match made.remove(&at) {
                        Some(coin) => coin,
                        None => {
                            let coin = self.coins.get(&at).filter(|_| gone.insert(at));
                            let coin = coin
                                .cloned()
                                .ok_or_else(|| Refusal::new("bad-txns-inputs-missingorspent"))?;
                            spent.push((at, coin.clone()));
                            coin
                        }
                    };
                    coins.push(coin);
                }
                fees = fees.saturating_add(rules::fee(tx, &coins, height)?);
                if !rules::locks_are_over(tx, &coins, height, |at| self.median_time(at)) {
                    return Err(Refusal::new("bad-txns-nonfinal"));
                }
                if !self.verified.contains(&tx.compute_wtxid()) {
                    rules::verify_scripts(tx, &coins, "block")?;
                }
            }
            made.extend(coins_of(tx, height));
        }
        let paid = stored
            .block
            .coinbase()
            .into_iter()
            .flat_map(|tx| &tx.output);
        let paid = paid
            .map(|o| o.value.to_sat())
            .fold(0u64, u64::saturating_add);
        if paid > Self::subsidy(height).saturating_add(fees) {
            return Err(Refusal::new("bad-cb-amount"));
        }
        for (at, _) in &spent {
            self.coins.remove(at);
        }
        self.coins.extend(made);
        for tx in &stored.block.txdata {
            self.places.insert(tx.compute_txid(), *hash);
            self.verified.remove(&tx.compute_wtxid());
        }
        if let Some(stored) = self.stored.get_mut(hash) {
            stored.spent = spent;
        }
        self.active.push(*hash);
        Ok(())
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

/// The coins that a transaction makes.
pub fn coins_of(tx: &Transaction, height: u32) -> impl Iterator<Item = (OutPoint, Coin)> + '_ {
    let txid = tx.compute_txid();
    let coinbase = tx.is_coinbase();
    let spendable = tx.output.iter().zip(0u32..);
    let spendable = spendable.filter(|(output, _)| !output.script_pubkey.is_op_return());
    spendable.map(move |(output, vout)| {
        let coin = Coin {
            output: output.clone(),
            height,
            coinbase,
        };
        (OutPoint::new(txid, vout), coin)
    })
}
