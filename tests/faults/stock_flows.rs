//! Whole payments between ldkjit and the stock LSPS2 handlers of lightning-liquidity: both ways, in both trust models,
//! for fixed and for variable amounts.
//!
//! The stock side is a node of ours without its LSPS2: LSPS messages, and those of LDK's events that belong to a sale,
//! go to the stock handler and to the little application that its documentation asks for, which is here.

use std::sync::Arc;

use crate::common::stock::{liquidity, offer, Liquidity};
use crate::common::{
    address, assert_failed, count, event, events, finish, hop, id, invoice_over, jit_invoice,
    ledger, menu, order_state, room, send, until, with, World, PATIENCE,
};
use bitcoin::hashes::{sha256, Hash};
use bitcoin::hex::FromHex;
use bitcoin::secp256k1::PublicKey;
use bitcoin::Amount;
use ldkjit_core::ids::PaymentHash;
use ldkjit_core::menu::TrustModel;
use ldkjit_node::lsps::{Foreign, Incoming};
use ldkjit_node::node::Node;
use ldkjit_node::payments::{Payment, PaymentStatus};
use ldkjit_node::wallet::ANY_DEPTH;
use lightning::events::Event;
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::types::ChannelId;
use lightning::routing::router::RouteHintHop;
use lightning::types::payment::PaymentPreimage;
use lightning::util::config::{ChannelConfigOverrides, ChannelConfigUpdate};
use lightning::util::errors::APIError;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps0::ser::RawLSPSMessage;
use lightning_liquidity::lsps2::event::{LSPS2ClientEvent, LSPS2ServiceEvent};
use lightning_liquidity::lsps2::utils::compute_opening_fee;
use serde_json::{json, Value};
use tokio::sync::mpsc;

/// Such that the fee is no whole number of msat.
const SIZE: u64 = 400_000_001;
/// 1 %, rounded up.
const FEE: u64 = 4_000_001;
/// Less than the smallest fee.
const TOO_LITTLE: u64 = 1_999_999;
const CHANNEL_SAT: u64 = 1_000_000;
/// Two anchor outputs, which the funder of a channel pays, msat.
const ANCHORS: u64 = 660_000;
/// By which the stock service and its application know the sale.
const OPEN: u128 = 7;

/// What concerns a sale.
enum Seen {
    Message(PublicKey, Vec<u8>),
    Ldk(Box<Event>),
}

/// Takes from a node what concerns a sale, and leaves it the rest.
#[derive(Debug)]
struct Tap {
    service: bool,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Foreign for Tap {
    fn wire(&self, incoming: Incoming) -> Option<Incoming> {
        let Incoming::Message(peer, payload) = incoming else {
            return Some(incoming);
        };
        let _ = self.seen.send(Seen::Message(peer, payload));
        None
    }

    fn ldk(&self, event: Event) -> Option<Event> {
        let ours = match event {
            Event::HTLCIntercepted { .. }
            | Event::FundingGenerationReady { .. }
            | Event::FundingTxBroadcastSafe { .. }
            | Event::HTLCHandlingFailed { .. } => self.service,
            Event::OpenChannelRequest { .. } | Event::PaymentClaimable { .. } => !self.service,
            // The node tells of these, too.
            Event::ChannelReady { .. } | Event::PaymentForwarded { .. } => {
                let _ = self.seen.send(Seen::Ldk(Box::new(event.clone())));
                false
            }
            _ => false,
        };
        if !ours {
            return Some(event);
        }
        let _ = self.seen.send(Seen::Ldk(Box::new(event)));
        None
    }
}

/// A stock handler, the node under it, and what an application does around it.
struct Stock {
    node: Arc<Node>,
    liquidity: Arc<Liquidity>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

/// What the wallet could claim.
struct Claimable {
    amount: u64,
    skimmed: u64,
    preimage: PaymentPreimage,
}

impl Stock {
    async fn start(world: &World, settings: Value, service: bool) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let tap = Arc::new(Tap {
            service,
            seen: sender,
        });
        let node = world
            .changed("stock", settings, |config| config.foreign = Some(tap))
            .await;
        Self {
            liquidity: liquidity(&node, service),
            node,
            seen,
        }
    }

    /// A wallet connected to this LSP.
    async fn wallet(world: &World, lsp: &Node) -> Self {
        let stock = Self::start(world, json!({"listen": []}), false).await;
        let dialled = stock.node.dial(id(lsp), &address(lsp), PATIENCE).await;
        dialled.unwrap();
        stock
    }

    /// An LSP. Its node is configured as one for LDK's settings (intercepts, forwards over private channels); of the
    /// sale it learns nothing.
    async fn lsp(world: &World) -> Self {
        Self::start(world, json!({"lsp": {"menu": menu()}}), true).await
    }

    async fn seen(&mut self) -> Seen {
        let seen = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        seen.expect("nothing happens").unwrap()
    }

    fn hear(&self, peer: PublicKey, payload: Vec<u8>) {
        let payload = String::from_utf8(payload).unwrap();
        let message = RawLSPSMessage { payload };
        self.liquidity.handle_custom_message(message, peer).unwrap();
    }

    /// Saves the handler's state, sends what it wants to send, and lets LDK go on.
    fn flush(&self) {
        self.liquidity.persist().unwrap();
        for (peer, message) in self.liquidity.get_and_clear_pending_msg() {
            let payload = message.payload.into_bytes();
            self.node.transport.send(peer, payload);
        }
        self.node.wake.notify_one();
    }

    /// The handler's next event, while only messages come.
    async fn next(&mut self) -> LiquidityEvent {
        loop {
            self.flush();
            if let Some(event) = self.liquidity.next_event() {
                return event;
            }
            match self.seen().await {
                Seen::Message(peer, payload) => self.hear(peer, payload),
                // The payer's channel.
                Seen::Ldk(event) if matches!(*event, Event::ChannelReady { .. }) => {}
                Seen::Ldk(event) => panic!("before the sale: {event:?}"),
            }
        }
    }

    /// As a wallet: buys, and gives the hop that the invoice needs.
    async fn buy(&mut self, lsp: PublicKey, size: Option<u64>) -> RouteHintHop {
        let liquidity = self.liquidity.clone();
        let client = liquidity.lsps2_client_handler().unwrap();
        client.request_opening_params(lsp, None);
        let LiquidityEvent::LSPS2Client(LSPS2ClientEvent::OpeningParametersReady {
            opening_fee_params_menu: menu,
            ..
        }) = self.next().await
        else {
            panic!("no menu")
        };
        assert_eq!(menu.len(), 1);
        let (min_fee, ppm) = (menu[0].min_fee_msat, menu[0].proportional.into());
        assert_eq!(compute_opening_fee(SIZE, min_fee, ppm), Some(FEE));
        client
            .select_opening_params(lsp, size, menu[0].clone())
            .unwrap();
        let LiquidityEvent::LSPS2Client(LSPS2ClientEvent::InvoiceParametersReady {
            intercept_scid,
            cltv_expiry_delta,
            payment_size_msat,
            ..
        }) = self.next().await
        else {
            panic!("not bought")
        };
        assert_eq!(payment_size_msat, size);
        RouteHintHop {
            cltv_expiry_delta: cltv_expiry_delta.try_into().unwrap(),
            ..hop(lsp, intercept_scid)
        }
    }

    /// As a wallet: accepts the channel, and waits for what comes over it.
    async fn claimable(&mut self, lsp: PublicKey) -> Claimable {
        loop {
            let Seen::Ldk(event) = self.seen().await else {
                panic!("an LSPS message after the sale")
            };
            match *event {
                Event::OpenChannelRequest {
                    temporary_channel_id,
                    counterparty_node_id,
                    is_announced,
                    channel_type,
                    ..
                } => {
                    assert_eq!(counterparty_node_id, lsp);
                    assert!(!is_announced && channel_type.supports_scid_privacy());
                    let overrides = ChannelConfigOverrides {
                        update_overrides: Some(ChannelConfigUpdate {
                            accept_underpaying_htlcs: Some(true),
                            ..Default::default()
                        }),
                        ..Default::default()
                    };
                    self.node
                        .cm
                        .accept_inbound_channel_from_trusted_peer_0conf(
                            &temporary_channel_id,
                            &lsp,
                            OPEN,
                            Some(overrides),
                        )
                        .unwrap();
                    self.flush();
                }
                Event::PaymentClaimable {
                    amount_msat,
                    counterparty_skimmed_fee_msat,
                    purpose,
                    ..
                } => {
                    return Claimable {
                        amount: amount_msat,
                        skimmed: counterparty_skimmed_fee_msat,
                        preimage: purpose.preimage().unwrap(),
                    }
                }
                Event::ChannelReady { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// As an LSP: sells to this wallet, and gives the jit scid.
    async fn sell(&mut self, wallet: PublicKey, size: Option<u64>, client_trusts_lsp: bool) -> u64 {
        let liquidity = self.liquidity.clone();
        let service = liquidity.lsps2_service_handler().unwrap();
        let LiquidityEvent::LSPS2Service(LSPS2ServiceEvent::GetInfo { request_id, .. }) =
            self.next().await
        else {
            panic!("no get_info")
        };
        service
            .opening_fee_params_generated(&wallet, request_id, vec![offer()])
            .unwrap();
        let LiquidityEvent::LSPS2Service(LSPS2ServiceEvent::BuyRequest {
            request_id,
            counterparty_node_id,
            payment_size_msat,
            ..
        }) = self.next().await
        else {
            panic!("no buy")
        };
        assert_eq!((counterparty_node_id, payment_size_msat), (wallet, size));
        let scid = self.node.cm.get_intercept_scid();
        service
            .invoice_parameters_generated(&wallet, request_id, scid, 144, client_trusts_lsp, OPEN)
            .unwrap();
        self.flush();
        scid
    }

    /// As an LSP: the next HTLC that is intercepted, and what the handler says to it.
    async fn intercepted(&mut self) -> (InterceptId, Result<(), APIError>) {
        loop {
            let Seen::Ldk(event) = self.seen().await else {
                panic!("an LSPS message after the sale")
            };
            if let Event::HTLCIntercepted {
                intercept_id,
                requested_next_hop_scid,
                payment_hash,
                expected_outbound_amount_msat,
                ..
            } = *event
            {
                let liquidity = self.liquidity.clone();
                let service = liquidity.lsps2_service_handler().unwrap();
                let said = service.htlc_intercepted(
                    requested_next_hop_scid,
                    intercept_id,
                    expected_outbound_amount_msat,
                    payment_hash,
                );
                return (intercept_id, said);
            }
        }
    }

    /// As an LSP: opens the channel for a payment of `size` when the handler asks for it, and goes on until an HTLC has
    /// gone through it: what the handler is to be told of that.
    async fn forwarded(&mut self, size: u64, fee: u64) -> (ChannelId, u64) {
        let liquidity = self.liquidity.clone();
        let service = liquidity.lsps2_service_handler().unwrap();
        let node = self.node.clone();
        loop {
            while let Some(event) = liquidity.next_event() {
                let LiquidityEvent::LSPS2Service(LSPS2ServiceEvent::OpenChannel {
                    their_network_key,
                    amt_to_forward_msat,
                    opening_fee_msat,
                    user_channel_id,
                    ..
                }) = event
                else {
                    panic!("{event:?}")
                };
                assert_eq!((amt_to_forward_msat, opening_fee_msat), (size - fee, fee));
                // The reserve, the commitment fee and the anchors.
                let value_sat = amt_to_forward_msat / 1_000 + 50_000;
                let rate = node.parts.fees.fresh().unwrap().normal;
                let wallet = &node.parts.wallet;
                wallet
                    .select_and_lock(user_channel_id, value_sat, rate, ANY_DEPTH)
                    .unwrap();
                let mut config = node.user_config.clone();
                config.channel_handshake_config.negotiate_scid_privacy = true;
                node.cm
                    .create_channel(
                        their_network_key,
                        value_sat,
                        0,
                        user_channel_id,
                        None,
                        Some(config),
                    )
                    .unwrap();
            }
            self.flush();
            let Seen::Ldk(event) = self.seen().await else {
                panic!("an LSPS message after the sale")
            };
            match *event {
                Event::HTLCIntercepted {
                    intercept_id,
                    requested_next_hop_scid,
                    payment_hash,
                    expected_outbound_amount_msat,
                    ..
                } => service
                    .htlc_intercepted(
                        requested_next_hop_scid,
                        intercept_id,
                        expected_outbound_amount_msat,
                        payment_hash,
                    )
                    .unwrap(),
                Event::FundingGenerationReady {
                    temporary_channel_id,
                    counterparty_node_id: wallet,
                    channel_value_satoshis,
                    output_script,
                    user_channel_id,
                } => {
                    let funding = node.parts.wallet.fund_locked(
                        user_channel_id,
                        &output_script,
                        channel_value_satoshis,
                    );
                    let funding = funding.unwrap();
                    if service
                        .channel_needs_manual_broadcast(user_channel_id, &wallet)
                        .unwrap()
                    {
                        node.cm
                            .funding_transaction_generated_manual_broadcast(
                                temporary_channel_id,
                                wallet,
                                funding.clone(),
                            )
                            .unwrap();
                        service
                            .store_funding_transaction(user_channel_id, &wallet, funding)
                            .unwrap();
                    } else {
                        node.cm
                            .funding_transaction_generated(temporary_channel_id, wallet, funding)
                            .unwrap();
                    }
                }
                Event::FundingTxBroadcastSafe {
                    user_channel_id,
                    counterparty_node_id,
                    ..
                } => service
                    .set_funding_tx_broadcast_safe(user_channel_id, &counterparty_node_id)
                    .unwrap(),
                // Not the payer's.
                Event::ChannelReady {
                    channel_id,
                    user_channel_id: OPEN,
                    counterparty_node_id,
                    ..
                } => service
                    .channel_ready(OPEN, &channel_id, &counterparty_node_id)
                    .unwrap(),
                Event::ChannelReady { .. } => {}
                Event::PaymentForwarded {
                    next_channel_id,
                    skimmed_fee_msat,
                    ..
                } => return (next_channel_id.unwrap(), skimmed_fee_msat.unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A payer with a channel to an LSP with coins, as it was before the sale.
struct Before {
    payer: Arc<Node>,
    lsp: Arc<Node>,
    /// What the payer could send, msat.
    payer_msat: u64,
    /// What the LSP had on chain.
    lsp_sat: u64,
}

impl Before {
    async fn new(world: &World, lsp: &Arc<Node>, channels: &[u64]) -> Self {
        let payer = world.node("payer", json!({}), None).await;
        world.fund(&[lsp, &payer]).await;
        for sat in channels {
            world.channel(&payer, lsp, *sat).await;
        }
        Self {
            lsp: lsp.clone(),
            payer_msat: room(&payer, lsp).unwrap().0,
            lsp_sat: lsp.parts.wallet.balances().confirmed_sat,
            payer,
        }
    }

    async fn paid(&self, hash: &PaymentHash) -> Payment {
        self.payer.payments.wait(hash, PATIENCE).await.unwrap()
    }

    /// Nothing of a funding transaction was given away: neither to bitcoind nor to what sends to it.
    async fn nothing_published(&self, world: &World) {
        assert_eq!(self.lsp.parts.broadcaster.pending(), []);
        assert!(world.mempool().await.is_empty());
    }

    /// What every one of these payments comes to, to the msat; the funding transaction is in the mempool. Gives what
    /// that costs the LSP, sat.
    async fn comes_true(&self, world: &World, wallet: &Arc<Node>, hash: &PaymentHash) -> u64 {
        let (payer, lsp) = (&self.payer, &self.lsp);
        let paid = self.paid(hash).await;
        assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
        assert_eq!((paid.amount_msat, paid.fee_msat), (SIZE, Some(0)));
        let preimage = <[u8; 32]>::from_hex(&paid.preimage.unwrap()).unwrap();
        assert_eq!(sha256::Hash::hash(&preimage).to_byte_array(), hash.0);
        let received = event(wallet, "payment_received").await;
        assert_eq!(received["payment_hash"], hash.to_string());
        assert_eq!(received["amount_msat"], SIZE - FEE);
        assert_eq!(received["opening_fee_msat"], FEE);
        event(lsp, "payment_forwarded").await;
        let forwarded = events(lsp, "payment_forwarded").await;
        assert_eq!(forwarded.len(), 1, "one part: {forwarded:?}");
        assert_eq!(forwarded[0]["amount_msat"], SIZE - FEE);
        assert_eq!(forwarded[0]["opening_fee_msat"], FEE);
        assert_eq!(forwarded[0]["fee_msat"], 0);

        // The funding transaction is what both ends say, and confirms.
        let channels = with(wallet, lsp);
        assert_eq!(channels.len(), 1);
        let funding = channels[0].funding_txo.unwrap();
        let txid = funding.txid.to_string();
        world.in_mempool(&txid).await;
        let entry = json!([txid]);
        let entry = world.chain.call("getmempoolentry", entry).await.unwrap();
        let cost = Amount::from_btc(entry["fees"]["base"].as_f64().unwrap()).unwrap();
        world.mine(6, &[lsp, payer, wallet]).await;
        let confirmed = |a: &Node, b: &Node| with(a, b)[0].confirmations == Some(6);
        until("both ends count the confirmations", || {
            confirmed(wallet, lsp) && confirmed(lsp, wallet)
        })
        .await;
        let expected = channels[0].get_funding_output().unwrap();
        let outpoint = funding.into_bitcoin_outpoint();
        let found = world.chain.tx_out(&outpoint, false).await.unwrap().unwrap();
        assert_eq!((found.output, found.confirmations), (expected, 6));

        // Each end's own account: the payer is poorer by the whole, the wallet richer by the net, and the LSP has what
        // the payer gave, less what it gave the wallet, less the funding transaction's cost.
        until("no HTLC is left", || {
            let pairs = [(payer, lsp), (lsp, payer), (lsp, wallet), (wallet, lsp)];
            pairs.iter().all(|(a, b)| room(a, b).is_some())
        })
        .await;
        let reserve = |a: &Node, b: &Node| {
            let channels = with(a, b);
            let reserves = channels
                .iter()
                .map(|c| c.unspendable_punishment_reserve.unwrap() * 1_000);
            reserves.sum::<u64>()
        };
        let capacity_sat = channels[0].channel_value_satoshis;
        assert_eq!(room(payer, lsp).unwrap().0, self.payer_msat - SIZE);
        assert_eq!(room(lsp, payer).unwrap().0 + reserve(lsp, payer), SIZE);
        let to_wallet = room(wallet, lsp).unwrap().0 + reserve(wallet, lsp);
        assert_eq!(to_wallet, SIZE - FEE);
        let kept = room(lsp, wallet).unwrap().0 + reserve(lsp, wallet) + ANCHORS;
        assert_eq!(kept, capacity_sat * 1_000 - (SIZE - FEE));
        let left = lsp.parts.wallet.balances().confirmed_sat;
        assert_eq!(left, self.lsp_sat - capacity_sat - cost.to_sat());
        cost.to_sat()
    }

    async fn stop(&self, wallet: &Arc<Node>) {
        finish([wallet, &self.payer]).await;
        if self.lsp.config.foreign.is_none() {
            return finish([&self.lsp]).await;
        }
        // The stock service earns without telling our ledger.
        self.lsp.stop().await.unwrap();
    }
}

/// Our LSP, and a wallet with the stock client.
async fn stock_wallet(trust: &str, size: Option<u64>) {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = world.lsp(trust, json!({}), None).await;
    let before = Before::new(&world, &lsp, &[CHANNEL_SAT]).await;
    let mut wallet = Stock::wallet(&world, &lsp).await;
    world.in_step(&[&wallet.node]).await;
    let jit = wallet.buy(id(&lsp), size).await;
    let invoice = invoice_over(&wallet.node, size, None, vec![jit]);

    let chosen = size.is_none().then_some(SIZE);
    if size.is_none() {
        // What the stock service does not survive (D-6).
        let hash = send(&before.payer, &invoice, Some(TOO_LITTLE)).await;
        assert_failed(&before.paid(&hash).await);
        assert_eq!(order_state(&lsp), "sold");
    }
    let hash = send(&before.payer, &invoice, chosen).await;
    let Claimable {
        amount,
        skimmed,
        preimage,
    } = wallet.claimable(id(&lsp)).await;
    assert_eq!((amount, skimmed), (SIZE - FEE, FEE));
    let channel = &with(&wallet.node, &lsp)[0];
    assert!(channel.is_usable && channel.confirmations.unwrap_or(0) == 0);
    if trust == "client_trusts_lsp" {
        before.nothing_published(&world).await;
    } else {
        // The wallet has not claimed.
        let funding = channel.funding_txo.unwrap().txid;
        world.in_mempool(&funding.to_string()).await;
    }
    wallet.node.cm.claim_funds(preimage);
    wallet.node.wake.notify_one();

    let cost = before.comes_true(&world, &wallet.node, &hash).await;
    assert_eq!(order_state(&lsp), "paid");
    let only = |entries: Vec<Value>, field: &str| -> u64 {
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries[0][field].as_u64().unwrap()
    };
    assert_eq!(only(ledger(&lsp, "fee_earned").await, "amount"), FEE);
    assert_eq!(only(ledger(&lsp, "order_paid").await, "fee"), FEE);
    assert_eq!(only(ledger(&lsp, "chain_cost").await, "fee_sat"), cost);
    before.stop(&wallet.node).await;
}

/// Our wallet, and an LSP with the stock service.
async fn stock_lsp(client_trusts_lsp: bool, size: Option<u64>) {
    let Some(world) = World::start().await else {
        return;
    };
    let mut lsp = Stock::lsp(&world).await;
    let before = Before::new(&world, &lsp.node, &[CHANNEL_SAT]).await;
    let trusted = json!({"trusted": client_trusts_lsp});
    let wallet = world.wallet(&lsp.node, trusted, None).await;
    world.in_step(&[&wallet]).await;
    let (bought, scid) = tokio::join!(
        jit_invoice(&wallet, size),
        lsp.sell(id(&wallet), size, client_trusts_lsp)
    );
    assert_eq!(bought.jit_scid.unwrap().0, scid);
    assert_eq!(bought.opening_fee_msat, size.map(|_| FEE));
    let trust = bought.trust == Some(TrustModel::ClientTrustsLsp);
    assert_eq!(trust, client_trusts_lsp);

    let chosen = size.is_none().then_some(SIZE);
    let hash = send(&before.payer, &bought.bolt11, chosen).await;
    let (channel, skimmed) = lsp.forwarded(SIZE, FEE).await;
    assert_eq!(skimmed, FEE);
    if client_trusts_lsp {
        // The wallet has given its preimage, and the service has not been told.
        before.nothing_published(&world).await;
    }
    let liquidity = lsp.liquidity.clone();
    let service = liquidity.lsps2_service_handler().unwrap();
    service.payment_forwarded(channel, skimmed).unwrap();
    lsp.flush();

    before.comes_true(&world, &wallet, &hash).await;
    let stages = wallet.timeline.of(&hash);
    let place = |name: &str| stages.iter().position(|s| s.stage == name);
    assert!(place("claimed").is_some(), "{stages:?}");
    if client_trusts_lsp {
        assert_eq!(place("funding_seen"), None);
    } else {
        assert!(place("funding_seen").is_some() && place("funding_seen") < place("claimed"));
    }
    assert!(wallet.client.orders().is_empty(), "it is over");
    // The node under the stock service had no part in the sale.
    assert!(lsp.node.lsp.as_ref().unwrap().orders().is_empty());
    let of_sales = [
        "order_sold",
        "part_accepted",
        "channel_opened",
        "fee_earned",
    ];
    assert_eq!(count(&lsp.node, of_sales).await, [0; 4]);
    before.stop(&wallet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_58_J_67_J_71_a_stock_client_that_is_trusted_is_paid() {
    stock_wallet("lsp_trusts_client", Some(SIZE)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_58_J_66_J_71_a_stock_client_that_trusts_is_paid() {
    stock_wallet("client_trusts_lsp", Some(SIZE)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_31_a_stock_client_that_is_trusted_is_paid_what_the_payer_chooses() {
    stock_wallet("lsp_trusts_client", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_31_a_stock_client_that_trusts_is_paid_what_the_payer_chooses() {
    stock_wallet("client_trusts_lsp", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_67_a_stock_service_that_trusts_pays_our_wallet() {
    stock_lsp(false, Some(SIZE)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_J_05_J_66_a_stock_service_that_is_trusted_pays_our_wallet() {
    stock_lsp(true, Some(SIZE)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_service_that_trusts_pays_our_wallet_what_the_payer_chooses() {
    stock_lsp(false, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_service_that_is_trusted_pays_our_wallet_what_the_payer_chooses() {
    stock_lsp(true, None).await;
}

/// D-1: paid in two parts, a stock service that is trusted takes its fee and never publishes the funding transaction. It
/// compares the fee of each part with the whole; told the sum, it publishes. Single parts do not meet this. The wallet
/// has its money, and shows that it hangs on the LSP. Ours publishes: `two_parts`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_parts_are_never_funded_by_a_stock_service() {
    const SIZE: u64 = 900_000_000;
    const FEE: u64 = 9_000_000;
    let Some(world) = World::start().await else {
        return;
    };
    let mut lsp = Stock::lsp(&world).await;
    let before = Before::new(&world, &lsp.node, &[600_000, 600_000]).await;
    let wallet = world
        .wallet(&lsp.node, json!({"trusted": true}), None)
        .await;
    world.in_step(&[&wallet]).await;
    let (bought, _) = tokio::join!(
        jit_invoice(&wallet, Some(SIZE)),
        lsp.sell(id(&wallet), Some(SIZE), true)
    );
    let hash = send(&before.payer, &bought.bolt11, None).await;
    let liquidity = lsp.liquidity.clone();
    let service = liquidity.lsps2_service_handler().unwrap();
    let (channel, one) = lsp.forwarded(SIZE, FEE).await;
    service.payment_forwarded(channel, one).unwrap();
    let (same, other) = lsp.forwarded(SIZE, FEE).await;
    service.payment_forwarded(same, other).unwrap();
    lsp.flush();
    assert_eq!((same, one + other), (channel, FEE));
    assert_eq!(before.paid(&hash).await.status, PaymentStatus::Succeeded);
    let received = event(&wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], SIZE - FEE);
    // The service has nothing left to wait for: what it does not publish now, nothing makes it publish.
    before.nothing_published(&world).await;
    world.mine(6, &[&lsp.node, &wallet]).await;
    before.nothing_published(&world).await;
    let jit = &with(&wallet, &lsp.node)[0];
    assert_eq!(jit.confirmations.unwrap_or(0), 0);
    let uncertain = &wallet.balances()["lightning"]["depends_on_lsp_msat"];
    assert_eq!(*uncertain, jit.outbound_capacity_msat);
    let reserve = jit.unspendable_punishment_reserve.unwrap() * 1_000;
    assert_eq!(jit.outbound_capacity_msat, SIZE - FEE - reserve);

    service.payment_forwarded(channel, one + other).unwrap();
    let funding = jit.funding_txo.unwrap().txid;
    world.in_mempool(&funding.to_string()).await;
    before.stop(&wallet).await;
}

/// D-6: one HTLC of a wrong amount takes the jit scid from a stock service that sold for a variable amount. The right
/// payment is then neither forwarded nor failed, until LDK gives it up at the end of its time: no flow is possible.
/// Ours goes on: `stock_wallet`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_amount_ends_the_sale_of_a_stock_service() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut lsp = Stock::lsp(&world).await;
    let before = Before::new(&world, &lsp.node, &[CHANNEL_SAT]).await;
    let wallet = world.wallet(&lsp.node, json!({}), None).await;
    world.in_step(&[&wallet]).await;
    let (bought, _) = tokio::join!(
        jit_invoice(&wallet, None),
        lsp.sell(id(&wallet), None, false)
    );
    let cm = lsp.node.cm.clone();

    // An error, and the HTLC is failed.
    let hash = send(&before.payer, &bought.bolt11, Some(TOO_LITTLE)).await;
    let (wrong, said) = lsp.intercepted().await;
    said.unwrap_err();
    assert_eq!(cm.intercepted_htlc_inbound_amount_msat(wrong), None);
    lsp.flush();
    assert_failed(&before.paid(&hash).await);

    // Again an error, after which this one is held.
    let hash = send(&before.payer, &bought.bolt11, Some(SIZE)).await;
    let (right, said) = lsp.intercepted().await;
    let said = format!("{:?}", said.unwrap_err());
    assert!(said.contains("No counterparty found"), "{said}");
    assert!(lsp.liquidity.next_event().is_none());
    assert_eq!(cm.intercepted_htlc_inbound_amount_msat(right), Some(SIZE));

    // Whoever runs the service has to give the money back by himself.
    cm.fail_intercepted_htlc(right).unwrap();
    lsp.flush();
    assert_failed(&before.paid(&hash).await);
    until("no HTLC is left", || {
        room(&before.payer, &lsp.node).is_some()
    })
    .await;
    let room = room(&before.payer, &lsp.node).unwrap();
    assert_eq!(room.0, before.payer_msat);
    assert!(with(&wallet, &lsp.node).is_empty());
    before.stop(&wallet).await;
}
