//! Writes the books of a month of sales into a new data directory: orders go through the order engine of core, what LDK
//! and the wallet would add is made here. Arguments: the directory, and how many orders (50,000 if not said).
//!
//! There is no wallet and no channel behind it: the ledger check says so, and its sums are those of the rows.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use bitcoin::Network;
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{ChannelId, NodeId, OpenId, Outpoint, PartId, PaymentHash, Scid};
use ldkjit_core::ledger::{ChainPart, LedgerEntry, Purpose};
use ldkjit_core::menu::{FeeParams, TrustModel};
use ldkjit_core::order::{ChannelView, Effect, Env, Input, Order, OrderLimits, Terms};
use ldkjit_core::reason::Reason;
use ldkjit_core::seal::{seal, Link};
use ldkjit_core::sizing::Sizing;
use ldkjit_core::time::Millis;
use ldkjit_node::audit::STORE_FILE;
use ldkjit_node::keys::Seed;
use ldkjit_node::log::Log;
use ldkjit_node::store::{Op, SqliteStore, Store};

/// 2026-10-01, and 30 days more.
const BEGIN: u64 = 1_790_812_800_000;
const MONTH: u64 = 30 * 86_400_000;
const CLIENTS: u64 = 2_000;
/// Of the hub that all payments come from, sat.
const HUB_SAT: u64 = 1_000_000_000_000;

/// A xorshift: the same month each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn id(kind: u8, n: u64) -> [u8; 32] {
    let mut id = [kind; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    id
}

fn txid(kind: u8, n: u64) -> String {
    format!("{kind:02x}{n:062x}")
}

fn node_id(n: u64) -> NodeId {
    let mut id = [2; 33];
    id[25..].copy_from_slice(&n.to_be_bytes());
    NodeId(id)
}

/// Three tiers: small, middle, large.
fn offer(tier: u64, sold_at: u64) -> FeeParams {
    let (min_fee, ppm, most) = [
        (1_500_000, 8_000, 100_000_000),
        (2_500_000, 5_000, 500_000_000),
        (4_000_000, 4_000, 4_000_000_000),
    ][usize::try_from(tier).unwrap()];
    FeeParams {
        min_fee_msat: Msat(min_fee),
        proportional: ppm,
        valid_until: Millis(sold_at + 3_600_000),
        min_lifetime: 4_320,
        max_client_to_self_delay: 2_016,
        min_payment_size_msat: Msat(20_000_000),
        max_payment_size_msat: Msat(most),
        promise: "00".into(),
    }
}

fn limits() -> OrderLimits {
    OrderLimits {
        collect_ms: 90_000,
        wake_ms: 60_000,
        open_ms: 30_000,
        grace_ms: 600_000,
        claim_ms: 900_000,
        max_held_per_client: 100,
        max_held: 1_000,
        max_held_of_strangers: 500,
        htlc_minimum: Msat(1_000),
        max_opens: 3,
        charge_on_reuse: false,
        ask_policy: false,
        sizing: Sizing {
            sat_per_kw: 500,
            provision_ppm: 200_000,
            provision_sat: 0,
            min_sat: 50_000,
            max_sat: 100_000_000,
        },
    }
}

/// The rows of the month, each with its time.
struct Month {
    rows: Vec<(u64, LedgerEntry)>,
    limits: OrderLimits,
    draw: Draw,
}

impl Month {
    fn row(&mut self, at: u64, entry: LedgerEntry) {
        self.rows.push((at, entry));
    }

    /// Steps an order, and answers what it wants as a node does whose peers do as they should.
    fn step(&mut self, order: &mut Order, n: u64, at: u64, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let channel = ChannelId(id(0xc0, n));
        while let Some(input) = inputs.pop_front() {
            let ready = ChannelView {
                id: channel,
                open_id: order.open.as_ref().map(|open| open.id),
                usable: true,
                outbound_limit: Msat(10_000_000_000),
                outbound_capacity: Msat(10_000_000_000),
                htlc_minimum: Msat(1_000),
                unpaid: !order.paid,
            };
            let is_ready = matches!(
                input,
                Input::ChannelReady { .. } | Input::PartClaimed { .. }
            );
            let env = Env {
                now: Millis(at),
                height: 900_000,
                connected: true,
                channels: if is_ready {
                    std::slice::from_ref(&ready)
                } else {
                    &[]
                },
                limits: &self.limits,
                held_for_client: 1,
                held_of_strangers: 1,
                held: 1,
            };
            let (next, effects) = order.step(&input, &env);
            *order = next;
            for effect in effects {
                match effect {
                    Effect::Record(entry) => self.row(at, entry),
                    Effect::Open {
                        open, value_sat, ..
                    } => {
                        let (funding, fee_sat) = self.fund(order, n, at, open, value_sat);
                        inputs.push_back(Input::ChannelPending {
                            open,
                            channel,
                            funding,
                            fee_sat,
                        });
                        inputs.push_back(Input::ChannelReady { open, channel });
                    }
                    Effect::Forward {
                        part,
                        channel,
                        amount,
                        skim,
                    } => {
                        self.row(
                            at,
                            LedgerEntry::Forwarded {
                                from: Some(ChannelId(id(0xc1, 0))),
                                to: Some(channel),
                                received: amount.checked_add(skim),
                                sent: Some(amount),
                                skim,
                                late: false,
                            },
                        );
                        inputs.push_back(Input::PartClaimed { id: part });
                    }
                    Effect::Fail { part, .. } => inputs.push_back(Input::PartGone { id: part }),
                    _ => {}
                }
            }
        }
    }

    fn fund(
        &mut self,
        order: &Order,
        n: u64,
        at: u64,
        open: OpenId,
        value_sat: u64,
    ) -> (Outpoint, u64) {
        let fee_sat = 150 + self.draw.below(600);
        let funding = Outpoint {
            txid: txid(0xf0, n),
            vout: 0,
        };
        let delta_sat = -i64::try_from(value_sat + fee_sat).unwrap();
        self.row(
            at,
            LedgerEntry::Chain {
                txid: funding.txid.clone(),
                delta_sat,
                paid_sat: value_sat,
                fee_sat: Some(fee_sat),
                purpose: Purpose::Funding,
                open: Some(open),
                parts: vec![],
            },
        );
        self.row(
            at,
            LedgerEntry::ChannelFunded {
                channel: ChannelId(id(0xc0, n)),
                peer: order.terms.client,
                open,
                funding: funding.clone(),
                value_sat,
                balance: Some(Msat(value_sat * 1_000)),
                by_us: true,
            },
        );
        (funding, fee_sat)
    }

    fn begin(&mut self) {
        let open = OpenId(1);
        let funding = Outpoint {
            txid: txid(0xf1, 0),
            vout: 0,
        };
        let chain = |txid, delta_sat, paid_sat, fee_sat, purpose, open| LedgerEntry::Chain {
            txid,
            delta_sat,
            paid_sat,
            fee_sat,
            purpose,
            open,
            parts: vec![],
        };
        let coins = 3 * i64::try_from(HUB_SAT).unwrap();
        self.row(
            BEGIN,
            chain(txid(0xf2, 0), coins, 0, None, Purpose::Received, None),
        );
        self.row(
            BEGIN,
            LedgerEntry::ChannelFunded {
                channel: ChannelId(id(0xc1, 0)),
                peer: node_id(CLIENTS),
                open,
                funding,
                value_sat: HUB_SAT,
                balance: Some(Msat(0)),
                by_us: false,
            },
        );
    }

    /// A sale, its payment if there is one, and what becomes of its channel.
    fn sale(&mut self, n: u64) {
        let sold_at = BEGIN + self.draw.below(MONTH);
        let tier = [0, 0, 0, 0, 1, 1, 1, 2][usize::try_from(self.draw.below(8)).unwrap()];
        let params = offer(tier, sold_at);
        let most = params.max_payment_size_msat.0 / 2;
        let size = Msat(20_000_000 + self.draw.below(most));
        let scid = Scid((800_000 + n / 1_000) << 40 | (n % 1_000) << 16 | 1);
        let mut order = Order::new(Terms {
            scid,
            client: node_id(self.draw.below(CLIENTS)),
            size: Some(size),
            params,
            trust: TrustModel::LspTrustsClient,
            cltv_delta: 144,
            sold_at: Millis(sold_at),
            token: None,
            unknown_token: false,
            reserved_sat: 50_000,
        });
        self.row(sold_at, order.sold_entry());
        if self.draw.below(10) == 0 {
            self.step(&mut order, n, sold_at + 3_600_000, Input::Tick);
            return;
        }
        let paid_at = sold_at + 5_000 + self.draw.below(600_000);
        let part = Input::Part {
            id: PartId(id(0xaa, n)),
            hash: PaymentHash(id(0xbb, n)),
            inbound: size,
            declared: size,
            release_by: 900_100,
        };
        self.step(&mut order, n, paid_at, part);
        assert!(order.paid, "order {n}: {:?}", order.state);
        self.after(&order, n, paid_at);
    }

    /// The client pays somebody; some channels are closed by both sides.
    fn after(&mut self, order: &Order, n: u64, paid_at: u64) {
        let channel = ChannelId(id(0xc0, n));
        let open = order.open.as_ref().unwrap();
        let went = order.terms.size.unwrap().0 - order.earned.0;
        let (back, fee) = (
            1_000_000 + self.draw.below(5_000_000),
            1_000 + self.draw.below(2_000),
        );
        let spends_at = paid_at + self.draw.below(3 * 86_400_000);
        self.row(
            spends_at,
            LedgerEntry::Forwarded {
                from: Some(channel),
                to: Some(ChannelId(id(0xc1, 0))),
                received: Some(Msat(back + fee)),
                sent: Some(Msat(back)),
                skim: Msat::ZERO,
                late: false,
            },
        );
        if self.draw.below(5) != 0 {
            return;
        }
        let at = spends_at + 3_600_000 + self.draw.below(5 * 86_400_000);
        let ours = open.value_sat * 1_000 - went + back + fee;
        let sat = ours / 1_000 - 200;
        let spent = txid(0xf3, n);
        let rows = [
            LedgerEntry::ChannelEnded {
                channel,
                balance: Some(Msat(ours)),
                reason: "CooperativeClosure".into(),
            },
            LedgerEntry::ChannelClosed {
                scid: order.terms.scid,
                client: order.terms.client,
                channel,
                reason: Reason::ChannelClosed,
            },
            LedgerEntry::ChannelSpent {
                channel,
                txid: spent.clone(),
                fee_sat: 201,
            },
            LedgerEntry::Chain {
                txid: spent,
                delta_sat: i64::try_from(sat).unwrap(),
                paid_sat: 0,
                fee_sat: None,
                purpose: Purpose::Close,
                open: None,
                parts: vec![ChainPart { channel, sat }],
            },
        ];
        for entry in rows {
            self.row(at, entry);
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("the directory"));
    let orders: u64 = arguments
        .next()
        .map_or(50_000, |n| n.parse().expect("a number"));
    std::fs::create_dir_all(&folder).unwrap();
    Seed::load_or_create(&folder, None, &Log::silent()).unwrap();
    let mut store = SqliteStore::open(&folder.join(STORE_FILE), Network::Regtest).unwrap();

    let mut month = Month {
        rows: vec![],
        limits: limits(),
        draw: Draw(0x9e37_79b9_7f4a_7c15),
    };
    month.begin();
    for n in 1..=orders {
        month.sale(n);
    }
    for hour in 0..MONTH / 3_600_000 {
        let counts = BTreeMap::from([("client not served".to_owned(), 3)]);
        month.row(BEGIN + hour * 3_600_000, LedgerEntry::Refused { counts });
    }
    // A stable sort: what was written at one moment stays in its order.
    month.rows.sort_by_key(|(at, _)| *at);

    let mut link = Link::default();
    let ops: Vec<Op> = (1..)
        .zip(&month.rows)
        .map(|(seq, (at, entry))| {
            let (value, next) = seal(link, seq, *at, entry);
            link = next;
            Op::Row {
                kind: "ledger".into(),
                seq,
                key: String::new(),
                value,
            }
        })
        .collect();
    for (commit, batch) in (1..).zip(ops.chunks(10_000)) {
        store.commit(commit, batch).unwrap();
    }
    store.close().unwrap();
    println!("{orders} orders, {} rows", month.rows.len());
}
