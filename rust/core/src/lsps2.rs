//! LSPS2: `get_info` and `buy`, both ways, and what the service and the client decide about them.

use std::collections::BTreeMap;

use serde_json::{json, Map, Value};

use crate::amount::{wire_msat, Msat};
use crate::ids::{NodeId, Scid};
use crate::liquidity::{Books, Stock};
use crate::lsps0::{
    json_size, list_protocols_result, only_known, Request, RpcError, LIST_PROTOCOLS,
};
use crate::lsps5;
use crate::menu::{
    verify_promise, FeeParams, FeeTier, Grant, Menu, Secret, TrustModel, MAX_PROMISE,
};
use crate::reason::Reason;
use crate::rules::Rules;
use crate::standing::{Score, Standing};
use crate::time::Millis;

/// Method name (J-06).
pub const GET_INFO: &str = "lsps2.get_info";
/// Method name.
pub const BUY: &str = "lsps2.buy";
/// The number of this protocol in `list_protocols`.
pub const PROTOCOL: u16 = 2;
/// The longest `lsp_cltv_expiry_delta` a client takes, blocks: payers commonly allow a route no more in all.
pub const MAX_CLTV_DELTA: u16 = 1_008;

/// The fields of `opening_fee_params` (J-09).
const PARAM_FIELDS: [&str; 8] = [
    "min_fee_msat",
    "proportional",
    "valid_until",
    "min_lifetime",
    "max_client_to_self_delay",
    "min_payment_size_msat",
    "max_payment_size_msat",
    "promise",
];

/// Eight fields, no others, each of its type (J-09, J-18).
fn read_params(value: &Value) -> Option<FeeParams> {
    // Serde would take an array of eight for the struct.
    value.is_object().then_some(())?;
    serde_json::from_value(value.clone()).ok()
}

// ---- messages, service side ----

/// A request this service knows, read and checked for form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `lsps0.list_protocols`.
    ListProtocols,
    /// `lsps2.get_info`.
    GetInfo(GetInfoRequest),
    /// `lsps2.buy`.
    Buy(BuyRequest),
}

impl Call {
    /// Reads a request's method and parameters; with `serving` false only `list_protocols` exists (S-04, T-08).
    pub fn parse(request: &Request, serving: bool) -> Result<Self, RpcError> {
        match request.method.as_str() {
            LIST_PROTOCOLS => only_known(&request.params, &[]).map(|()| Self::ListProtocols),
            GET_INFO if serving => GetInfoRequest::parse(&request.params).map(Self::GetInfo),
            BUY if serving => BuyRequest::parse(&request.params).map(Self::Buy),
            _ => Err(RpcError::refusal(Reason::UnknownMethod, None)),
        }
    }
}

/// The result of `list_protocols` of a node that serves LSPS2, with LSPS5 or without, or is no LSP (T-13, S-04).
#[must_use]
pub fn protocols_result(serving: bool, webhooks: bool) -> Value {
    list_protocols_result(match (serving, webhooks) {
        (false, _) => &[],
        (true, false) => &[PROTOCOL],
        (true, true) => &[PROTOCOL, lsps5::PROTOCOL],
    })
}

/// `lsps2.get_info` parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetInfoRequest {
    /// Arbitrary text that opens another menu (J-07).
    pub token: Option<String>,
}

impl GetInfoRequest {
    /// Reads the parameters; LDK writes an absent token as `null`.
    pub fn parse(params: &Map<String, Value>) -> Result<Self, RpcError> {
        only_known(params, &["token"])?;
        match params.get("token") {
            None | Some(Value::Null) => Ok(Self { token: None }),
            Some(Value::String(token)) => Ok(Self {
                token: Some(token.clone()),
            }),
            Some(_) => Err(RpcError::bad_params(&[])),
        }
    }

    /// The parameters to send.
    #[must_use]
    pub fn to_params(&self) -> Value {
        match &self.token {
            None => json!({}),
            Some(token) => json!({ "token": token }),
        }
    }
}

/// The `get_info` result for a menu; an empty one says that nothing is for sale (J-08).
#[must_use]
pub fn get_info_result(menu: &Menu) -> Value {
    json!({ "opening_fee_params_menu": menu.0 })
}

/// `lsps2.buy` parameters, as the service reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuyRequest {
    /// The offer taken.
    pub params: FeeParams,
    /// The payment expected, msat; absent for a variable amount (J-26, J-27).
    pub size: Option<Msat>,
}

impl BuyRequest {
    /// Reads the parameters; a field too many inside `opening_fee_params` is named with a dot (T-08).
    pub fn parse(params: &Map<String, Value>) -> Result<Self, RpcError> {
        only_known(params, &["opening_fee_params", "payment_size_msat"])?;
        let bad_value = || RpcError::bad_params(&[]);
        let offer = params.get("opening_fee_params").ok_or_else(bad_value)?;
        let fields = offer.as_object().ok_or_else(bad_value)?;
        let unknown: Vec<String> = fields
            .keys()
            .filter(|name| !PARAM_FIELDS.contains(&name.as_str()))
            .map(|name| format!("opening_fee_params.{name}"))
            .collect();
        if !unknown.is_empty() {
            return Err(RpcError::bad_params(&unknown));
        }
        let size = match params.get("payment_size_msat") {
            None | Some(Value::Null) => None,
            Some(Value::String(size)) => Some(wire_msat::parse(size).ok_or_else(bad_value)?),
            Some(_) => return Err(bad_value()),
        };
        Ok(Self {
            params: read_params(offer).ok_or_else(bad_value)?,
            size,
        })
    }
}

/// What `buy` gives (J-35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuyResponse {
    /// The scid for the invoice's hop hint.
    pub scid: Scid,
    /// The CLTV delta for the hop hint, blocks.
    pub cltv_delta: u16,
    /// Who trusts whom; absent on the wire means that the LSP trusts the client.
    pub trust: TrustModel,
}

impl BuyResponse {
    /// The result to send.
    #[must_use]
    pub fn to_result(&self) -> Value {
        json!({
            "jit_channel_scid": self.scid,
            "lsp_cltv_expiry_delta": self.cltv_delta,
            "client_trusts_lsp": self.trust.client_trusts_lsp(),
        })
    }

    /// Reads a result; unknown keys are ignored (T-09), a `client_trusts_lsp` that is no boolean is an error (J-85).
    pub fn parse(result: &Value) -> Result<Self, Reason> {
        let scid = result
            .get("jit_channel_scid")
            .and_then(Value::as_str)
            .and_then(|scid| scid.parse().ok());
        let cltv_delta = result
            .get("lsp_cltv_expiry_delta")
            .and_then(Value::as_u64)
            .and_then(|delta| u16::try_from(delta).ok());
        let trust = match result.get("client_trusts_lsp") {
            None | Some(Value::Bool(false)) => TrustModel::LspTrustsClient,
            Some(Value::Bool(true)) => TrustModel::ClientTrustsLsp,
            Some(_) => return Err(Reason::BadResponse),
        };
        match (scid, cltv_delta) {
            (Some(scid), Some(cltv_delta)) => Ok(Self {
                scid,
                cltv_delta,
                trust,
            }),
            _ => Err(Reason::BadResponse),
        }
    }
}

// ---- messages, client side ----

/// One entry of a menu as a client keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The entry, understood.
    pub params: FeeParams,
    /// The entry as it came, to be returned unchanged (J-17, J-23).
    pub raw: Value,
}

/// Reads a `get_info` result; one entry with a strange field or too long a promise spoils all (J-16, J-18).
pub fn parse_menu(result: &Value) -> Result<Vec<Offer>, Reason> {
    result
        .get("opening_fee_params_menu")
        .and_then(Value::as_array)
        .ok_or(Reason::BadResponse)?
        .iter()
        .map(|raw| {
            read_params(raw)
                .filter(|params| json_size(&params.promise) <= MAX_PROMISE)
                .map(|params| Offer {
                    params,
                    raw: raw.clone(),
                })
                .ok_or(Reason::BadResponse)
        })
        .collect()
}

/// The parameters of `buy`: the entry verbatim, the size only if it is fixed (J-23, J-26, J-27).
#[must_use]
pub fn buy_params(offer: &Offer, size: Option<Msat>) -> Value {
    match size {
        None => json!({ "opening_fee_params": offer.raw }),
        Some(size) => json!({
            "opening_fee_params": offer.raw,
            "payment_size_msat": size.0.to_string(),
        }),
    }
}

// ---- decisions, service side ----

/// The menu for a client and its token, or why there is none (J-07, J-34). Offers whose smallest payment could not be
/// sold at present are left out: with no coins at all the menu is empty.
pub fn decide_get_info(
    rules: &Rules,
    stock: &Stock,
    books: &Books,
    request: &GetInfoRequest,
    client: &NodeId,
    secret: &Secret,
    now: Millis,
) -> Result<Menu, Reason> {
    let token = request.token.as_deref();
    rules.admit(client)?;
    let tiers = rules.offered(token, now, stock.chain_fee_sat)?;
    offer_tiers(rules, &tiers, stock, books, token, client, secret, now)
}

/// The menu of these tiers, the rules' or a hook's, as far as they can be sold at present.
#[allow(clippy::too_many_arguments)]
pub fn offer_tiers(
    rules: &Rules,
    tiers: &[FeeTier],
    stock: &Stock,
    books: &Books,
    token: Option<&str>,
    client: &NodeId,
    secret: &Secret,
    now: Millis,
) -> Result<Menu, Reason> {
    // Validated tiers always build; a menu that does not is ours to mend, not the client's.
    let mut menu = Menu::build(tiers, client, token, secret, now).map_err(|_| Reason::Internal)?;
    let known = token.is_some_and(|token| rules.knows(token));
    menu.0.retain(|params| {
        let needed = stock.needed_sat(params, None);
        needed.is_ok_and(|sat| {
            let promised = stock.promise(&rules.lending, books, known, sat);
            promised.is_ok()
        })
    });
    Ok(menu)
}

/// A sale that may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    /// The offer taken.
    pub params: FeeParams,
    /// The payment agreed, msat; absent for a variable amount.
    pub size: Option<Msat>,
    /// The fee agreed, msat; absent for a variable amount.
    pub fee: Option<Msat>,
    /// The token under whose menu the offer was made.
    pub token: Option<String>,
    /// Only a hook knows it.
    pub unknown_token: bool,
    /// Who trusts whom.
    pub trust: TrustModel,
    /// Coins promised until the channel is opened, sat.
    pub reserved_sat: u64,
}

/// What `decide_buy` must know of the service's present state.
#[derive(Clone, Copy, Debug)]
pub struct Seller<'a> {
    /// The policy in force.
    pub rules: &'a Rules,
    /// The key of the promises.
    pub secret: &'a Secret,
    /// Which token stands behind each grant that is still good: `Rules::grants`, and those a hook has given.
    pub grants: &'a BTreeMap<Grant, String>,
    /// The burden of all orders before this sale.
    pub books: &'a Books,
    /// Coins and inbound liquidity.
    pub stock: &'a Stock,
    /// The scores of this client and of all strangers.
    pub scores: (Score, Score),
}

/// Whether an offer may be sold to this client, refused in the fixed order of J-84: promise and expiry (201),
/// size (202, 203), overflow (203), fee (202), policy and coins (1), inbound liquidity (203).
///
/// A variable amount reserves the smallest payment of the offer, since nobody knows the real one; the open
/// checks again. A hook of the operator is asked after this.
pub fn decide_buy(
    seller: &Seller<'_>,
    request: &BuyRequest,
    client: &NodeId,
    now: Millis,
) -> Result<Sale, Reason> {
    let params = &request.params;
    let grant = verify_promise(seller.secret, params, client).ok_or(Reason::BadPromise)?;
    let token = if grant == Grant::NONE {
        None
    } else {
        let token = seller.grants.get(&grant).ok_or(Reason::BadPromise)?;
        Some(token.clone())
    };
    if !params.is_valid_at(now) {
        return Err(Reason::OfferExpired);
    }
    let fee = match request.size {
        None => None,
        Some(size) => {
            if size < params.min_payment_size_msat {
                return Err(Reason::BelowMinimum);
            }
            if size > params.max_payment_size_msat {
                return Err(Reason::AboveMaximum);
            }
            let fee = params.fee(size).ok_or(Reason::FeeOverflow)?;
            if fee >= size {
                return Err(Reason::FeeExceedsPayment);
            }
            Some(fee)
        }
    };
    let amount = request.size.unwrap_or(params.min_payment_size_msat);
    let (rules, books, stock) = (seller.rules, seller.books, seller.stock);
    rules.admit(client)?;
    let has_token = token.as_deref().is_some_and(|token| rules.knows(token));
    let (own, strangers) = seller.scores;
    let standing = Standing {
        client: own,
        strangers,
        strangers_owed: books.strangers.owed,
        has_token,
    };
    let trust = rules.patience.trust(rules.trust, &standing, now)?;
    rules
        .limits
        .check(&rules.lending, books, client, has_token, amount)?;
    let reserved_sat = stock.needed_sat(params, request.size)?;
    stock.promise(&rules.lending, books, has_token, reserved_sat)?;
    if amount > stock.inbound {
        return Err(Reason::NoLiquidity);
    }
    Ok(Sale {
        params: params.clone(),
        size: request.size,
        fee,
        unknown_token: token.is_some() && !has_token,
        token,
        trust,
        reserved_sat,
    })
}

// ---- decisions, client side ----

/// What a client wants to buy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The payment to receive, msat; absent for a variable amount.
    pub size: Option<Msat>,
    /// The highest opening fee accepted, msat; absent for any.
    pub max_fee: Option<Msat>,
    /// The `to_self_delay` the client will ask for, blocks (J-59).
    pub to_self_delay: u16,
    /// The offer must hold beyond this: now, or now and as long as the invoice should live (J-37).
    pub needed_until: Millis,
}

/// The cheapest offer for a wish, and its fee (absent for a variable amount) (J-08, J-22, J-28, S-76).
///
/// For a variable amount the least `min_fee_msat`, then the least `proportional`, counts as cheapest, and
/// the limit is held against `min_fee_msat` here and against the real fee when the payment comes.
pub fn choose_tier<'a>(
    offers: &'a [Offer],
    wish: &Wish,
) -> Result<(&'a Offer, Option<Msat>), Reason> {
    let mut overflowed = false;
    let mut best: Option<(&Offer, (Msat, u32))> = None;
    for offer in offers {
        let params = &offer.params;
        if !params.is_valid_at(wish.needed_until)
            || params.max_client_to_self_delay < u32::from(wish.to_self_delay)
        {
            continue;
        }
        let price = match wish.size {
            None => (params.min_fee_msat, params.proportional),
            Some(size) => {
                if size < params.min_payment_size_msat || size > params.max_payment_size_msat {
                    continue;
                }
                match params.fee(size) {
                    None => {
                        overflowed = true;
                        continue;
                    }
                    Some(fee) if fee >= size => continue,
                    Some(fee) => (fee, 0),
                }
            }
        };
        if best.is_none_or(|(_, least)| price < least) {
            best = Some((offer, price));
        }
    }
    match best {
        None if overflowed => Err(Reason::FeeOverflow),
        None => Err(Reason::NoTier),
        Some((_, (fee, _))) if wish.max_fee.is_some_and(|max| fee > max) => {
            Err(Reason::FeeAboveLimit)
        }
        Some((offer, (fee, _))) => Ok((offer, wish.size.map(|_| fee))),
    }
}

/// Whether a client goes on with what `buy` gave: it trusts only an LSP that is configured as trusted (J-03, B-17),
/// and takes no delta that nobody could pay.
pub fn check_buy_response(response: &BuyResponse, lsp_is_trusted: bool) -> Result<(), Reason> {
    if response.trust.client_trusts_lsp() && !lsp_is_trusted {
        Err(Reason::TrustRefused)
    } else if response.cltv_delta > MAX_CLTV_DELTA {
        Err(Reason::BadResponse)
    } else {
        Ok(())
    }
}

/// What a client bought, as far as the claim depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bought {
    /// The offer.
    pub params: FeeParams,
    /// The amount of the invoice, msat; absent for a variable amount.
    pub size: Option<Msat>,
    /// The highest opening fee accepted, msat; absent for any (S-33).
    pub max_fee: Option<Msat>,
}

/// A payment that could be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// What arrived, summed over the parts, msat.
    pub received: Msat,
    /// What the LSP took, summed over the parts, msat.
    pub skimmed: Msat,
    /// Whether every part came over a channel with the LSP of the order.
    pub by_lsp: bool,
}

/// Whether a client may claim (J-73…J-76): what the payer paid in msat, or why it must fail the payment.
///
/// `order` is the unserved order that the payment belongs to; without one nothing may have been skimmed.
pub fn claim_check(order: Option<&Bought>, arrived: &Arrived) -> Result<Msat, Reason> {
    let gross = arrived
        .received
        .checked_add(arrived.skimmed)
        .ok_or(Reason::AmountOverflow)?;
    let Some(order) = order else {
        return if arrived.skimmed == Msat::ZERO {
            Ok(gross)
        } else {
            Err(Reason::SkimTooHigh)
        };
    };
    if !arrived.by_lsp {
        return Err(Reason::WrongChannel);
    }
    if order.size.is_some_and(|size| gross < size) {
        return Err(Reason::Underpaid);
    }
    let fee = order
        .params
        .fee(order.size.unwrap_or(gross))
        .ok_or(Reason::FeeOverflow)?;
    if arrived.skimmed > fee {
        return Err(Reason::SkimTooHigh);
    }
    if order.max_fee.is_some_and(|max| arrived.skimmed > max) {
        return Err(Reason::FeeAboveLimit);
    }
    Ok(gross)
}

/// Whether an order can still be paid after a payment to it was failed back for this reason: the payer chose an amount
/// whose fee is above the client's limit and may choose a smaller one. Anything else is the LSP's breach of the order.
#[must_use]
pub fn may_be_paid_again(reason: Reason) -> bool {
    reason == Reason::FeeAboveLimit
}
