//! The room over loom's atomics and locks: every order in which a few threads can meet, as far as loom's memory model
//! tells them apart. The same files are compiled once more for that, so it takes no flag and no other build.
#![expect(
    unreachable_pub,
    dead_code,
    reason = "of what is public for others only a part is tested here"
)]

#[expect(clippy::duplicate_mod, reason = "the same code over other atomics")]
#[path = "clocks.rs"]
mod clocks;
#[expect(clippy::duplicate_mod, reason = "the same code over other atomics")]
#[path = "line.rs"]
mod line;
#[expect(clippy::duplicate_mod, reason = "the same code over other atomics")]
#[path = "slots.rs"]
mod slots;
#[expect(clippy::duplicate_mod, reason = "the same code over other atomics")]
#[path = "waiting.rs"]
mod waiting;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64};
    pub(super) use loom::sync::{Mutex, MutexGuard};
}

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use loom::future::block_on;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use slots::{Seat, Seating, Slot};
use waiting::{Demand, Limits, Room, Waiting};

struct Chair {
    seating: Seating,
    serves: AtomicBool,
}

impl Seat for Arc<Chair> {
    fn seating(&self) -> &Seating {
        &self.seating
    }

    fn may_serve(&self) -> bool {
        self.serves.load(Ordering::Acquire)
    }
}

type Hall = Arc<Room<Arc<Chair>>>;

fn hall(concurrency: Option<u32>, serves: bool) -> (Hall, Arc<Chair>) {
    let chair = Chair {
        seating: Seating::default(),
        serves: AtomicBool::new(serves),
    };
    (Room::new(limits(concurrency)), Arc::new(chair))
}

fn limits(concurrency: Option<u32>) -> Limits {
    Limits {
        concurrency,
        max_requests: 8,
        max_bytes: 0,
    }
}

fn free(room: &Hall, chair: &Arc<Chair>) -> Option<Arc<Chair>> {
    (chair.may_serve() && room.has_free(chair)).then(|| Arc::clone(chair))
}

fn take(room: &Hall, chair: &Arc<Chair>) -> Option<Slot<Arc<Chair>>> {
    let taken = room.try_take(|| Some((free(room, chair)?, ())));
    taken.map(|(slot, ())| slot)
}

fn join(room: &Hall, chair: &Arc<Chair>) -> Waiting<Arc<Chair>> {
    room.join(|| free(room, chair)).expect("there is room")
}

/// As a request comes: at once, or when its turn is.
fn serve(room: &Hall, chair: &Arc<Chair>) -> Slot<Arc<Chair>> {
    match take(room, chair) {
        Some(slot) => slot,
        None => block_on(join(room, chair)).expect("nothing failed"),
    }
}

fn assert_nothing_is_left(room: &Hall, chair: &Arc<Chair>) {
    assert_eq!(room.demand(), Demand::default());
    assert_eq!(chair.seating.used(), 0);
}

/// A thread that does this with the room.
fn beside<T: 'static>(
    (room, chair): (&Hall, &Arc<Chair>),
    act: impl FnOnce(Hall, Arc<Chair>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let (room, chair) = (Arc::clone(room), Arc::clone(chair));
    thread::spawn(move || act(room, chair))
}

fn model(preemptions: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(check);
}

#[test]
fn who_arrives_while_a_slot_is_released_gets_it() {
    model(3, || {
        let (room, chair) = hall(Some(1), true);
        let slot = take(&room, &chair).expect("it is free");
        let arriving = beside((&room, &chair), |room, chair| drop(serve(&room, &chair)));
        drop(slot);
        arriving.join().expect("it was served");
        assert_nothing_is_left(&room, &chair);
    });
}

#[test]
fn two_who_arrive_at_once_never_share_a_slot_and_both_get_one() {
    model(2, || {
        let (room, chair) = hall(Some(1), true);
        let arrive = |room: Hall, chair: Arc<Chair>| {
            let slot = serve(&room, &chair);
            assert_eq!(chair.seating.used(), 1);
            drop(slot);
        };
        let other = beside((&room, &chair), arrive);
        arrive(Arc::clone(&room), Arc::clone(&chair));
        other.join().expect("it was served");
        assert_nothing_is_left(&room, &chair);
    });
}

#[test]
fn one_that_leaves_passes_on_the_slot_it_was_just_given() {
    model(2, || {
        let (room, chair) = hall(Some(1), true);
        let slot = take(&room, &chair).expect("it is free");
        let mut leaving = join(&room, &chair);
        let mut context = Context::from_waker(Waker::noop());
        assert!(
            std::pin::Pin::new(&mut leaving)
                .poll(&mut context)
                .is_pending()
        );
        let staying = join(&room, &chair);
        let releasing = beside((&room, &chair), move |_, _| drop(slot));
        let gone = beside((&room, &chair), move |_, _| drop(leaving));
        drop(block_on(staying).expect("nothing failed"));
        releasing.join().expect("it was released");
        gone.join().expect("it left");
        assert_nothing_is_left(&room, &chair);
    });
}

#[test]
fn an_endpoint_that_recovers_while_its_last_slot_is_released_serves_who_waits() {
    model(3, || {
        let (room, chair) = hall(Some(1), true);
        let slot = take(&room, &chair).expect("it is free");
        chair.serves.store(false, Ordering::Release);
        let waiting = join(&room, &chair);
        let releasing = beside((&room, &chair), move |_, _| drop(slot));
        chair.serves.store(true, Ordering::Release);
        room.opened(&chair);
        drop(block_on(waiting).expect("nothing failed"));
        releasing.join().expect("it was released");
        assert_nothing_is_left(&room, &chair);
    });
}

#[test]
fn a_limit_that_is_raised_while_a_slot_is_released_serves_who_waits() {
    model(3, || {
        let (room, chair) = hall(Some(2), true);
        let slots = [take(&room, &chair), take(&room, &chair)];
        room.set_limits(limits(Some(1)));
        let waiting = join(&room, &chair);
        let [first, second] = slots;
        let releasing = beside((&room, &chair), move |_, _| drop(first));
        room.set_limits(limits(Some(2)));
        room.opened(&chair);
        drop(block_on(waiting).expect("nothing failed"));
        releasing.join().expect("it was released");
        drop(second);
        assert_nothing_is_left(&room, &chair);
    });
}

#[test]
fn who_arrives_while_the_first_endpoint_opens_is_served() {
    model(3, || {
        let (room, chair) = hall(None, false);
        let arriving = beside((&room, &chair), |room, chair| drop(serve(&room, &chair)));
        chair.serves.store(true, Ordering::Release);
        room.opened(&chair);
        arriving.join().expect("it was served");
        assert_nothing_is_left(&room, &chair);
    });
}

#[test]
fn one_that_leaves_while_all_are_told_that_it_is_over_is_counted_once() {
    model(3, || {
        let (room, chair) = hall(Some(1), false);
        let (leaving, staying) = (join(&room, &chair), join(&room, &chair));
        let gone = beside((&room, &chair), move |_, _| drop(leaving));
        room.fail_all(crate::error::Reason::NoEndpoint);
        assert!(block_on(staying).is_err());
        gone.join().expect("it left");
        assert_nothing_is_left(&room, &chair);
    });
}
