//! The room on one thread: who gets which slot, and when.

mod model;
mod storm;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant as Clock};

use tokio::time::Instant;

use super::*;
use crate::error::Reason;

/// An endpoint.
pub(super) struct Chair {
    seating: Seating,
    serves: AtomicBool,
}

impl Chair {
    pub(super) fn new(serves: bool) -> Arc<Self> {
        Arc::new(Self {
            seating: Seating::default(),
            serves: AtomicBool::new(serves),
        })
    }

    pub(super) fn set(&self, serves: bool) {
        self.serves.store(serves, Ordering::SeqCst);
    }
}

impl Seat for Arc<Chair> {
    fn seating(&self) -> &Seating {
        &self.seating
    }

    fn may_serve(&self) -> bool {
        self.serves.load(Ordering::SeqCst)
    }
}

pub(super) type Hall = Arc<Room<Arc<Chair>>>;

/// Counts how often it is woken.
#[derive(Default)]
pub(super) struct Bell(pub(super) AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub(super) fn limits(concurrency: Option<u32>) -> Limits {
    Limits {
        concurrency,
        max_requests: 20_000,
        max_bytes: 1 << 20,
    }
}

/// Picks the first one of `chairs` that serves and has a free slot.
pub(super) fn free(room: &Hall, chairs: &[Arc<Chair>]) -> Option<Arc<Chair>> {
    let mut chairs = chairs.iter();
    chairs
        .find(|c| c.may_serve() && room.has_free(c))
        .map(Arc::clone)
}

fn take(room: &Hall, chairs: &[Arc<Chair>]) -> Option<Slot<Arc<Chair>>> {
    let taken = room.try_take(|| Some((free(room, chairs)?, ())));
    taken.map(|(slot, ())| slot)
}

fn join(room: &Hall, chairs: &[Arc<Chair>]) -> Waiting<Arc<Chair>> {
    room.join(|| free(room, chairs)).expect("there is room")
}

pub(super) fn poll<S: Seat>(
    waiting: &mut Waiting<S>,
    waker: &Waker,
) -> Option<Result<Slot<S>, Reason>> {
    match std::pin::Pin::new(waiting).poll(&mut Context::from_waker(waker)) {
        Poll::Ready(fate) => Some(fate),
        Poll::Pending => None,
    }
}

fn granted<S: Seat>(waiting: &mut Waiting<S>) -> Option<Slot<S>> {
    poll(waiting, Waker::noop()).map(|fate| fate.expect("nothing failed"))
}

#[test]
fn a_slot_goes_from_hand_to_hand_in_order_and_wakes_only_the_next() {
    let chairs = [Chair::new(true)];
    let room = Room::new(limits(Some(1)));
    let slot = take(&room, &chairs).expect("one is free");
    assert!(take(&room, &chairs).is_none());
    let bells: Vec<Arc<Bell>> = (0..3).map(|_| Arc::default()).collect();
    let mut line: Vec<_> = (0..3).map(|_| join(&room, &chairs)).collect();
    for (waiting, bell) in line.iter_mut().zip(&bells) {
        assert!(poll(waiting, &Waker::from(Arc::clone(bell))).is_none());
    }
    let expected = Demand {
        in_flight: 1,
        waiting: 3,
    };
    assert_eq!(room.demand(), expected);
    drop(slot);
    let rung: Vec<u32> = bells.iter().map(|b| b.0.load(Ordering::SeqCst)).collect();
    assert_eq!(rung, [1, 0, 0]);
    assert_eq!(chairs[0].seating.used(), 1); // never free in between
    drop(line.remove(0)); // cancelled with the slot in its hand
    assert!(granted(&mut line[1]).is_none());
    let slot = granted(&mut line[0]).expect("it was passed on");
    drop(line.remove(1));
    drop((slot, line));
    assert_eq!(room.demand(), Demand::default());
    assert_eq!(chairs[0].seating.used(), 0);
    assert_eq!(room.report().queued, 3);
}

#[test]
fn the_line_is_bounded_but_not_for_who_comes_back_to_its_old_place() {
    let chairs = [Chair::new(true)];
    let one = Limits {
        max_requests: 1,
        ..limits(Some(2))
    };
    let room = Room::new(one);
    let early = take(&room, &chairs).expect("one is free");
    let late = take(&room, &chairs).expect("one is free");
    let mut last = join(&room, &chairs);
    assert_eq!(room.join(|| None).err(), Some(Full));
    let mut waited = room.join_front(early.ticket(), || None);
    drop(early); // goes to the head
    let first = granted(&mut waited).expect("it came first");
    assert!(granted(&mut last).is_none());
    let ticket = first.ticket();
    let mut again = room.join_front(ticket, || None);
    drop(late);
    let since = waited.since();
    assert_eq!(
        granted(&mut again).and_then(|slot| slot.since()),
        Some(since)
    );
    assert!(granted(&mut last).is_some());
}

#[test]
fn an_endpoint_that_may_not_serve_frees_its_slots_until_it_is_opened() {
    let chairs = [Chair::new(true)];
    let room = Room::new(limits(Some(2)));
    let slots = [take(&room, &chairs), take(&room, &chairs)];
    let mut line: Vec<_> = (0..3).map(|_| join(&room, &chairs)).collect();
    chairs[0].set(false);
    drop(slots);
    assert!(granted(&mut line[0]).is_none());
    assert_eq!(chairs[0].seating.used(), 0);
    room.opened(&chairs[0]);
    assert!(granted(&mut line[0]).is_none());
    chairs[0].set(true);
    room.opened(&chairs[0]);
    let held: Vec<_> = line.iter_mut().map(|w| granted(w).is_some()).collect();
    assert_eq!(held, [true, true, true]); // the first slot is gone as soon as it was looked at
}

#[test]
fn limits_change_in_place() {
    let chairs = [Chair::new(true)];
    let room = Room::new(limits(Some(1)));
    let first = take(&room, &chairs).expect("one is free");
    let mut line: Vec<_> = (0..4).map(|_| join(&room, &chairs)).collect();
    room.set_limits(limits(Some(3)));
    room.opened(&chairs[0]);
    let mut slots: Vec<_> = line.iter_mut().filter_map(granted_now).collect();
    assert_eq!(slots.len(), 2);
    room.set_limits(limits(Some(2)));
    drop(first);
    assert_eq!((chairs[0].seating.used(), room.demand().waiting), (2, 2));
    slots.clear();
    assert_eq!((chairs[0].seating.used(), room.demand().waiting), (2, 0));
}

fn granted_now(waiting: &mut Waiting<Arc<Chair>>) -> Option<Slot<Arc<Chair>>> {
    waiting.is_waiting().then(|| granted(waiting)).flatten()
}

#[test]
fn without_a_limit_a_fresh_endpoint_gets_eight_of_the_line_and_one_more_per_head() {
    let chairs = [Chair::new(false)];
    let room = Room::new(limits(None));
    let mut line: Vec<_> = (0..20).map(|_| join(&room, &chairs)).collect();
    chairs[0].set(true);
    assert!(take(&room, &chairs).is_none()); // nobody is overtaken, not even before it is known
    room.opened(&chairs[0]);
    room.opened(&chairs[0]);
    let mut slots: Vec<_> = line.iter_mut().filter_map(granted_now).collect();
    assert_eq!(slots.len(), 8);
    assert!(take(&room, &chairs).is_none()); // behind them
    line.push(join(&room, &chairs));
    slots[0].head_came();
    slots[0].head_came();
    assert_eq!(room.demand().waiting, 12);
    drop(slots.remove(0)); // its head has come
    assert_eq!(room.demand().waiting, 12);
    drop(slots.remove(0)); // as good as a head: nothing else would come of it
    assert_eq!(room.demand().waiting, 11);
    while room.demand().waiting > 0 {
        let next = line.iter_mut().find_map(granted_now);
        next.expect("the pace goes on").head_came();
    }
    assert!(take(&room, &chairs).is_some());
    drop((slots, line));
    assert_eq!(room.demand(), Demand::default());
    assert_eq!(chairs[0].seating.used(), 0);
}

#[test]
fn a_limit_that_goes_and_comes_does_not_stop_the_pace() {
    let chairs = [Chair::new(false)];
    let room = Room::new(limits(None));
    let mut line: Vec<_> = (0..20).map(|_| join(&room, &chairs)).collect();
    chairs[0].set(true);
    room.opened(&chairs[0]);
    let mut slots: Vec<_> = line.iter_mut().filter_map(granted_now).collect();
    room.set_limits(limits(Some(1)));
    room.opened(&chairs[0]);
    assert_eq!((slots.len(), room.demand().waiting), (8, 12));
    slots.clear();
    assert_eq!((chairs[0].seating.used(), room.demand().waiting), (1, 11));
    room.set_limits(limits(None));
    room.opened(&chairs[0]);
    assert_eq!((chairs[0].seating.used(), room.demand().waiting), (9, 3));
}

#[test]
fn all_who_wait_can_be_told_that_it_is_over() {
    let chairs = [Chair::new(false)];
    let room = Room::new(limits(Some(1)));
    let bells: Vec<Arc<Bell>> = (0..1000).map(|_| Arc::default()).collect();
    let mut line: Vec<_> = (0..1000).map(|_| join(&room, &chairs)).collect();
    for (waiting, bell) in line.iter_mut().zip(&bells) {
        assert!(poll(waiting, &Waker::from(Arc::clone(bell))).is_none());
    }
    room.fail_all(Reason::NoEndpoint);
    assert_eq!(room.demand(), Demand::default());
    assert!(bells.iter().all(|bell| bell.0.load(Ordering::SeqCst) == 1));
    let mut later = join(&room, &chairs);
    for waiting in &mut line {
        let fate = poll(waiting, Waker::noop()).expect("it is over");
        assert_eq!(fate.err(), Some(Reason::NoEndpoint));
    }
    assert!(granted(&mut later).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_first_one_that_waits_is_told_and_its_wait_is_counted() {
    let chairs = [Chair::new(false)];
    let room = Room::new(limits(None));
    let told = tokio::spawn({
        let room = Arc::clone(&room);
        async move { room.first_came().await }
    });
    tokio::task::yield_now().await;
    assert!(!told.is_finished());
    let waiting = join(&room, &chairs);
    told.await.expect("it was told");
    tokio::time::advance(Duration::from_secs(3)).await;
    let second = join(&room, &chairs);
    assert_eq!(room.report().oldest, Some(Duration::from_secs(3)));
    drop(waiting);
    assert_eq!(room.report().oldest, Some(Duration::ZERO));
    let again = tokio::time::timeout(Duration::from_secs(1), room.first_came()).await;
    assert!(again.is_err()); // the second was not the first
    drop(second);
    assert_eq!(room.report().oldest, None);
}

#[tokio::test(start_paused = true)]
async fn one_clock_counts_at_a_time_and_both_together_are_the_end() {
    let second = Duration::from_secs(1);
    let clocks = Clocks {
        saturated: 60 * second,
        empty: 600 * second,
    };
    let room: Hall = Room::new(limits(None));
    let replicas = room.replicas();
    let since = Instant::now();
    let due = || clocks.due(since, Instant::now(), replicas);
    assert_eq!(due(), Due::Wait(since + 60 * second));
    tokio::time::advance(100 * second).await;
    assert_eq!(due(), Due::Wait(since + 160 * second));
    replicas.set(true);
    replicas.set(true);
    tokio::time::advance(59 * second).await;
    assert_eq!(due(), Due::Wait(since + 160 * second));
    tokio::time::advance(second).await;
    assert_eq!(due(), Due::Saturated);
    replicas.set(false);
    assert_eq!(due(), Due::Wait(since + 220 * second));
    tokio::time::advance(440 * second).await;
    assert_eq!(due(), Due::Empty);
    for _ in 0..2 {
        replicas.set(false);
        replicas.set(true);
        assert!(matches!(due(), Due::Wait(_)));
        tokio::time::advance(30 * second).await;
    }
    replicas.set(false);
    replicas.set(true);
    assert_eq!(due(), Due::Saturated);
}

#[test]
fn who_waits_costs_little_memory_and_time() {
    let chairs = [Chair::new(true)];
    let room = Room::new(limits(Some(1)));
    let count = 10_000;
    let slot = take(&room, &chairs).expect("one is free");
    let begun = Clock::now();
    let mut line: Vec<_> = (0..count).map(|_| join(&room, &chairs)).collect();
    for waiting in &mut line {
        assert!(granted(waiting).is_none());
    }
    let parked = begun.elapsed();
    let begun = Clock::now();
    drop(slot);
    for waiting in &mut line {
        drop(granted(waiting).expect("it is its turn"));
    }
    let released = begun.elapsed();
    assert_eq!(room.demand(), Demand::default());
    let begun = Clock::now();
    for _ in 0..count {
        drop(take(&room, &chairs));
    }
    let taken = begun.elapsed() / count;
    let size = size_of::<Waiting<Arc<Chair>>>() + line::place_size::<Arc<Chair>>();
    println!(
        "{count} parked in {parked:?}, released in {released:?}; take and release {taken:?}; {size} bytes"
    );
    assert!(size < 300);
}

#[test]
fn ten_thousand_tasks_are_woken_one_by_one() {
    let chairs = [Chair::new(true)];
    let room = Room::new(limits(Some(8)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let served = Arc::new(AtomicU32::new(0));
    let slots: Vec<_> = (0..8).map(|_| take(&room, &chairs)).collect();
    let begun = Clock::now();
    let serve = async |room: Hall, chairs: [Arc<Chair>; 1], served: Arc<AtomicU32>| {
        let slot = join(&room, &chairs).await.expect("nothing failed");
        served.fetch_add(1, Ordering::Relaxed);
        drop(slot);
    };
    let tasks: Vec<_> = (0..10_000)
        .map(|_| runtime.spawn(serve(room.clone(), chairs.clone(), served.clone())))
        .collect();
    runtime.block_on(async {
        while room.demand().waiting < 10_000 {
            tokio::task::yield_now().await;
        }
        println!("10000 tasks parked in {:?}", begun.elapsed());
        let begun = Clock::now();
        drop(slots);
        for task in tasks {
            task.await.unwrap();
        }
        println!("10000 tasks woken and served in {:?}", begun.elapsed());
    });
    assert_eq!(served.load(Ordering::Relaxed), 10_000);
    assert_eq!(room.demand(), Demand::default());
}
