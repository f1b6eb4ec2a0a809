//! Durations, sizes, rates and ratios as they are written in a configuration.

use std::time::Duration;

/// What a duration looks like, for messages.
pub const DURATION_FORM: &str = "a duration looks like `300s`, `5m`, `250ms` or `1h30m`";
/// What a size looks like, for messages.
pub const SIZE_FORM: &str = "a size looks like `64MiB`, `64KB` or `1024` (bytes)";
/// What a ratio looks like, for messages.
pub const RATIO_FORM: &str = "a ratio looks like `70%` or `0.7`";
/// What a rate looks like, for messages.
pub const RATE_FORM: &str = "a rate looks like `100/s`, `6000/m` or `100/h`";

/// A duration as a regular expression, for the JSON Schema.
pub const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms|us))+$";
/// A size as a regular expression, for the JSON Schema.
pub const SIZE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B?$";
/// A ratio as a regular expression, for the JSON Schema.
pub const RATIO_PATTERN: &str = r"^([0-9]+(\.[0-9]+)? ?%|[01](\.[0-9]+)?)$";
/// A rate as a regular expression, for the JSON Schema.
pub const RATE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?/[smhd]$";

/// One in this many parts is the smallest ratio.
pub const MILLIONTHS: u32 = 1_000_000;

const UNITS_OF_TIME: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Reads `300s`, `5m`, `250ms`, `1h30m`; a bare `0` is no time. Returns `None` for anything else, a bare number
/// included, and for more than 585 years.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = decimal(rest)?;
        let (unit, nanos) = UNITS_OF_TIME
            .into_iter()
            .find(|(unit, _)| after.starts_with(unit))?;
        if nanos >= smallest {
            return None;
        }
        smallest = nanos;
        total = total.checked_add(scale(number, nanos)?)?;
        rest = &after[unit.len()..];
    }
    (smallest != u64::MAX).then(|| Duration::from_nanos(total))
}

/// Reads `64MiB`, `64KB`, `64K`, `1.5GiB` or `1024`, in bytes. `Ki` counts in 1024, `K` and `KB` in 1000. Returns
/// `None` for anything else and for what does not fit.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = decimal(text)?;
    let unit = unit
        .trim_start_matches(' ')
        .strip_suffix('B')
        .unwrap_or(unit.trim_start_matches(' '));
    let factor = match unit {
        "" => 1,
        "K" => 1000,
        "M" => 1000_u64.pow(2),
        "G" => 1000_u64.pow(3),
        "T" => 1000_u64.pow(4),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    scale(number, factor)
}

/// Reads `70%` or `0.7`, in millionths, 0 … 1 000 000. Returns `None` for anything else, a negative number or more
/// than `100%` included.
pub fn ratio(text: &str) -> Option<u32> {
    let (number, rest) = decimal(text)?;
    let whole = match rest.trim_start_matches(' ') {
        "%" => u64::from(MILLIONTHS / 100),
        "" => u64::from(MILLIONTHS),
        _ => return None,
    };
    let parts = scale(number, whole)?;
    u32::try_from(parts)
        .ok()
        .filter(|parts| *parts <= MILLIONTHS)
}

/// So many per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many, in thousandths; > 0.
    pub thousandths: u64,
    /// 1 s, 1 m, 1 h or 1 d.
    pub period: Duration,
}

impl Rate {
    /// Returns how many per second; finite, > 0.
    pub fn per_second(self) -> f64 {
        self.thousandths as f64 / (1000.0 * self.period.as_secs_f64())
    }

    /// Returns the time from one to the next, to the nearest nanosecond, at least one.
    pub fn interval(self) -> Duration {
        let parts = self.period.as_nanos() * 1000;
        let nanos = (parts + u128::from(self.thousandths) / 2) / u128::from(self.thousandths);
        Duration::from_nanos(u64::try_from(nanos.max(1)).unwrap_or(u64::MAX))
    }
}

/// Reads `100/s`, `6000/m`, `0.5/s`. Returns `None` for anything else and for zero.
pub fn rate(text: &str) -> Option<Rate> {
    let (number, unit) = text.split_once('/')?;
    let (number, rest) = decimal(number)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let thousandths = scale(number, 1000)?;
    (rest.is_empty() && thousandths > 0).then_some(Rate {
        thousandths,
        period: Duration::from_secs(seconds),
    })
}

/// A decimal number as written: its digits without the point, and how many of them are behind it.
#[derive(Clone, Copy)]
struct Decimal {
    digits: u128,
    behind: u32,
}

/// Splits a decimal number off the front of `text`.
fn decimal(text: &str) -> Option<(Decimal, &str)> {
    let whole = text.bytes().take_while(u8::is_ascii_digit).count();
    let (front, rest) = text.split_at(whole);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", rest),
    };
    let points = text.len() - rest.len() - whole - fraction.len();
    if front.is_empty() || (points == 1 && fraction.is_empty()) || front.len() + fraction.len() > 20
    {
        return None;
    }
    let digits = format!("{front}{fraction}").parse().ok()?;
    let behind = u32::try_from(fraction.len()).ok()?;
    Some((Decimal { digits, behind }, rest))
}

/// Multiplies; `None` when the product is no whole number or does not fit.
fn scale(number: Decimal, factor: u64) -> Option<u64> {
    let product = number.digits.checked_mul(u128::from(factor))?;
    let divisor = 10_u128.pow(number.behind);
    (product % divisor == 0).then(|| u64::try_from(product / divisor).ok())?
}

/// Writes a duration the way it would be configured, for messages.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, nanos) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ] {
        if rest >= nanos {
            text.push_str(&format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// Writes a size the way it would be configured, for messages.
pub fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let cases = [
            ("300s", 300_000),
            ("5m", 300_000),
            ("250ms", 250),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("0", 0),
            ("0s", 0),
            ("1d", 86_400_000),
        ];
        for (text, millis) in cases {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "5x",
            "5m5m",
            "5s1h",
            "1e3s",
            "none",
            "5sec",
            "1.s",
            ".5s",
            "99999999999d",
            "１s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_count_in_1000_or_1024() {
        let cases = [
            ("64MiB", 64 << 20),
            ("64KB", 64_000),
            ("64K", 64_000),
            ("64Ki", 65_536),
            ("1024", 1024),
            ("1024B", 1024),
            ("1.5GiB", 3 << 29),
            ("0", 0),
            ("1 MiB", 1 << 20),
            ("1T", 1_000_000_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "1mib",
            "0.3",
            "1e6",
            "64 M B",
            "99999999TiB",
            "1iB",
            "5m",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn ratios_are_exact_millionths() {
        let cases = [
            ("70%", 700_000),
            ("0.7", 700_000),
            ("100%", 1_000_000),
            ("1", 1_000_000),
            ("0", 0),
            ("0.01%", 100),
            ("1.0", 1_000_000),
        ];
        for (text, parts) in cases {
            assert_eq!(ratio(text), Some(parts), "{text}");
        }
        for text in ["", "%", "101%", "1.1", "-1%", "70", "0.00001%", "x"] {
            assert_eq!(ratio(text), None, "{text}");
        }
    }

    #[test]
    fn rates_have_a_period() {
        assert_eq!(
            rate("100/s"),
            Some(Rate {
                thousandths: 100_000,
                period: Duration::from_secs(1)
            })
        );
        assert_eq!(
            rate("6000/m"),
            Some(Rate {
                thousandths: 6_000_000,
                period: Duration::from_secs(60)
            })
        );
        assert_eq!(
            rate("0.5/s"),
            Some(Rate {
                thousandths: 500,
                period: Duration::from_secs(1)
            })
        );
        for text in ["", "100", "100/", "/s", "0/s", "100/x", "100 /s", "1/2s"] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn patterns_agree_with_the_readers() {
        let patterns = [DURATION_PATTERN, SIZE_PATTERN, RATIO_PATTERN, RATE_PATTERN]
            .map(|p| regex::Regex::new(p).unwrap());
        for text in [
            "300s", "1h30m", "250ms", "64MiB", "64KB", "1024", "70%", "100/s", "6000/m", "", "x",
        ] {
            let read = [
                duration(text).is_some(),
                size(text).is_some(),
                ratio(text).is_some(),
                rate(text).is_some(),
            ];
            assert_eq!(
                patterns.each_ref().map(|p| p.is_match(text)),
                read,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0_u64..10_000_000_000, bytes: u32) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(span)), Some(span));
            prop_assert_eq!(size(&show_size(u64::from(bytes))), Some(u64::from(bytes)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (duration(&text), size(&text), ratio(&text), rate(&text));
        }
    }
}
