//! Durations as Go, Kubernetes and protobuf write them.

/// Rewrites a duration such as `300s`, `1.5s`, `1h30m`, `500ms` or `10us` in native spelling, such as `1500ms`; a part
/// of a millisecond counts as a whole one. `0s` stays `0s`. `None`: it is no duration, or longer than 1000 years.
pub fn duration(text: &str) -> Option<String> {
    const UNITS: &[(&str, u128)] = &[
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    if text == "0" {
        return Some("0s".to_owned());
    }
    let mut total: u128 = 0;
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, tail) = rest.split_at(number);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(amount, *scale)?)?;
        rest = tail;
        parts += 1;
    }
    let milliseconds = total.div_ceil(1_000_000);
    if parts == 0 || milliseconds > 1000 * 366 * 86_400_000 {
        return None;
    }
    let native = ["ms", "s", "m", "h"].iter().any(|unit| {
        text.strip_suffix(unit)
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
    });
    Some(match milliseconds {
        _ if native && !text.starts_with('0') => text.to_owned(),
        whole if whole % 1000 == 0 => format!("{}s", whole / 1000),
        odd => format!("{odd}ms"),
    })
}

/// Multiplies a decimal number.
fn scaled(amount: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    if whole.is_empty() && fraction.is_empty() || amount.len() > 20 {
        return None;
    }
    let digits = |text: &str| match text {
        "" => Some(0),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u128>().ok(),
        _ => None,
    };
    let power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = digits(fraction)?.checked_mul(scale)?.div_ceil(power);
    digits(whole)?.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_rewritten() {
        for (written, native) in [
            ("300s", "300s"),
            ("0s", "0s"),
            ("0", "0s"),
            ("1.5s", "1500ms"),
            ("0.300s", "300ms"),
            ("1h30m", "5400s"),
            ("2m", "2m"),
            ("10us", "1ms"),
            ("10ms", "10ms"),
            ("1.000000001s", "1001ms"),
        ] {
            assert_eq!(duration(written).as_deref(), Some(native), "{written}");
        }
        for bad in [
            "",
            "5",
            "s",
            "5x",
            "-1s",
            "1..5s",
            "1 s",
            "99999999999999h",
            ".",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
