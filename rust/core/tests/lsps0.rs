//! The JSON-RPC envelope: what is read, what is refused, and that nothing panics.
#![allow(
    non_snake_case,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic
)]

use ldkjit_core::lsps0::{
    clean_text, encode_request, encode_result, list_protocols_result, only_known, parse_request,
    parse_response, read_list_protocols, request_id, side_of, BadFormat, ErrorResponse, FromLsp,
    Request, RpcError, Side, MAX_ID, MAX_PAYLOAD,
};
use ldkjit_core::reason::Reason;
use proptest::prelude::*;
use serde_json::{json, Map, Value};

fn answer(error: &ErrorResponse) -> Value {
    serde_json::from_slice(&error.encode()).unwrap()
}

/// (code, id) of the answer to `payload`.
fn refused(payload: impl AsRef<[u8]>) -> (i64, Option<String>) {
    let error = parse_request(payload.as_ref()).unwrap_err();
    assert_eq!(answer(&error)["id"], json!(error.id));
    (error.error.code, error.id)
}

#[test]
fn a_request_is_read() {
    let payload = br#" {"jsonrpc":"2.0","id":"a","method":"m","params":{"x":[1]},"more":0} "#;
    let request = parse_request(payload).unwrap();
    assert_eq!((request.id.as_str(), request.method.as_str()), ("a", "m"));
    assert_eq!(Value::Object(request.params), json!({"x": [1]}));
    let bare = parse_request(br#"{"jsonrpc":"2.0","id":"","method":"m"}"#).unwrap();
    assert!(bare.params.is_empty() && bare.id.is_empty());
}

#[test]
fn test_T_04_S_01_what_is_no_request_is_answered_with_a_null_id() {
    let request = r#"{"jsonrpc":"2.0","id":"a","method":"m","params":{}}"#;
    let mut zero = request.as_bytes().to_vec();
    zero.push(0);
    let mut latin = request.as_bytes().to_vec();
    latin[22] = 0xe4;
    let long_id = request.replace("\"a\"", &format!("\"{}\"", "a".repeat(MAX_ID + 1)));
    let bad: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"[]".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"\"x\"".to_vec(),
        b"{}{}x".to_vec(),
        format!("{request}{request}").into_bytes(),
        format!("[{request}]").into_bytes(),
        zero,
        latin,
        request.replace("\"a\"", "1").into_bytes(),
        request.replace("\"a\"", "null").into_bytes(),
        request.replace("\"id\":\"a\",", "").into_bytes(),
        request.replace("\"m\"", "7").into_bytes(),
        request.replace("\"method\":\"m\",", "").into_bytes(),
        long_id.into_bytes(),
        format!("{request}{}", " ".repeat(MAX_PAYLOAD + 1 - request.len())).into_bytes(),
        br#"{"jsonrpc":"2.0","id":"a","result":{}}"#.to_vec(),
        b"[".repeat(60_000),
    ];
    for payload in bad {
        assert_eq!(
            refused(&payload),
            (-32700, None),
            "{}",
            String::from_utf8_lossy(&payload)
        );
    }
    assert!(parse_request(
        format!("{request}{}", " ".repeat(MAX_PAYLOAD - request.len())).as_bytes()
    )
    .is_ok());
    assert!(parse_request(
        request
            .replace("\"a\"", &format!("\"{}\"", "a".repeat(MAX_ID)))
            .as_bytes()
    )
    .is_ok());
}

#[test]
fn test_T_16_S_02_wrong_version() {
    let id = Some("a".to_owned());
    assert_eq!(
        refused(r#"{"jsonrpc":"1.0","id":"a","method":"m","params":{}}"#),
        (-32600, id.clone())
    );
    assert_eq!(
        refused(r#"{"jsonrpc":2.0,"id":"a","method":"m","params":{}}"#),
        (-32600, id.clone())
    );
    assert_eq!(
        refused(r#"{"id":"a","method":"m","params":{}}"#),
        (-32600, id)
    );
    assert_eq!(
        refused(r#"{"jsonrpc":"1.0","method":"m","params":{}}"#),
        (-32600, None)
    );
    assert_eq!(refused("{}"), (-32600, None));
}

#[test]
fn test_T_03_parameters_that_are_not_by_name() {
    for params in ["[]", "[1]", "1", "\"x\"", "null", "true"] {
        let payload = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"m","params":{params}}}"#);
        assert_eq!(refused(payload), (-32602, Some("a".to_owned())));
    }
}

#[test]
fn test_T_08_unrecognised_parameters_are_named() {
    let params = json!({"token": 1, "b": 2, "<a>\n": 3});
    let params = params.as_object().unwrap();
    assert_eq!(only_known(params, &["token", "b", "<a>\n", "z"]), Ok(()));
    let error = only_known(params, &["token"]).unwrap_err().answering("i");
    assert_eq!(
        answer(&error),
        json!({"jsonrpc": "2.0", "id": "i", "error": {
            "code": -32602, "message": "invalid params", "data": {"unrecognized": ["<a>\n", "b"]}}})
    );
}

#[test]
fn test_T_01_the_worst_error_still_fits_a_message() {
    let names: Vec<String> = (0..1_000)
        .map(|n| format!("{n}{}", "\u{1f980}".repeat(1_000)))
        .collect();
    let id = "\u{1}".repeat(MAX_ID);
    let named = |names: &[String]| {
        let worst = RpcError::bad_params(names).answering(&id);
        assert!(worst.encode().len() <= MAX_PAYLOAD);
        let named = answer(&worst)["error"]["data"]["unrecognized"].clone();
        serde_json::from_value::<Vec<String>>(named).unwrap()
    };
    assert_eq!(named(&names), names[..14]);
    let escaped: Vec<String> = (0..1_000).map(|n| format!("{n}\u{1}\"\\")).collect();
    assert_eq!(named(&escaped), escaped, "short ones are all named");
    // One that is too long does not keep the others from being named.
    let long = ["a".into(), "b".repeat(MAX_PAYLOAD), "c".into()];
    assert_eq!(named(&long), ["a", "c"]);
}

#[test]
fn test_J_34_refusals_carry_no_data_unless_asked() {
    for reason in Reason::ALL {
        let error = RpcError::refusal(*reason, None);
        assert_eq!(error.code, i64::from(reason.wire_code().unwrap_or(-32603)));
        let answer = answer(&error.answering("i"));
        assert_eq!(
            answer["error"].as_object().unwrap().len(),
            2,
            "code and message only"
        );
        assert_eq!(answer["error"]["message"], reason.message());
    }
    let error = RpcError::refusal(Reason::PolicyRefused, Some("closed\non Sundays"));
    assert_eq!(
        (error.code, error.message.as_str()),
        (1, "closed?on Sundays")
    );
    assert_eq!(
        error.with_data_message().data,
        Some(json!({"message": "closed?on Sundays"}))
    );
}

#[test]
fn test_T_16_results_and_requests_name_the_version() {
    let request = encode_request("i", "lsps2.get_info", &json!({}));
    let value: Value = serde_json::from_slice(&request).unwrap();
    assert_eq!(
        value,
        json!({"jsonrpc": "2.0", "id": "i", "method": "lsps2.get_info", "params": {}})
    );
    let result = encode_result("i", &json!({"ü": 1}));
    assert!(
        String::from_utf8(result.clone()).unwrap().contains('ü'),
        "T-14: no needless escapes"
    );
    let value: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!(
        value,
        json!({"jsonrpc": "2.0", "id": "i", "result": {"ü": 1}})
    );
}

#[test]
fn test_T_10_request_ids_are_128_bits() {
    assert_eq!(request_id([0xa5; 16]), "a5".repeat(16));
}

fn outcome(text: &str) -> Result<Value, RpcError> {
    match parse_response(text.as_bytes()) {
        Ok(FromLsp::Response { id, outcome }) => {
            assert_eq!(id.as_deref(), Some("i"));
            outcome
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn test_T_09_T_18_responses_are_read_with_any_data() {
    let result = outcome(r#"{"jsonrpc":"2.0","id":"i","result":{"a":1},"extra":2}"#);
    assert_eq!(result, Ok(json!({"a": 1})));
    let error = |code, message: &str, data| RpcError {
        code,
        message: message.to_owned(),
        data,
        reason: None,
    };
    for (data, read) in [
        (
            r#","data":{"unrecognized":["x"]}"#,
            Some(json!({"unrecognized": ["x"]})),
        ),
        (r#","data":"text""#, Some(json!("text"))),
        (r#","data":[1]"#, Some(json!([1]))),
        (r#","data":null"#, None),
        ("", None),
    ] {
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":"i","error":{{"code":201,"message":"m"{data}}}}}"#);
        assert_eq!(outcome(&text), Err(error(201, "m", read)));
    }
    let bare = outcome(r#"{"jsonrpc":"2.0","id":"i","error":{"code":-9}}"#);
    assert_eq!(bare, Err(error(-9, "", None)));
}

#[test]
fn test_T_05_what_is_neither_response_nor_notification() {
    for bad in [
        "",
        "[]",
        "{}",
        "{}{}",
        r#"{"jsonrpc":"2.0","id":"i"}"#,
        r#"{"jsonrpc":"1.0","id":"i","result":{}}"#,
        r#"{"id":"i","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":true,"result":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"i","result":{},"error":{"code":1,"message":""}}"#,
        r#"{"jsonrpc":"2.0","id":"i","error":{"message":"m"}}"#,
        r#"{"jsonrpc":"2.0","id":"i","error":{"code":"1","message":"m"}}"#,
        r#"{"jsonrpc":"2.0","id":"i","error":{"code":1.5,"message":"m"}}"#,
        r#"{"jsonrpc":"2.0","id":"i","error":"m"}"#,
        r#"{"jsonrpc":"2.0","id":"i","error":null}"#,
        r#"{"jsonrpc":"2.0","id":"i","method":"m","params":{}}"#,
        r#"{"jsonrpc":"2.0","method":"m","params":[]}"#,
        r#"{"jsonrpc":"2.0","method":1,"params":{}}"#,
    ] {
        assert_eq!(parse_response(bad.as_bytes()), Err(BadFormat), "{bad}");
    }
}

#[test]
fn test_T_09_a_number_answers_no_request_of_ours() {
    for id in ["1", "-3", "1.5", "12345678901234567890"] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        let Ok(FromLsp::Response { id: Some(read), .. }) = parse_response(text.as_bytes()) else {
            panic!("{text}");
        };
        assert!(read.len() < request_id([0; 16]).len(), "{read}");
    }
}

#[test]
fn test_T_06_notifications_and_null_ids_are_read() {
    let params = Map::from_iter([("a".to_owned(), json!(1))]);
    assert_eq!(
        parse_response(br#"{"jsonrpc":"2.0","method":"m","params":{"a":1}}"#),
        Ok(FromLsp::Notification {
            method: "m".to_owned(),
            params
        })
    );
    assert_eq!(
        parse_response(br#"{"jsonrpc":"2.0","method":"m"}"#),
        Ok(FromLsp::Notification {
            method: "m".to_owned(),
            params: Map::new()
        })
    );
    let error = RpcError {
        code: -32700,
        message: "p".to_owned(),
        data: None,
        reason: None,
    };
    assert_eq!(
        parse_response(br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"p"}}"#),
        Ok(FromLsp::Response {
            id: None,
            outcome: Err(error)
        })
    );
}

#[test]
fn test_T_04_T_05_each_side_gets_its_own_and_errors_are_never_answered() {
    let own = ErrorResponse {
        id: None,
        error: RpcError::refusal(Reason::BadFormat, None),
    }
    .encode();
    for (payload, fresh, asked) in [
        (&own[..], Side::Nobody, Side::Client),
        (
            br#"{"jsonrpc":"2.0","id":"i","method":"m"}"#,
            Side::Service,
            Side::Service,
        ),
        (
            br#"{"jsonrpc":"2.0","id":"i","method":"m","error":1}"#,
            Side::Service,
            Side::Service,
        ),
        (
            br#"{"jsonrpc":"2.0","id":"i","result":1}"#,
            Side::Service,
            Side::Client,
        ),
        (
            br#"{"jsonrpc":"2.0","method":"m"}"#,
            Side::Service,
            Side::Client,
        ),
        (
            br#"{"jsonrpc":"2.0","method":"m","error":1}"#,
            Side::Service,
            Side::Client,
        ),
        (b"{", Side::Service, Side::Client),
    ] {
        assert_eq!(
            (side_of(payload, false), side_of(payload, true)),
            (fresh, asked)
        );
    }
}

#[test]
fn test_T_09_server_error_range_reads_as_internal() {
    let effective = |code| {
        RpcError {
            code,
            message: String::new(),
            data: None,
            reason: None,
        }
        .effective_code()
    };
    assert_eq!(effective(-32_000), -32_603);
    assert_eq!(effective(-32_099), -32_603);
    assert_eq!(effective(-31_999), -31_999);
    assert_eq!(effective(-32_100), -32_100);
    assert_eq!(effective(201), 201);
}

#[test]
fn test_T_11_messages_are_filtered_and_bounded() {
    let text =
        r#"{"jsonrpc":"2.0","id":"i","error":{"code":1,"message":"a\u0000<b>\n\u001b[1m\u202eé"}}"#;
    assert_eq!(outcome(text).unwrap_err().message, "a??b???[1m?é");
    assert_eq!(clean_text(&"é".repeat(300)), "é".repeat(256));
    for c in "\u{7f}\u{85}\u{ad}\u{61c}\u{200b}\u{200f}\u{2028}\u{202e}\u{2060}\u{206f}\u{feff}\r\t"
        .chars()
    {
        assert_eq!(clean_text(&c.to_string()), "?", "{c:?}");
    }
    assert_eq!(
        clean_text("plain & \"quoted\" text, 100 % ₿"),
        "plain & \"quoted\" text, 100 % ₿"
    );
}

#[test]
fn test_T_13_S_05_list_protocols() {
    assert_eq!(
        list_protocols_result(&[5, 0, 2, 5]),
        json!({"protocols": [2, 5]})
    );
    assert_eq!(
        read_list_protocols(&json!({"protocols": [1, 2], "x": 0})),
        Some(vec![1, 2])
    );
    for bad in [
        json!({}),
        json!([]),
        json!({"protocols": [-1]}),
        json!({"protocols": ["2"]}),
        json!({"protocols": [65_536]}),
    ] {
        assert_eq!(read_list_protocols(&bad), None);
    }
}

/// JSON of any shape, with the names that matter likelier than chance. Fractions are left out: serde_json may read
/// their last digit differently, and no message has any.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n))),
        any::<String>().prop_map(Value::from),
        Just(json!("2.0")),
    ];
    let key = prop_oneof![
        Just("jsonrpc"),
        Just("id"),
        Just("method"),
        Just("params"),
        Just("result"),
        Just("error"),
        Just("code"),
        Just("message"),
        Just("data"),
        Just("x"),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone().prop_map(str::to_owned), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn test_S_01_arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        if let Err(error) = parse_request(&bytes) {
            prop_assert!(error.encode().len() <= MAX_PAYLOAD);
        }
        let _ = (parse_response(&bytes), side_of(&bytes, false));
    }

    #[test]
    fn test_S_01_arbitrary_json_never_panics(value in any_json(), strict: bool) {
        let mut value = value;
        if let (true, Some(fields)) = (strict, value.as_object_mut()) {
            fields.insert("jsonrpc".to_owned(), json!("2.0"));
            fields.insert("id".to_owned(), json!("i"));
        }
        let payload = value.to_string();
        let _ = (parse_request(payload.as_bytes()), parse_response(payload.as_bytes()));
        let _ = read_list_protocols(&value);
    }

    #[test]
    fn requests_round_trip(id in ".{0,200}", method: String, key: String, text: String) {
        let params = json!({ key: text });
        let request = parse_request(&encode_request(&id, &method, &params)).unwrap();
        prop_assert_eq!(request, Request { id, method, params: params.as_object().unwrap().clone() });
    }

    #[test]
    fn results_and_errors_round_trip(id: String, result in any_json(), code: i64, data in prop::option::of(any_json())) {
        let read = parse_response(&encode_result(&id, &result)).unwrap();
        prop_assert_eq!(read, FromLsp::Response { id: Some(id.clone()), outcome: Ok(result) });
        let data = data.filter(|data| !data.is_null());
        let error = RpcError { code, message: "m".to_owned(), data, reason: None };
        let read = parse_response(&error.clone().answering(&id).encode()).unwrap();
        prop_assert_eq!(read, FromLsp::Response { id: Some(id), outcome: Err(error) });
    }

    #[test]
    fn test_T_11_clean_text_has_no_control_characters(text: String) {
        let clean = clean_text(&text);
        prop_assert!(!clean.chars().any(|c| c.is_control() || c == '<'));
        prop_assert!(clean.chars().count() <= 256);
    }
}
