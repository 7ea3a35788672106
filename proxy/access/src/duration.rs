//! Durations as people write them: `90s`, `15m`, `8h`, `1d`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Units from the largest to the smallest, in seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A duration in whole seconds; in text, numbers with units, the larger unit first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub u64);

impl Duration {
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no duration: {why}; write for example \"90s\", \"15m\", \"8h\", \"1d\" or \"1h30m\""
)]
pub struct DurationError {
    pub text: String,
    pub why: &'static str,
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        seconds(text).map(Self).map_err(|why| DurationError {
            text: text.to_owned(),
            why,
        })
    }
}

fn seconds(text: &str) -> Result<u64, &'static str> {
    let mut total_s: u64 = 0;
    let mut rest = text;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or("a number has no unit")?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.chars().next().expect("found at this place");
        if number.is_empty() {
            return Err("a unit has no number");
        }
        if !UNITS.iter().any(|(known, _)| *known == unit) {
            return Err("a unit is none of d, h, m and s");
        }
        let (_, unit_s) = units
            .find(|(known, _)| *known == unit)
            .ok_or("the units do not go from the larger to the smaller")?;
        let number: u64 = number.parse().map_err(|_| "it is too long")?;
        let part_s = number.checked_mul(*unit_s).ok_or("it is too long")?;
        total_s = total_s.checked_add(part_s).ok_or("it is too long")?;
        rest = &tail[unit.len_utf8()..];
    }
    if text.is_empty() {
        Err("it is empty")
    } else {
        Ok(total_s)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest_s = self.0;
        for (unit, unit_s) in UNITS {
            if rest_s >= unit_s {
                write!(f, "{}{unit}", rest_s / unit_s)?;
                rest_s %= unit_s;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A duration such as 90s, 15m, 8h, 1d or 1h30m.",
            "pattern": "^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_numbers_with_units() {
        let check = |text: &str, seconds: u64| {
            assert_eq!(text.parse(), Ok(Duration(seconds)), "{text}");
        };
        check("0s", 0);
        check("90s", 90);
        check("15m", 900);
        check("8h", 28_800);
        check("1d", 86_400);
        check("1h30m", 5_400);
        check("1d2h3m4s", 93_784);
        check("007s", 7);
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        let check = |text: &str, why: &str| {
            let error = text
                .parse::<Duration>()
                .expect_err("is refused")
                .to_string();
            assert!(error.contains(why), "{error}");
        };
        check("", "empty");
        check("15", "no unit");
        check("m", "no number");
        check("-1m", "no number");
        check(" 1m", "no number");
        check("1 m", "none of d, h, m and s");
        check("1.5h", "none of d, h, m and s");
        check("1w", "none of d, h, m and s");
        check("1H", "none of d, h, m and s");
        check("1é", "none of d, h, m and s");
        check("30m1h", "from the larger to the smaller");
        check("1h1h", "from the larger to the smaller");
        check("18446744073709551616s", "too long");
        check("18446744073709551615d", "too long");
        check("213503982334601d1000000s", "too long");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(seconds in any::<u64>()) {
            prop_assert_eq!(Duration(seconds).to_string().parse(), Ok(Duration(seconds)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = text.parse::<Duration>();
        }
    }
}
