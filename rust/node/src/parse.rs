//! What a person pastes or scans: invoices, addresses, BIP 21, LNURL and Lightning addresses, told apart and taken apart.
//!
//! Needs no node and no network. What it gives is a stranger's: whoever shows a text of it escapes it first.

use std::collections::BTreeSet;
use std::str::FromStr;

use bitcoin::address::NetworkUnchecked;
use bitcoin::bech32::primitives::decode::CheckedHrpstring;
use bitcoin::bech32::Bech32;
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Amount, Denomination, Network};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef, Currency};
use percent_encoding::percent_decode_str;
use serde_json::{json, Map, Value};

use crate::error::NodeError;
use crate::payments::network_name;

/// More than the longest text that a QR code can hold.
const MAX_LENGTH: usize = 8_192;
const MAX_NAME: usize = 64;
const MAX_DOMAIN: usize = 253;
const MSAT_PER_SAT: u64 = 1_000;
/// Schemes of LUD-17, and what each asks for.
const LNURL_SCHEMES: [(&str, Option<&str>); 4] = [
    ("lnurlp", Some("pay")),
    ("lnurlw", Some("withdraw")),
    ("lnurlc", Some("channel")),
    ("keyauth", Some("auth")),
];

/// Reads a text.
///
/// # Errors
/// `parse` with why `empty`, `too_long`, `unknown`, `malformed`, `unsupported`, `required` or `wrong_network`.
pub fn parse(text: &str) -> Result<Value, NodeError> {
    let text = text.trim();
    if text.is_empty() {
        return refuse("empty", "there is nothing to read");
    }
    if text.len() > MAX_LENGTH {
        return refuse("too_long", "it is longer than any invoice or address");
    }
    if text.chars().any(char::is_control) {
        return refuse("malformed", "it has a control character");
    }
    let text = without_scheme(text, "lightning").unwrap_or(text);
    if let Some(rest) = without_scheme(text, "bitcoin") {
        return bip21(rest);
    }
    for (scheme, tag) in LNURL_SCHEMES {
        if let Some(rest) = without_scheme(text, scheme) {
            return lnurl_of_scheme(rest, tag);
        }
    }
    if without_scheme(text, "https").is_some() || without_scheme(text, "http").is_some() {
        return lnurl_in_link(text);
    }
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("lnurl1") {
        return lnurl(text);
    }
    if lower.starts_with("lno1") || lower.starts_with("lnr1") || lower.starts_with("lni1") {
        return refuse("unsupported", "BOLT 12 offers and invoices cannot be paid");
    }
    if lower.starts_with("ln") && !text.contains('@') {
        return bolt11(text);
    }
    if text.contains('@') {
        return lightning_address(text);
    }
    match Address::from_str(text) {
        Ok(address) => on_chain(&address),
        Err(_) => refuse(
            "unknown",
            "it is no invoice, address or link that can be paid",
        ),
    }
}

fn refuse<T>(why: &'static str, message: impl Into<String>) -> Result<T, NodeError> {
    Err(NodeError::parse(why, message))
}

/// What follows `scheme:` or `scheme://`, in whatever case.
fn without_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_once(':')?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn bolt11(text: &str) -> Result<Value, NodeError> {
    let invoice = match Bolt11Invoice::from_str(text) {
        Ok(invoice) => invoice,
        Err(e) => return refuse("malformed", format!("not a BOLT 11 invoice: {e}")),
    };
    if invoice.currency() == Currency::Simnet {
        return refuse("unsupported", "an invoice of simnet cannot be paid");
    }
    let created_ms = u64::try_from(invoice.duration_since_epoch().as_millis()).unwrap_or(u64::MAX);
    let expiry_ms = u64::try_from(invoice.expiry_time().as_millis()).unwrap_or(u64::MAX);
    let (description, description_hash) = match invoice.description() {
        Bolt11InvoiceDescriptionRef::Direct(text) => (Some(text.to_string()), None),
        Bolt11InvoiceDescriptionRef::Hash(hash) => (None, Some(hash.0.to_string())),
    };
    Ok(json!({
        "kind": "bolt11",
        "bolt11": text.to_ascii_lowercase(),
        "network": network_name(&invoice.currency()),
        "payment_hash": AsRef::<[u8; 32]>::as_ref(invoice.payment_hash()).to_lower_hex_string(),
        "payee": invoice.get_payee_pub_key().to_string(),
        "amount_msat": invoice.amount_milli_satoshis(),
        "description": description,
        "description_hash": description_hash,
        "created_at_ms": created_ms,
        "expires_at_ms": created_ms.saturating_add(expiry_ms),
        "min_final_cltv_delta": invoice.min_final_cltv_expiry_delta(),
    }))
}

/// An address says less than a network: `tb1…` is of testnet and signet alike.
fn networks(address: &Address<NetworkUnchecked>) -> Vec<&'static str> {
    [
        (Network::Bitcoin, "bitcoin"),
        (Network::Testnet, "testnet"),
        (Network::Signet, "signet"),
        (Network::Regtest, "regtest"),
    ]
    .into_iter()
    .filter(|(network, _)| address.is_valid_for_network(*network))
    .map(|(_, name)| name)
    .collect()
}

fn on_chain(address: &Address<NetworkUnchecked>) -> Result<Value, NodeError> {
    Ok(json!({
        "kind": "address",
        "address": address.clone().assume_checked().to_string(),
        "networks": networks(address),
    }))
}

/// BIP 21 and what BIP 321 adds to it: an address, an amount and an invoice for the same payment.
fn bip21(rest: &str) -> Result<Value, NodeError> {
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut told = Map::from_iter([("kind".to_owned(), json!("bip21"))]);
    let mut of = None;
    if !address.is_empty() {
        let Ok(address) = Address::from_str(address) else {
            return refuse("malformed", "the address of the link is none");
        };
        of = Some(networks(&address));
        told.insert(
            "address".into(),
            json!(address.assume_checked().to_string()),
        );
    }
    let mut seen = BTreeSet::new();
    for (key, value) in query.split('&').filter(|pair| !pair.is_empty()).map(pair) {
        let key = key.to_ascii_lowercase();
        let value = decoded(value)?;
        if !seen.insert(key.clone()) {
            return refuse("malformed", format!("the link names {key} twice"));
        }
        match key.as_str() {
            "amount" => {
                let amount = Amount::from_str_in(&value, Denomination::Bitcoin);
                let amount = amount.ok().filter(|amount| *amount <= Amount::MAX_MONEY);
                let Some(amount) = amount else {
                    return refuse("malformed", "the amount of the link is none");
                };
                let msat = amount.to_sat().saturating_mul(MSAT_PER_SAT);
                told.insert("amount_msat".into(), json!(msat));
            }
            "label" | "message" => {
                told.insert(key, json!(value));
            }
            "lightning" => {
                let invoice = bolt11(value.trim())?;
                let network = invoice
                    .get("network")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                if of.as_ref().is_some_and(|of| !of.contains(&network)) {
                    return refuse(
                        "wrong_network",
                        "address and invoice of the link are of two networks",
                    );
                }
                told.insert("lightning".into(), invoice);
            }
            // Who does not know it must not pay.
            _ if key.starts_with("req-") => {
                return refuse(
                    "required",
                    format!("the link asks for {key}, which is not known"),
                );
            }
            _ => {}
        }
    }
    if !told.contains_key("address") && !told.contains_key("lightning") {
        return refuse(
            "malformed",
            "the link has neither an address nor an invoice",
        );
    }
    Ok(Value::Object(told))
}

fn pair(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, ""))
}

fn decoded(value: &str) -> Result<String, NodeError> {
    match percent_decode_str(value).decode_utf8() {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text.into_owned()),
        _ => refuse("malformed", "the link has bytes that are no text"),
    }
}

/// LUD-01: a URL in bech32, as long as it may be.
fn lnurl(text: &str) -> Result<Value, NodeError> {
    let data = CheckedHrpstring::new::<Bech32>(text).ok();
    let data = data.filter(|data| data.hrp().to_lowercase() == "lnurl");
    let bytes: Option<Vec<u8>> = data.map(|data| data.byte_iter().collect());
    match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(url) => lnurl_to(&url, None),
        None => refuse("malformed", "not an LNURL: its checksum is wrong"),
    }
}

/// LUD-17: a URL with a scheme of its own.
fn lnurl_of_scheme(rest: &str, tag: Option<&str>) -> Result<Value, NodeError> {
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let scheme = if is_onion(host) { "http" } else { "https" };
    lnurl_to(&format!("{scheme}://{rest}"), tag)
}

/// LUD-01: a link for browsers, with the LNURL in it.
fn lnurl_in_link(text: &str) -> Result<Value, NodeError> {
    let query = text.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let mut pairs = query.split('&').map(pair);
    match pairs.find(|(key, _)| key.eq_ignore_ascii_case("lightning")) {
        Some((_, value)) if value.to_ascii_lowercase().starts_with("lnurl1") => lnurl(value),
        _ => refuse("unknown", "the link has no LNURL in it"),
    }
}

fn is_onion(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.to_ascii_lowercase().ends_with(".onion")
}

fn lnurl_to(url: &str, tag: Option<&str>) -> Result<Value, NodeError> {
    let (host, is_secure) = match (without_scheme(url, "https"), without_scheme(url, "http")) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return refuse("malformed", "the LNURL is no link"),
    };
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if !is_domain(name) {
        return refuse("malformed", "the LNURL names no host");
    }
    if !is_secure && !is_onion(host) {
        return refuse("malformed", "the LNURL is not https");
    }
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let named = query.split('&').map(pair).find(|(key, _)| *key == "tag");
    let login = named.filter(|(_, value)| *value == "login").map(|_| "auth");
    Ok(
        json!({ "kind": "lnurl", "url": url, "domain": host.to_ascii_lowercase(), "tag": tag.or(login) }),
    )
}

/// LUD-16: whom to pay, by name and domain.
fn lightning_address(text: &str) -> Result<Value, NodeError> {
    let text = text.strip_prefix('₿').unwrap_or(text).to_ascii_lowercase();
    let Some((name, domain)) = text.split_once('@') else {
        return refuse("unknown", "it is no Lightning address");
    };
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.+".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_name) {
        return refuse("malformed", "the name before the @ is none");
    }
    let host = domain.rsplit_once(':').map_or(domain, |(host, _)| host);
    if !is_domain(host) || !host.contains('.') {
        return refuse("malformed", "there is no domain after the @");
    }
    let scheme = if is_onion(domain) { "http" } else { "https" };
    Ok(json!({
        "kind": "lightning_address",
        "address": text,
        "url": format!("{scheme}://{domain}/.well-known/lnurlp/{name}"),
        "domain": domain,
    }))
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = label
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= MAX_DOMAIN && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn why(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code, "parse");
        error.details["why"].as_str().unwrap().to_owned()
    }

    /// BOLT 11's example without an amount.
    const DONATION: &str = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";
    /// LUD-01's example.
    const LNURL: &str = "LNURL1DP68GURN8GHJ7UM9WFMXJCM99E3K7MF0V9CXJ0M385EKVCENXC6R2C35XVUKXEFCV5MKVV34X5EKZD3EV56NYD3HXQURZEPEXEJXXEPNXSCRVWFNV9NXZCN9XQ6XYEFHVGCXXCMYXYMNSERXFQ5FNS";

    #[test]
    fn an_invoice() {
        for text in [
            DONATION.to_owned(),
            format!(" lightning:{DONATION}\n"),
            format!("LIGHTNING://{}", DONATION.to_uppercase()),
        ] {
            let told = parse(&text).unwrap();
            assert_eq!(told["kind"], "bolt11");
            assert_eq!(told["bolt11"], DONATION);
            assert_eq!(told["network"], "bitcoin");
            assert_eq!(told["amount_msat"], Value::Null);
            assert_eq!(
                told["description"],
                "Please consider supporting this project"
            );
            assert_eq!(
                told["payment_hash"],
                "0001020304050607080900010203040506070809000102030405060708090102"
            );
            assert_eq!(
                told["payee"],
                "03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad"
            );
            assert_eq!(told["created_at_ms"], 1_496_314_658_000_u64);
            assert_eq!(told["expires_at_ms"], 1_496_318_258_000_u64);
        }
        assert_eq!(why(&DONATION.replace("fyql", "fyqq")), "malformed");
        assert_eq!(why("lno1pqps7sjqpgt"), "unsupported");
    }

    #[test]
    fn an_address() {
        let told = parse("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080").unwrap();
        assert_eq!(told["networks"], json!(["regtest"]));
        let told = parse("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx").unwrap();
        assert_eq!(told["networks"], json!(["testnet", "signet"]));
        assert_eq!(
            why("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081"),
            "unknown"
        );
    }

    #[test]
    fn a_bitcoin_link() {
        let address = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
        let told = parse(&format!(
            "bitcoin:{address}?amount=20.3&label=Luke-Jr&message=Donation%20for"
        ))
        .unwrap();
        assert_eq!(told["address"], address);
        assert_eq!(told["amount_msat"], 2_030_000_000_000_u64);
        assert_eq!(told["label"], "Luke-Jr");
        assert_eq!(told["message"], "Donation for");
        let told = parse(&format!(
            "BITCOIN:{address}?LIGHTNING={}",
            DONATION.to_uppercase()
        ))
        .unwrap();
        assert_eq!(told["lightning"]["bolt11"], DONATION);
        assert_eq!(
            parse(&format!("bitcoin:?lightning={DONATION}")).unwrap()["kind"],
            "bip21"
        );
        for (link, expected) in [
            (
                format!("bitcoin:{address}?req-somethingyoudontunderstand=50"),
                "required",
            ),
            (format!("bitcoin:{address}?amount=1&amount=2"), "malformed"),
            (format!("bitcoin:{address}?amount=-1"), "malformed"),
            (format!("bitcoin:{address}?amount=0.000000001"), "malformed"),
            (format!("bitcoin:{address}?amount=21000001"), "malformed"),
            (format!("bitcoin:{address}?label=%ff"), "malformed"),
            (format!("bitcoin:{address}?label=%0a"), "malformed"),
            ("bitcoin:?amount=1".to_owned(), "malformed"),
            ("bitcoin:nobody".to_owned(), "malformed"),
            (
                format!(
                    "bitcoin:bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080?lightning={DONATION}"
                ),
                "wrong_network",
            ),
        ] {
            assert_eq!(why(&link), expected, "{link}");
        }
    }

    #[test]
    fn an_lnurl() {
        let url = "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df";
        for text in [
            LNURL.to_owned(),
            LNURL.to_lowercase(),
            format!("https://service.com/giftcard/redeem?id=123&lightning={LNURL}"),
        ] {
            let told = parse(&text).unwrap();
            assert_eq!(told["url"], url);
            assert_eq!(told["domain"], "service.com");
            assert_eq!(told["tag"], Value::Null);
        }
        let told = parse("lnurlp://domain.com/path?x=1").unwrap();
        assert_eq!(
            (&told["url"], &told["tag"]),
            (&json!("https://domain.com/path?x=1"), &json!("pay"))
        );
        let told = parse("keyauth://abc.onion/login?tag=login").unwrap();
        assert_eq!(
            (&told["url"], &told["tag"]),
            (&json!("http://abc.onion/login?tag=login"), &json!("auth"))
        );
        assert_eq!(why(&LNURL.replace("5FNS", "5FNQ")), "malformed");
        assert_eq!(why("https://service.com/"), "unknown");
        assert_eq!(why("lnurlp:///path"), "malformed");
    }

    #[test]
    fn a_lightning_address() {
        let told = parse("Satoshi@Example.com").unwrap();
        assert_eq!(told["address"], "satoshi@example.com");
        assert_eq!(
            told["url"],
            "https://example.com/.well-known/lnurlp/satoshi"
        );
        assert_eq!(
            parse("lnbcfan+tips@example.com").unwrap()["kind"],
            "lightning_address"
        );
        for text in [
            "@example.com",
            "a@",
            "a@localhost",
            "a b@example.com",
            "a@-x.com",
            "a@b@c.com",
        ] {
            assert_eq!(why(text), "malformed", "{text}");
        }
    }

    #[test]
    fn nothing_that_can_be_paid() {
        assert_eq!(why("  "), "empty");
        assert_eq!(why(&"x".repeat(MAX_LENGTH + 1)), "too_long");
        assert_eq!(why("a\u{0}b"), "malformed");
        assert_eq!(why("hello"), "unknown");
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_text_behind_a_scheme_has_an_answer(
            scheme in "(bitcoin:|lightning:|lnurl1|lnurlp://|lnbc1|lnbcrt1|a@|https://x?lightning=)",
            text in "[ -~]{0,200}",
        ) {
            let _ = parse(&format!("{scheme}{text}"));
        }
    }
}
