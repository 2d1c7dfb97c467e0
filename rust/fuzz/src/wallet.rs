//! What a wallet is given to read by people and programs: invoices, peers, words, and its own settings.

use std::str::FromStr;

use bech32::{Bech32, Fe32, Fe32IterExt, Hrp};
use bitcoin::Network;
use ldkjit_node::config::{parse_peer, Config};
use ldkjit_node::keys::Seed;
use ldkjit_node::payments::parse_invoice;
use lightning_invoice::Bolt11Invoice;

/// The first byte chooses what the rest is.
pub fn wallet(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 4 {
        0 => {
            if let Ok(text) = std::str::from_utf8(rest) {
                invoice(text);
                peer(text);
                if let Err(error) = Seed::parse(text) {
                    check_words(&error.message);
                }
            }
        }
        1 => signed(rest, "lnbcrt"),
        2 => signed(rest, "lnbc2500u"),
        _ => {
            if let Ok(value) = serde_json::from_slice(rest) {
                if let Err(error) = Config::from_json(value) {
                    assert_eq!(error.code, "config");
                }
            }
        }
    }
}

/// These bytes as an invoice with a right checksum, so that what is behind it is reached too.
fn signed(data: &[u8], hrp: &str) {
    let words = data.iter().filter_map(|b| Fe32::try_from(b & 31).ok());
    let hrp = Hrp::parse(hrp).unwrap();
    let text: String = words.with_checksum::<Bech32>(&hrp).chars().collect();
    invoice(&text);
}

fn invoice(text: &str) {
    for network in [Network::Regtest, Network::Bitcoin] {
        let invoice = match parse_invoice(text, network) {
            Ok(invoice) => invoice,
            Err(error) => {
                assert_eq!(error.code, "invoice");
                continue;
            }
        };
        // What paying and showing it look at.
        let _ = invoice.is_expired();
        let _ = invoice.expires_at();
        let _ = (invoice.description().to_string(), invoice.route_hints());
        let _ = invoice.features().is_some_and(|f| f.supports_basic_mpp());
        let _ = (invoice.amount_milli_satoshis(), invoice.get_payee_pub_key());
        let _ = (
            invoice.payment_secret(),
            invoice.min_final_cltv_expiry_delta(),
        );
        let again = Bolt11Invoice::from_str(&invoice.to_string()).unwrap();
        assert_eq!(again, invoice);
    }
}

fn peer(text: &str) {
    if let Ok((id, address)) = parse_peer(text) {
        let (host, port) = address.rsplit_once(':').unwrap();
        assert!(!host.is_empty());
        assert!(port.parse::<u16>().is_ok());
        assert!(text.to_lowercase().starts_with(&id.to_string()));
        assert!(text.ends_with(&address));
        assert!(address.bytes().all(|b| b.is_ascii_graphic()), "{address:?}");
        assert!(address.len() <= 259);
    }
}

/// The error of wrong words is one of these texts, whatever the words: only numbers differ.
fn check_words(error: &str) {
    let text: String = error.chars().filter(|c| !c.is_ascii_digit()).collect();
    let texts = [
        "the mnemonic is not valid: word  is not in the list",
        "the mnemonic is not valid: the mnemonic has an invalid checksum",
        "the mnemonic is not valid: mnemonic has an invalid word count: . Word count must be , , , , or ",
    ];
    assert!(texts.contains(&text.as_str()), "{error:?}");
}
