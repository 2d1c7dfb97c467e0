//! The calls of bitcoind that nodes, sandboxes and their tests make, and two of its own: `setfeerates` and `setmempoolfee`.

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::block::Block;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{
    Address, Amount, BlockHash, Denomination, Network, OutPoint, ScriptBuf, SignedAmount,
    Transaction, TxOut, Txid,
};
use miniscript::{Descriptor, DescriptorPublicKey};
use serde_json::{json, Map, Value};

use crate::chain::{Chain, Changed};
use crate::mempool::{Entry, Mempool, Rejected, MIN_RELAY_FEE};
use crate::miner;
use crate::purse::Purse;
use crate::rules::Refusal;

/// JSON-RPC's code of a method that is not known.
pub const METHOD_NOT_FOUND: i64 = -32_601;
const MISC: i64 = -1;
const TYPE: i64 = -3;
const WALLET: i64 = -4;
const NOT_FOUND: i64 = -5;
const FUNDS: i64 = -6;
const PARAMETER: i64 = -8;
const DESERIALIZATION: i64 = -22;
const TRANSACTION: i64 = -25;
const REJECTED: i64 = -26;
const ALREADY: i64 = -27;
/// A payment above this rate is thought a mistake, satoshi for 1,000 virtual bytes.
const MAX_FEE_RATE: u64 = 10_000_000;
/// More at once would hold up every other call.
const MAX_BLOCKS: u64 = 10_000;
const MAX_RANGE: u64 = 100_000;

/// Why a call is refused.
#[derive(Debug)]
pub struct RpcError {
    /// bitcoind's code.
    pub code: i64,
    /// bitcoind's words.
    pub message: String,
}

type Answer = Result<Value, RpcError>;

fn refuse<T>(code: i64, message: impl Into<String>) -> Result<T, RpcError> {
    Err(RpcError {
        code,
        message: message.into(),
    })
}

/// All there is.
#[derive(Default)]
pub struct State {
    chain: Chain,
    mempool: Mempool,
    purse: Purse,
    /// What `estimatesmartfee` says, satoshi for 1,000 virtual bytes.
    estimate: Option<u64>,
    /// The time that is to be, if it is not the clock's.
    mocktime: Option<u32>,
    /// Blocks made here.
    mined: u32,
}

impl State {
    fn now(&self) -> u32 {
        self.mocktime.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| {
                u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
            })
        })
    }

    fn follow(&mut self, changed: &Changed) {
        let now = self.now();
        self.mempool.follow(&mut self.chain, changed, now);
    }

    fn add(&mut self, block: Block) -> Result<(), Refusal> {
        let changed = self.chain.add(block, self.now())?;
        self.follow(&changed);
        Ok(())
    }

    fn mine(
        &mut self,
        script: ScriptBuf,
        txs: &[(Transaction, u64)],
    ) -> Result<BlockHash, RpcError> {
        let block = miner::block(&self.chain, script, txs, self.now(), self.mined);
        self.mined = self.mined.saturating_add(1);
        let hash = block.block_hash();
        match self.add(block) {
            Ok(()) => Ok(hash),
            Err(refusal) => refuse(
                TRANSACTION,
                format!("TestBlockValidity failed: {}", refusal.0),
            ),
        }
    }

    fn accept(&mut self, tx: &Transaction) -> Result<(), Rejected> {
        let now = self.now();
        self.mempool.accept(&mut self.chain, tx, now)
    }
}

/// Answers a call.
///
/// # Errors
/// bitcoind's.
pub fn call(state: &mut State, method: &str, params: &[Value]) -> Answer {
    let params = Params(params);
    match method {
        "getblockchaininfo" => Ok(chain_info(state)),
        "getblockcount" => Ok(json!(state.chain.height())),
        "getbestblockhash" => Ok(json!(state.chain.tip())),
        "getblockhash" => block_hash(state, params),
        "getblockheader" => header(state, params),
        "getblock" => block(state, params),
        "getnetworkinfo" => Ok(network_info()),
        "gettxout" => tx_out(state, params),
        "gettxoutsetinfo" => Ok(tx_out_set(state)),
        "scantxoutset" => scan(state, params),
        "gettxspendingprevout" => spending(state, params),
        "getrawtransaction" => raw_transaction(state, params),
        "getrawmempool" => Ok(raw_mempool(state, params)),
        "getmempoolentry" => mempool_entry(state, params),
        "getmempoolinfo" => Ok(mempool_info(state)),
        "estimatesmartfee" => estimate(state, params),
        "sendrawtransaction" => send_raw(state, params),
        "submitpackage" => submit_package(state, params),
        "testmempoolaccept" => test_accept(state, params),
        "prioritisetransaction" => prioritise(state, params),
        "generatetoaddress" => generate(state, params),
        "generateblock" => generate_block(state, params),
        "submitblock" => submit_block(state, params),
        "invalidateblock" => reorganise(state, params, Chain::invalidate),
        "reconsiderblock" => reorganise(state, params, Chain::reconsider),
        "setmocktime" => set_mocktime(state, params),
        "createwallet" | "loadwallet" => Ok(json!({ "name": params.text(0)? })),
        "getnewaddress" => new_address(state),
        "getbalance" => Ok(btc(state.purse.balance(&state.chain, &state.mempool))),
        "sendtoaddress" => send_to(state, params),
        "sendmany" => send_many(state, params),
        "gettransaction" => wallet_transaction(state, params),
        "validateaddress" => validate_address(params),
        "decodescript" => decode_script(params),
        "setfeerates" => set_estimate(state, params),
        "setmempoolfee" => set_minimum(state, params),
        _ => refuse(METHOD_NOT_FOUND, "Method not found"),
    }
}

// Parameters

#[derive(Clone, Copy)]
struct Params<'a>(&'a [Value]);

impl<'a> Params<'a> {
    fn get(self, index: usize) -> Option<&'a Value> {
        self.0.get(index).filter(|value| !value.is_null())
    }
    fn need(self, index: usize) -> Result<&'a Value, RpcError> {
        self.get(index)
            .map_or_else(|| refuse(MISC, format!("parameter {index} is missing")), Ok)
    }
    fn text(self, index: usize) -> Result<&'a str, RpcError> {
        as_text(self.need(index)?)
    }
    fn parse<T: FromStr>(self, index: usize) -> Result<T, RpcError> {
        parse(self.need(index)?)
    }
    fn number(self, index: usize) -> Result<u64, RpcError> {
        let value = self.need(index)?;
        value
            .as_u64()
            .map_or_else(|| refuse(TYPE, format!("{value} is no number")), Ok)
    }
    fn flag(self, index: usize, default: bool) -> bool {
        self.get(index).and_then(Value::as_bool).unwrap_or(default)
    }
    fn list(self, index: usize) -> Result<&'a [Value], RpcError> {
        let value = self.need(index)?;
        match value.as_array() {
            Some(list) => Ok(list),
            None => refuse(TYPE, "a list is wanted"),
        }
    }
    fn transaction(self, index: usize) -> Result<Transaction, RpcError> {
        as_transaction(self.need(index)?)
    }
    fn address(self, index: usize) -> Result<Address, RpcError> {
        as_address(self.text(index)?)
    }
    /// 0, 1 and 2, or false and true.
    fn verbosity(self, index: usize, default: u64) -> u64 {
        self.get(index)
            .map_or(default, |value| match value.as_bool() {
                Some(flag) => u64::from(flag),
                None => value.as_u64().unwrap_or(default),
            })
    }
}

fn as_text(value: &Value) -> Result<&str, RpcError> {
    value
        .as_str()
        .map_or_else(|| refuse(TYPE, format!("{value} is no text")), Ok)
}

fn parse<T: FromStr>(value: &Value) -> Result<T, RpcError> {
    let text = as_text(value)?;
    text.parse()
        .or_else(|_| refuse(PARAMETER, format!("{text} is not what is wanted")))
}

fn as_transaction(value: &Value) -> Result<Transaction, RpcError> {
    deserialize_hex(as_text(value)?).or_else(|_| {
        let why = "TX decode failed. Make sure the tx has at least one input.";
        refuse(DESERIALIZATION, why)
    })
}

fn as_address(text: &str) -> Result<Address, RpcError> {
    let parsed = Address::from_str(text)
        .ok()
        .and_then(|a| a.require_network(Network::Regtest).ok());
    parsed.map_or_else(|| refuse(NOT_FOUND, format!("Invalid address: {text}")), Ok)
}

/// An amount in bitcoin, as a number or a text.
fn as_amount(value: &Value) -> Result<Amount, RpcError> {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let exact = Amount::from_str_in(&text, Denomination::Bitcoin).ok();
    let amount = exact.or_else(|| Amount::from_btc(value.as_f64()?).ok());
    amount.map_or_else(|| refuse(TYPE, format!("Invalid amount: {text}")), Ok)
}

fn btc(sat: u64) -> Value {
    json!(Amount::from_sat(sat).to_btc())
}

// The chain

fn chain_info(state: &State) -> Value {
    let height = state.chain.height();
    json!({
        "chain": "regtest",
        "blocks": height,
        "headers": height,
        "bestblockhash": state.chain.tip(),
        "mediantime": state.chain.median_time(height),
        "verificationprogress": 1,
        "initialblockdownload": false,
        "pruned": false,
        "warnings": [],
    })
}

fn network_info() -> Value {
    json!({
        "version": 0,
        "subversion": concat!("/ldkjit-regtest:", env!("CARGO_PKG_VERSION"), "/"),
        "localrelay": true,
        "connections": 0,
    })
}

fn block_hash(state: &State, params: Params<'_>) -> Answer {
    let height = u32::try_from(params.number(0)?).unwrap_or(u32::MAX);
    match state.chain.at(height) {
        Some(hash) => Ok(json!(hash)),
        None => refuse(PARAMETER, "Block height out of range"),
    }
}

fn known<'a>(state: &'a State, hash: &BlockHash) -> Result<(&'a Block, u32), RpcError> {
    let found = state.chain.block(hash);
    found.map_or_else(|| refuse(NOT_FOUND, "Block not found"), Ok)
}

fn header(state: &State, params: Params<'_>) -> Answer {
    let hash = params.parse(0)?;
    let (block, height) = known(state, &hash)?;
    match params.flag(1, true) {
        true => Ok(Value::Object(header_fields(state, &hash, block, height))),
        false => Ok(json!(serialize_hex(&block.header))),
    }
}

fn header_fields(
    state: &State,
    hash: &BlockHash,
    block: &Block,
    height: u32,
) -> Map<String, Value> {
    let header = &block.header;
    let active = state.chain.is_active(hash);
    // Every block of regtest is two hashes of work.
    let work = u64::from(height).saturating_add(1).saturating_mul(2);
    let confirmations = depth_of(state, height);
    let mut fields = Map::from_iter([
        ("hash".into(), json!(hash)),
        (
            "confirmations".into(),
            if active {
                json!(confirmations)
            } else {
                json!(-1)
            },
        ),
        ("height".into(), json!(height)),
        ("version".into(), json!(header.version.to_consensus())),
        ("merkleroot".into(), json!(header.merkle_root)),
        ("time".into(), json!(header.time)),
        ("nonce".into(), json!(header.nonce)),
        (
            "bits".into(),
            json!(format!("{:08x}", header.bits.to_consensus())),
        ),
        ("chainwork".into(), json!(format!("{work:064x}"))),
        ("nTx".into(), json!(block.txdata.len())),
    ]);
    if height > 0 {
        fields.insert("previousblockhash".into(), json!(header.prev_blockhash));
    }
    let next = state.chain.at(height.saturating_add(1)).filter(|_| active);
    if let Some(next) = next {
        fields.insert("nextblockhash".into(), json!(next));
    }
    fields
}

fn block(state: &State, params: Params<'_>) -> Answer {
    let hash = params.parse(0)?;
    let (block, height) = known(state, &hash)?;
    let verbosity = params.verbosity(1, 1);
    if verbosity == 0 {
        return Ok(json!(serialize_hex(block)));
    }
    let mut fields = header_fields(state, &hash, block, height);
    let txs = block.txdata.iter();
    let txs: Vec<Value> = match verbosity {
        1 => txs.map(|tx| json!(tx.compute_txid())).collect(),
        _ => txs.map(|tx| with_fee(state, tx)).collect(),
    };
    fields.insert("tx".into(), json!(txs));
    Ok(Value::Object(fields))
}

/// As others have it, with what it pays if all that it spends is in the best chain.
fn with_fee(state: &State, tx: &Transaction) -> Value {
    let mut told = decoded(tx);
    let spent = tx.input.iter().map(|input| {
        let at = input.previous_output;
        let (_, from) = state.chain.transaction(&at.txid)?;
        Some(from.output.get(at.vout as usize)?.value.to_sat())
    });
    let spent: Option<u64> = spent.sum();
    let paid = tx.output.iter().map(|output| output.value.to_sat());
    let fee = spent.and_then(|spent| spent.checked_sub(paid.fold(0, u64::saturating_add)));
    if let (Some(fee), Value::Object(fields)) = (fee, &mut told) {
        fields.insert("fee".into(), btc(fee));
    }
    told
}

fn tx_out(state: &State, params: Params<'_>) -> Answer {
    let at = OutPoint::new(
        params.parse(0)?,
        u32::try_from(params.number(1)?).unwrap_or(u32::MAX),
    );
    let mempool = params.flag(2, true);
    let height = state.chain.height();
    if mempool && state.mempool.spender(&at).is_some() {
        return Ok(Value::Null);
    }
    let confirmed = state.chain.coin(&at).cloned();
    let waiting = || {
        state
            .mempool
            .coin(&at, height.saturating_add(1))
            .filter(|_| mempool)
    };
    let Some(coin) = confirmed.or_else(waiting) else {
        return Ok(Value::Null);
    };
    Ok(json!({
        "bestblock": state.chain.tip(),
        "confirmations": height.saturating_add(1).saturating_sub(coin.height),
        "value": btc(coin.output.value.to_sat()),
        "scriptPubKey": script_fields(&coin.output.script_pubkey),
        "coinbase": coin.coinbase,
    }))
}

fn script_fields(script: &ScriptBuf) -> Value {
    let mut fields = Map::from_iter([("hex".into(), json!(script.to_hex_string()))]);
    if let Ok(address) = Address::from_script(script, Network::Regtest) {
        fields.insert("address".into(), json!(address.to_string()));
    }
    Value::Object(fields)
}

fn tx_out_set(state: &State) -> Value {
    let values = state
        .chain
        .coins()
        .map(|(_, coin)| coin.output.value.to_sat());
    let (count, total) = values.fold((0u64, 0u64), |(count, total), value| {
        (count.saturating_add(1), total.saturating_add(value))
    });
    json!({
        "height": state.chain.height(),
        "bestblock": state.chain.tip(),
        "txouts": count,
        "total_amount": btc(total),
    })
}

/// The unspent outputs of descriptors: `raw(…)`, `addr(…)`, and what miniscript knows.
fn scan(state: &State, params: Params<'_>) -> Answer {
    match params.text(0)? {
        "start" => {}
        "abort" => return Ok(json!(false)),
        "status" => return Ok(Value::Null),
        _ => return refuse(PARAMETER, "Invalid action"),
    }
    let mut scripts = std::collections::HashSet::new();
    for wanted in params.list(1)? {
        let text = wanted.get("desc").unwrap_or(wanted);
        let range = wanted
            .get("range")
            .and_then(|range| match range.as_array() {
                Some(both) => both.last().and_then(Value::as_u64),
                None => range.as_u64(),
            });
        scripts.extend(scripts_of(as_text(text)?, range.unwrap_or(1_000))?);
    }
    let height = state.chain.height();
    let mut total = 0u64;
    let mut unspents = Vec::new();
    for (at, coin) in state.chain.coins() {
        if scripts.contains(&coin.output.script_pubkey) {
            total = total.saturating_add(coin.output.value.to_sat());
            unspents.push(json!({
                "txid": at.txid,
                "vout": at.vout,
                "scriptPubKey": coin.output.script_pubkey.to_hex_string(),
                "amount": btc(coin.output.value.to_sat()),
                "coinbase": coin.coinbase,
                "height": coin.height,
            }));
        }
    }
    Ok(json!({
        "success": true,
        "height": height,
        "bestblock": state.chain.tip(),
        "unspents": unspents,
        "total_amount": btc(total),
    }))
}

fn scripts_of(descriptor: &str, range: u64) -> Result<Vec<ScriptBuf>, RpcError> {
    let odd = |why: String| RpcError {
        code: NOT_FOUND,
        message: why,
    };
    let plain = descriptor.split('#').next().unwrap_or(descriptor);
    let inside = |name: &str| {
        plain
            .strip_prefix(name)?
            .strip_prefix('(')?
            .strip_suffix(')')
    };
    if let Some(hex) = inside("raw") {
        return Ok(vec![
            ScriptBuf::from_hex(hex).map_err(|e| odd(e.to_string()))?
        ]);
    }
    if let Some(address) = inside("addr") {
        return Ok(vec![as_address(address)?.script_pubkey()]);
    }
    let parsed =
        Descriptor::<DescriptorPublicKey>::from_str(plain).map_err(|e| odd(e.to_string()))?;
    let last = if parsed.has_wildcard() {
        range.min(MAX_RANGE)
    } else {
        0
    };
    (0..=last)
        .map(|index| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let definite = parsed
                .at_derivation_index(index)
                .map_err(|e| odd(e.to_string()))?;
            Ok(definite.script_pubkey())
        })
        .collect()
}

// Transactions

fn spending(state: &State, params: Params<'_>) -> Answer {
    let asked = params.list(0)?.iter().map(|output| {
        let field = |name| output.get(name).unwrap_or(&Value::Null);
        let txid: Txid = parse(field("txid"))?;
        let vout = field("vout")
            .as_u64()
            .and_then(|vout| u32::try_from(vout).ok());
        let Some(vout) = vout else {
            return refuse(PARAMETER, "Invalid parameter, vout cannot be negative");
        };
        let mut answer =
            Map::from_iter([("txid".into(), json!(txid)), ("vout".into(), json!(vout))]);
        if let Some(spender) = state.mempool.spender(&OutPoint::new(txid, vout)) {
            answer.insert("spendingtxid".into(), json!(spender));
        }
        Ok(Value::Object(answer))
    });
    Ok(Value::Array(asked.collect::<Result<_, _>>()?))
}

/// A transaction that waits, or that a block has.
fn found<'a>(state: &'a State, txid: &Txid) -> Option<(Option<BlockHash>, &'a Transaction)> {
    let waiting = state.mempool.get(txid).map(|entry| (None, &entry.tx));
    waiting.or_else(|| {
        let (hash, tx) = state.chain.transaction(txid)?;
        Some((Some(hash), tx))
    })
}

/// Confirmations of what is in the best chain's block of this height.
fn depth_of(state: &State, height: u32) -> u32 {
    let above = state.chain.height().saturating_sub(height);
    above.saturating_add(1)
}

fn raw_transaction(state: &State, params: Params<'_>) -> Answer {
    let txid = params.parse(0)?;
    let Some((hash, tx)) = found(state, &txid) else {
        return refuse(
            NOT_FOUND,
            "No such mempool or blockchain transaction. Use gettransaction for wallet transactions.",
        );
    };
    if params.verbosity(1, 0) == 0 {
        return Ok(json!(serialize_hex(tx)));
    }
    let mut fields = decoded(tx);
    if let (Some(hash), Value::Object(fields)) = (hash, &mut fields) {
        let (block, height) = known(state, &hash)?;
        let depth = depth_of(state, height);
        fields.insert("blockhash".into(), json!(hash));
        fields.insert("confirmations".into(), json!(depth));
        fields.insert("time".into(), json!(block.header.time));
    }
    Ok(fields)
}

fn decoded(tx: &Transaction) -> Value {
    let inputs = tx.input.iter().map(|input| match tx.is_coinbase() {
        true => json!({
            "coinbase": input.script_sig.to_hex_string(),
            "sequence": input.sequence.to_consensus_u32(),
        }),
        false => json!({
            "txid": input.previous_output.txid,
            "vout": input.previous_output.vout,
            "scriptSig": { "hex": input.script_sig.to_hex_string() },
            "txinwitness": input.witness.iter().map(hex).collect::<Vec<_>>(),
            "sequence": input.sequence.to_consensus_u32(),
        }),
    });
    let outputs = tx.output.iter().enumerate().map(|(n, output)| {
        json!({
            "n": n,
            "value": btc(output.value.to_sat()),
            "scriptPubKey": script_fields(&output.script_pubkey),
        })
    });
    json!({
        "txid": tx.compute_txid(),
        "hash": tx.compute_wtxid(),
        "version": tx.version.0,
        "size": tx.total_size(),
        "vsize": tx.vsize(),
        "weight": tx.weight().to_wu(),
        "locktime": tx.lock_time.to_consensus_u32(),
        "vin": inputs.collect::<Vec<_>>(),
        "vout": outputs.collect::<Vec<_>>(),
        "hex": serialize_hex(tx),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn raw_mempool(state: &State, params: Params<'_>) -> Value {
    let all = state.mempool.in_order();
    if !params.flag(0, false) {
        return all
            .iter()
            .map(|entry| json!(entry.tx.compute_txid()))
            .collect();
    }
    let fields = all.iter().map(|entry| {
        (
            entry.tx.compute_txid().to_string(),
            entry_fields(state, entry),
        )
    });
    Value::Object(fields.collect())
}

fn mempool_entry(state: &State, params: Params<'_>) -> Answer {
    match state.mempool.get(&params.parse(0)?) {
        Some(entry) => Ok(entry_fields(state, entry)),
        None => refuse(NOT_FOUND, "Transaction not in mempool"),
    }
}

fn entry_fields(state: &State, entry: &Entry) -> Value {
    let mempool = &state.mempool;
    let txid = entry.tx.compute_txid();
    let all = |txids: std::collections::BTreeSet<Txid>| {
        let others: Vec<&Entry> = txids.iter().filter_map(|txid| mempool.get(txid)).collect();
        let each = || others.iter().copied().chain([entry]);
        (
            each().count(),
            each().map(Entry::vsize).fold(0, u64::saturating_add),
            each().map(Entry::modified_fee).fold(0, i64::saturating_add),
        )
    };
    let (ancestors, ancestor_size, ancestor_fees) = all(mempool.ancestors(&entry.tx));
    let (descendants, descendant_size, descendant_fees) = all(mempool.descendants(&txid));
    let parents = entry.tx.input.iter().map(|i| i.previous_output.txid);
    let parents: std::collections::BTreeSet<Txid> =
        parents.filter(|t| mempool.get(t).is_some()).collect();
    let children: std::collections::BTreeSet<Txid> = mempool.children(&entry.tx).collect();
    json!({
        "vsize": entry.vsize(),
        "weight": entry.tx.weight().to_wu(),
        "time": entry.time,
        "height": entry.height,
        "descendantcount": descendants,
        "descendantsize": descendant_size,
        "ancestorcount": ancestors,
        "ancestorsize": ancestor_size,
        "wtxid": entry.tx.compute_wtxid(),
        "fees": {
            "base": btc(entry.fee),
            "modified": signed_btc(entry.modified_fee()),
            "ancestor": signed_btc(ancestor_fees),
            "descendant": signed_btc(descendant_fees),
        },
        "depends": parents,
        "spentby": children,
        "bip125-replaceable": true,
        "unbroadcast": false,
    })
}

fn signed_btc(sat: i64) -> Value {
    json!(SignedAmount::from_sat(sat).to_btc())
}

fn mempool_info(state: &State) -> Value {
    let all = state.mempool.in_order();
    json!({
        "loaded": true,
        "size": all.len(),
        "bytes": all.iter().map(|entry| entry.vsize()).fold(0, u64::saturating_add),
        "total_fee": btc(all.iter().map(|entry| entry.fee).fold(0, u64::saturating_add)),
        "mempoolminfee": btc(state.mempool.minimum),
        "minrelaytxfee": btc(MIN_RELAY_FEE),
        "incrementalrelayfee": btc(MIN_RELAY_FEE),
        "unbroadcastcount": 0,
        "fullrbf": true,
    })
}

fn estimate(state: &State, params: Params<'_>) -> Answer {
    let blocks = params.number(0)?;
    Ok(match state.estimate {
        Some(rate) => json!({ "feerate": btc(rate), "blocks": blocks }),
        None => json!({ "errors": ["Insufficient data or no feerate found"], "blocks": blocks }),
    })
}

fn rejected<T>(why: Rejected) -> Result<T, RpcError> {
    refuse(if why.missing { TRANSACTION } else { REJECTED }, why.reason)
}

fn send_raw(state: &mut State, params: Params<'_>) -> Answer {
    let tx = params.transaction(0)?;
    let most = match params.get(1) {
        Some(value) => as_amount(value)?.to_sat(),
        None => MAX_FEE_RATE,
    };
    send(state, &tx, most)
}

fn send(state: &mut State, tx: &Transaction, most: u64) -> Answer {
    let txid = tx.compute_txid();
    let outputs = (0u32..).zip(&tx.output);
    let is_there = |(vout, _)| state.chain.coin(&OutPoint::new(txid, vout)).is_some();
    if outputs.into_iter().any(is_there) {
        return refuse(ALREADY, "Transaction outputs already in utxo set");
    }
    if state.mempool.get(&txid).is_none() {
        if most > 0 {
            let paid = state.mempool.would_accept(&state.chain, tx);
            if paid.is_ok_and(|fee| fee > crate::mempool::at_rate(most, crate::mempool::vsize(tx)))
            {
                return refuse(
                    TRANSACTION,
                    "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
                );
            }
        }
        state.accept(tx).or_else(rejected)?;
    }
    Ok(json!(txid))
}

fn submit_package(state: &mut State, params: Params<'_>) -> Answer {
    let txs = params
        .list(0)?
        .iter()
        .map(as_transaction)
        .collect::<Result<Vec<_>, _>>()?;
    if txs.is_empty() {
        return refuse(
            PARAMETER,
            "Array must contain between 1 and 25 transactions.",
        );
    }
    let now = state.now();
    let results = state.mempool.accept_package(&mut state.chain, &txs, now);
    let results = results.or_else(|why| refuse(TRANSACTION, why.reason))?;
    let all_good = results.iter().all(|(_, _, result)| result.is_ok());
    let told = results.iter().map(|(wtxid, txid, result)| {
        let mut fields = Map::from_iter([("txid".into(), json!(txid))]);
        match (result, state.mempool.get(txid)) {
            (Err(why), _) => {
                fields.insert("error".into(), json!(why.reason));
            }
            (Ok(()), Some(entry)) => {
                fields.insert("vsize".into(), json!(entry.vsize()));
                fields.insert("fees".into(), json!({ "base": btc(entry.fee) }));
            }
            (Ok(()), None) => {}
        }
        (wtxid.to_string(), Value::Object(fields))
    });
    Ok(json!({
        "package_msg": if all_good { "success" } else { "transaction failed" },
        "tx-results": Value::Object(told.collect()),
        "replaced-transactions": [],
    }))
}

fn test_accept(state: &State, params: Params<'_>) -> Answer {
    let told = params.list(0)?.iter().map(|raw| {
        let tx = as_transaction(raw)?;
        let ids = json!({ "txid": tx.compute_txid(), "wtxid": tx.compute_wtxid() });
        let (name, mut fields) = match (state.mempool.would_accept(&state.chain, &tx), ids) {
            (Ok(fee), Value::Object(mut ids)) => {
                ids.insert("vsize".into(), json!(tx.vsize()));
                ids.insert("fees".into(), json!({ "base": btc(fee) }));
                (true, ids)
            }
            (Err(why), Value::Object(mut ids)) => {
                ids.insert("reject-reason".into(), json!(why.reason));
                (false, ids)
            }
            (_, _) => (false, Map::new()),
        };
        fields.insert("allowed".into(), json!(name));
        Ok(Value::Object(fields))
    });
    Ok(Value::Array(told.collect::<Result<_, RpcError>>()?))
}

fn prioritise(state: &mut State, params: Params<'_>) -> Answer {
    let delta = params.need(2)?;
    match delta.as_i64() {
        Some(delta) => state.mempool.prioritise(params.parse(0)?, delta),
        None => return refuse(TYPE, format!("{delta} is no number")),
    }
    Ok(json!(true))
}

// Blocks

fn generate(state: &mut State, params: Params<'_>) -> Answer {
    let count = params.number(0)?;
    if count > MAX_BLOCKS {
        return refuse(PARAMETER, format!("at most {MAX_BLOCKS} blocks at once"));
    }
    let script = params.address(1)?.script_pubkey();
    let hashes = (0..count).map(|_| {
        let txs = state.mempool.for_block(miner::MAX_WEIGHT);
        let txs: Vec<_> = txs.into_iter().map(|(tx, fee)| (tx.clone(), fee)).collect();
        Ok(json!(state.mine(script.clone(), &txs)?))
    });
    Ok(Value::Array(hashes.collect::<Result<_, RpcError>>()?))
}

/// A block with just these transactions: ids of the mempool's, or whole ones, whose fee is left to nobody.
fn generate_block(state: &mut State, params: Params<'_>) -> Answer {
    let script = params.address(0)?.script_pubkey();
    let mut txs = Vec::new();
    for each in params.list(1)? {
        let text = as_text(each)?;
        if let Ok(txid) = Txid::from_str(text) {
            let Some(entry) = state.mempool.get(&txid) else {
                return refuse(NOT_FOUND, format!("Transaction {txid} not in mempool."));
            };
            txs.push((entry.tx.clone(), entry.fee));
        } else {
            txs.push((as_transaction(each)?, 0));
        }
    }
    Ok(json!({ "hash": state.mine(script, &txs)? }))
}

fn submit_block(state: &mut State, params: Params<'_>) -> Answer {
    let Ok(block) = deserialize_hex::<Block>(params.text(0)?) else {
        return refuse(DESERIALIZATION, "Block decode failed");
    };
    Ok(match state.add(block) {
        Ok(()) => Value::Null,
        Err(refusal) => json!(refusal.0),
    })
}

fn reorganise(
    state: &mut State,
    params: Params<'_>,
    how: fn(&mut Chain, &BlockHash) -> Result<Changed, Refusal>,
) -> Answer {
    let hash = params.parse(0)?;
    match how(&mut state.chain, &hash) {
        Ok(changed) => state.follow(&changed),
        Err(refusal) => return refuse(NOT_FOUND, refusal.0),
    }
    Ok(Value::Null)
}

fn set_mocktime(state: &mut State, params: Params<'_>) -> Answer {
    let time = u32::try_from(params.number(0)?).unwrap_or(u32::MAX);
    state.mocktime = Some(time).filter(|time| *time > 0);
    Ok(Value::Null)
}

// The miner's wallet

fn new_address(state: &mut State) -> Answer {
    match state.purse.address() {
        Ok(address) => Ok(json!(address.to_string())),
        Err(refusal) => refuse(WALLET, refusal.0),
    }
}

fn send_to(state: &mut State, params: Params<'_>) -> Answer {
    let output = TxOut {
        value: as_amount(params.need(1)?)?,
        script_pubkey: params.address(0)?.script_pubkey(),
    };
    pay(state, vec![output])
}

fn send_many(state: &mut State, params: Params<'_>) -> Answer {
    let Some(amounts) = params.need(1)?.as_object() else {
        return refuse(TYPE, "amounts by address are wanted");
    };
    let outputs = amounts.iter().map(|(address, value)| {
        Ok(TxOut {
            value: as_amount(value)?,
            script_pubkey: as_address(address)?.script_pubkey(),
        })
    });
    let outputs = outputs.collect::<Result<_, RpcError>>()?;
    pay(state, outputs)
}

fn pay(state: &mut State, outputs: Vec<TxOut>) -> Answer {
    match state.purse.pay(&state.chain, &state.mempool, outputs) {
        Ok(tx) => send(state, &tx, 0),
        Err(refusal) => refuse(FUNDS, refusal.0),
    }
}

fn wallet_transaction(state: &State, params: Params<'_>) -> Answer {
    let txid: Txid = params.parse(0)?;
    let found = found(state, &txid).filter(|(_, tx)| {
        state.purse.has_sent(&txid) || tx.output.iter().any(|o| state.purse.owns(&o.script_pubkey))
    });
    let Some((hash, tx)) = found else {
        return refuse(NOT_FOUND, "Invalid or non-wallet transaction id");
    };
    let depth = hash
        .and_then(|hash| state.chain.block(&hash))
        .map_or(0, |(_, height)| depth_of(state, height));
    Ok(json!({ "txid": txid, "confirmations": depth, "hex": serialize_hex(tx) }))
}

fn validate_address(params: Params<'_>) -> Answer {
    let text = params.text(0)?;
    Ok(match as_address(text) {
        Ok(address) => json!({
            "isvalid": true,
            "address": address.to_string(),
            "scriptPubKey": address.script_pubkey().to_hex_string(),
        }),
        Err(_) => json!({ "isvalid": false, "error": "Invalid address" }),
    })
}

fn decode_script(params: Params<'_>) -> Answer {
    let Ok(script) = ScriptBuf::from_hex(params.text(0)?) else {
        return refuse(DESERIALIZATION, "Script decode failed");
    };
    let kinds = [
        (script.is_p2wpkh(), "witness_v0_keyhash"),
        (script.is_p2wsh(), "witness_v0_scripthash"),
        (script.is_p2tr(), "witness_v1_taproot"),
        (script.is_p2pkh(), "pubkeyhash"),
        (script.is_p2sh(), "scripthash"),
        (script.is_op_return(), "nulldata"),
    ];
    let kind = kinds
        .iter()
        .find(|(is, _)| *is)
        .map_or("nonstandard", |(_, kind)| kind);
    let mut fields = script_fields(&script);
    if let Value::Object(fields) = &mut fields {
        fields.insert("type".into(), json!(kind));
    }
    Ok(fields)
}

// Its own

/// What estimates say from now on, in bitcoin for 1,000 virtual bytes; without one they know nothing, as at first.
fn set_estimate(state: &mut State, params: Params<'_>) -> Answer {
    state.estimate = params
        .get(0)
        .map(as_amount)
        .transpose()?
        .map(Amount::to_sat);
    Ok(Value::Null)
}

/// The least that the mempool takes from now on, in bitcoin for 1,000 virtual bytes.
fn set_minimum(state: &mut State, params: Params<'_>) -> Answer {
    state.mempool.minimum = as_amount(params.need(0)?)?.to_sat().max(MIN_RELAY_FEE);
    Ok(Value::Null)
}
