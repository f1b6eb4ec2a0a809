//! Where a value is going.

/// Fewer points are no trend.
const FEWEST: usize = 8;

/// Part of the variance that the line must explain.
const EXPLAINED: f64 = 0.5;

/// Returns what `values` come to `ahead` steps after their last if they go on rising as they do; `None`: they do not
/// rise. Both halves must rise and a line must fit: a step up that is over is no trend, nor is noise.
pub(super) fn forecast(values: &[f64], ahead: f64) -> Option<f64> {
    if values.len() < FEWEST {
        return None;
    }
    let (whole, explained) = line(values)?;
    let (early, late) = values.split_at(values.len() / 2);
    let slope = whole
        .slope
        .min(line(early)?.0.slope)
        .min(line(late)?.0.slope);
    let end = whole.mean + whole.slope * (values.len() - 1) as f64 / 2.0;
    (slope > 0.0 && explained >= EXPLAINED).then_some(end + slope * ahead)
}

struct Line {
    mean: f64,
    slope: f64,
}

/// The line of least squares, and the part of the variance that it explains.
fn line(values: &[f64]) -> Option<(Line, f64)> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let middle = (count - 1.0) / 2.0;
    let (mut across, mut spread, mut variance) = (0.0, 0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let (x, y) = (index as f64 - middle, value - mean);
        across += x * y;
        spread += x * x;
        variance += y * y;
    }
    let slope = (spread > 0.0).then(|| across / spread)?;
    let explained = match variance > 0.0 {
        true => slope * across / variance,
        false => 0.0,
    };
    Some((Line { mean, slope }, explained))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_goes_on() {
        let ramp: Vec<f64> = (0..60).map(|second| f64::from(second) / 2.0).collect();
        let ahead = forecast(&ramp, 20.0).unwrap();
        assert!((ahead - 39.5).abs() < 1e-9, "{ahead}");
    }

    #[test]
    fn steps_plateaus_descents_and_moments_do_not() {
        let step_at = |at: usize| -> Vec<f64> {
            let value = |second| if second < at { 10.0 } else { 40.0 };
            (0..60).map(value).collect()
        };
        for at in (2..60).chain([0, 60]) {
            let ahead = forecast(&step_at(at), 120.0);
            assert!(ahead.is_none_or(|ahead| ahead < 41.0), "{at}: {ahead:?}");
        }
        let descent: Vec<f64> = (0..60).map(|second| f64::from(60 - second)).collect();
        assert_eq!(forecast(&descent, 120.0), None);
        assert_eq!(forecast(&[1.0, 2.0, 3.0], 120.0), None);
        assert_eq!(forecast(&[], 120.0), None);
    }
}
