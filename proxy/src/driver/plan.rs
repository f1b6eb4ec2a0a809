//! What to do next with the replicas there are. Pure.

/// Where a replica is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not ready yet.
    Starting,
    /// Serves.
    Ready,
    /// Gets no new work and finishes what it has.
    Draining,
    /// Is being ended, or has exited and its descendants are.
    Stopping,
}

/// A replica, as far as the decision needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Grows with each start.
    pub(super) id: u64,
    pub(super) phase: Phase,
    /// Runs a command that is no longer the configured one.
    pub(super) stale: bool,
    /// Has work.
    pub(super) busy: bool,
    /// Has its place on a device, or needs none.
    pub(super) placed: bool,
    /// Makes room for others.
    pub(super) evicted: bool,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// One more replica.
    Start,
    /// End one that is not ready.
    Cancel(u64),
    /// No new work for it; it ends when it is idle.
    Drain(u64),
    /// It is needed after all.
    Resume(u64),
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// Replicas that should serve.
    pub(super) wanted: u32,
    /// Processes there may be at once, those that end included.
    pub(super) max: u32,
}

/// Returns what leads to the goal. With room below `max`, stale replicas serve until their successors do; without,
/// they go first, one at a time. Who makes room for others goes, and who has no place yet only counts as far as nobody
/// can be taken back instead.
pub(super) fn plan(goal: Goal, replicas: &[View]) -> Vec<Action> {
    let target = goal.wanted.min(goal.max) as usize;
    let mut actions = Vec::new();
    let of = |phase, stale| {
        let mut found: Vec<&View> = replicas
            .iter()
            .filter(|view| view.phase == phase && view.stale == stale && !view.evicted)
            .collect();
        // Those to spare first: without a place, then the idle ones, newest first.
        found.sort_by_key(|view| (view.placed, view.busy, std::cmp::Reverse(view.id)));
        found
    };
    let making_room = replicas.iter().filter(|view| view.evicted);
    let moving_away = making_room.clone().count();
    actions.extend(making_room.filter_map(|view| match view.phase {
        Phase::Starting => Some(Action::Cancel(view.id)),
        Phase::Ready => Some(Action::Drain(view.id)),
        Phase::Draining | Phase::Stopping => None,
    }));
    actions.extend(
        of(Phase::Starting, true)
            .iter()
            .map(|view| Action::Cancel(view.id)),
    );
    let (starting, ready) = (of(Phase::Starting, false), of(Phase::Ready, false));
    let unplaced = starting.iter().filter(|view| !view.placed).count();
    let fixed = starting.len() - unplaced + ready.len();
    let drains = of(Phase::Draining, false);
    let resumed = target.saturating_sub(fixed).min(drains.len());
    actions.extend(drains[..resumed].iter().map(|view| Action::Resume(view.id)));
    let surplus = (starting.len() + ready.len() + resumed).saturating_sub(target);
    let cancelled = surplus.min(starting.len());
    actions.extend(
        starting[..cancelled]
            .iter()
            .map(|view| Action::Cancel(view.id)),
    );
    let drained = surplus - cancelled;
    actions.extend(ready[..drained].iter().map(|view| Action::Drain(view.id)));

    let missing = target.saturating_sub(starting.len() + ready.len() + resumed);
    let room = (goal.max as usize).saturating_sub(replicas.len());
    let started = missing.min(room);
    actions.extend(std::iter::repeat_n(Action::Start, started));

    let serving = ready.len() - drained + resumed;
    let stale = of(Phase::Ready, true);
    let mut spare = (serving + stale.len()).saturating_sub(target);
    let moving = started + starting.len() - cancelled
        + moving_away
        + of(Phase::Draining, true).len()
        + drains.len()
        - resumed
        + of(Phase::Stopping, true).len()
        + of(Phase::Stopping, false).len();
    if spare == 0 && missing > started && moving == 0 {
        spare = 1; // no room for a successor beside it
    }
    actions.extend(stale.iter().take(spare).map(|view| Action::Drain(view.id)));
    actions
}

#[cfg(test)]
mod tests {
    use super::Phase::{Draining, Ready, Starting, Stopping};
    use super::*;

    fn view(id: u64, phase: Phase) -> View {
        View {
            id,
            phase,
            stale: false,
            busy: false,
            placed: true,
            evicted: false,
        }
    }

    fn stale(id: u64, phase: Phase) -> View {
        View {
            stale: true,
            ..view(id, phase)
        }
    }

    fn busy(id: u64) -> View {
        View {
            busy: true,
            ..view(id, Ready)
        }
    }

    fn at(wanted: u32, max: u32, replicas: &[View]) -> Vec<Action> {
        plan(Goal { wanted, max }, replicas)
    }

    #[test]
    fn what_is_missing_is_started_within_the_maximum() {
        assert_eq!(at(2, 4, &[]), [Action::Start; 2]);
        assert_eq!(at(9, 4, &[view(1, Ready)]), [Action::Start; 3]);
        assert_eq!(at(1, 4, &[view(1, Starting)]), []);
        assert_eq!(at(1, 1, &[view(1, Stopping)]), []); // until it is gone
        assert_eq!(at(1, 2, &[view(1, Stopping)]), [Action::Start]);
    }

    #[test]
    fn the_newest_idle_one_goes_first() {
        let three = [busy(3), view(1, Ready), view(2, Ready)];
        assert_eq!(at(2, 4, &three), [Action::Drain(2)]);
        assert_eq!(
            at(0, 4, &three),
            [Action::Drain(2), Action::Drain(1), Action::Drain(3)]
        );
        assert_eq!(
            at(1, 4, &[view(1, Ready), view(2, Starting)]),
            [Action::Cancel(2)]
        );
    }

    #[test]
    fn one_that_drains_is_taken_back_before_another_is_started() {
        assert_eq!(
            at(2, 4, &[view(1, Ready), view(2, Draining)]),
            [Action::Resume(2)]
        );
        assert_eq!(
            at(2, 4, &[view(1, Ready), stale(2, Draining)]),
            [Action::Start]
        );
    }

    #[test]
    fn with_room_the_successor_comes_first() {
        assert_eq!(at(1, 2, &[stale(1, Ready)]), [Action::Start]);
        assert_eq!(at(1, 2, &[stale(1, Ready), view(2, Starting)]), []);
        assert_eq!(
            at(1, 2, &[stale(1, Ready), view(2, Ready)]),
            [Action::Drain(1)]
        );
        assert_eq!(
            at(1, 2, &[stale(1, Starting)]),
            [Action::Cancel(1), Action::Start]
        );
    }

    #[test]
    fn without_room_the_old_ones_go_one_at_a_time() {
        let full = [stale(1, Ready), stale(2, Ready)];
        assert_eq!(at(2, 2, &full), [Action::Drain(2)]);
        assert_eq!(at(2, 2, &[stale(1, Ready), stale(2, Draining)]), []);
        assert_eq!(at(2, 2, &[stale(1, Ready)]), [Action::Start]);
        assert_eq!(at(2, 2, &[stale(1, Ready), view(3, Starting)]), []);
        assert_eq!(
            at(2, 2, &[stale(1, Ready), view(3, Ready)]),
            [Action::Drain(1)]
        );
        assert_eq!(at(1, 1, &[stale(1, Ready)]), [Action::Drain(1)]);
        assert_eq!(at(0, 2, &full), [Action::Drain(2), Action::Drain(1)]);
    }

    fn evicted(id: u64, phase: Phase) -> View {
        View {
            evicted: true,
            ..view(id, phase)
        }
    }

    fn unplaced(id: u64) -> View {
        View {
            placed: false,
            ..view(id, Starting)
        }
    }

    #[test]
    fn who_makes_room_goes_and_is_missed_but_not_taken_back() {
        assert_eq!(at(1, 1, &[evicted(1, Ready)]), [Action::Drain(1)]);
        assert_eq!(at(1, 1, &[evicted(1, Draining)]), []);
        assert_eq!(at(1, 2, &[evicted(1, Draining)]), [Action::Start]);
        assert_eq!(at(0, 2, &[evicted(1, Draining)]), []);
        // Nothing else goes meanwhile for want of a successor.
        assert_eq!(at(2, 2, &[evicted(1, Draining), stale(2, Ready)]), []);
    }

    #[test]
    fn one_that_is_taken_back_is_better_than_one_without_a_place() {
        let both = [view(1, Draining), unplaced(2)];
        assert_eq!(at(1, 2, &both), [Action::Resume(1), Action::Cancel(2)]);
        assert_eq!(at(2, 2, &both), [Action::Resume(1)]);
        assert_eq!(at(1, 2, &[evicted(1, Draining), unplaced(2)]), []);
        let starting = [unplaced(1), view(2, Starting)];
        assert_eq!(at(1, 2, &starting), [Action::Cancel(1)]);
    }
}
