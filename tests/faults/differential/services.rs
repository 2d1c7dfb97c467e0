//! What comes of a message to a service, as far as two services can be compared.

use ldkjit_core::reason::Reason;
use ldkjit_core::time::parse_datetime;
use serde_json::{json, Value};

/// What is sent to a webhook: its name, where to, and which method.
pub type Post = (String, String, String);

/// An answer, as far as the two can be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub id: Value,
    /// The result, or the error's code and data.
    pub body: Result<Value, (i64, Option<Value>)>,
}

/// What came of one message.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub answers: Vec<Answer>,
    pub posts: Vec<Post>,
    /// The connection is cut.
    pub hung_up: bool,
    /// The application was asked.
    pub asked: bool,
    /// Why the application would have refused, had it a way to say so.
    pub refused: Option<Reason>,
    /// The menu in it, as the client gets it.
    pub menu: Option<Vec<Value>>,
}

impl Outcome {
    pub fn same(&self, other: &Self) -> bool {
        (&self.answers, &self.posts, self.hung_up) == (&other.answers, &other.posts, other.hung_up)
    }

    pub fn code(&self) -> Option<i64> {
        match self.answers.as_slice() {
            [Answer {
                body: Err((code, _)),
                ..
            }] => Some(*code),
            _ => None,
        }
    }

    pub fn result(&self) -> Option<&Value> {
        match self.answers.as_slice() {
            [Answer {
                body: Ok(result), ..
            }] => Some(result),
            _ => None,
        }
    }

    pub fn silent(&self) -> bool {
        self.answers.is_empty() && !self.hung_up
    }

    /// −32700 to nobody.
    pub fn not_understood(&self) -> bool {
        self.code() == Some(-32_700) && self.answers[0].id.is_null()
    }

    /// Whether a sale or a webhook came of it.
    pub fn changed(&self) -> bool {
        self.result().is_some_and(|result| {
            result.get("jit_channel_scid").is_some()
                || result["no_change"] == false
                || *result == json!({})
        })
    }

    pub fn add(&mut self, bytes: &[u8]) {
        let mut answer: Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(answer["jsonrpc"], "2.0");
        let fields = answer.as_object_mut().unwrap();
        let id = fields.remove("id").unwrap();
        let body = match (fields.remove("result"), fields.remove("error")) {
            (Some(mut result), None) => {
                self.menu = result
                    .get("opening_fee_params_menu")
                    .and_then(Value::as_array)
                    .cloned();
                normalise(&mut result);
                Ok(result)
            }
            (None, Some(error)) => {
                assert!(error["message"].is_string());
                let data = error.get("data").filter(|data| !data.is_null());
                Err((error["code"].as_i64().unwrap(), data.cloned()))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(fields.len(), 1, "{fields:?}");
        self.answers.push(Answer { id, body });
    }
}

/// Takes away what no two services have alike, and what may be in any order or form.
fn normalise(result: &mut Value) {
    if let Some(menu) = result.get_mut("opening_fee_params_menu") {
        for offer in menu.as_array_mut().unwrap() {
            let promise = offer["promise"].as_str().unwrap();
            assert!(promise.len() <= 512 && promise.bytes().all(|b| b.is_ascii_graphic()));
            offer["promise"] = json!("…");
            let until = parse_datetime(offer["valid_until"].as_str().unwrap()).unwrap();
            offer["valid_until"] = json!(until);
        }
    }
    if let Some(names) = result.get_mut("app_names") {
        // The specification asks for no order (W-12).
        let mut list: Vec<String> = serde_json::from_value(names.clone()).unwrap();
        list.sort();
        *names = json!(list);
    }
}
