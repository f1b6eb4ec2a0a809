//! The weighted choice.

/// Why a split is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// No member, or only members of weight 0.
    #[error("a split needs a weight above 0")]
    Empty,
    /// The weights add up to more than `u32::MAX`.
    #[error("the weights of a split add up to more than 4294967295")]
    Overflow,
}

/// A weighted choice, compiled when the configuration loads and only read afterwards.
#[derive(Clone, Debug)]
pub struct Split<T> {
    ends: Box<[u32]>, // running totals: member i owns ends[i - 1]..ends[i], nothing if its weight is 0
    targets: Box<[T]>,
}

impl<T> Split<T> {
    /// Compiles members in their order.
    ///
    /// # Errors
    ///
    /// The sum of the weights must be 1 … `u32::MAX`.
    pub fn new(members: impl IntoIterator<Item = (T, u32)>) -> Result<Self, SplitError> {
        let mut total = 0u32;
        let (mut ends, mut targets) = (Vec::new(), Vec::new());
        for (target, weight) in members {
            total = total.checked_add(weight).ok_or(SplitError::Overflow)?;
            ends.push(total);
            targets.push(target);
        }
        if total == 0 {
            return Err(SplitError::Empty);
        }
        Ok(Self {
            ends: ends.into(),
            targets: targets.into(),
        })
    }

    /// Picks by a uniform `roll`. Randomness comes from the caller, so tests need no luck. A member of weight 0 is
    /// never picked; the others are off their exact share by less than 2⁻³².
    pub fn pick(&self, roll: u32) -> &T {
        self.at(((u64::from(roll) * u64::from(self.total())) >> 32) as u32)
    }

    /// The sum of all weights, at least 1.
    pub fn total(&self) -> u32 {
        *self.ends.last().expect("a split has a member")
    }

    /// Every member with its weight, in the order given, those of weight 0 included.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&T, u32)> {
        self.targets.iter().enumerate().map(|(i, target)| {
            let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
            (target, self.ends[i] - start)
        })
    }

    fn at(&self, point: u32) -> &T {
        &self.targets[self.ends.partition_point(|&end| end <= point)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_split_serves_each_target_exactly_its_weight(weights in vec(0u32..500, 1..16)) {
            let split = Split::new(weights.iter().copied().enumerate());
            if weights.iter().sum::<u32>() == 0 {
                prop_assert_eq!(split.unwrap_err(), SplitError::Empty);
                return Ok(());
            }
            let split = split.unwrap();
            let mut served = vec![0u32; weights.len()];
            (0..split.total()).for_each(|point| served[*split.at(point)] += 1);
            prop_assert_eq!(&served, &weights);
            prop_assert_eq!(split.members().map(|(_, weight)| weight).collect::<Vec<_>>(), weights);
        }

        #[test]
        fn a_roll_never_picks_weight_zero(weights in vec(0u32..3, 1..8), rolls in vec(any::<u32>(), 64)) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let split = Split::new(weights.iter().map(|&weight| (weight, weight))).unwrap();
            for roll in rolls.into_iter().chain([0, u32::MAX]) {
                prop_assert!(*split.pick(roll) > 0);
            }
        }
    }

    #[test]
    fn rolls_are_spread_over_the_whole_range() {
        let split = Split::new([("a", 20), ("off", 0), ("b", 80)]).unwrap();
        let fifth = u32::MAX / 5;
        assert_eq!(*split.pick(0), "a");
        assert_eq!(*split.pick(fifth - 1), "a");
        assert_eq!(*split.pick(fifth + 1), "b");
        assert_eq!(*split.pick(u32::MAX), "b");
    }

    #[test]
    fn the_sum_of_weights_is_bounded() {
        assert_eq!(
            Split::new([((), u32::MAX), ((), 1)]).unwrap_err(),
            SplitError::Overflow
        );
        assert_eq!(Split::<()>::new([]).unwrap_err(), SplitError::Empty);
        assert_eq!(
            *Split::new([(1, u32::MAX), (2, 0)]).unwrap().pick(u32::MAX),
            1
        );
    }
}
