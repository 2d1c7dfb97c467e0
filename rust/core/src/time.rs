//! Instants: milliseconds since 1970, and the date-times of LSPS. Nothing here reads a clock.

use chrono::DateTime;
use serde::{Deserialize, Serialize};

/// Milliseconds (ms) since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// 9999-12-31T23:59:59.999Z, the last instant a date-time of LSPS can name.
const LAST: u64 = 253_402_300_799_999;

impl Millis {
    /// This instant and `ms` milliseconds more; stays at the end of time rather than wrapping.
    #[must_use]
    pub fn saturating_add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 if that is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Reads `YYYY-MM-DDThh:mm:ss[.f]Z` or with an offset, 0 to 9 fraction digits; finer than a ms is cut off (T-14, B-13).
#[must_use]
pub fn parse_datetime(text: &str) -> Option<Millis> {
    // chrono also takes lower case, a space for the `T`, and any number of digits.
    let shape = text.len() <= "9999-12-31T23:59:59.999999999+00:00".len()
        && text.as_bytes().get(10) == Some(&b'T')
        && !text.contains('z');
    let fraction = text.bytes().skip(20).take_while(u8::is_ascii_digit).count();
    if !shape || fraction > 9 {
        return None;
    }
    let instant = DateTime::parse_from_rfc3339(text).ok()?;
    let ms = u64::try_from(instant.timestamp_millis()).ok()?;
    (ms <= LAST).then_some(Millis(ms))
}

/// Writes `YYYY-MM-DDThh:mm:ss.uuuZ` (T-14, B-6); instants beyond the year 9999 are written as its last.
#[must_use]
pub fn format_datetime(at: Millis) -> String {
    i64::try_from(at.0.min(LAST))
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .unwrap_or(DateTime::UNIX_EPOCH)
        .format("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

/// Serde helper for LSPS date-times: the string of `format_datetime`.
pub mod wire_datetime {
    use super::{format_datetime, parse_datetime, Millis};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the date-time.
    pub fn serialize<S: Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_datetime(*at))
    }

    /// Reads the date-time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        parse_datetime(&String::deserialize(deserializer)?)
            .ok_or_else(|| D::Error::custom("not a date-time"))
    }
}
