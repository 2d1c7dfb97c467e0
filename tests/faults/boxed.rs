//! The regtest of this process beside a real bitcoind: the same calls have the same answers, and each takes the other's
//! blocks.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::opcodes::all::OP_PUSHNUM_1;
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use ldkjit_node::chain::bitcoind::Bitcoind;
use ldkjit_node::chain::ChainError;
use serde_json::{json, Value};

use crate::common::bitcoind::Running;
use crate::differential::draw::Draw;

/// So many things are done to both, from each of so many seeds.
const STEPS: usize = 400;
const SEEDS: u64 = 4;
/// Coins looked at after each step.
const LOOKED_AT: usize = 8;

/// Anybody can spend it, with no signature.
fn free_script() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![OP_PUSHNUM_1.to_u8()])
}

fn free_address() -> Address {
    Address::p2wsh(&free_script(), Network::Regtest)
}

/// Both, and what was done to them.
struct Both {
    sides: [Arc<Bitcoind>; 2],
    draw: Draw,
    /// Outputs that somebody may spend, the youngest last; some are spent.
    coins: Vec<(OutPoint, u64)>,
    done: Vec<String>,
    /// What both take for the time, seconds.
    now: u32,
}

/// What a call came to, without what is worded by each in its own way.
fn essence(answer: &Result<Value, ChainError>) -> Result<Value, (i64, String)> {
    match answer {
        Ok(value) => Ok(value.clone()),
        Err(ChainError::Refused { code, message }) => {
            let head = message.split([',', '(']).next().unwrap_or_default();
            Err((*code, head.trim().to_owned()))
        }
        Err(other) => panic!("{other}"),
    }
}

impl Both {
    async fn ask(&self, method: &str, params: Value) -> [Result<Value, ChainError>; 2] {
        let [bitcoind, boxed] = &self.sides;
        [
            bitcoind.call(method, params.clone()).await,
            boxed.call(method, params).await,
        ]
    }

    /// Both answer the same.
    async fn same(&mut self, method: &str, params: Value) -> Result<Value, (i64, String)> {
        self.done.push(format!("{method} {params}"));
        let [bitcoind, boxed] = self
            .ask(method, params)
            .await
            .map(|answer| essence(&answer));
        assert_eq!(bitcoind, boxed, "{}", self.done.join("\n"));
        bitcoind
    }

    async fn tip(&self) -> u32 {
        self.sides[0].best_block().await.unwrap().height
    }

    /// One side mines, the other one is handed the blocks.
    async fn mine(&mut self, by: usize, count: u32) {
        // A block is not to be the same as one that was declared invalid.
        self.now += 1 + self.draw.below(900) as u32;
        self.same("setmocktime", json!([self.now])).await.unwrap();
        let before = self.tip().await;
        let to = json!([count, free_address().to_string()]);
        self.sides[by].call("generatetoaddress", to).await.unwrap();
        self.done.push(format!("{count} blocks by {by}"));
        for height in before + 1..=before + count {
            let hash = self.sides[by].block_hash(height).await.unwrap();
            let block = self.sides[by].block(&hash).await.unwrap();
            let raw = json!([serialize_hex(&block)]);
            let other = self.sides[1 - by].call("submitblock", raw).await.unwrap();
            assert_eq!(other, Value::Null, "{}", self.done.join("\n"));
            let coinbase = block.coinbase().unwrap();
            let at = OutPoint::new(coinbase.compute_txid(), 0);
            self.coins.push((at, coinbase.output[0].value.to_sat()));
        }
    }

    /// Some transaction: mostly good ones, of young coins and old, spent ones too.
    fn transaction(&mut self) -> Transaction {
        let draw = &mut self.draw;
        let young = self.coins.len().saturating_sub(12);
        let mut inputs = BTreeSet::new();
        for _ in 0..=draw.below(2) {
            let index = match draw.one_in(2) {
                true => young + draw.below(self.coins.len() - young),
                false => draw.below(self.coins.len()),
            };
            inputs.insert(index);
        }
        let have: u64 = inputs.iter().map(|index| self.coins[*index].1).sum();
        let input = inputs.iter().map(|index| TxIn {
            previous_output: match draw.one_in(60) {
                true => OutPoint::new(self.coins[*index].0.txid, 7),
                false => self.coins[*index].0,
            },
            script_sig: ScriptBuf::new(),
            // Not by nothing: in a reorganisation bitcoind holds such locks against the tip that was.
            sequence: match draw.below(12) {
                0 => Sequence::from_height(1 + draw.below(7) as u16),
                1 => Sequence::MAX,
                2 => Sequence::from_512_second_intervals(1 + draw.below(2) as u16),
                _ => Sequence::ENABLE_RBF_NO_LOCKTIME,
            },
            witness: match draw.one_in(30) {
                true => Witness::from_slice(&[vec![0x51, 0x51]]),
                false => Witness::from_slice(&[free_script().into_bytes()]),
            },
        });
        let input: Vec<TxIn> = input.collect();
        let parts = 1 + draw.below(3) as u64;
        let fee = [0, 30, 150, 300, 1_000, 5_000, 20_000][draw.below(7)];
        let each = have.saturating_sub(fee) / parts;
        let each = if draw.one_in(40) { 200 } else { each };
        let each = if draw.one_in(40) { have } else { each };
        let output = (0..parts).map(|_| TxOut {
            value: Amount::from_sat(each),
            script_pubkey: free_address().script_pubkey(),
        });
        Transaction {
            version: Version([1, 2, 2, 2, 4][draw.below(5)]),
            lock_time: match draw.below(10) {
                0 => LockTime::from_consensus(100 + draw.below(60) as u32),
                1 => LockTime::from_consensus(1_600_000_000),
                _ => LockTime::ZERO,
            },
            input,
            output: output.collect(),
        }
    }

    fn remember(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        let outputs = (0u32..).zip(&tx.output);
        let outputs = outputs.map(|(vout, o)| (OutPoint::new(txid, vout), o.value.to_sat()));
        self.coins.extend(outputs);
    }

    async fn send(&mut self) {
        let tx = self.transaction();
        if self.draw.one_in(4) {
            self.same_acceptance(&tx).await;
        }
        let sent = self
            .same("sendrawtransaction", json!([serialize_hex(&tx), 0]))
            .await;
        if sent.is_ok() {
            self.remember(&tx);
        }
    }

    async fn same_acceptance(&mut self, tx: &Transaction) {
        let asked = json!([[serialize_hex(tx)], 0]);
        let told = self.ask("testmempoolaccept", asked).await.map(|answer| {
            let answer = answer.unwrap();
            (
                answer[0]["allowed"].clone(),
                answer[0]["fees"]["base"].clone(),
            )
        });
        assert_eq!(told[0], told[1], "{}\n{tx:?}", self.done.join("\n"));
    }

    /// A parent that pays little or nothing, and a child that pays for both, or not enough.
    async fn send_package(&mut self) {
        let mut parent = self.transaction();
        parent.version = Version::TWO;
        let mut child = parent.clone();
        let fee = [0, 200, 400, 2_000][self.draw.below(4)];
        child.lock_time = LockTime::ZERO;
        child.input = vec![TxIn {
            previous_output: OutPoint::new(parent.compute_txid(), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&[free_script().into_bytes()]),
        }];
        let have = parent.output[0].value.to_sat();
        child.output = vec![TxOut {
            value: Amount::from_sat(have.saturating_sub(fee)),
            script_pubkey: free_address().script_pubkey(),
        }];
        let raw = json!([[serialize_hex(&parent), serialize_hex(&child)], 0]);
        self.done.push(format!("submitpackage {raw}"));
        let told = self
            .ask("submitpackage", raw)
            .await
            .map(|answer| match answer {
                Ok(value) => {
                    let results = value["tx-results"].as_object().unwrap().clone();
                    let good = results
                        .into_iter()
                        .map(|(wtxid, told)| (wtxid, told.get("error").is_none()));
                    Ok((value["package_msg"] == "success", good.collect::<Vec<_>>()))
                }
                Err(ChainError::Refused { code, .. }) => Err(code),
                Err(other) => panic!("{other}"),
            });
        assert_eq!(told[0], told[1], "{}", self.done.join("\n"));
        for tx in [&parent, &child] {
            self.remember(tx);
        }
    }

    /// The last blocks are no more, and others take their place, made by one of them.
    async fn reorganise(&mut self) {
        let depth = 1 + self.draw.below(3) as u32;
        let tip = self.tip().await;
        let first = self.sides[0].block_hash(tip - depth + 1).await.unwrap();
        self.same("invalidateblock", json!([first.to_string()]))
            .await
            .unwrap();
        self.look().await;
        let by = self.draw.below(2);
        self.mine(by, depth + 1).await;
        if self.draw.one_in(3) {
            self.same("reconsiderblock", json!([first.to_string()]))
                .await
                .unwrap();
        }
    }

    async fn prioritise(&mut self) {
        let waiting = self.waiting(0).await;
        let Some(txid) = waiting.iter().next() else {
            return;
        };
        let delta = [-50_000, 50_000, 300][self.draw.below(3)];
        let asked = json!([txid.to_string(), 0, delta]);
        self.same("prioritisetransaction", asked).await.unwrap();
    }

    async fn waiting(&self, side: usize) -> BTreeSet<Txid> {
        let told = self.sides[side]
            .call("getrawmempool", json!([]))
            .await
            .unwrap();
        serde_json::from_value(told).unwrap()
    }

    /// Whatever can be asked has the same answer.
    async fn look(&mut self) {
        let waiting = [self.waiting(0).await, self.waiting(1).await];
        for txid in waiting[0].symmetric_difference(&waiting[1]) {
            let asked = json!([txid.to_string()]);
            let told = self.ask("getmempoolentry", asked).await;
            let raw = self
                .ask("getrawtransaction", json!([txid.to_string(), 1]))
                .await;
            eprintln!("{txid}: {told:?} {raw:?}");
        }
        assert_eq!(waiting[0], waiting[1], "{}", self.done.join("\n"));
        let many = self.done.len();
        self.same("getbestblockhash", json!([])).await.unwrap();
        for _ in 0..LOOKED_AT.min(self.coins.len()) {
            let (at, _) = self.draw.pick(&self.coins);
            let asked = json!([[{ "txid": at.txid.to_string(), "vout": at.vout }]]);
            self.same("gettxspendingprevout", asked).await.unwrap();
            let mempool = self.draw.one_in(2);
            let told = self
                .ask("gettxout", json!([at.txid.to_string(), at.vout, mempool]))
                .await;
            let told = told.map(|answer| {
                let answer = answer.unwrap();
                ["bestblock", "confirmations", "value", "coinbase"].map(|name| answer[name].clone())
            });
            assert_eq!(told[0], told[1], "{at} {mempool}\n{}", self.done.join("\n"));
        }
        for txid in waiting[0].iter().take(LOOKED_AT) {
            let told = self.ask("getmempoolentry", json!([txid.to_string()])).await;
            let told = told.map(|answer| {
                let answer = answer.unwrap();
                let names = [
                    "vsize",
                    "ancestorcount",
                    "ancestorsize",
                    "descendantcount",
                    "descendantsize",
                    "fees",
                    "wtxid",
                ];
                names.map(|name| answer[name].clone())
            });
            assert_eq!(told[0], told[1], "{txid}\n{}", self.done.join("\n"));
        }
        let told = self
            .ask("gettxoutsetinfo", json!(["none"]))
            .await
            .map(|answer| {
                let answer = answer.unwrap();
                ["height", "bestblock", "txouts", "total_amount"].map(|name| answer[name].clone())
            });
        assert_eq!(told[0], told[1], "{}", self.done.join("\n"));
        self.done.truncate(many);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_box_answers_as_bitcoind_does() {
    let mut accepted = 0;
    for seed in 1..=SEEDS {
        let Some((_running, bitcoind)) = Running::start(&["-txindex=1"]).await else {
            return;
        };
        let (_box, client) = Running::boxed().await;
        let mut both = Both {
            sides: [bitcoind, client],
            draw: Draw::new(seed),
            coins: Vec::new(),
            done: vec![format!("seed {seed}")],
            now: 1_700_000_000,
        };
        both.mine(0, 60).await;
        both.mine(1, 60).await;
        for _ in 0..STEPS {
            match both.draw.below(20) {
                0 | 1 => {
                    let by = both.draw.below(2);
                    both.mine(by, 1).await;
                }
                2 => both.reorganise().await,
                3 => both.prioritise().await,
                4..=6 => both.send_package().await,
                _ => both.send().await,
            }
            both.look().await;
            accepted += both.waiting(0).await.len();
        }
    }
    assert!(accepted > 500, "hardly anything waited: {accepted}");
}
