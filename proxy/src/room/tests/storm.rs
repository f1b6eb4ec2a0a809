//! Seeded schedules on several threads. After each round all stand still, and nobody may wait in vain.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Waker;

use fastrand::Rng;

use super::{Bell, Chair, Hall, free, limits, poll};
use crate::room::{Demand, Room, Seat as _, Slot, Waiting};

const THREADS: u64 = 4;
const ROUNDS: u32 = 4;
const STEPS: u32 = 60;
const MOST: u32 = 3;

/// What all threads of one schedule share.
struct Storm {
    room: Hall,
    chairs: Vec<Arc<Chair>>,
    still: Barrier,
    /// Slots and waiting requests of all threads.
    held: AtomicU32,
    waiting: AtomicU32,
    /// The limit never goes.
    is_bounded: bool,
    /// Limits and endpoints change.
    is_changing: bool,
}

struct Thread {
    storm: Arc<Storm>,
    rng: Rng,
    line: Vec<(Waiting<Arc<Chair>>, Arc<Bell>)>,
    slots: Vec<Slot<Arc<Chair>>>,
    /// The one that changes limits and endpoints.
    is_master: bool,
}

impl Thread {
    fn run(mut self) {
        for _ in 0..ROUNDS {
            for _ in 0..STEPS {
                self.step();
            }
            self.storm.still.wait();
            self.settle();
            let (held, waiting) = (self.slots.len() as u32, self.line.len() as u32);
            self.storm.held.fetch_add(held, Ordering::SeqCst);
            self.storm.waiting.fetch_add(waiting, Ordering::SeqCst);
            self.storm.still.wait();
            if self.is_master {
                self.storm.check();
            }
            self.storm.still.wait();
        }
    }

    fn step(&mut self) {
        match self.rng.u8(0..12) {
            0..5 => self.arrive(),
            5..8 if !self.slots.is_empty() => {
                let index = self.rng.usize(0..self.slots.len());
                drop(self.slots.swap_remove(index));
            }
            8 if !self.line.is_empty() => {
                let index = self.rng.usize(0..self.line.len());
                drop(self.line.swap_remove(index));
            }
            9 => {
                if let Some(slot) = self.slots.last_mut() {
                    slot.head_came();
                }
            }
            10 => {
                if let Some(slot) = self.slots.pop() {
                    let ticket = slot.ticket();
                    drop(slot);
                    let pick = || free(&self.storm.room, &self.storm.chairs);
                    let waiting = self.storm.room.join_front(ticket, pick);
                    self.wait(waiting);
                }
            }
            11 if self.is_master && self.storm.is_changing => self.change(),
            _ => self.settle(),
        }
    }

    fn arrive(&mut self) {
        let Storm { room, chairs, .. } = &*self.storm;
        let pick = || free(room, chairs);
        match room.try_take(|| Some((pick()?, ()))) {
            Some((slot, ())) => self.hold(slot),
            None => {
                let waiting = room.join(pick).expect("there is room");
                self.wait(waiting);
            }
        }
    }

    fn wait(&mut self, waiting: Waiting<Arc<Chair>>) {
        let bell = Arc::<Bell>::default();
        bell.0.store(1, Ordering::SeqCst); // looked at once
        self.line.push((waiting, bell));
    }

    fn hold(&mut self, slot: Slot<Arc<Chair>>) {
        let used = slot.seat().seating().used();
        assert!(used > 0 && (!self.storm.is_bounded || used <= MOST));
        self.slots.push(slot);
    }

    /// Looks at those who were woken, and at no others.
    fn settle(&mut self) {
        for (mut waiting, bell) in std::mem::take(&mut self.line) {
            let is_woken = bell.0.swap(0, Ordering::SeqCst) > 0;
            let waker = Waker::from(Arc::clone(&bell));
            match is_woken.then(|| poll(&mut waiting, &waker)).flatten() {
                Some(fate) => self.hold(fate.expect("nothing failed")),
                None => self.line.push((waiting, bell)),
            }
        }
    }

    fn change(&mut self) {
        let Storm { room, chairs, .. } = &*self.storm;
        let chair = &chairs[self.rng.usize(0..chairs.len())];
        if self.rng.bool() {
            chair.set(self.rng.bool());
            room.opened(chair);
            return;
        }
        let limit = self.rng.u32(0..=MOST);
        let limit = (self.storm.is_bounded || limit > 0).then_some(limit.max(1));
        room.set_limits(limits(limit));
        chairs.iter().for_each(|chair| room.opened(chair));
    }
}

impl Storm {
    fn check(&self) {
        let used: u32 = self.chairs.iter().map(|c| c.seating().used()).sum();
        let expected = Demand {
            in_flight: self.held.swap(0, Ordering::SeqCst),
            waiting: self.waiting.swap(0, Ordering::SeqCst),
        };
        assert_eq!(
            self.room.demand(),
            expected,
            "somebody was given a slot and not woken"
        );
        assert_eq!(used, expected.in_flight);
        let Some(limit) = self.room.concurrency().filter(|_| expected.waiting > 0) else {
            return;
        };
        let serving = self.chairs.iter().filter(|c| c.may_serve());
        for chair in serving {
            assert!(chair.seating().used() >= limit, "somebody waits in vain");
        }
    }
}

#[test]
fn in_every_storm_slots_are_exact_and_nobody_waits_in_vain() {
    for seed in 0..320 {
        let is_bounded = seed & 3 > 0;
        let storm = Arc::new(Storm {
            room: Room::new(limits(is_bounded.then_some(MOST))),
            chairs: (0..2).map(|_| Chair::new(is_bounded)).collect(),
            still: Barrier::new(THREADS as usize),
            held: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            is_bounded,
            is_changing: seed & 3 != 1,
        });
        let threads = (0..THREADS).map(|index| {
            let thread = Thread {
                storm: Arc::clone(&storm),
                rng: Rng::with_seed(seed * THREADS + index),
                line: Vec::new(),
                slots: Vec::new(),
                is_master: index == 0,
            };
            std::thread::spawn(|| thread.run())
        });
        let threads: Vec<_> = threads.collect();
        for thread in threads {
            thread.join().unwrap_or_else(|_| panic!("seed {seed}"));
        }
        assert_eq!(storm.room.demand(), Demand::default(), "seed {seed}");
        assert!(storm.chairs.iter().all(|c| c.seating().used() == 0));
    }
}
