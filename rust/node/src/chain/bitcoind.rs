//! A bitcoind over RPC: typed questions, typed failures, and LDK's source of blocks.

use super::http::Http;
use super::{ChainError, ChainFuture, ChainSource, SendOutcome};
use bitcoin::block::{Block, Header};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Amount, BlockHash, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use lightning::chain::BestBlock;
use lightning_block_sync::http::JsonResponse;
use lightning_block_sync::{
    AsyncBlockSourceResult, BlockData, BlockHeaderData, BlockSource, BlockSourceError,
};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// No call waits longer, but for a scan of all coins there are: minutes on the main network.
const TIMEOUT: Duration = Duration::from_secs(30);
const SCAN_TIMEOUT: Duration = Duration::from_secs(3_600);
const SCAN_PAUSE: Duration = Duration::from_secs(1);

/// Where the bitcoind is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BitcoindConfig {
    /// As in `http://127.0.0.1:8332`.
    pub url: String,
    /// The RPC user.
    pub user: String,
    /// The RPC password.
    pub password: String,
    /// How often to look for a new block, in milliseconds.
    #[serde(default = "poll_ms")]
    pub poll_ms: u64,
}

fn poll_ms() -> u64 {
    1_000
}

impl fmt::Debug for BitcoindConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BitcoindConfig")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A bitcoind.
pub struct Bitcoind {
    http: Http,
    network: Network,
}

/// `getblockchaininfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// Blocks it has.
    pub blocks: u32,
    /// Blocks it knows of.
    pub headers: u32,
    /// The tip.
    pub best: BlockHash,
    /// Whether old blocks are deleted.
    pub pruned: bool,
}

/// An unspent output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unspent {
    /// The output.
    pub output: TxOut,
    /// 0 in the mempool.
    pub confirmations: u32,
    /// Whether a miner created it.
    pub coinbase: bool,
}

/// An unspent output in a block, as a scan finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub outpoint: OutPoint,
    /// The output.
    pub output: TxOut,
    /// The block's height.
    pub height: u32,
}

/// What a scan looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Outputs to this script.
    Script(ScriptBuf),
    /// Outputs to the first addresses of a descriptor.
    Range {
        /// The descriptor.
        descriptor: String,
        /// How many of its addresses.
        count: u32,
    },
}

impl Bitcoind {
    /// Does not connect yet: see [`Bitcoind::check`].
    pub fn new(config: &BitcoindConfig, network: Network) -> Result<Self, crate::error::NodeError> {
        let http = Http::new(&config.url, &config.user, &config.password, TIMEOUT)
            .map_err(|why| crate::error::NodeError::config(format!("chain.url: {why}")))?;
        Ok(Self { http, network })
    }

    /// Whether it can be used: reachable, of the right network, and not far behind.
    pub async fn check(&self) -> Result<ChainInfo, ChainError> {
        let value = self.http.call("getblockchaininfo", json!([])).await?;
        let wanted = self.network.to_core_arg();
        let found = text(&value, "chain")?;
        if found != wanted {
            return Err(ChainError::WrongNetwork {
                found: found.to_owned(),
                wanted: wanted.to_owned(),
            });
        }
        // Every signet is called "signet".
        let genesis = bitcoin::constants::genesis_block(self.network).block_hash();
        let found = self.block_hash(0).await?;
        if found != genesis {
            return Err(ChainError::WrongNetwork {
                found: format!("genesis {found}"),
                wanted: wanted.to_owned(),
            });
        }
        let info = chain_info(&value)?;
        let loading = value
            .get("initialblockdownload")
            .and_then(Value::as_bool)
            .unwrap_or(true);
        // An idle regtest has old blocks and calls itself loading forever.
        if info.headers > info.blocks.saturating_add(1)
            || (loading && self.network != Network::Regtest)
        {
            return Err(ChainError::Behind {
                blocks: info.blocks,
                headers: info.headers,
            });
        }
        Ok(info)
    }

    /// Height and hash of the tip.
    pub async fn best_block(&self) -> Result<BestBlock, ChainError> {
        let info = chain_info(&self.http.call("getblockchaininfo", json!([])).await?)?;
        Ok(BestBlock::new(info.best, info.blocks))
    }

    /// This block and those before it, `count` in all if there are as many, the first one first.
    pub async fn last_blocks(
        &self,
        tip: BestBlock,
        count: u32,
    ) -> Result<Vec<BestBlock>, ChainError> {
        let mut blocks = vec![tip];
        let mut first = tip;
        for _ in 1..count.min(tip.height) {
            let header = self.header(&first.block_hash).await?.header;
            first = BestBlock::new(header.prev_blockhash, first.height.saturating_sub(1));
            blocks.push(first);
        }
        blocks.reverse();
        Ok(blocks)
    }

    /// The block of the best chain at `height`.
    pub async fn block_hash(&self, height: u32) -> Result<BlockHash, ChainError> {
        parse(
            &self.http.call("getblockhash", json!([height])).await?,
            "a block hash",
        )
    }

    /// A block, checked against its hash.
    pub async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        let value = self
            .http
            .call("getblock", json!([hash.to_string(), 0]))
            .await
            .map_err(|error| match error {
                ChainError::Refused { message, .. } if message.contains("pruned data") => {
                    ChainError::Pruned
                }
                other => other,
            })?;
        let hex = value.as_str().ok_or_else(|| odd("getblock"))?;
        let block: Block = deserialize_hex(hex).map_err(|_| odd("getblock"))?;
        if block.block_hash() != *hash || !block.check_merkle_root() {
            return Err(ChainError::Lying(format!(
                "another block was sent for {hash}"
            )));
        }
        Ok(block)
    }

    /// A header with its height, checked against its hash.
    pub async fn header(&self, hash: &BlockHash) -> Result<BlockHeaderData, ChainError> {
        let value = self
            .http
            .call("getblockheader", json!([hash.to_string()]))
            .await?;
        let data: BlockHeaderData = JsonResponse(value)
            .try_into()
            .map_err(|_| odd("getblockheader"))?;
        let header: &Header = &data.header;
        if header.block_hash() != *hash {
            return Err(ChainError::Lying(format!(
                "another header was sent for {hash}"
            )));
        }
        Ok(data)
    }

    /// The output, if it exists and nothing spends it, in a block or (with `mempool`) in the mempool.
    pub async fn tx_out(
        &self,
        outpoint: &OutPoint,
        mempool: bool,
    ) -> Result<Option<Unspent>, ChainError> {
        let value = self
            .http
            .call(
                "gettxout",
                json!([outpoint.txid.to_string(), outpoint.vout, mempool]),
            )
            .await?;
        if value.is_null() {
            return Ok(None);
        }
        let script = value
            .get("scriptPubKey")
            .and_then(|script| script.get("hex"))
            .and_then(Value::as_str);
        let script_pubkey = script
            .and_then(|hex| ScriptBuf::from_hex(hex).ok())
            .ok_or_else(|| odd("gettxout"))?;
        Ok(Some(Unspent {
            output: TxOut {
                value: amount(value.get("value"), "gettxout")?,
                script_pubkey,
            },
            confirmations: number(&value, "confirmations")?,
            coinbase: value
                .get("coinbase")
                .and_then(Value::as_bool)
                .unwrap_or(false),
        }))
    }

    /// All unspent outputs in blocks that are wanted. One scan at a time, whoever asks.
    pub async fn scan(&self, wanted: &[Wanted]) -> Result<Vec<Found>, ChainError> {
        let wanted: Vec<Value> = wanted
            .iter()
            .map(|wanted| match wanted {
                Wanted::Script(script) => {
                    json!({ "desc": format!("raw({})", script.to_hex_string()) })
                }
                Wanted::Range { descriptor, count } => {
                    json!({ "desc": descriptor, "range": count.saturating_sub(1) })
                }
            })
            .collect();
        let scan = json!(["start", wanted]);
        let value = loop {
            let call = self
                .http
                .call_within(SCAN_TIMEOUT, "scantxoutset", scan.clone());
            match call.await {
                // Another one's, or that of a start that was given up.
                Err(ChainError::Refused { message, .. }) if message.contains("in progress") => {
                    tokio::time::sleep(SCAN_PAUSE).await;
                }
                answer => break answer?,
            }
        };
        let unspents = value.get("unspents").and_then(Value::as_array);
        let unspents = unspents.ok_or_else(|| odd("scantxoutset"))?;
        unspents
            .iter()
            .map(|unspent| {
                let txid = unspent.get("txid").ok_or_else(|| odd("scantxoutset"))?;
                let script = ScriptBuf::from_hex(text(unspent, "scriptPubKey")?);
                Ok(Found {
                    outpoint: OutPoint::new(
                        parse(txid, "a transaction id")?,
                        number(unspent, "vout")?,
                    ),
                    output: TxOut {
                        value: amount(unspent.get("amount"), "scantxoutset")?,
                        script_pubkey: script.map_err(|_| odd("scantxoutset"))?,
                    },
                    height: number(unspent, "height")?,
                })
            })
            .collect()
    }

    /// For each outpoint, which transaction in the mempool spends it.
    pub async fn spenders(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Txid>>, ChainError> {
        if outpoints.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<Value> = outpoints
            .iter()
            .map(|o| json!({ "txid": o.txid.to_string(), "vout": o.vout }))
            .collect();
        let value = self
            .http
            .call("gettxspendingprevout", json!([asked]))
            .await?;
        let answers = value
            .as_array()
            .filter(|answers| answers.len() == outpoints.len());
        let answers = answers.ok_or_else(|| odd("gettxspendingprevout"))?;
        answers
            .iter()
            .map(|answer| {
                answer
                    .get("spendingtxid")
                    .map(|txid| parse(txid, "a transaction id"))
                    .transpose()
            })
            .collect()
    }

    /// Whether transactions of others reach it (`-blocksonly` is off).
    pub async fn relays(&self) -> Result<bool, ChainError> {
        let value = self.http.call("getnetworkinfo", json!([])).await?;
        value
            .get("localrelay")
            .and_then(Value::as_bool)
            .ok_or_else(|| odd("getnetworkinfo"))
    }

    /// Any other call, for tests and tools.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        self.http.call(method, params).await
    }

    async fn estimate(&self, blocks: u16) -> Result<Option<u32>, ChainError> {
        let value = self
            .http
            .call("estimatesmartfee", json!([blocks, "CONSERVATIVE"]))
            .await?;
        value.get("feerate").map(per_kw).transpose()
    }

    async fn minimum(&self) -> Result<u32, ChainError> {
        let value = self.http.call("getmempoolinfo", json!([])).await?;
        let rate = |name| value.get(name).map_or(Ok(0), per_kw);
        Ok(rate("mempoolminfee")?.max(rate("minrelaytxfee")?))
    }

    /// A transaction of the mempool's.
    pub async fn unconfirmed(&self, txid: &Txid) -> Result<Option<Transaction>, ChainError> {
        let asked = json!([txid.to_string()]);
        let answer = match self.http.call("getrawtransaction", asked).await {
            Ok(answer) => answer,
            // Gone since it was named.
            Err(ChainError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let tx = answer
            .as_str()
            .and_then(|hex| deserialize_hex::<Transaction>(hex).ok())
            .filter(|tx| tx.compute_txid() == *txid);
        tx.map(Some).ok_or_else(|| odd("getrawtransaction"))
    }

    async fn submit(&self, tx: &Transaction) -> Result<SendOutcome, ChainError> {
        let answer = self
            .http
            .call("sendrawtransaction", json!([serialize_hex(tx)]))
            .await;
        match answer {
            Ok(txid) => match parse::<Txid>(&txid, "a transaction id")? == tx.compute_txid() {
                true => Ok(SendOutcome::Accepted),
                false => Err(ChainError::Lying(
                    "it names another transaction than was sent".into(),
                )),
            },
            Err(ChainError::Refused { code, message }) => Ok(refusal(code, message)),
            Err(error) => Err(error),
        }
    }

    async fn submit_package(&self, txs: &[Transaction]) -> Result<SendOutcome, ChainError> {
        let Some(child) = txs.last() else {
            return Ok(SendOutcome::Rejected("an empty package".into()));
        };
        let hexes: Vec<String> = txs.iter().map(serialize_hex).collect();
        let value = match self.http.call("submitpackage", json!([hexes])).await {
            Ok(value) => value,
            Err(ChainError::Refused { code, message }) => return Ok(refusal(code, message)),
            Err(error) => return Err(error),
        };
        if value.get("package_msg").and_then(Value::as_str) == Some("success") {
            return Ok(SendOutcome::Accepted);
        }
        let results = value
            .get("tx-results")
            .and_then(Value::as_object)
            .ok_or_else(|| odd("submitpackage"))?;
        let why = |tx: &Transaction| {
            let result = results.get(&tx.compute_wtxid().to_string())?;
            Some(result.get("error")?.as_str()?.to_owned())
        };
        // A parent's reason explains more than the child's missing input.
        let reason = txs.iter().find_map(why).or_else(|| why(child));
        Ok(refusal(-26, reason.unwrap_or_else(|| value.to_string())))
    }
}

impl ChainSource for Bitcoind {
    fn estimate_fee(&self, blocks: u16) -> ChainFuture<'_, Option<u32>> {
        Box::pin(self.estimate(blocks))
    }
    fn minimum_fee(&self) -> ChainFuture<'_, u32> {
        Box::pin(self.minimum())
    }
    fn send<'a>(&'a self, tx: &'a Transaction) -> ChainFuture<'a, SendOutcome> {
        Box::pin(self.submit(tx))
    }
    fn send_package<'a>(&'a self, txs: &'a [Transaction]) -> ChainFuture<'a, SendOutcome> {
        Box::pin(self.submit_package(txs))
    }
    fn unconfirmed_spender<'a>(
        &'a self,
        output: &'a OutPoint,
    ) -> ChainFuture<'a, Option<Transaction>> {
        Box::pin(async move {
            match self.spenders(&[*output]).await?.first() {
                Some(Some(txid)) => self.unconfirmed(txid).await,
                _ => Ok(None),
            }
        })
    }
}

impl From<ChainError> for BlockSourceError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Unreachable(_) | ChainError::Behind { .. } => Self::transient(error),
            // A block that is gone after a reorganisation is refused once; the next poll asks for another.
            ChainError::Refused { .. } => Self::transient(error),
            _ => Self::persistent(error),
        }
    }
}

impl BlockSource for Bitcoind {
    fn get_header<'a>(
        &'a self,
        hash: &'a BlockHash,
        _: Option<u32>,
    ) -> AsyncBlockSourceResult<'a, BlockHeaderData> {
        Box::pin(async move { Ok(self.header(hash).await?) })
    }
    fn get_block<'a>(&'a self, hash: &'a BlockHash) -> AsyncBlockSourceResult<'a, BlockData> {
        Box::pin(async move { Ok(BlockData::FullBlock(self.block(hash).await?)) })
    }
    fn get_best_block(&self) -> AsyncBlockSourceResult<'_, (BlockHash, Option<u32>)> {
        Box::pin(async move {
            let best = self.best_block().await?;
            Ok((best.block_hash, Some(best.height)))
        })
    }
}

fn refusal(code: i64, message: String) -> SendOutcome {
    let has = |text: &str| message.contains(text);
    if code == -27
        || has("already in utxo set")
        || has("already in block chain")
        || has("txn-already-known")
    {
        SendOutcome::Confirmed
    } else if has("txn-already-in-mempool") || has("txn-same-nonwitness-data-in-mempool") {
        SendOutcome::Accepted
    } else if has("missingorspent")
        || has("missing-inputs")
        || has("txn-mempool-conflict")
        || has("insufficient fee")
    {
        SendOutcome::Conflict(message)
    } else if has("min relay fee not met")
        || has("mempool min fee not met")
        || has("min fee not met")
    {
        SendOutcome::LowFee(message)
    } else {
        SendOutcome::Rejected(message)
    }
}

/// An amount in bitcoin.
fn amount(value: Option<&Value>, what: &str) -> Result<Amount, ChainError> {
    let value = value.ok_or_else(|| odd(what))?;
    Amount::from_str_in(&value.to_string(), bitcoin::Denomination::Bitcoin)
        .ok()
        .or_else(|| Amount::from_btc(value.as_f64()?).ok())
        .ok_or_else(|| odd(what))
}

/// BTC per 1000 virtual bytes, rounded up to satoshis per 1000 weight.
fn per_kw(value: &Value) -> Result<u32, ChainError> {
    let rate = value
        .as_f64()
        .and_then(|btc| Amount::from_btc(btc).ok())
        .ok_or_else(|| odd("a fee rate"))?;
    u32::try_from(rate.to_sat().div_ceil(4)).map_err(|_| odd("a fee rate"))
}

fn chain_info(value: &Value) -> Result<ChainInfo, ChainError> {
    let best = value
        .get("bestblockhash")
        .ok_or_else(|| odd("getblockchaininfo"))?;
    let info = ChainInfo {
        blocks: number(value, "blocks")?,
        headers: number(value, "headers")?,
        best: parse(best, "a block hash")?,
        pruned: value
            .get("pruned")
            .and_then(Value::as_bool)
            .unwrap_or(false),
    };
    if info.headers < info.blocks {
        return Err(ChainError::Lying("it has more blocks than headers".into()));
    }
    Ok(info)
}

fn number(value: &Value, name: &str) -> Result<u32, ChainError> {
    let number = value
        .get(name)
        .and_then(Value::as_u64)
        .and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| odd(name))
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, ChainError> {
    value
        .get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| odd(name))
}

fn parse<T: FromStr>(value: &Value, what: &str) -> Result<T, ChainError> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| odd(what))
}

fn odd(what: &str) -> ChainError {
    ChainError::Lying(format!("{what} is not what it should be"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let of = |message: &str| refusal(-26, message.to_owned());
        assert_eq!(
            refusal(-27, "Transaction outputs already in utxo set".into()),
            SendOutcome::Confirmed
        );
        assert_eq!(of("txn-already-in-mempool"), SendOutcome::Accepted);
        assert!(matches!(
            of("bad-txns-inputs-missingorspent"),
            SendOutcome::Conflict(_)
        ));
        assert!(matches!(
            of("txn-mempool-conflict"),
            SendOutcome::Conflict(_)
        ));
        assert!(matches!(
            of("min relay fee not met, 1 < 2"),
            SendOutcome::LowFee(_)
        ));
        assert!(matches!(of("dust"), SendOutcome::Rejected(_)));
    }

    #[test]
    fn rates_are_rounded_up() {
        assert_eq!(per_kw(&json!(0.00001)).unwrap(), 250);
        assert_eq!(per_kw(&json!(0.00001001)).unwrap(), 251);
        assert!(per_kw(&json!(-1)).is_err());
        assert!(per_kw(&json!("x")).is_err());
    }

    #[test]
    fn the_password_is_not_printed() {
        let config = BitcoindConfig {
            url: "http://a:1".into(),
            user: "u".into(),
            password: "hush".into(),
            poll_ms: 1,
        };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
