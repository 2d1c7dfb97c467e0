//! The ledger check and the report: reads a store as it stands in one commit, and lets core hold the rows against wallet
//! and LDK, and add them up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bitcoin::Network;
use ldkjit_core::audit::{Audit, Bad, By, Question, Report, Truth, Verdict};
use ldkjit_core::ids::{NodeId, PaymentHash};
use ldkjit_core::ledger::LedgerEntry;
use ldkjit_core::time::Millis;
use lightning::chain::channelmonitor::Balance;
use lightning::chain::BestBlock;
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channelmanager::RecentPaymentDetails;
use lightning::sign::SpendableOutputDescriptor;
use serde::{Deserialize, Serialize};

use crate::accounts::{claim_id, Accounts};
use crate::broadcast::Broadcaster;
use crate::chunks::Chunks;
use crate::closings::Closings;
use crate::commit::Boot;
use crate::convert;
use crate::error::NodeError;
use crate::fees::{FeeConfig, Fees};
use crate::forced;
use crate::forwards::Forwards;
use crate::journal::{Journal, LEDGER};
use crate::keys::{Keys, Seed};
use crate::ldk::{self, Graph, Parts};
use crate::log::{now_ms, Log};
use crate::store::{Loaded, Row, SqliteStore, Store};
use crate::sync::lock;
use crate::wallet::{Wallet, LOOKAHEAD};

/// The store's file in a data directory.
pub const STORE_FILE: &str = "node.sqlite";
/// Rows read at a time.
const PAGE: usize = 1_000;
/// Rounds until LDK has told everything; each needs one answer of a monitor, so this ends far sooner.
const ROUNDS: u32 = 1_000;

/// Which report is wanted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// What the lines are.
    pub by: Option<By>,
    /// From this instant on, ms since 1970.
    pub since_ms: Option<u64>,
    /// Before this instant, ms since 1970.
    pub until_ms: Option<u64>,
    /// Only what concerns this client.
    pub client: Option<NodeId>,
}

impl Ask {
    /// What that means now.
    fn question(&self) -> Result<Question, NodeError> {
        let now = now_ms();
        let (since, until) = (self.since_ms.unwrap_or(0), self.until_ms.unwrap_or(now));
        if since >= until {
            return Err(NodeError::config("until: must be after since"));
        }
        Ok(Question {
            by: self.by,
            since_ms: Millis(since),
            until_ms: Millis(until.min(now)),
            client: self.client,
        })
    }
}

/// A report, and whether the rows that it is made of can be believed.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// The ledger adds up.
    pub ok: bool,
    /// How many rows it has.
    pub rows: u64,
    /// The first that does not fit.
    pub bad: Option<Bad>,
    /// The report.
    #[serde(flatten)]
    pub report: Report,
}

impl From<(Verdict, Report)> for Told {
    fn from((verdict, report): (Verdict, Report)) -> Self {
        Self {
            ok: verdict.ok,
            rows: verdict.rows,
            bad: verdict.bad,
            report,
        }
    }
}

/// Checks the ledger in a data directory, whether its node runs or not. Nothing is written there, nothing is sent.
///
/// # Errors
/// `store_corrupt`, `store_version`, `config` if the seed cannot be read.
pub async fn check_dir(data_dir: &Path) -> Result<Verdict, NodeError> {
    let (store, network) = SqliteStore::reader(&data_dir.join(STORE_FILE))?;
    check(store, network, &Seed::read(data_dir)?).await
}

/// Checks the ledger of a store.
///
/// # Errors
/// `store_corrupt`.
pub async fn check(store: impl Store, network: Network, seed: &Seed) -> Result<Verdict, NodeError> {
    let (verdict, _) = examine(store, network, seed, Question::default()).await?;
    Ok(verdict)
}

/// As [`check_dir`], and says what the rows add up to.
///
/// # Errors
/// Those of the check; `config` if no time is asked for.
pub async fn report_dir(data_dir: &Path, ask: &Ask) -> Result<Told, NodeError> {
    let (store, network) = SqliteStore::reader(&data_dir.join(STORE_FILE))?;
    report(store, network, &Seed::read(data_dir)?, ask).await
}

/// As [`check`], and says what the rows add up to.
///
/// # Errors
/// `store_corrupt`; `config` if no time is asked for.
pub async fn report(
    store: impl Store,
    network: Network,
    seed: &Seed,
    ask: &Ask,
) -> Result<Told, NodeError> {
    Ok(examine(store, network, seed, ask.question()?).await?.into())
}

async fn examine(
    mut store: impl Store,
    network: Network,
    seed: &Seed,
    question: Question,
) -> Result<(Verdict, Report), NodeError> {
    let loaded = store.load()?;
    let mut rows = Rows::of(&loaded, question);
    while rows.missing() {
        rows.take(&store.rows(LEDGER, rows.after, PAGE)?);
    }
    drop(store);
    let truth = collect(loaded.live, network, seed).await?;
    Ok(rows.audit.finish_report(&truth))
}

/// Checks the ledger of a node that runs, by its committer.
///
/// # Errors
/// `store_corrupt`, and what the store answers.
pub async fn check_journal(
    journal: &Journal,
    network: Network,
    seed: &Seed,
) -> Result<Verdict, NodeError> {
    let (verdict, _) = examine_journal(journal, network, seed, Question::default()).await?;
    Ok(verdict)
}

/// As [`check_journal`], and says what the rows add up to.
///
/// # Errors
/// Those of the check; `config` if no time is asked for.
pub async fn report_journal(
    journal: &Journal,
    network: Network,
    seed: &Seed,
    ask: &Ask,
) -> Result<Told, NodeError> {
    let told = examine_journal(journal, network, seed, ask.question()?).await?;
    Ok(told.into())
}

async fn examine_journal(
    journal: &Journal,
    network: Network,
    seed: &Seed,
    question: Question,
) -> Result<(Verdict, Report), NodeError> {
    let loaded = journal.load().await?;
    let mut rows = Rows::of(&loaded, question);
    while rows.missing() {
        rows.take(&journal.rows(LEDGER, rows.after, PAGE).await?);
    }
    let truth = collect(loaded.live, network, seed).await?;
    Ok(rows.audit.finish_report(&truth))
}

/// The ledger's rows up to one commit, read page by page.
struct Rows {
    audit: Audit,
    after: u64,
    last: u64,
}

impl Rows {
    fn of(loaded: &Loaded, question: Question) -> Self {
        Self {
            audit: Audit::asking(question),
            after: 0,
            last: loaded.last_row.get(LEDGER).copied().unwrap_or(0),
        }
    }

    fn missing(&self) -> bool {
        self.after < self.last
    }

    fn take(&mut self, page: &[Row]) {
        // The store of a node that runs goes on growing.
        for row in page.iter().filter(|row| row.seq <= self.last) {
            self.audit.row(row.seq, &row.value);
        }
        // A row that is not there is for the audit to find.
        self.after = page.last().map_or(self.last, |row| row.seq);
    }
}

/// What wallet and LDK hold, from what a store has of them.
///
/// LDK is loaded as at a start, with parts that lead nowhere, and led on until it has nothing more to tell: events that
/// wait in the stored manager, and those that wait only for a write that this store has, are rows not yet written.
async fn collect(
    mut live: Vec<(String, String, Vec<u8>)>,
    network: Network,
    seed: &Seed,
) -> Result<Truth, NodeError> {
    Chunks::take(&mut live)?;
    let (ldk, mut boot) = Boot::split(live, false);
    let claims: BTreeSet<PaymentHash> = boot
        .live
        .iter()
        .filter(|(kind, _, _)| kind == crate::payments::RECEIVED)
        .filter_map(|(_, key, _)| key.parse().ok())
        .collect();
    let journal = Arc::new(Journal::nowhere(ldk));
    let log = Log::silent();
    let wallet = Wallet::open(
        seed,
        network,
        &[],
        LOOKAHEAD,
        (*journal).clone(),
        &mut boot,
        log.clone(),
    )?;
    let wallet = Arc::new(wallet);
    let closings = Arc::new(Closings::load(journal.clone(), &boot.live, false)?);
    let forwards = Forwards::load(journal.clone(), closings.clone(), &boot.live)?;
    let parts = Parts {
        keys: Arc::new(Keys::new(seed, wallet.clone())?),
        fees: Arc::new(Fees::new(FeeConfig::default())),
        broadcaster: Arc::new(Broadcaster::new(Arc::new(|_| {}), closings, log.clone())),
        journal,
        wallet,
        log,
    };
    let (transactions, wallet_sat) = parts.wallet.truth();
    let mut truth = Truth {
        transactions,
        wallet_sat,
        ..Truth::default()
    };
    let corrupt = |what: &str, e: &dyn std::fmt::Debug| {
        NodeError::new("store_corrupt", format!("{what}: {e:?}"))
    };
    let runtime = tokio::runtime::Handle::current();
    let persister = ldk::monitor_persister(&parts, runtime);
    let monitors = persister
        .read_all_channel_monitors_with_updates()
        .await
        .map_err(|e| corrupt("channel monitors", &e))?;
    let chain_monitor = ldk::chain_monitor(&parts, persister);
    let graph = Arc::new(Graph::new(network, parts.log.clone()));
    let scorer = ldk::new_scorer(&parts, &graph);
    let router = ldk::router(&parts, &graph, &scorer);
    let config = ldk::any_user_config();
    let Some((_, cm)) =
        ldk::read_manager(&parts, &chain_monitor, &router, config, &monitors).await?
    else {
        return Ok(truth);
    };
    let best = BestBlock::from_network(network);
    let (_, sweeper) = ldk::read_sweeper(&parts, best).await?;
    for (_, monitor) in monitors {
        let id = monitor.channel_id();
        let is_first = monitor.get_latest_update_id() == 0;
        chain_monitor
            .load_existing_monitor(id, monitor)
            .map_err(|()| corrupt("channel monitor", &id))?;
        if is_first {
            let _ = chain_monitor.channel_monitor_updated(id, 0);
        }
    }

    let untold: Mutex<Vec<LedgerEntry>> = Mutex::default();
    let told: Mutex<BTreeSet<PaymentHash>> = Mutex::new(claims);
    for _ in 0..ROUNDS {
        cm.process_pending_events_async(|event: Event| {
            let accounts = Accounts {
                cm: &cm,
                monitors: &chain_monitor,
                wallet: &parts.wallet,
                claimed: &|claim| lock(&told).contains(claim),
            };
            if !forwards.is_told_again(&event) {
                lock(&untold).extend(accounts.rows(&event));
            }
            lock(&told).extend(claim_id(&event));
            async { Ok::<(), ReplayEvent>(()) }
        })
        .await;
        let waiting: Vec<_> = chain_monitor
            .list_pending_monitor_updates()
            .into_iter()
            .flat_map(|(id, updates)| updates.into_iter().map(move |update| (id, update)))
            .collect();
        if waiting.is_empty() && !cm.get_and_clear_needs_persistence() {
            break;
        }
        for (id, update) in waiting {
            let _ = chain_monitor.channel_monitor_updated(id, update);
        }
    }
    truth.untold = std::mem::take(&mut lock(&untold));

    let accounts = Accounts {
        cm: &cm,
        monitors: &chain_monitor,
        wallet: &parts.wallet,
        claimed: &|_| false,
    };
    truth.channels = accounts.views();
    truth.own_payments = cm
        .list_recent_payments()
        .into_iter()
        .filter_map(|payment| match payment {
            RecentPaymentDetails::Pending { payment_hash, .. }
            | RecentPaymentDetails::Abandoned { payment_hash, .. } => Some(payment_hash),
            RecentPaymentDetails::Fulfilled { payment_hash, .. } => payment_hash,
            RecentPaymentDetails::AwaitingInvoice { .. } => None,
        })
        .map(|hash| PaymentHash(hash.0))
        .collect();

    let open: BTreeSet<_> = truth.channels.iter().map(|c| c.channel).collect();
    let mut closing = BTreeMap::new();
    // What the monitors have handed over or passed over, and what the sweeper has of it.
    let handed: Mutex<Vec<_>> = Mutex::default();
    let tracked = sweeper.tracked_spendable_outputs();
    for id in chain_monitor.list_monitors() {
        let channel = convert::channel(&id);
        let Ok(monitor) = chain_monitor.get_monitor(id) else {
            continue;
        };
        if open.contains(&channel) {
            continue;
        }
        let passed_over = forced::passed_over(&parts.wallet, &monitor);
        let elsewhere = passed_over.as_ref().map_or(0, |found| found.sat);
        for balance in monitor.get_claimable_balances() {
            if let Balance::MaybePreimageClaimableHTLC { payment_hash, .. } = &balance {
                truth.contested.push(PaymentHash(payment_hash.0));
            }
            let sat = match forced::awaits_close(&balance) {
                true => at_most(&balance).saturating_sub(elsewhere),
                false => at_most(&balance),
            };
            add(&mut closing, channel, sat);
        }
        let outputs = passed_over.into_iter().flat_map(|found| found.unspent);
        let new = outputs.filter(|output| !tracked.iter().any(|o| o.descriptor == *output));
        lock(&handed).extend(new.map(|output| (id, output)));
    }
    chain_monitor
        .process_pending_events_async(|event: Event| {
            if let Event::SpendableOutputs {
                outputs,
                channel_id: Some(id),
            } = event
            {
                lock(&handed).extend(outputs.into_iter().map(|output| (id, output)));
            }
            async { Ok::<(), ReplayEvent>(()) }
        })
        .await;
    let tracked = tracked
        .into_iter()
        .filter_map(|o| Some((o.channel_id?, o.descriptor)));
    for (id, output) in std::mem::take(&mut *lock(&handed))
        .into_iter()
        .chain(tracked)
    {
        let own = matches!(output, SpendableOutputDescriptor::StaticOutput { .. });
        if !own && !parts.keys.has_lost(&output) {
            let sat = crate::node::descriptor_sat(&output);
            add(&mut closing, convert::channel(&id), sat);
        }
    }
    truth.closing = closing;
    Ok(truth)
}

/// What may come of a closed channel's balance, sat.
fn at_most(balance: &Balance) -> u64 {
    match balance {
        // LDK counts this one as lost.
        Balance::MaybeTimeoutClaimableHTLC {
            amount_satoshis, ..
        } => *amount_satoshis,
        other => other.claimable_amount_satoshis(),
    }
}

fn add<K: Ord>(to: &mut BTreeMap<K, u64>, key: K, sat: u64) {
    let sum = to.entry(key).or_default();
    *sum = sum.saturating_add(sat);
}
