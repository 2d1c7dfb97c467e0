//! The wallet of the one who mines: keys, addresses, and payments to whoever needs coins on this chain.

use std::collections::{HashMap, HashSet};

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    ecdsa, transaction, Address, Amount, CompressedPublicKey, Network, OutPoint, PrivateKey,
    ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};

use crate::chain::Chain;
use crate::mempool::{at_rate, vsize, Mempool};
use crate::rules::{Refusal, MATURITY};

/// Satoshi for 1,000 virtual bytes, as bitcoind's regtest wallets are told to pay.
const FEE_RATE: u64 = 20_000;
/// Of one input's signature and key, at most.
const WITNESS: usize = 73 + 33;
const KEY_ATTEMPTS: usize = 16;

/// Keys, and the transactions that were paid with them.
pub struct Purse {
    secp: Secp256k1<All>,
    keys: HashMap<ScriptBuf, SecretKey>,
    sent: HashSet<Txid>,
}

struct Spendable {
    at: OutPoint,
    output: TxOut,
}

impl Purse {
    /// Without a key.
    #[must_use]
    pub fn new() -> Self {
        Self {
            secp: Secp256k1::new(),
            keys: HashMap::new(),
            sent: HashSet::new(),
        }
    }

    /// A new address.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn address(&mut self) -> Result<Address, Refusal> {
        let mut bytes = [0; 32];
        for _ in 0..KEY_ATTEMPTS {
            getrandom::fill(&mut bytes).map_err(|e| Refusal::new(e.to_string()))?;
            // Nearly every number is a key.
            if let Ok(key) = SecretKey::from_slice(&bytes) {
                let public = CompressedPublicKey(key.public_key(&self.secp));
                let address = Address::p2wpkh(&public, Network::Regtest);
                self.keys.insert(address.script_pubkey(), key);
                return Ok(address);
            }
        }
        Err(Refusal::new("no randomness"))
    }

    /// Whether an output is its own.
    #[must_use]
    pub fn owns(&self, script: &ScriptBuf) -> bool {
        self.keys.contains_key(script)
    }

    /// Whether it sent a transaction.
    #[must_use]
    pub fn has_sent(&self, txid: &Txid) -> bool {
        self.sent.contains(txid)
    }

    /// What it could spend now, satoshi.
    #[must_use]
    pub fn balance(&self, chain: &Chain, mempool: &Mempool) -> u64 {
        let coins = self.spendable(chain, mempool);
        coins
            .iter()
            .map(|coin| coin.output.value.to_sat())
            .fold(0, u64::saturating_add)
    }

    /// Ripe coins, and its own change that waits for a block; the largest first.
    fn spendable(&self, chain: &Chain, mempool: &Mempool) -> Vec<Spendable> {
        let next = chain.height().saturating_add(1);
        let ripe = chain
            .coins()
            .filter(|(_, coin)| !coin.coinbase || next.saturating_sub(coin.height) >= MATURITY);
        let ripe = ripe.map(|(at, coin)| (*at, coin.output.clone()));
        let waiting = self.sent.iter().filter_map(|txid| mempool.get(txid));
        let change = waiting.flat_map(|entry| {
            let txid = entry.tx.compute_txid();
            let outputs = (0u32..).zip(&entry.tx.output);
            outputs.map(move |(vout, output)| (OutPoint::new(txid, vout), output.clone()))
        });
        let mut found: Vec<Spendable> = ripe
            .chain(change)
            .filter(|(at, output)| {
                self.owns(&output.script_pubkey) && mempool.spender(at).is_none()
            })
            .map(|(at, output)| Spendable { at, output })
            .collect();
        found.sort_unstable_by_key(|coin| (std::cmp::Reverse(coin.output.value), coin.at));
        found
    }

    /// A signed transaction with these outputs, and change.
    ///
    /// # Errors
    /// It has not as much.
    pub fn pay(
        &mut self,
        chain: &Chain,
        mempool: &Mempool,
        outputs: Vec<TxOut>,
    ) -> Result<Transaction, Refusal> {
        let wanted = outputs
            .iter()
            .map(|o| o.value.to_sat())
            .fold(0, u64::saturating_add);
        let change = self.address()?.script_pubkey();
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: Vec::new(),
            output: outputs,
        };
        tx.output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey: change,
        });
        let mut spent = Vec::new();
        let mut have = 0u64;
        for coin in self.spendable(chain, mempool) {
            have = have.saturating_add(coin.output.value.to_sat());
            tx.input.push(TxIn {
                previous_output: coin.at,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::from_slice(&[[0u8; WITNESS]]),
            });
            spent.push(coin.output);
            let fee = at_rate(FEE_RATE, vsize(&tx));
            let Some(rest) = have.checked_sub(wanted.saturating_add(fee)) else {
                continue;
            };
            // Dust is left to the miner.
            match tx.output.last_mut() {
                Some(change)
                    if Amount::from_sat(rest) >= change.script_pubkey.minimal_non_dust() =>
                {
                    change.value = Amount::from_sat(rest);
                }
                _ => {
                    tx.output.pop();
                }
            }
            self.sign(&mut tx, &spent)?;
            self.sent.insert(tx.compute_txid());
            return Ok(tx);
        }
        Err(Refusal::new("Insufficient funds"))
    }

    fn sign(&self, tx: &mut Transaction, spent: &[TxOut]) -> Result<(), Refusal> {
        let mut witnesses = Vec::new();
        let mut cache = SighashCache::new(&*tx);
        for (index, output) in spent.iter().enumerate() {
            let key = self
                .keys
                .get(&output.script_pubkey)
                .ok_or_else(|| Refusal::new("no key"))?;
            let hash = cache
                .p2wpkh_signature_hash(
                    index,
                    &output.script_pubkey,
                    output.value,
                    EcdsaSighashType::All,
                )
                .map_err(|e| Refusal::new(e.to_string()))?;
            let signature = ecdsa::Signature {
                signature: self.secp.sign_ecdsa(&Message::from(hash), key),
                sighash_type: EcdsaSighashType::All,
            };
            let public = PrivateKey::new(*key, Network::Regtest).public_key(&self.secp);
            witnesses.push(Witness::p2wpkh(&signature, &public.inner));
        }
        for (input, witness) in tx.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
        Ok(())
    }
}

impl Default for Purse {
    fn default() -> Self {
        Self::new()
    }
}
