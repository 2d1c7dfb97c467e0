//! Receiving: an invoice over a channel there is, or over one bought from an LSP.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::hashes::{sha256, Hash};
use bitcoin::secp256k1::PublicKey;
use ldkjit_core::amount::Msat;
use ldkjit_core::ids::{NodeId, PaymentHash, Scid};
use ldkjit_core::lsps2::{
    buy_params, check_buy_response, choose_tier, parse_menu, BuyResponse, GetInfoRequest, Offer,
    Wish, BUY, GET_INFO,
};
use ldkjit_core::menu::{FeeParams, TrustModel};
use ldkjit_core::reason::Reason;
use ldkjit_core::time::Millis;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::MIN_FINAL_CLTV_EXPIRY_DELTA;
use lightning::routing::router::{RouteHint, RouteHintHop};
use lightning::sign::{NodeSigner, Recipient};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, RoutingFees};
use serde::{Deserialize, Serialize};

use super::{ClientOrder, Status};
use crate::config::LspPeer;
use crate::convert;
use crate::error::NodeError;
use crate::log::now_ms;
use crate::node::Node;

/// The expiry asked of the payer's last hop in a JIT invoice: time for the LSP to wake us and open, blocks (J-40).
const JIT_FINAL_DELTA: u64 = 144;
/// The largest amount an invoice of ours may ask for: all there is, msat.
const MAX_MSAT: u64 = 21_000_000 * 100_000_000 * 1_000;
const MAX_EXPIRY_S: u32 = 31_536_000;
/// Hints in an invoice.
const MAX_HINTS: usize = 3;
const INVOICE: &str = "invoice";
/// How long a peer's `channel_update` is waited for, and how often it is looked for.
const UPDATE_WAIT: Duration = Duration::from_secs(1);
const UPDATE_PAUSE: Duration = Duration::from_millis(10);

/// How the payment is to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Over a channel there is.
    Channel,
    /// Over a channel that an LSP opens when it arrives.
    Jit,
}

/// Whether a channel may be bought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JitChoice {
    /// When no channel carries the amount.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Even when a channel would carry it.
    Always,
}

/// What `receive` is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiveRequest {
    /// The amount, msat; absent: the payer chooses.
    #[serde(default)]
    pub amount_msat: Option<u64>,
    /// Shown to the payer, at most 639 bytes.
    #[serde(default)]
    pub description: String,
    /// Lifetime of the invoice, s.
    #[serde(default = "an_hour")]
    pub expiry_s: u32,
    /// The highest opening fee accepted, msat; absent: whatever the cheapest offer says.
    #[serde(default)]
    pub max_opening_fee_msat: Option<u64>,
    /// Whether a channel may be bought.
    #[serde(default)]
    pub jit: JitChoice,
    /// Buy only from this LSP.
    #[serde(default)]
    pub lsp: Option<NodeId>,
    /// How long an LSP may take to answer, ms.
    #[serde(default = "half_a_minute")]
    pub timeout_ms: u64,
}

fn an_hour() -> u32 {
    3_600
}
fn half_a_minute() -> u64 {
    30_000
}

/// An invoice of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceRecord {
    /// The invoice.
    pub bolt11: String,
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// Its amount, msat; absent: the payer chooses.
    pub amount_msat: Option<u64>,
    /// Its description.
    pub description: String,
    /// When it expires, ms since 1970.
    pub expires_at_ms: u64,
    /// How the payment is to arrive.
    pub path: Path,
    /// What the LSP will take, msat; absent for a variable amount, 0 over a channel.
    pub opening_fee_msat: Option<u64>,
    /// The LSP a channel was bought from.
    pub lsp: Option<NodeId>,
    /// Its jit scid.
    pub jit_scid: Option<Scid>,
    /// Who trusts whom.
    pub trust: Option<TrustModel>,
}

/// What differs between the two kinds of invoice.
struct Draft {
    hints: Vec<RouteHint>,
    final_delta: u64,
    mpp: bool,
    expires_at_ms: u64,
    /// The sale, when a channel is bought for it.
    sale: Option<Sale>,
}

/// A channel bought for an invoice.
struct Sale {
    lsp: NodeId,
    params: FeeParams,
    bought: BuyResponse,
}

impl Node {
    /// Makes an invoice that can be paid: over a channel, or over one bought from an LSP.
    ///
    /// # Errors
    /// `amount`, `config`, `inbound_capacity`, `no_lsp`, `lsp_unreachable`, `lsp_refused`, `lsp_fee`, `lsp_trust`.
    pub async fn receive(&self, request: ReceiveRequest) -> Result<InvoiceRecord, NodeError> {
        if request.amount_msat.is_some_and(|a| a == 0 || a > MAX_MSAT) {
            return Err(NodeError::amount(format!(
                "amount_msat: 1 to {MAX_MSAT}, or absent"
            )));
        }
        if request.expiry_s == 0 || request.expiry_s > MAX_EXPIRY_S {
            return Err(NodeError::config(format!("expiry_s: 1 to {MAX_EXPIRY_S}")));
        }
        if request.description.len() > 639 {
            return Err(NodeError::config("description: at most 639 bytes"));
        }
        let channels = self.receiving_channels(request.amount_msat).await;
        let inbound = channels
            .iter()
            .fold(0_u64, |sum, c| sum.saturating_add(c.inbound_capacity_msat));
        let carried = match request.amount_msat {
            Some(amount) => inbound >= amount,
            None => inbound > 0,
        };
        match request.jit {
            JitChoice::Auto if carried => self.over_channel(&request, &channels).await,
            JitChoice::Never if carried => self.over_channel(&request, &channels).await,
            JitChoice::Never => Err(NodeError::inbound_capacity(
                request.amount_msat.unwrap_or(1),
                inbound,
            )),
            JitChoice::Auto if self.config.lsps.is_empty() => Err(NodeError::inbound_capacity(
                request.amount_msat.unwrap_or(1),
                inbound,
            )),
            _ => self.over_jit(&request).await,
        }
    }

    /// Usable channels whose peer has told us a fee that a payer can pay. When such a word would make the difference
    /// it is waited for a moment: it follows `channel_ready`, or the payment of an opening fee.
    async fn receiving_channels(&self, amount: Option<u64>) -> Vec<ChannelDetails> {
        let wanted = amount.unwrap_or(1);
        let sum = |channels: &[ChannelDetails]| {
            channels
                .iter()
                .fold(0_u64, |sum, c| sum.saturating_add(c.inbound_capacity_msat))
        };
        let until = Instant::now().checked_add(UPDATE_WAIT);
        loop {
            let usable = self.cm.list_usable_channels();
            let (mut told, untold): (Vec<_>, Vec<_>) = usable.into_iter().partition(|c| {
                let fee = c.counterparty.forwarding_info.as_ref();
                c.is_announced || fee.is_some_and(|f| f.fee_base_msat != u32::MAX)
            });
            let enough = sum(&told) >= wanted;
            let hopeless = sum(&told).saturating_add(sum(&untold)) < wanted;
            if enough || hopeless || until.is_none_or(|until| Instant::now() >= until) {
                told.sort_by_key(|c| std::cmp::Reverse(c.inbound_capacity_msat));
                return told;
            }
            tokio::time::sleep(UPDATE_PAUSE).await;
        }
    }

    async fn over_channel(
        &self,
        request: &ReceiveRequest,
        channels: &[ChannelDetails],
    ) -> Result<InvoiceRecord, NodeError> {
        let public = channels.iter().any(|c| c.is_announced);
        let hints = if public {
            Vec::new()
        } else {
            channels.iter().filter_map(hint).take(MAX_HINTS).collect()
        };
        let expires_at_ms =
            now_ms().saturating_add(u64::from(request.expiry_s).saturating_mul(1_000));
        self.write_invoice(
            request,
            Draft {
                hints,
                final_delta: u64::from(MIN_FINAL_CLTV_EXPIRY_DELTA).saturating_add(3),
                mpp: true,
                expires_at_ms,
                sale: None,
            },
        )
        .await
    }

    async fn over_jit(&self, request: &ReceiveRequest) -> Result<InvoiceRecord, NodeError> {
        let lsps: Vec<&LspPeer> = match &request.lsp {
            None => self.config.lsps.iter().collect(),
            Some(id) => self.client.lsp(id).into_iter().collect(),
        };
        if lsps.is_empty() {
            return Err(NodeError::no_lsp("no such LSP is configured"));
        }
        let timeout = Duration::from_millis(request.timeout_ms);
        let mut offers = Vec::new();
        let mut first_error = None;
        let quotes = lsps.iter().map(|lsp| self.quote(lsp, request, timeout));
        for (lsp, quote) in lsps.iter().zip(join_all(quotes).await) {
            match quote {
                Ok((offer, price)) => offers.push((price, *lsp, offer)),
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        offers.sort_by_key(|(price, _, _)| *price);
        for (_, lsp, offer) in &offers {
            match self.buy(lsp, offer, request, timeout).await {
                Ok(record) => return Ok(record),
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        Err(first_error.unwrap_or_else(|| NodeError::no_lsp("no LSP made an offer")))
    }

    /// The LSP's cheapest offer for this payment, and what it is compared by.
    async fn quote(
        &self,
        lsp: &LspPeer,
        request: &ReceiveRequest,
        timeout: Duration,
    ) -> Result<(Offer, Msat), NodeError> {
        let key = self.reach(lsp, timeout).await?;
        let ask = GetInfoRequest {
            token: lsp.token.clone(),
        };
        let result = self
            .client
            .requests
            .call(self, key, GET_INFO, &ask.to_params(), timeout)
            .await?;
        let offers = parse_menu(&result).map_err(bad_answer)?;
        let handshake = &self.user_config.channel_handshake_config;
        let mut wish = Wish {
            size: request.amount_msat.map(Msat),
            max_fee: request.max_opening_fee_msat.map(Msat),
            to_self_delay: handshake.our_to_self_delay,
            needed_until: Millis(now_ms()),
        };
        match choose_tier(&offers, &wish) {
            Ok((offer, fee)) => {
                let price = fee.unwrap_or(offer.params.min_fee_msat);
                Ok((offer.clone(), price))
            }
            Err(Reason::FeeAboveLimit) => {
                wish.max_fee = None;
                let quoted = choose_tier(&offers, &wish)
                    .map(|(offer, fee)| fee.unwrap_or(offer.params.min_fee_msat))
                    .unwrap_or(Msat(u64::MAX));
                Err(NodeError::lsp_fee(
                    quoted.0,
                    request.max_opening_fee_msat.unwrap_or(0),
                ))
            }
            Err(Reason::NoTier) if offers.is_empty() => Err(NodeError::lsp_refused(
                0,
                "the LSP has nothing for sale at present",
            )),
            Err(Reason::NoTier) => {
                let least = offers.iter().map(|o| o.params.min_payment_size_msat).min();
                let most = offers.iter().map(|o| o.params.max_payment_size_msat).max();
                Err(NodeError::lsp_refused(
                    0,
                    format!(
                        "{}: the LSP takes {} to {} msat",
                        Reason::NoTier.message(),
                        least.unwrap_or_default().0,
                        most.unwrap_or_default().0
                    ),
                ))
            }
            Err(reason) => Err(NodeError::lsp_refused(0, reason.message())),
        }
    }

    async fn buy(
        &self,
        lsp: &LspPeer,
        offer: &Offer,
        request: &ReceiveRequest,
        timeout: Duration,
    ) -> Result<InvoiceRecord, NodeError> {
        let key = self.reach(lsp, timeout).await?;
        let size = request.amount_msat.map(Msat);
        let result = self
            .client
            .requests
            .call(self, key, BUY, &buy_params(offer, size), timeout)
            .await?;
        let bought = BuyResponse::parse(&result).map_err(bad_answer)?;
        check_buy_response(&bought, lsp.trusted).map_err(|reason| match reason {
            Reason::TrustRefused => NodeError::lsp_trust(
                "the LSP wants to be trusted until the channel confirms, and is not configured as trusted",
            ),
            other => bad_answer(other),
        })?;
        let wanted = now_ms().saturating_add(u64::from(request.expiry_s).saturating_mul(1_000));
        // J-37, with a second for the clocks.
        let expires_at_ms = wanted.min(offer.params.valid_until.0.saturating_sub(1_000));
        let hop = RouteHintHop {
            src_node_id: key,
            short_channel_id: bought.scid.0,
            fees: RoutingFees {
                base_msat: 0,
                proportional_millionths: 0,
            },
            cltv_expiry_delta: bought.cltv_delta,
            htlc_minimum_msat: None,
            htlc_maximum_msat: None,
        };
        self.write_invoice(
            request,
            Draft {
                hints: vec![RouteHint(vec![hop])],
                final_delta: JIT_FINAL_DELTA.saturating_add(u64::from(lsp.confirmations)),
                mpp: size.is_some(),
                expires_at_ms,
                sale: Some(Sale {
                    lsp: lsp.node_id,
                    params: offer.params.clone(),
                    bought,
                }),
            },
        )
        .await
    }

    /// Makes the invoice and keeps it, with the order it belongs to: nobody learns of it before that is durable.
    async fn write_invoice(
        &self,
        request: &ReceiveRequest,
        draft: Draft,
    ) -> Result<InvoiceRecord, NodeError> {
        let size = request.amount_msat.map(Msat);
        let gate = self.parts.journal.gate().await;
        let (bolt11, payment_hash) = self.build(request, &draft)?;
        let sale = draft.sale.as_ref();
        let record = InvoiceRecord {
            bolt11,
            payment_hash,
            amount_msat: request.amount_msat,
            description: request.description.clone(),
            expires_at_ms: draft.expires_at_ms,
            path: if sale.is_some() {
                Path::Jit
            } else {
                Path::Channel
            },
            opening_fee_msat: match sale {
                None => Some(0),
                Some(sale) => size.and_then(|s| sale.params.fee(s)).map(|fee| fee.0),
            },
            lsp: sale.map(|sale| sale.lsp),
            jit_scid: sale.map(|sale| sale.bought.scid),
            trust: sale.map(|sale| sale.bought.trust),
        };
        if let Some(sale) = draft.sale {
            let order = ClientOrder {
                payment_hash,
                lsp: sale.lsp,
                scid: sale.bought.scid,
                params: sale.params,
                size,
                max_fee: request.max_opening_fee_msat.map(Msat),
                trust: sale.bought.trust,
                expires_at_ms: draft.expires_at_ms,
                status: Status::Open,
                opening: None,
                channel: None,
            };
            self.client.keep(self, order, false);
        }
        self.keep_invoice(&record);
        drop(gate);
        self.parts.journal.durable().await?;
        Ok(record)
    }

    /// Connects to an LSP if need be.
    pub(super) async fn reach(
        &self,
        lsp: &LspPeer,
        timeout: Duration,
    ) -> Result<PublicKey, NodeError> {
        let key = convert::public_key(&lsp.node_id)
            .ok_or_else(|| NodeError::config("lsps: node_id is not on the curve"))?;
        if !self.is_connected(&key) {
            self.dial(key, &lsp.address, timeout)
                .await
                .map_err(|e| NodeError::lsp_unreachable(e.message))?;
        }
        Ok(key)
    }

    fn build(
        &self,
        request: &ReceiveRequest,
        draft: &Draft,
    ) -> Result<(String, PaymentHash), NodeError> {
        let failed = |e: &dyn std::fmt::Debug| NodeError::internal(format!("invoice: {e:?}"));
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let lifetime_s = draft.expires_at_ms.saturating_sub(now_ms()) / 1_000;
        if lifetime_s == 0 && draft.sale.is_some() {
            return Err(NodeError::lsp_refused(
                0,
                "its offer ended while it was bought",
            ));
        }
        let lifetime_s = u32::try_from(lifetime_s.max(1)).unwrap_or(MAX_EXPIRY_S);
        // LDK enforces the delta given here on the payment; the invoice may ask for more (J-41).
        let (hash, secret) = self
            .cm
            .create_inbound_payment(request.amount_msat, lifetime_s, None)
            .map_err(|()| failed(&"no payment secret"))?;
        let mut builder = InvoiceBuilder::new(Currency::from(self.config.network))
            .description(request.description.clone())
            .duration_since_epoch(now)
            .payee_pub_key(self.cm.get_our_node_id())
            .payment_hash(sha256::Hash::from_byte_array(hash.0))
            .payment_secret(secret)
            .min_final_cltv_expiry_delta(draft.final_delta)
            .expiry_time(Duration::from_secs(u64::from(lifetime_s)));
        if let Some(amount) = request.amount_msat {
            builder = builder.amount_milli_satoshis(amount);
        }
        if draft.mpp {
            builder = builder.basic_mpp();
        }
        for hint in &draft.hints {
            builder = builder.private_route(hint.clone());
        }
        let raw = builder.build_raw().map_err(|e| failed(&e))?;
        let signature = self.parts.keys.sign_invoice(&raw, Recipient::Node);
        let signed = raw
            .sign(|_| signature)
            .map_err(|()| failed(&"not signed"))?;
        let invoice = Bolt11Invoice::from_signed(signed).map_err(|e| failed(&e))?;
        Ok((invoice.to_string(), PaymentHash(hash.0)))
    }

    fn keep_invoice(&self, record: &InvoiceRecord) {
        if let Ok(bytes) = serde_json::to_vec(record) {
            self.parts
                .journal
                .row(INVOICE, record.payment_hash.to_string(), bytes);
        }
    }

    /// An invoice of ours.
    ///
    /// # Errors
    /// `not_found`, or when the store fails.
    pub async fn invoice(&self, hash: &PaymentHash) -> Result<InvoiceRecord, NodeError> {
        self.parts
            .journal
            .read(INVOICE, hash.to_string())
            .await?
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| NodeError::not_found(format!("no invoice with payment hash {hash}")))
    }
}

fn hint(channel: &ChannelDetails) -> Option<RouteHint> {
    let forwarding = channel.counterparty.forwarding_info.as_ref()?;
    Some(RouteHint(vec![RouteHintHop {
        src_node_id: channel.counterparty.node_id,
        short_channel_id: channel.get_inbound_payment_scid()?,
        fees: RoutingFees {
            base_msat: forwarding.fee_base_msat,
            proportional_millionths: forwarding.fee_proportional_millionths,
        },
        cltv_expiry_delta: forwarding.cltv_expiry_delta,
        htlc_minimum_msat: channel.inbound_htlc_minimum_msat,
        htlc_maximum_msat: channel.inbound_htlc_maximum_msat,
    }]))
}

pub(super) fn bad_answer(reason: Reason) -> NodeError {
    NodeError::lsp_refused(0, reason.message())
}

/// Runs a few futures together; there are as many as configured LSPs.
async fn join_all<F: std::future::Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    use std::future::poll_fn;
    use std::task::Poll;
    let mut waiting: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    poll_fn(|cx| {
        let mut all = true;
        for (future, output) in &mut waiting {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => all = false,
                }
            }
        }
        if all {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    waiting
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}
