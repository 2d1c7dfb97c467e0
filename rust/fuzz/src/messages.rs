//! What a peer can send under LSPS0, LSPS2 and LSPS5, given as bytes, and what must hold whatever it is.

use std::collections::BTreeMap;

use ldkjit_core::amount::Msat;
use ldkjit_core::fee::opening_fee;
use ldkjit_core::ids::NodeId;
use ldkjit_core::liquidity::{Books, Stock};
use ldkjit_core::lsps0::{
    encode_request, encode_result, parse_request, parse_response, read_list_protocols, side_of,
    ErrorResponse, FromLsp, Request, RpcError, Side, MAX_PAYLOAD,
};
use ldkjit_core::lsps2::{
    buy_params, check_buy_response, choose_tier, decide_buy, decide_get_info, get_info_result,
    parse_menu, protocols_result, BuyRequest, BuyResponse, Call, GetInfoRequest, Sale, Seller,
    Wish,
};
use ldkjit_core::lsps5;
use ldkjit_core::menu::{
    is_ordered, sort_tiers, verify_promise, FeeParams, FeeTier, Grant, Menu, Secret,
};
use ldkjit_core::rules::Rules;
use ldkjit_core::sizing::Sizing;
use ldkjit_core::time::Millis;
use serde_json::Value;

const SECRET: Secret = Secret([7; 32]);
/// When the offers in the corpus were made.
pub const MADE_AT: Millis = Millis(1_795_000_000_123);
const CLIENT: NodeId = NodeId([2; 33]);
const TOKEN: &str = "gold";
const STOCK: Stock = Stock {
    coins_sat: 2_000_000,
    overhead_sat: 500,
    chain_fee_sat: 0,
    sizing: Sizing {
        sat_per_kw: 1_000,
        provision_ppm: 100_000,
        provision_sat: 10_000,
        min_sat: 20_000,
        max_sat: 10_000_000,
    },
    inbound: Msat(500_000_000),
};

fn is_clean(text: &str) -> bool {
    let direction = |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    text.chars().count() <= 256 && !text.chars().any(|c| c.is_control() || direction(c))
}

/// An error of ours fits a message, and no service takes it for a request.
fn check_error(response: &ErrorResponse) {
    let payload = response.encode();
    assert!(payload.len() <= MAX_PAYLOAD);
    assert!(is_clean(&response.error.message));
    assert_eq!(side_of(&payload, false), Side::Nobody);
    // Why is not on the wire.
    let told = RpcError {
        reason: None,
        ..response.error.clone()
    };
    let expected = FromLsp::Response {
        id: response.id.clone(),
        outcome: Err(told),
    };
    assert_eq!(parse_response(&payload), Ok(expected));
}

/// One payload, as either side may take it.
pub fn envelope(data: &[u8]) {
    let side = side_of(data, false);
    assert_ne!(side, Side::Client, "nobody was asked");
    match parse_request(data) {
        Ok(request) => {
            assert_eq!(side, Side::Service);
            assert_eq!(side_of(data, true), Side::Service);
            let params = Value::Object(request.params.clone());
            let again = encode_request(&request.id, &request.method, &params);
            let again = parse_request(&again).unwrap();
            assert_eq!((&again.id, &again.method), (&request.id, &request.method));
            // Their values too, but for fractions, which no message of ours has and which JSON does not keep to the last bit.
            assert!(again.params.keys().eq(request.params.keys()));
            let answer = encode_result(&request.id, &protocols_result(true, true));
            assert!(answer.len() <= MAX_PAYLOAD);
            assert_eq!(side_of(&answer, true), Side::Client);
        }
        Err(response) => check_error(&response),
    }
    match parse_response(data) {
        Ok(FromLsp::Response { outcome, .. }) => {
            assert_eq!(side_of(data, true), Side::Client);
            match outcome {
                Ok(result) => drop(read_list_protocols(&result)),
                Err(error) => {
                    assert!(is_clean(&error.message));
                    assert!(!(-32_099..=-32_000).contains(&error.effective_code()));
                    assert_eq!(side, Side::Nobody, "errors are never answered");
                }
            }
        }
        Ok(FromLsp::Notification { .. }) => assert_eq!(side_of(data, true), Side::Client),
        Err(_) => {}
    }
}

/// The menu of those without a token; with one the fee is half.
pub fn tiers(token: bool) -> Vec<FeeTier> {
    let tier = |fee: u64, valid_for_s| FeeTier {
        min_fee_msat: Msat(if token { fee / 2 } else { fee }),
        proportional_ppm: 4_000,
        min_payment_msat: Msat(10_000),
        max_payment_msat: Msat(1_000_000_000),
        min_lifetime_blocks: 1_008,
        max_client_to_self_delay: 2_016,
        valid_for_s,
    };
    vec![tier(2_000, 3_600), tier(20_000, 86_400)]
}

/// What the service of these tests sells at `MADE_AT`.
pub fn offers(token: Option<&str>) -> Menu {
    Menu::build(&tiers(token.is_some()), &CLIENT, token, &SECRET, MADE_AT).unwrap()
}

fn decide(call: &BuyRequest, now: Millis) -> Result<Sale, ldkjit_core::reason::Reason> {
    let rules = Rules {
        menu: tiers(false),
        token_menus: BTreeMap::from([(TOKEN.to_owned(), tiers(true))]),
        ..Rules::default()
    };
    let seller = Seller {
        rules: &rules,
        secret: &SECRET,
        grants: &rules.grants(&SECRET),
        books: &Books::default(),
        stock: &STOCK,
        scores: Default::default(),
    };
    decide_buy(&seller, call, &CLIENT, now)
}

/// One payload to the service: what it sells is what it offered, and every answer can be sent.
pub fn service(data: &[u8]) {
    let Ok(request) = parse_request(data) else {
        return;
    };
    assert!(!matches!(
        Call::parse(&request, false),
        Ok(Call::GetInfo(_) | Call::Buy(_))
    ));
    let refuse = |error: RpcError| {
        let code = error.code;
        check_error(&error.answering(&request.id));
        code
    };
    webhook(&request, data);
    match Call::parse(&request, true) {
        Err(error) => {
            let code = refuse(error);
            assert!([-32_601, -32_602].contains(&code), "{code}");
        }
        Ok(Call::ListProtocols) => {}
        Ok(Call::GetInfo(ask)) => {
            let rules = Rules {
                menu: tiers(false),
                token_menus: BTreeMap::from([(TOKEN.to_owned(), tiers(true))]),
                ..Rules::default()
            };
            let books = Books::default();
            match decide_get_info(&rules, &STOCK, &books, &ask, &CLIENT, &SECRET, MADE_AT) {
                Ok(menu) => {
                    assert_eq!(menu, offers(ask.token.as_deref()));
                    let answer = encode_result(&request.id, &get_info_result(&menu));
                    assert!(answer.len() <= MAX_PAYLOAD);
                }
                Err(reason) => {
                    assert_eq!(refuse(RpcError::refusal(reason, None)), 200);
                    assert!(ask.token.is_some_and(|token| token != TOKEN));
                }
            }
        }
        Ok(Call::Buy(buy)) => {
            for later_ms in [0, 3_599_999, 3_600_000, 86_400_000] {
                let now = MADE_AT.saturating_add(later_ms);
                match decide(&buy, now) {
                    Ok(sale) => check_sale(&buy, &sale, now),
                    Err(reason) => {
                        let code = refuse(RpcError::refusal(reason, None));
                        assert!([1, 201, 202, 203].contains(&code), "{code}");
                    }
                }
            }
        }
    }
}

/// What is taken for a webhook is one, and nothing of it can end a line of what is sent to it.
fn webhook(request: &Request, data: &[u8]) {
    match lsps5::Call::parse(request, data) {
        Ok(lsps5::Call::Set(set)) => {
            let url = set.webhook;
            assert!(set.app_name.len() <= lsps5::MAX_APP_NAME);
            assert!(url.as_str().len() <= lsps5::MAX_URL);
            assert!(lsps5::set_params(&set.app_name, url.as_str()).is_ok());
            for part in [url.target(), &url.host_header()] {
                assert!(!part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
        Ok(_) => assert!(request.method.starts_with(lsps5::PREFIX)),
        Err(error) => {
            assert!([-32_602, -32_601, 500, 501, 502].contains(&error.code));
            check_error(&error.answering(&request.id));
        }
    }
}

fn check_sale(buy: &BuyRequest, sale: &Sale, now: Millis) {
    let ours = offers(sale.token.as_deref());
    let offer = ours.0.iter().find(|offer| **offer == sale.params);
    assert!(offer.is_some(), "sold what was never offered");
    assert!(now < sale.params.valid_until);
    assert_eq!(sale.size, buy.size);
    if let Some(size) = sale.size {
        let p = &sale.params;
        assert!(p.min_payment_size_msat <= size && size <= p.max_payment_size_msat);
        let fee = opening_fee(size, p.min_fee_msat, p.proportional);
        assert_eq!(sale.fee, fee);
        assert!(fee.unwrap() < size);
    }
    let amount = sale.size.unwrap_or(sale.params.min_payment_size_msat);
    assert!(amount <= STOCK.inbound && sale.reserved_sat <= STOCK.coins_sat);
}

/// One payload to a wallet that asked for a menu, for a sale, or for neither.
pub fn client(data: &[u8]) {
    let Ok(FromLsp::Response {
        outcome: Ok(result),
        ..
    }) = parse_response(data)
    else {
        return;
    };
    if let Ok(bought) = BuyResponse::parse(&result) {
        assert_eq!(BuyResponse::parse(&bought.to_result()), Ok(bought));
        let trusts = bought.trust.client_trusts_lsp();
        assert!(check_buy_response(&bought, false).is_err() || !trusts);
        assert!(check_buy_response(&bought, true).is_err() || bought.cltv_delta <= 1_008);
    }
    let Ok(menu) = parse_menu(&result) else {
        return;
    };
    let _ = is_ordered(menu.iter().map(|offer| &offer.params));
    for size in [
        None,
        Some(Msat(50_000)),
        Some(Msat(40_000_000)),
        Some(Msat(u64::MAX)),
    ] {
        for max_fee in [None, Some(Msat(3_000))] {
            let wish = Wish {
                size,
                max_fee,
                to_self_delay: 144,
                needed_until: MADE_AT,
            };
            let Ok((offer, fee)) = choose_tier(&menu, &wish) else {
                continue;
            };
            check_choice(&menu, &wish, &offer.params, fee);
            // The LSP gets back what it gave (J-23).
            let params = buy_params(offer, size);
            let params = params.as_object().unwrap();
            let read = BuyRequest::parse(params).unwrap();
            assert_eq!((&read.params, read.size), (&offer.params, size));
            assert_eq!(params["opening_fee_params"], offer.raw);
        }
    }
    drop(GetInfoRequest::parse(result.as_object().unwrap()));
}

fn check_choice(
    menu: &[ldkjit_core::lsps2::Offer],
    wish: &Wish,
    chosen: &FeeParams,
    fee: Option<Msat>,
) {
    assert!(wish.needed_until < chosen.valid_until);
    assert!(chosen.max_client_to_self_delay >= u32::from(wish.to_self_delay));
    let price = fee.unwrap_or(chosen.min_fee_msat);
    assert!(wish.max_fee.is_none_or(|max| price <= max));
    assert_eq!(fee.is_some(), wish.size.is_some());
    let Some(size) = wish.size else {
        return;
    };
    assert!(price < size);
    assert!(chosen.min_payment_size_msat <= size && size <= chosen.max_payment_size_msat);
    for other in menu.iter().map(|offer| &offer.params) {
        let fits = other.min_payment_size_msat <= size
            && size <= other.max_payment_size_msat
            && wish.needed_until < other.valid_until
            && other.max_client_to_self_delay >= u32::from(wish.to_self_delay);
        if let Some(cheaper) = other.fee(size).filter(|fee| fits && *fee < price) {
            panic!("{cheaper:?} would have been cheaper");
        }
    }
}

/// Tiers of an operator, 38 bytes each, and an offer of theirs with something else in it: the promise holds for the one
/// and not for the other. The first three bytes choose what is changed.
pub fn menu(data: &[u8]) {
    let Some((choice, rest)) = data.split_at_checked(3) else {
        return;
    };
    let tiers: Vec<FeeTier> = rest.chunks_exact(38).map(tier).collect();
    let token = (choice[0] & 1 == 1).then_some(TOKEN);
    let sorted = sort_tiers(&tiers);
    let built = Menu::build(&tiers, &CLIENT, token, &SECRET, MADE_AT);
    assert_eq!(sorted.as_ref().err(), built.as_ref().err());
    let Ok(built) = built else {
        return;
    };
    assert!(is_ordered(built.0.iter()));
    assert_eq!(built.0.len(), tiers.len());
    let answer = encode_result(&"i".repeat(1_024), &get_info_result(&built));
    assert!(answer.len() <= MAX_PAYLOAD);
    let read = parse_menu(&get_info_result(&built)).unwrap();
    for (offer, read) in built.0.iter().zip(&read) {
        // Beyond the year 9999 a date-time has no spelling that both sides share.
        assert_eq!(*offer, read.params);
        let grant = verify_promise(&SECRET, &read.params, &CLIENT);
        assert_eq!(grant, Some(Grant::of(&SECRET, token)));
        assert_eq!(verify_promise(&SECRET, offer, &NodeId([3; 33])), None);
        assert_eq!(verify_promise(&Secret([8; 32]), offer, &CLIENT), None);
        let by = u32::from(choice[1]).max(1);
        let mut other = offer.clone();
        match choice[0] >> 1 {
            0 => other.min_fee_msat.0 ^= u64::from(by),
            1 => other.proportional ^= by,
            2 => other.valid_until.0 ^= u64::from(by),
            3 => other.min_lifetime ^= by,
            4 => other.max_client_to_self_delay ^= by,
            5 => other.min_payment_size_msat.0 ^= u64::from(by),
            6 => other.max_payment_size_msat.0 ^= u64::from(by),
            n => {
                let at = usize::from(choice[2]) % other.promise.len();
                let mut bytes = other.promise.clone().into_bytes();
                bytes[at] ^= 1 << (n % 7);
                let Ok(promise) = String::from_utf8(bytes) else {
                    continue;
                };
                other.promise = promise;
            }
        }
        assert_eq!(verify_promise(&SECRET, &other, &CLIENT), None);
    }
}

fn tier(bytes: &[u8]) -> FeeTier {
    fn eight(bytes: &[u8]) -> u64 {
        u64::from_be_bytes(bytes.try_into().unwrap())
    }
    fn four(bytes: &[u8]) -> u32 {
        u32::from_be_bytes(bytes.try_into().unwrap())
    }
    FeeTier {
        min_fee_msat: Msat(eight(&bytes[..8])),
        proportional_ppm: four(&bytes[8..12]),
        min_payment_msat: Msat(eight(&bytes[12..20])),
        max_payment_msat: Msat(eight(&bytes[20..28])),
        min_lifetime_blocks: four(&bytes[28..32]),
        max_client_to_self_delay: u16::from_be_bytes([bytes[32], bytes[33]]),
        valid_for_s: four(&bytes[34..38]),
    }
}
