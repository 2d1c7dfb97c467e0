//! Choices from a seed, and JSON written in the many ways that JSON allows.

use serde_json::Value;

/// The same seed gives the same choices.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64: any seed will do, neighbours too.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.bits() % n as u64).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}

/// How a message is written. The same for both sides, whatever differs in their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Order of members.
    pub order: Option<u64>,
    /// White space wherever it may be.
    pub spaced: bool,
    /// Every character of every value and every inner name as an escape.
    pub escaped: bool,
}

impl Style {
    pub fn any(draw: &mut Draw) -> Self {
        if draw.one_in(2) {
            return Self::default();
        }
        Self {
            order: draw.one_in(2).then(|| draw.bits()),
            spaced: draw.one_in(2),
            escaped: draw.one_in(6),
        }
    }

    fn space(self) -> &'static str {
        if self.spaced {
            " \r\n\t "
        } else {
            ""
        }
    }

    /// An object of members that are written already.
    pub fn object(self, mut members: Vec<(String, String)>) -> String {
        if let Some(seed) = self.order {
            Draw::new(seed).shuffle(&mut members);
        }
        let s = self.space();
        let members: Vec<String> = members
            .iter()
            .map(|(name, value)| format!("{s}{name}{s}:{s}{value}{s}"))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    pub fn text(self, text: &str) -> String {
        if self.escaped {
            escape(text)
        } else {
            Value::from(text).to_string()
        }
    }

    pub fn value(self, value: &Value) -> String {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(list) => {
                let s = self.space();
                let list: Vec<String> = list.iter().map(|v| self.value(v)).collect();
                format!("[{s}{}{s}]", list.join(","))
            }
            Value::Object(fields) => self.object(
                fields
                    .iter()
                    .map(|(name, value)| (self.text(name), self.value(value)))
                    .collect(),
            ),
            other => other.to_string(),
        }
    }
}

/// A JSON string of nothing but escapes.
pub fn escape(text: &str) -> String {
    let units: Vec<String> = text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect();
    format!("\"{}\"", units.concat())
}
