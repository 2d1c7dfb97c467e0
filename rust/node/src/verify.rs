//! Whether a notification that came to a webhook is an LSP's (LSPS5): for those who receive it, without a node.

use std::sync::Mutex;

use bitcoin::hashes::{sha256, Hash, HashEngine};
use ldkjit_core::ids::NodeId;
use ldkjit_core::lsps5::{check_window, read_notification, signing_text, Disbelief};
use ldkjit_core::time::Millis;
use lightning::util::message_signing;
use serde_json::{json, Value};

use crate::convert;
use crate::error::NodeError;
use crate::sync::lock;

pub use ldkjit_core::webhooks::Seen;

/// No signature is longer, characters.
const MAX_SIGNATURE: usize = 128;

/// What came, and what it is held against.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// The body of the request, as it came.
    pub body: &'a [u8],
    /// The header `x-lsps5-timestamp`, as it came: it is signed as text.
    pub timestamp: &'a str,
    /// The header `x-lsps5-signature`.
    pub signature: &'a str,
    /// Who must have sent it.
    pub lsp: &'a str,
    /// Whom it is for. The same text may be for several devices, as it names none.
    pub recipient: &'a str,
}

/// Reads a notification and checks that this LSP has signed it within `window_ms` of now, either way, and that it was not
/// seen before (W-25).
///
/// # Errors
/// `webhook`; `config` for an LSP that is no node id.
pub fn verify(
    received: &Received<'_>,
    window_ms: u64,
    now_ms: u64,
    seen: Option<&Mutex<Seen>>,
) -> Result<Value, NodeError> {
    let lsp = received.lsp.parse::<NodeId>().ok();
    let lsp = lsp.and_then(|id| convert::public_key(&id));
    let lsp =
        lsp.ok_or_else(|| NodeError::config("lsp_node_id: 66 hex digits of a point on the curve"))?;
    let disbelieve = |why: Disbelief| NodeError::webhook(why.word(), why.message());
    let body = std::str::from_utf8(received.body).map_err(|_| disbelieve(Disbelief::Body))?;
    let notification = read_notification(body, received.timestamp).map_err(disbelieve)?;
    let text = signing_text(received.timestamp, body);
    let signature = received.signature;
    if signature.len() > MAX_SIGNATURE || !message_signing::verify(text.as_bytes(), signature, &lsp)
    {
        return Err(disbelieve(Disbelief::Signature));
    }
    check_window(notification.at, Millis(now_ms), window_ms).map_err(disbelieve)?;
    if let Some(seen) = seen {
        // Not by the signature: anybody can make a second one of it that is as valid.
        let mut engine = sha256::Hash::engine();
        let length = u64::try_from(received.recipient.len()).unwrap_or(u64::MAX);
        engine.input(&length.to_be_bytes());
        engine.input(received.recipient.as_bytes());
        engine.input(&lsp.serialize());
        engine.input(text.as_bytes());
        let digest = sha256::Hash::from_engine(engine).to_byte_array();
        let until = notification.at.saturating_add(window_ms);
        if !lock(seen).first_time(digest, until, Millis(now_ms)) {
            return Err(disbelieve(Disbelief::Replay));
        }
    }
    Ok(json!({
        "method": notification.method,
        "params": notification.params,
        "at_ms": notification.at.0,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(non_snake_case, clippy::unwrap_used, clippy::arithmetic_side_effects)]
    use super::*;
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
    use ldkjit_core::lsps5::Notice;
    use ldkjit_core::time::parse_datetime;
    use lightning_liquidity::lsps0::ser::LSPSDateTime;
    use lightning_liquidity::lsps5::msgs::WebhookNotification;
    use lightning_liquidity::lsps5::validator::LSPS5Validator;
    use std::str::FromStr;

    const AT: &str = "2023-05-04T10:52:58.395Z";
    const WINDOW: u64 = 600_000;

    fn keys(n: u8) -> (SecretKey, PublicKey) {
        let key = SecretKey::from_slice(&[n; 32]).unwrap();
        (key, PublicKey::from_secret_key(&Secp256k1::new(), &key))
    }

    fn sign(timestamp: &str, body: &str) -> String {
        message_signing::sign(signing_text(timestamp, body).as_bytes(), &keys(1).0)
    }

    fn why(outcome: Result<Value, NodeError>) -> Option<String> {
        let error = outcome.err()?;
        assert_eq!(error.code, "webhook");
        error
            .details
            .get("why")
            .unwrap()
            .as_str()
            .map(str::to_owned)
    }

    fn told(
        body: &str,
        timestamp: &str,
        signature: &str,
        seen: Option<&Mutex<Seen>>,
    ) -> Option<String> {
        let (_, lsp) = keys(1);
        let received = Received {
            body: body.as_bytes(),
            timestamp,
            signature,
            lsp: &lsp.to_string(),
            recipient: "",
        };
        why(verify(
            &received,
            WINDOW,
            parse_datetime(AT).unwrap().0,
            seen,
        ))
    }

    #[test]
    fn test_T_25_W_17_W_25_what_is_believed() {
        let body = Notice::ExpirySoon { timeout: 7 }.body();
        let signature = sign(AT, &body);
        let (_, lsp) = keys(1);
        let lsp = lsp.to_string();
        let received = Received {
            body: body.as_bytes(),
            timestamp: AT,
            signature: &signature,
            lsp: &lsp,
            recipient: "",
        };
        let now = parse_datetime(AT).unwrap();
        let read = verify(&received, WINDOW, now.0, None).unwrap();
        assert_eq!(
            read,
            json!({"method": "lsps5.expiry_soon", "params": {"timeout": 7}, "at_ms": now.0})
        );
        for (at, ok) in [
            (now.saturating_add(WINDOW), true),
            (now.saturating_add(WINDOW + 1), false),
            (Millis(now.0 - WINDOW), true),
            (Millis(now.0 - WINDOW - 1), false),
        ] {
            let expected = (!ok).then(|| "stale".to_owned());
            assert_eq!(why(verify(&received, WINDOW, at.0, None)), expected);
        }
        // Any change to any of the parts.
        let other = keys(2).1.to_string();
        let changed = [
            Received {
                lsp: &other,
                ..received
            },
            Received {
                timestamp: "2023-05-04T10:52:58.396Z",
                ..received
            },
            Received {
                timestamp: "2023-05-04T10:52:58.395+00:00",
                ..received
            },
            Received {
                body: br#"{"jsonrpc":"2.0","method":"lsps5.expiry_soon","params":{"timeout":8}}"#,
                ..received
            },
            Received {
                body: br#"{"jsonrpc":"2.0","method":"lsps5.expiry_soon","params":{"timeout":7}} "#,
                ..received
            },
            Received {
                signature: "",
                ..received
            },
            Received {
                signature: "ybndrfg8ejkmcpqxot1uwisza345h769",
                ..received
            },
        ];
        for each in &changed {
            assert_eq!(why(verify(each, WINDOW, now.0, None)).unwrap(), "signature");
        }
        let long = "y".repeat(1_000_000);
        let long = Received {
            signature: &long,
            ..received
        };
        assert_eq!(
            why(verify(&long, WINDOW, now.0, None)).unwrap(),
            "signature"
        );
        for bad in ["", "02", "zz"] {
            let bad = Received {
                lsp: bad,
                ..received
            };
            assert_eq!(
                verify(&bad, WINDOW, now.0, None).unwrap_err().code,
                "config"
            );
        }
        let no_text = Received {
            body: &[0xff],
            ..received
        };
        assert_eq!(why(verify(&no_text, WINDOW, now.0, None)).unwrap(), "body");
    }

    #[test]
    fn a_replay_is_known_whatever_its_signature_looks_like() {
        let seen = Mutex::default();
        let body = Notice::PaymentIncoming.body();
        let signature = sign(AT, &body);
        assert_eq!(told(&body, AT, "y", Some(&seen)).unwrap(), "signature");
        assert_eq!(
            told(&body, AT, &signature, Some(&seen)),
            None,
            "nobody else uses it up"
        );
        for again in [signature.clone(), signature.to_uppercase()] {
            assert_eq!(told(&body, AT, &again, Some(&seen)).unwrap(), "replay");
        }
        let next = "2023-05-04T10:52:58.396Z";
        assert_eq!(told(&body, next, &sign(next, &body), Some(&seen)), None);
        // The same text may be for others too.
        let lsp = keys(1).1.to_string();
        let for_another = Received {
            body: body.as_bytes(),
            timestamp: AT,
            signature: &signature,
            lsp: &lsp,
            recipient: "another",
        };
        let now = parse_datetime(AT).unwrap();
        assert!(verify(&for_another, WINDOW, now.0, Some(&seen)).is_ok());
        assert!(verify(&for_another, WINDOW, now.0, Some(&seen)).is_err());
    }

    #[test]
    fn ldks_notifications_are_believed_and_its_validator_rewrites_the_timestamp() {
        let stock = WebhookNotification::expiry_soon(9);
        let body = serde_json::to_string(&stock).unwrap();
        assert_eq!(body, Notice::ExpirySoon { timeout: 9 }.body());
        let at = LSPSDateTime::from_str(AT).unwrap();
        let written = at.to_rfc3339();
        assert_eq!(written, "2023-05-04T10:52:58.395+00:00");
        assert_eq!(told(&body, &written, &sign(&written, &body), None), None);
        // What the specification asks for, it does not take: it verifies another text than came.
        let lsp = keys(1).1;
        let judge = |signature: &str| LSPS5Validator::new().validate(lsp, &at, signature, &stock);
        assert!(judge(&sign(AT, &body)).is_err());
        assert!(judge(&sign(&written, &body)).is_ok());
    }
}
