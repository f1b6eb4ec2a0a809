//! Numbers held against each other, as they are written.

use std::cmp::Ordering;

use forebay_config::Tolerance;

/// True when two JSON numbers are the same, or no further apart than `tolerance` allows. The distance of whole numbers
/// is exact up to 127 bits; larger ones must be written alike.
pub(super) fn near(left: &str, right: &str, tolerance: Tolerance) -> bool {
    if left == right {
        return true;
    }
    if whole(left) && whole(right) {
        return match (exact(left), exact(right)) {
            (Some(left), Some(right)) => {
                let apart = left.abs_diff(right);
                let larger = left.unsigned_abs().max(right.unsigned_abs());
                apart == 0 || within(apart as f64, larger as f64, tolerance)
            }
            _ => false,
        };
    }
    let (left, right) = (float(left), float(right));
    // What is too large for a double is equal only to what is written like it.
    left.is_finite()
        && right.is_finite()
        && within((left - right).abs(), left.abs().max(right.abs()), tolerance)
}

/// Orders numbers by size, those of one size by how they are written.
pub(super) fn order(left: &str, right: &str) -> Ordering {
    let sizes = float(left).total_cmp(&float(right));
    sizes
        .then_with(|| exact(left).cmp(&exact(right)))
        .then_with(|| left.cmp(right))
}

fn within(apart: f64, larger: f64, tolerance: Tolerance) -> bool {
    apart <= tolerance.abs || apart <= tolerance.rel * larger
}

fn whole(number: &str) -> bool {
    !number.contains(['.', 'e', 'E'])
}

fn exact(number: &str) -> Option<i128> {
    number.parse().ok()
}

fn float(number: &str) -> f64 {
    // JSON's grammar is part of that of `f64`: the fallback is never taken.
    number.parse().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: Tolerance = Tolerance { abs: 0.0, rel: 0.0 };

    #[test]
    fn numbers_are_equal_by_value() {
        for (left, right) in [
            ("1", "1.0"),
            ("1e2", "100"),
            ("-0", "0"),
            ("0.10", "0.1"),
            ("1e400", "1e400"),
        ] {
            assert!(near(left, right, NONE), "{left} {right}");
        }
        for (left, right) in [
            ("1", "2"),
            ("0.1", "0.1000001"),
            ("1e400", "1e401"),
            ("1e400", "-1e400"),
        ] {
            assert!(!near(left, right, NONE), "{left} {right}");
        }
        assert!(!near("1e400", "5", Tolerance { abs: 1.0, rel: 1.0 }));
    }

    #[test]
    fn large_whole_numbers_lose_no_digit() {
        assert!(!near("9007199254740992", "9007199254740993", NONE));
        assert!(!near(
            "9007199254740992",
            "9007199254740993",
            Tolerance { abs: 0.5, rel: 0.0 }
        ));
        assert!(near(
            "9007199254740992",
            "9007199254740993",
            Tolerance { abs: 1.0, rel: 0.0 }
        ));
        assert!(!near("18446744073709551616", "18446744073709551617", NONE));
        let huge = "9".repeat(60);
        assert!(near(&huge, &huge, NONE) && !near(&huge, &huge.replace("99", "98"), NONE));
    }

    #[test]
    fn tolerance_is_absolute_or_relative() {
        let abs = Tolerance { abs: 0.5, rel: 0.0 };
        assert!(near("1.0", "1.5", abs) && !near("1.0", "1.6", abs));
        let rel = Tolerance {
            abs: 0.0,
            rel: 0.01,
        };
        assert!(near("100.0", "101", rel) && !near("100.0", "102", rel) && !near("0", "1e-9", rel));
    }

    proptest! {
        #[test]
        fn tolerance_is_symmetric(left: f64, right: f64, abs in 0.0..1e9f64, rel in 0.0..2f64) {
            let (left, right) = (left.to_string(), right.to_string());
            let tolerance = Tolerance { abs, rel };
            prop_assert_eq!(near(&left, &right, tolerance), near(&right, &left, tolerance));
        }
    }
}
