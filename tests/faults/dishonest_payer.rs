//! A part that declares more than it delivers is failed alone: the order waits on, and honest parts complete it. Blocks
//! that the invoice asks for and the payer does not give are no reason to fail it.

use std::sync::Arc;

use crate::common::{
    event, events, finish, id, jit_invoice, ledger, menu, order_state, room, until, with, World,
};
use bitcoin::secp256k1::PublicKey;
use ldkjit_node::lsp::Fault;
use ldkjit_node::node::Node;
use lightning::ln::channelmanager::{
    PaymentId, RecentPaymentDetails, RecipientOnionFields, MIN_FINAL_CLTV_EXPIRY_DELTA,
};
use lightning::routing::router::{Path, Route, RouteHop};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::PaymentHash;
use lightning_invoice::Bolt11Invoice;
use serde_json::{json, Value};

const SIZE: u64 = 100_000_000;
/// 1 % of it would be less.
const FEE: u64 = 2_000_000;
const KEPT: u64 = 10_000;

/// Half the payment by these hops: node and the scid that leads to it.
pub fn half(hops: &[(PublicKey, u64)]) -> Path {
    half_until(hops, 144)
}

/// The same, with so many blocks left for the payee.
fn half_until(hops: &[(PublicKey, u64)], final_delta: u32) -> Path {
    let last = hops.len() - 1;
    let hops = hops
        .iter()
        .enumerate()
        .map(|(n, (pubkey, scid))| RouteHop {
            pubkey: *pubkey,
            node_features: NodeFeatures::empty(),
            short_channel_id: *scid,
            channel_features: ChannelFeatures::empty(),
            fee_msat: if n == last { SIZE / 2 } else { 0 },
            cltv_expiry_delta: if n == last { final_delta } else { 144 },
            maybe_announced_channel: false,
        })
        .collect();
    Path {
        hops,
        blinded_tail: None,
    }
}

/// Sends one part; another, to nowhere, makes up the sum that LDK writes into its onion.
pub fn send_part(payer: &Node, part: u8, invoice: &Bolt11Invoice, path: Path, nowhere: Path) {
    let route = Route {
        paths: vec![path, nowhere],
        route_params: None,
    };
    let onion = RecipientOnionFields::secret_only(*invoice.payment_secret());
    let hash = PaymentHash(*AsRef::<[u8; 32]>::as_ref(invoice.payment_hash()));
    payer
        .cm
        .send_payment_with_route(route, hash, onion, PaymentId([part; 32]))
        .unwrap();
    payer.wake.notify_one();
}

/// Neither on its way nor waiting to be told of.
pub fn is_over(payer: &Node, part: u8) -> bool {
    let id = PaymentId([part; 32]);
    !payer.cm.list_recent_payments().iter().any(|p| match p {
        RecentPaymentDetails::Pending { payment_id, .. }
        | RecentPaymentDetails::Abandoned { payment_id, .. } => *payment_id == id,
        _ => false,
    })
}

fn is_on_its_way(payer: &Node, lsp: &Node) -> usize {
    let channels = with(payer, lsp);
    channels
        .iter()
        .map(|c| c.pending_outbound_htlcs.len())
        .sum()
}

/// The LSP's order, but for the parts that are over.
fn order(lsp: &Node) -> Value {
    let mut order = lsp.lsp.as_ref().unwrap().orders().remove(0);
    let map = order.as_object_mut().unwrap();
    // The number of parts that ever came.
    map.remove("arrivals");
    let parts = map["parts"].as_object_mut().unwrap();
    parts.retain(|_, part| part["status"] == "held" || part["status"]["is"] == "held");
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_27_a_part_that_declares_more_than_it_delivers() {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = world.lsp("lsp_trusts_client", json!({}), None).await;
    let service = json!({"lsp": {"menu": menu()}});
    let fault = Some(Fault::ForwardLess(KEPT));
    let router = world.node("router", service, fault).await;
    let payer = world.node("payer", json!({}), None).await;
    let wallet = world.wallet(&lsp, json!({}), None).await;
    world.fund(&[&lsp, &router, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    world.channel(&payer, &router, 1_000_000).await;
    world.channel(&router, &lsp, 1_000_000).await;
    world.in_step(&[&lsp, &router, &payer, &wallet]).await;
    let rooms = |a: &Arc<Node>, b: &Arc<Node>| (room(a, b), room(b, a));
    let before = [
        rooms(&payer, &lsp),
        rooms(&payer, &router),
        rooms(&router, &lsp),
    ];

    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let jit = bought.jit_scid.unwrap().0;
    let invoice: Bolt11Invoice = bought.bolt11.parse().unwrap();
    let to_lsp = with(&payer, &lsp)[0].get_outbound_payment_scid().unwrap();
    let direct = [(id(&lsp), to_lsp), (id(&wallet), jit)];
    let to_router = with(&payer, &router)[0]
        .get_outbound_payment_scid()
        .unwrap();
    let direct = || half(&direct);
    let nowhere = [
        (id(&lsp), to_lsp),
        (id(&wallet), lsp.cm.get_intercept_scid()),
    ];
    let nowhere = || half(&nowhere);
    let detour = [
        (id(&router), to_router),
        (id(&lsp), router.cm.get_intercept_scid()),
        (id(&wallet), jit),
    ];

    // Half the payment, honestly.
    send_part(&payer, 1, &invoice, direct(), nowhere());
    until("half is held", || {
        order_state(&lsp) == "collecting" && is_on_its_way(&payer, &lsp) == 1
    })
    .await;
    let held = order(&lsp);
    assert_eq!(held["parts"].as_object().unwrap().len(), 1, "{held}");

    // The other half, of which the router keeps some.
    send_part(&payer, 2, &invoice, half(&detour), nowhere());
    until("the dishonest part failed", || is_over(&payer, 2)).await;
    let refused = ledger(&lsp, "part_refused").await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["reason"], "over_declared");
    let stages = payer.timeline.of(&bought.payment_hash);
    assert!(
        stages.iter().any(|s| s.stage == "path_failed_permanently"),
        "{stages:?}"
    );
    assert_eq!(order(&lsp), held, "the order is untouched");
    assert_eq!(is_on_its_way(&payer, &lsp), 1, "the honest half waits on");
    assert!(with(&lsp, &wallet).is_empty());
    let all_quiet = || {
        room(&payer, &router).is_some()
            && room(&router, &payer).is_some()
            && room(&router, &lsp).is_some()
            && room(&lsp, &router).is_some()
    };
    until("the detour is free of HTLCs", all_quiet).await;
    assert_eq!(rooms(&payer, &router), before[1]);
    assert_eq!(rooms(&router, &lsp), before[2]);

    // The other half, honestly.
    send_part(&payer, 3, &invoice, direct(), nowhere());
    let received = event(&wallet, "payment_received").await;
    assert_eq!(received["payment_hash"], bought.payment_hash.to_string());
    assert_eq!(received["amount_msat"], SIZE - FEE);
    assert_eq!(received["opening_fee_msat"], FEE);
    until("the payer has its proofs", || {
        is_over(&payer, 1) && is_over(&payer, 3)
    })
    .await;
    until("the order is paid", || order_state(&lsp) == "paid").await;
    let earned = ledger(&lsp, "fee_earned").await;
    let earned: u64 = earned.iter().map(|e| e["amount"].as_u64().unwrap()).sum();
    assert_eq!(earned, FEE);
    let forwarded = events(&lsp, "payment_forwarded").await;
    let sum = |field: &str| -> u64 { forwarded.iter().map(|f| f[field].as_u64().unwrap()).sum() };
    assert_eq!(sum("amount_msat"), SIZE - FEE);
    assert_eq!(sum("opening_fee_msat"), FEE);
    assert_eq!(sum("fee_msat"), 0);

    until("no HTLC is left", || {
        room(&payer, &lsp).is_some()
            && room(&lsp, &payer).is_some()
            && room(&wallet, &lsp).is_some()
    })
    .await;
    let (Some(payer_had), Some(lsp_had)) = before[0] else {
        panic!("HTLCs before the first payment")
    };
    assert_eq!(room(&payer, &lsp).unwrap().0, payer_had.0 - SIZE);
    // What the LSP may send begins above the reserve that it keeps.
    let channel = &with(&lsp, &payer)[0];
    let reserve = channel.unspendable_punishment_reserve.unwrap() * 1_000;
    assert_eq!(lsp_had.0, 0);
    assert_eq!(channel.outbound_capacity_msat, SIZE - reserve);
    let channel = &with(&wallet, &lsp)[0];
    let reserve = channel.unspendable_punishment_reserve.unwrap() * 1_000;
    assert_eq!(channel.outbound_capacity_msat, SIZE - FEE - reserve);
    assert_eq!(rooms(&payer, &router), before[1]);
    assert_eq!(rooms(&router, &lsp), before[2]);
    finish([&wallet, &payer, &router, &lsp]).await;
}

/// The invoice asks for many more, so that the LSP can hold the payment; one that arrives without them is taken (J-41).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_41_a_wallet_enforces_no_more_blocks_than_of_any_payment() {
    let Some(world) = World::start().await else {
        return;
    };
    let normal = MIN_FINAL_CLTV_EXPIRY_DELTA;
    let [lsp, payer, wallet] = world.sale(json!({}), None, None).await;
    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    let invoice: Bolt11Invoice = bought.bolt11.parse().unwrap();
    assert!(invoice.min_final_cltv_expiry_delta() >= u64::from(normal) + 2);
    let to_lsp = with(&payer, &lsp)[0].get_outbound_payment_scid().unwrap();
    let way = |last| half_until(&[(id(&lsp), to_lsp), (id(&wallet), last)], normal.into());
    for part in [1, 2] {
        let jit = way(bought.jit_scid.unwrap().0);
        let nowhere = way(lsp.cm.get_intercept_scid());
        send_part(&payer, part, &invoice, jit, nowhere);
    }
    let received = event(&wallet, "payment_received").await;
    assert_eq!(received["payment_hash"], bought.payment_hash.to_string());
    assert_eq!(received["amount_msat"], SIZE - FEE);
    until("the payer has its proofs", || {
        is_over(&payer, 1) && is_over(&payer, 2)
    })
    .await;
    until("the order is paid", || order_state(&lsp) == "paid").await;
    finish([&wallet, &payer, &lsp]).await;
}
