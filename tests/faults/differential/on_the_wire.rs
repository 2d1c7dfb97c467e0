//! Our service as it is compared with the stock one is our service as it is on the wire: the same conversations, the same
//! answers, and no difference is known.

use std::sync::Arc;

use ldkjit_core::amount::Msat;
use ldkjit_core::lsps0::{MAX_PAYLOAD, MESSAGE_TYPE};
use ldkjit_core::menu::{FeeTier, TrustModel};
use ldkjit_core::time::Millis;
use ldkjit_node::log::now_ms;
use ldkjit_node::node::Node;
use serde_json::{json, Value};

use super::asking::{Setting, Step, TOKEN};
use super::drawn::conversation;
use super::our_service::Ours;
use super::services::{Answer, Outcome};
use super::table::shown;
use crate::common::raw::Raw;
use crate::common::World;

const CONVERSATIONS: u32 = 1_000;
const LAST: &str = r#"{"jsonrpc":"2.0","id":"last","method":"lsps0.list_protocols"}"#;

fn tier(fee: u64, ppm: u32) -> FeeTier {
    FeeTier {
        min_fee_msat: Msat(fee),
        proportional_ppm: ppm,
        min_payment_msat: Msat(1_000),
        max_payment_msat: Msat(500_000_000),
        min_lifetime_blocks: 144,
        max_client_to_self_delay: 2_016,
        valid_for_s: 3_600,
    }
}

fn setting() -> Setting {
    Setting {
        age_ms: 0,
        finer_ns: 0,
        tiers: vec![tier(1_000, 10_000), tier(2_000, 10_000)],
        denied: false,
        inbound: Msat(u64::MAX),
        trust: TrustModel::LspTrustsClient,
        max_webhooks: 0,
    }
}

async fn lsp(world: &World, setting: &Setting) -> Arc<Node> {
    let most = u64::MAX;
    let limits = json!({
        "max_orders": 100_000,
        "max_exposure_per_client_msat": most,
        "max_exposure_msat": most,
        "max_unconfirmed_per_client_msat": most,
        "max_unconfirmed_msat": most,
        "max_channel_sat": 10_000_000,
    });
    let settings = json!({
        "lsp": {
            "menu": setting.tiers,
            "token_menus": {TOKEN: setting.tiers},
            "limits": limits,
            "lending": {"strangers_ppm": 1_000_000},
        },
        "peer_limits": {"max_strangers": 1_000, "max_strangers_per_address": 1_000, "max_connects_per_second": 100_000},
    });
    world.node("lsp", settings, None).await
}

/// Takes away what two sales and two moments never have alike.
fn plain(outcome: &Outcome) -> Vec<Answer> {
    let mut answers = outcome.answers.clone();
    for answer in &mut answers {
        if let Ok(result) = &mut answer.body {
            if let Some(menu) = result.get_mut("opening_fee_params_menu") {
                for offer in menu.as_array_mut().unwrap() {
                    offer["valid_until"] = json!("…");
                }
            }
            if let Some(scid) = result.get_mut("jit_channel_scid") {
                *scid = json!("…");
            }
        }
    }
    answers
}

/// What the LSP says to a message that so many answers are expected to. Where none is, the answer to another request must
/// come first; the last of a conversation shows that there was never one too many.
async fn hear(peer: &mut Raw, payload: Vec<u8>, expected: usize) -> Outcome {
    peer.send(MESSAGE_TYPE, payload);
    let mut outcome = Outcome::default();
    for _ in 0..expected {
        outcome.add(peer.answer().await.to_string().as_bytes());
    }
    if expected == 0 {
        nothing_more(peer).await;
    }
    outcome
}

async fn nothing_more(peer: &mut Raw) {
    peer.send(MESSAGE_TYPE, LAST.into());
    assert_eq!(peer.answer().await["id"], "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_service_on_the_wire_is_the_one_that_is_compared() {
    let Some(world) = World::start().await else {
        return;
    };
    let setting = setting();
    let lsp = lsp(&world, &setting).await;
    // A sale needs coins, and somebody to be paid by.
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    let mut sold = 0;
    for n in 0..CONVERSATIONS {
        let mut peers = [
            Raw::new(2 * n, &lsp, "127.0.0.1"),
            Raw::new(2 * n + 1, &lsp, "127.0.0.1"),
        ];
        for peer in &peers {
            assert!(peer.connect().await);
        }
        let ids = [peers[0].id, peers[1].id];
        let mut model = Ours::new(&setting, ids, Millis(now_ms())).without_webhooks();
        let (mut menu, mut model_menu) = (Vec::new(), Vec::new());
        for step in conversation(super::FIRST + u64::from(n)).1 {
            let payload = step.bytes(&menu);
            if matches!(step, Step::Reconnect) || payload.len() > MAX_PAYLOAD {
                continue;
            }
            let expected = model.hear(step.who(), &step.bytes(&model_menu));
            let count = expected.answers.len();
            let outcome = hear(&mut peers[step.who()], payload.clone(), count).await;
            assert_eq!(plain(&outcome), plain(&expected), "{}", shown(&payload));
            sold += u32::from(outcome.changed());
            if let (0, Some(on_wire), Some(of_model)) = (step.who(), &outcome.menu, &expected.menu)
            {
                menu.clone_from(on_wire);
                model_menu.clone_from(of_model);
                // Without its fraction such an instant is the same, and the two are not made at the same one.
                let is_whole = |menu: &[Value]| json!(menu).to_string().contains(".000Z");
                if is_whole(&menu) || is_whole(&model_menu) {
                    break;
                }
            }
        }
        for peer in &mut peers {
            nothing_more(peer).await;
            peer.hang_up();
        }
    }
    assert!(sold > CONVERSATIONS / 2, "only {sold} sales");
    println!("{CONVERSATIONS} conversations on the wire, {sold} sales");
    lsp.stop().await.unwrap();
    payer.stop().await.unwrap();
}
