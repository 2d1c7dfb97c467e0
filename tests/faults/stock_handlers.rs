//! Sales between ldkjit and the stock LSPS2 handlers of lightning-liquidity, both ways and in both trust models, on the wire.

use std::sync::Arc;
use std::time::Duration;

use crate::common::stock::{liquidity, offer, Liquidity};
use crate::common::{address, asks, finish, id, jit_invoice, until, World, PATIENCE};
use bitcoin::secp256k1::PublicKey;
use ldkjit_core::menu::TrustModel;
use ldkjit_node::client::JitChoice;
use ldkjit_node::keys::Keys;
use ldkjit_node::log::Log;
use ldkjit_node::node::Node;
use lightning::ln::peer_handler::{
    ErroringMessageHandler, IgnoringMessageHandler, MessageHandler, PeerManager,
};
use lightning::sign::EntropySource;
use lightning_invoice::Bolt11Invoice;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps2::event::{LSPS2ClientEvent, LSPS2ServiceEvent};
use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use lightning_net_tokio::SocketDescriptor;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

const SIZE: u64 = 400_000_000;
/// 1 %.
const FEE: u64 = 4_000_000;

type Wire = PeerManager<
    SocketDescriptor,
    Arc<ErroringMessageHandler>,
    Arc<IgnoringMessageHandler>,
    Arc<IgnoringMessageHandler>,
    Arc<Log>,
    Arc<Liquidity>,
    Arc<Keys>,
    Arc<IgnoringMessageHandler>,
>;

/// A stock handler and the wire to it, under the identity of a node that itself connects to nobody.
struct Stock {
    liquidity: Arc<Liquidity>,
    wire: Arc<Wire>,
    node: Arc<Node>,
}

impl Stock {
    fn new(node: &Arc<Node>, service: bool) -> Self {
        let keys = node.parts.keys.clone();
        let liquidity = liquidity(node, service);
        let handlers = MessageHandler {
            chan_handler: Arc::new(ErroringMessageHandler::new()),
            route_handler: Arc::new(IgnoringMessageHandler {}),
            onion_message_handler: Arc::new(IgnoringMessageHandler {}),
            custom_message_handler: liquidity.clone(),
            send_only_message_handler: Arc::new(IgnoringMessageHandler {}),
        };
        let random = keys.get_secure_random_bytes();
        let wire = Wire::new(handlers, 1, &random, node.parts.log.clone(), keys);
        Self {
            liquidity,
            wire: Arc::new(wire),
            node: node.clone(),
        }
    }

    async fn dial(&self, peer: &Node) {
        let stream = TcpStream::connect(address(peer)).await.unwrap();
        let stream = stream.into_std().unwrap();
        let connection = lightning_net_tokio::setup_outbound(self.wire.clone(), id(peer), stream);
        tokio::spawn(connection);
        until("the stock client is connected", || {
            self.wire.peer_by_node_id(&id(peer)).is_some() && peer.is_connected(&id(&self.node))
        })
        .await;
    }

    /// Takes connections in, and says where.
    async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let wire = self.wire.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream = stream.into_std().unwrap();
                tokio::spawn(lightning_net_tokio::setup_inbound(wire.clone(), stream));
            }
        });
        address
    }

    /// The handler's next event; what it wants to send goes out meanwhile.
    async fn next(&self) -> LiquidityEvent {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.wire.process_events();
            if let Some(event) = self.liquidity.next_event() {
                return event;
            }
            assert!(tokio::time::Instant::now() < deadline, "no event");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks for the menu as the stock client does.
    async fn menu(&self, lsp: PublicKey) -> Vec<LSPS2OpeningFeeParams> {
        let client = self.liquidity.lsps2_client_handler().unwrap();
        let asked = client.request_opening_params(lsp, None);
        match self.next().await {
            LiquidityEvent::LSPS2Client(LSPS2ClientEvent::OpeningParametersReady {
                request_id,
                counterparty_node_id,
                opening_fee_params_menu,
            }) => {
                assert_eq!((request_id, counterparty_node_id), (asked, lsp));
                opening_fee_params_menu
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The stock client buys of our LSP, is refused once, and is not deaf afterwards.
async fn stock_client(trust: &str) {
    let Some(world) = World::start().await else {
        return;
    };
    let lsp = world.lsp(trust, json!({}), None).await;
    let other = json!({"listen": []});
    let stock = Stock::new(&world.node("stock", other, None).await, false);
    // A sale needs somebody to be paid by.
    let payer = world.node("payer", json!({}), None).await;
    world.fund(&[&lsp, &payer]).await;
    world.channel(&payer, &lsp, 1_000_000).await;
    stock.dial(&lsp).await;
    let client = stock.liquidity.lsps2_client_handler().unwrap();

    let menu = stock.menu(id(&lsp)).await;
    assert_eq!(menu.len(), 1);
    let offer = menu[0].clone();
    assert_eq!(offer.min_fee_msat, 2_000_000);
    assert_eq!(offer.proportional, 10_000);
    assert_eq!(offer.min_lifetime, 144);
    assert_eq!(offer.max_client_to_self_delay, 2016);
    assert_eq!(offer.min_payment_size_msat, 1_000);
    assert_eq!(offer.max_payment_size_msat, 4_000_000_000);

    // Refusals reach the application: too small for its fee, too large, and an offer that was never made.
    let mut forged = offer.clone();
    forged.min_fee_msat -= 1;
    let refusals = [
        (Some(2_000_000), offer.clone(), 202),
        (Some(4_000_000_001), offer.clone(), 203),
        (Some(SIZE), forged, 201),
    ];
    for (size, params, expected) in refusals {
        let asked = client
            .select_opening_params(id(&lsp), size, params)
            .unwrap();
        match stock.next().await {
            LiquidityEvent::LSPS2Client(LSPS2ClientEvent::BuyRequestFailed {
                request_id,
                error,
                ..
            }) => {
                assert_eq!(request_id, asked);
                assert_eq!(error.code, expected, "{error:?}");
                assert_eq!(error.data, None);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(lsp.lsp.as_ref().unwrap().orders().is_empty());
    assert_eq!(stock.menu(id(&lsp)).await.len(), 1, "it still listens");

    let asked = client
        .select_opening_params(id(&lsp), Some(SIZE), offer)
        .unwrap();
    let scid = match stock.next().await {
        LiquidityEvent::LSPS2Client(LSPS2ClientEvent::InvoiceParametersReady {
            request_id,
            counterparty_node_id,
            intercept_scid,
            cltv_expiry_delta,
            payment_size_msat,
        }) => {
            assert_eq!((request_id, counterparty_node_id), (asked, id(&lsp)));
            assert_eq!(cltv_expiry_delta, 144);
            assert_eq!(payment_size_msat, Some(SIZE));
            intercept_scid
        }
        other => panic!("{other:?}"),
    };
    let orders = lsp.lsp.as_ref().unwrap().orders();
    assert_eq!(orders.len(), 1);
    let terms = &orders[0]["terms"];
    assert_eq!(orders[0]["scid"], ldkjit_core::ids::Scid(scid).to_string());
    assert_eq!(terms["client"], id(&stock.node).to_string());
    assert_eq!(terms["size"], SIZE);
    assert_eq!(terms["trust"], trust);
    let sold = crate::common::ledger(&lsp, "order_sold").await;
    assert_eq!(sold.len(), 1);
    assert_eq!(sold[0]["fee"], FEE);
    finish([&lsp]).await;
    stock.node.stop().await.unwrap();
}

/// Answers as an application around the stock service does: one offer, then a sale with this scid.
async fn serve(stock: &Stock, scid: u64, client_trusts_lsp: bool, wallet: PublicKey) {
    let service = stock.liquidity.lsps2_service_handler().unwrap();
    let LiquidityEvent::LSPS2Service(LSPS2ServiceEvent::GetInfo {
        request_id,
        counterparty_node_id,
        token,
    }) = stock.next().await
    else {
        panic!("no get_info")
    };
    assert_eq!(counterparty_node_id, wallet);
    assert_eq!(token.as_deref(), Some("a-token"));
    service
        .opening_fee_params_generated(&wallet, request_id, vec![offer()])
        .unwrap();
    // The stock service itself checks its promise before it tells of a buy.
    let LiquidityEvent::LSPS2Service(LSPS2ServiceEvent::BuyRequest {
        request_id,
        payment_size_msat,
        ..
    }) = stock.next().await
    else {
        panic!("no buy")
    };
    assert_eq!(payment_size_msat, Some(SIZE));
    service
        .invoice_parameters_generated(&wallet, request_id, scid, 96, client_trusts_lsp, 1)
        .unwrap();
    stock.wire.process_events();
}

/// Our wallet buys of the stock service.
async fn stock_service(client_trusts_lsp: bool, trusted: bool) {
    let Some(world) = World::start().await else {
        return;
    };
    let other = json!({"listen": []});
    let stock = Stock::new(&world.node("stock", other, None).await, true);
    let seller = json!({
        "node_id": id(&stock.node).to_string(),
        "address": stock.listen().await,
        "token": "a-token",
        "trusted": trusted,
    });
    let settings = json!({"lsps": [seller], "listen": [], "accept_channels": false});
    let wallet = world.node("wallet", settings, None).await;
    let scid = stock.node.cm.get_intercept_scid();
    let serving = serve(&stock, scid, client_trusts_lsp, id(&wallet));

    if client_trusts_lsp && !trusted {
        let request = asks(Some(SIZE), JitChoice::Always);
        let (refused, ()) = tokio::join!(wallet.receive(request), serving);
        assert_eq!(refused.unwrap_err().code, "lsp_trust");
        assert!(wallet.client.orders().is_empty(), "nothing is accepted");
    } else {
        let (bought, ()) = tokio::join!(jit_invoice(&wallet, Some(SIZE)), serving);
        assert_eq!(bought.opening_fee_msat, Some(FEE));
        assert_eq!(bought.jit_scid.unwrap().0, scid);
        let expected = if client_trusts_lsp {
            TrustModel::ClientTrustsLsp
        } else {
            TrustModel::LspTrustsClient
        };
        assert_eq!(bought.trust, Some(expected));
        let invoice: Bolt11Invoice = bought.bolt11.parse().unwrap();
        assert_eq!(invoice.amount_milli_satoshis(), Some(SIZE));
        let hints = invoice.private_routes();
        assert_eq!(hints.len(), 1);
        let hop = &hints[0].0[0];
        assert_eq!(hop.src_node_id, id(&stock.node));
        assert_eq!(hop.short_channel_id, scid);
        assert_eq!(hop.cltv_expiry_delta, 96);
        assert_eq!(hop.fees.base_msat, 0);
        assert_eq!(hop.fees.proportional_millionths, 0);
        assert_eq!(wallet.client.orders().len(), 1);
    }
    finish([&wallet]).await;
    stock.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_that_is_trusted() {
    stock_client("lsp_trusts_client").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_that_trusts() {
    stock_client("client_trusts_lsp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_service_that_trusts() {
    stock_service(false, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_service_that_is_trusted() {
    stock_service(true, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_service_that_wants_to_be_trusted_and_is_not() {
    stock_service(true, false).await;
}
