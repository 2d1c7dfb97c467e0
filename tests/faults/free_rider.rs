//! A wallet that lets its JIT payment fail gets no channel for nothing: only what pays the fee passes, until it is paid.

use crate::common::{
    asks, assert_failed, event, events, finish, hop, id, invoice_over, jit_invoice, ledger,
    order_state, pay, receive, room, until, with, World,
};
use ldkjit_node::client::JitChoice;
use ldkjit_node::lsp::Fault;
use ldkjit_node::payments::{PayRequest, PaymentStatus};
use serde_json::json;

const SIZE: u64 = 100_000_000;
const FEE: u64 = 2_000_000;
/// Paid over the channel beside the payment that it was sold for.
const SMALL: u64 = 1_000_000;
/// The forwarding fee of a channel that is paid for.
const BASE: u64 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_S_53_S_54_a_channel_that_is_not_paid_for() {
    let Some(world) = World::start().await else {
        return;
    };
    let limits = json!({"forwarding_base_msat": BASE});
    let fault = Some(Fault::ClientRefuses);
    let [lsp, payer, wallet] = world.sale(limits, None, fault).await;
    let before = room(&payer, &lsp).unwrap();

    let bought = jit_invoice(&wallet, Some(SIZE)).await;
    assert_failed(&pay(&payer, &bought.bolt11).await);
    until("the fee is owed", || order_state(&lsp) == "owed").await;
    until("the wallet sees its channel free", || {
        with(&wallet, &lsp).len() == 1 && room(&wallet, &lsp).is_some()
    })
    .await;
    let channel = with(&wallet, &lsp).remove(0);
    assert!(channel.is_usable);
    // It knows what passing through costs: more than anybody pays.
    let told = || with(&wallet, &lsp)[0].counterparty.forwarding_info.clone();
    until("the LSP's terms are known", || told().is_some()).await;
    assert_eq!(told().unwrap().fee_base_msat, u32::MAX);
    let request = asks(Some(SMALL), JitChoice::Never);
    let refused = wallet.receive(request).await.unwrap_err();
    assert_eq!(refused.code, "inbound_capacity");

    // An invoice by hand over the channel's alias, with the true fee: nobody can pay that.
    let alias = channel.get_inbound_payment_scid().unwrap();
    let mut way = hop(id(&lsp), alias);
    way.fees.base_msat = u32::MAX;
    let dear = invoice_over(&wallet, SMALL, None, vec![way]);
    let request = PayRequest {
        bolt11: dear,
        amount_msat: None,
        max_fee_msat: None,
        retry_s: 0,
    };
    let refused = payer.pay(request).await.unwrap_err();
    assert_eq!(refused.code, "payment");
    // With a lie about the fee: the LSP does not pass it on.
    let cheap = invoice_over(&wallet, SMALL, None, vec![hop(id(&lsp), alias)]);
    let failed = pay(&payer, &cheap).await;
    assert_failed(&failed);
    assert_eq!(wallet.timeline.of(&failed.payment_hash), []);
    assert!(events(&lsp, "payment_forwarded").await.is_empty());
    assert!(events(&wallet, "payment_received").await.is_empty());
    for entry in ["fee_earned", "order_paid", "forwarded"] {
        assert!(ledger(&lsp, entry).await.is_empty(), "{entry}");
    }
    until("no HTLC is left", || room(&payer, &lsp).is_some()).await;
    assert_eq!(room(&payer, &lsp).unwrap(), before);
    assert_eq!(order_state(&lsp), "owed");

    // The payment that it was sold for, once more: this time it is claimed, and with it the fee.
    let paid = pay(&payer, &bought.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    let received = event(&wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], SIZE - FEE);
    assert_eq!(received["opening_fee_msat"], FEE);
    until("the order is paid", || order_state(&lsp) == "paid").await;
    let earned = ledger(&lsp, "fee_earned").await;
    assert_eq!(earned.len(), 1);
    assert_eq!(earned[0]["amount"], FEE);
    assert_eq!(ledger(&lsp, "chain_cost").await.len(), 1);
    assert_eq!(with(&lsp, &wallet).len(), 1, "no second channel");

    // From here it is a channel like any other.
    until("the fee is lowered", || {
        told().is_some_and(|t| u64::from(t.fee_base_msat) == BASE)
    })
    .await;
    let ordinary = receive(&wallet, Some(SMALL), JitChoice::Never).await;
    let paid = pay(&payer, &ordinary.bolt11).await;
    assert_eq!(paid.status, PaymentStatus::Succeeded, "{paid:?}");
    assert_eq!(paid.fee_msat, Some(BASE));
    let received = event(&wallet, "payment_received").await;
    assert_eq!(received["amount_msat"], SMALL);
    assert_eq!(received["opening_fee_msat"], 0);
    until("no HTLC is left", || {
        room(&payer, &lsp).is_some() && room(&wallet, &lsp).is_some()
    })
    .await;
    assert_eq!(
        room(&payer, &lsp).unwrap().0,
        before.0 - SIZE - SMALL - BASE
    );
    let channel = &with(&wallet, &lsp)[0];
    let reserve = channel.unspendable_punishment_reserve.unwrap() * 1_000;
    assert_eq!(channel.outbound_capacity_msat, SIZE - FEE + SMALL - reserve);
    finish([&wallet, &payer, &lsp]).await;
}
