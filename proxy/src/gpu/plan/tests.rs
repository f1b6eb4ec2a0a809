//! The rules, one by one.

use super::sim::{GIB, device};
use super::*;
use forebay_config::GpuMemory;

const SECOND: Duration = Duration::from_secs(1);

fn share(size: u64) -> GpuShare {
    GpuShare {
        memory: GpuMemory::Bytes(size * GIB),
        cores: 0,
    }
}

/// One that has been ready and idle for five minutes.
fn resident(id: u64, device: u32, size: u64) -> Resident {
    Resident {
        id,
        tenant: id,
        device,
        share: share(size),
        ready_for: Some(300 * SECOND),
        leaving: false,
        evicted: None,
        busy: false,
        idle_for: 300 * SECOND,
        pinned: false,
        stale: false,
        spared: false,
        min_residency: 60 * SECOND,
        cost: 1.0,
    }
}

fn want(id: u64, size: u64) -> Want {
    Want {
        id,
        tenant: id,
        share: share(size),
        only: None,
        urgency: Urgency::Waiting(SECOND),
        runs: false,
    }
}

fn waiting(id: u64, size: u64, seconds: u32) -> Want {
    Want {
        urgency: Urgency::Waiting(seconds * SECOND),
        ..want(id, size)
    }
}

fn busy(id: u64, device: u32, size: u64) -> Resident {
    Resident {
        busy: true,
        idle_for: Duration::ZERO,
        ..resident(id, device, size)
    }
}

fn evicted_for(residents: &[Resident], want: Want) -> Vec<u64> {
    let devices = [device(0, 10)];
    let decision = decide(&devices, residents, &[want]);
    assert_eq!(decision.places, []);
    decision.evict
}

#[test]
fn a_place_is_given_where_the_least_is_left_over() {
    let devices = [device(0, 24), device(1, 12), device(2, 12)];
    let there = [resident(1, 2, 3)];
    let placed = |size| decide(&devices, &there, &[want(9, size)]).places;
    assert_eq!(placed(8), [(9, 2)]);
    assert_eq!(placed(10), [(9, 1)]);
    assert_eq!(placed(13), [(9, 0)]);
    // Both are placed at once, and neither where the other is.
    let two = [want(8, 9), want(9, 9)];
    assert_eq!(decide(&devices, &there, &two).places, [(8, 2), (9, 1)]);
    let only = Want {
        only: Some(0),
        ..want(9, 8)
    };
    assert_eq!(decide(&devices, &there, &[only]).places, [(9, 0)]);
}

#[test]
fn cores_count_as_memory_does() {
    let half = |memory, cores| GpuShare {
        cores,
        ..share(memory)
    };
    let there = Resident {
        share: half(1, 60),
        busy: true,
        ..resident(1, 0, 1)
    };
    let devices = [device(0, 10)];
    let with = |cores| Want {
        share: half(1, cores),
        ..want(9, 1)
    };
    assert_eq!(
        decide(&devices, std::slice::from_ref(&there), &[with(40)]).places,
        [(9, 0)]
    );
    let full = decide(&devices, &[there], &[with(41)]);
    assert_eq!((full.places, full.waits), (vec![], vec![(9, Why::Blocked)]));
    assert_eq!(decide(&devices, &[], &[with(101)]).waits, [(9, Why::Never)]);
}

#[test]
fn a_share_of_the_memory_is_one_of_the_device() {
    let all = Want {
        share: GpuShare {
            memory: GpuMemory::Share(1_000_000),
            cores: 0,
        },
        ..want(9, 1)
    };
    let devices = [device(0, 24), device(1, 12)];
    assert_eq!(
        decide(&devices, &[], std::slice::from_ref(&all)).places,
        [(9, 1)]
    );
    let there = [resident(1, 1, 1)];
    assert_eq!(decide(&devices, &there, &[all]).places, [(9, 0)]);
}

#[test]
fn those_go_that_cost_least() {
    let costing = |id, size, cost| Resident {
        cost,
        ..resident(id, 0, size)
    };
    let there = [costing(1, 4, 5.0), costing(2, 3, 1.0), costing(3, 3, 2.0)];
    assert_eq!(evicted_for(&there, want(9, 3)), [2]);
    assert_eq!(evicted_for(&there, want(9, 4)), [2, 3]); // 3 together, less than 5
    assert_eq!(evicted_for(&there, want(9, 10)), [1, 2, 3]);
    // Of equals the fewest, then the one that was idle longest.
    let equal = [costing(1, 4, 0.0), costing(2, 3, 0.0), costing(3, 3, 0.0)];
    assert_eq!(evicted_for(&equal, want(9, 4)), [1]);
    let younger = Resident {
        idle_for: SECOND,
        ..equal[1].clone()
    };
    assert_eq!(
        evicted_for(&[equal[0].clone(), younger, equal[2].clone()], want(9, 3)),
        [1]
    );
}

#[test]
fn of_very_many_enough_go_and_none_in_vain() {
    let there: Vec<Resident> = (1..=20)
        .map(|id| Resident {
            cost: id as f64,
            share: GpuShare {
                memory: GpuMemory::Bytes(GIB / 2),
                cores: 0,
            },
            ..resident(id, 0, 1)
        })
        .collect();
    let mut gone = evicted_for(&there, want(9, 2));
    gone.sort_unstable();
    assert_eq!(gone, [1, 2, 3, 4]);
}

#[test]
fn nobody_goes_who_is_pinned_young_starting_or_at_work() {
    let idle = resident(1, 0, 10);
    assert_eq!(evicted_for(std::slice::from_ref(&idle), want(9, 5)), [1]);
    let pinned = Resident {
        pinned: true,
        ..idle.clone()
    };
    let young = Resident {
        ready_for: Some(59 * SECOND),
        ..idle.clone()
    };
    let starting = Resident {
        ready_for: None,
        ..idle.clone()
    };
    let spared = Resident {
        spared: true,
        ..idle.clone()
    };
    for other in [pinned, young, starting, spared, busy(1, 0, 10)] {
        assert_eq!(evicted_for(&[other], want(9, 5)), [0; 0]);
    }
}

#[test]
fn long_waiting_ends_the_turn_of_a_busy_one_that_had_as_much() {
    let at_work = |seconds| Resident {
        ready_for: Some(seconds * SECOND),
        min_residency: Duration::ZERO,
        ..busy(1, 0, 10)
    };
    assert_eq!(evicted_for(&[at_work(100)], waiting(9, 5, 29)), [0; 0]);
    assert_eq!(evicted_for(&[at_work(100)], waiting(9, 5, 30)), [1]);
    assert_eq!(evicted_for(&[at_work(29)], waiting(9, 5, 30)), [0; 0]);
    let resident = Resident {
        min_residency: 200 * SECOND,
        ..at_work(100)
    };
    assert_eq!(evicted_for(&[resident], waiting(9, 5, 900)), [0; 0]);
    // More replicas of what runs anyway end nobody's turn.
    let more = Want {
        runs: true,
        ..waiting(9, 5, 900)
    };
    assert_eq!(evicted_for(&[at_work(100)], more.clone()), [0; 0]);
    assert_eq!(evicted_for(&[super::tests::resident(1, 0, 10)], more), [1]);
    let early = Want {
        runs: true,
        ..waiting(9, 5, 29)
    };
    assert_eq!(
        evicted_for(&[super::tests::resident(1, 0, 10)], early),
        [0; 0]
    );
}

#[test]
fn what_should_only_be_there_takes_what_is_free() {
    let standing = |tenant| Want {
        urgency: Urgency::Standing,
        tenant,
        ..want(9, 5)
    };
    assert_eq!(
        decide(&[device(0, 10)], &[], &[standing(9)]).places,
        [(9, 0)]
    );
    assert_eq!(evicted_for(&[resident(1, 0, 10)], standing(9)), [0; 0]);
    // But what it replaces goes for it, whatever it is.
    let old = Resident {
        stale: true,
        pinned: true,
        ready_for: Some(SECOND),
        ..busy(1, 0, 10)
    };
    assert_eq!(evicted_for(std::slice::from_ref(&old), standing(1)), [1]);
    assert_eq!(evicted_for(&[old], standing(9)), [0; 0]);
    let asked = Want {
        urgency: Urgency::Asked,
        ..want(9, 5)
    };
    assert_eq!(evicted_for(&[resident(1, 0, 10)], asked.clone()), [1]);
    assert_eq!(evicted_for(&[busy(1, 0, 10)], asked), [0; 0]);
}

#[test]
fn nobody_else_goes_while_somebody_goes_and_none_takes_what_is_promised() {
    let going = Resident {
        leaving: true,
        ..resident(1, 0, 6)
    };
    let there = [going, resident(2, 0, 4)];
    let wants = [waiting(8, 6, 9), waiting(9, 3, 5)];
    let decision = decide(&[device(0, 10)], &there, &wants);
    // Nothing goes for 8, which waits for 1; 9 needs 2 to go.
    assert_eq!(decision.evict, [2]);
    assert_eq!(decision.waits, [(8, Why::Leaving), (9, Why::Leaving)]);
    // What is free but needed with it is not given away.
    let decision = decide(
        &[device(0, 10)],
        &there[..1],
        &[waiting(8, 8, 9), waiting(9, 3, 5)],
    );
    assert_eq!(decision.places, []);
    let decision = decide(
        &[device(0, 10)],
        &there[..1],
        &[waiting(8, 8, 9), waiting(9, 2, 5)],
    );
    assert_eq!(decision.places, [(9, 0)]);
}

#[test]
fn one_that_leaves_with_work_is_not_waited_for_where_another_can_go() {
    let going = Resident {
        leaving: true,
        ..busy(1, 0, 5)
    };
    assert_eq!(
        evicted_for(&[going.clone(), resident(2, 0, 5)], want(9, 5)),
        [2]
    );
    let decision = decide(&[device(0, 10)], &[going, busy(2, 0, 5)], &[want(9, 5)]);
    assert_eq!(decision.waits, [(9, Why::Blocked)]);
}

#[test]
fn who_need_not_make_room_any_more_stays() {
    let asked = |seconds, busy: bool| Resident {
        leaving: true,
        evicted: Some(seconds * SECOND),
        busy,
        ..resident(1, 0, 10)
    };
    let devices = [device(0, 10)];
    assert_eq!(decide(&devices, &[asked(1, true)], &[]).keep, [1]);
    let decision = decide(&devices, &[asked(239, true)], &[want(9, 5)]);
    assert_eq!(
        (decision.keep, decision.waits),
        (vec![], vec![(9, Why::Leaving)])
    );
    let decision = decide(&devices, &[asked(240, true)], &[want(9, 5)]);
    assert_eq!(
        (decision.keep, decision.waits),
        (vec![1], vec![(9, Why::Blocked)])
    );
    let decision = decide(&devices, &[asked(240, false)], &[want(9, 5)]);
    assert_eq!(decision.keep, [0; 0]);
}

#[test]
fn what_somebody_large_has_waited_for_is_not_given_to_small_ones() {
    let there = [busy(1, 0, 5)];
    let young = Resident {
        ready_for: Some(SECOND),
        ..there[0].clone()
    };
    let small = |wanted| {
        let wants = [wanted, waiting(9, 2, 1)];
        decide(&[device(0, 10)], std::slice::from_ref(&young), &wants).places
    };
    assert_eq!(small(waiting(8, 6, 29)), [(9, 0)]);
    assert_eq!(small(waiting(8, 6, 30)), []);
}

#[test]
fn what_can_never_be_is_said() {
    let devices = [device(0, 10), device(1, 4)];
    let why = |there: &[Resident], want: Want| {
        let waits = decide(&devices, there, &[want]).waits;
        waits.first().map(|(_, why)| *why)
    };
    let pinned = |size| Resident {
        pinned: true,
        ..busy(1, 0, size)
    };
    assert_eq!(why(&[], want(9, 11)), Some(Why::Never));
    assert_eq!(why(&[pinned(5)], want(9, 6)), Some(Why::Never));
    assert_eq!(
        why(&[pinned(4), busy(2, 0, 6)], want(9, 6)),
        Some(Why::Blocked)
    );
    assert_eq!(why(&[pinned(5)], want(9, 5)), None);
    let going = Resident {
        leaving: true,
        ..pinned(5)
    };
    assert_eq!(why(&[going], want(9, 6)), Some(Why::Blocked));
    let elsewhere = Want {
        only: Some(1),
        ..want(9, 5)
    };
    assert_eq!(why(&[], elsewhere), Some(Why::Never));
    let nowhere = Want {
        only: Some(7),
        ..want(9, 5)
    };
    assert_eq!(why(&[], nowhere), Some(Why::Never));
}

#[test]
fn a_smaller_budget_gives_nothing_until_it_holds_what_is_there() {
    let there = [busy(1, 0, 8), resident(2, 0, 4)];
    let decision = decide(&[device(0, 10)], &there, &[want(9, 1)]);
    assert_eq!((decision.places, decision.evict), (vec![], vec![2]));
    // A device that is no longer listed holds what it holds, and gets nothing.
    let decision = decide(&[device(1, 1)], &there, &[want(9, 1)]);
    assert_eq!(decision.places, [(9, 1)]);
}
