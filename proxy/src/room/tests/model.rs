//! Seeded schedules on one thread against a model that knows the order of all who wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use fastrand::Rng;

use super::{Bell, Chair, Hall, free, limits, poll};
use crate::room::{Demand, Room, Seat as _, Slot, Waiting};

struct Waiter {
    waiting: Waiting<Arc<Chair>>,
    bell: Arc<Bell>,
}

struct Model {
    rng: Rng,
    room: Hall,
    limit: Option<u32>,
    chairs: Vec<Arc<Chair>>,
    /// In the order in which they are to be served.
    line: Vec<Waiter>,
    /// With whether their heads came.
    slots: Vec<(Slot<Arc<Chair>>, bool)>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let limit = (!seed.is_multiple_of(3)).then(|| rng.u32(1..4));
        let chairs = (0..3).map(|_| Chair::new(rng.bool())).collect();
        Self {
            room: Room::new(limits(limit)),
            limit,
            chairs,
            line: Vec::new(),
            slots: Vec::new(),
            rng,
        }
    }

    fn step(&mut self) {
        match self.rng.u8(0..20) {
            0..7 => self.arrive(),
            7..12 => drop(self.some_slot()),
            12 | 13 if !self.line.is_empty() => {
                let index = self.rng.usize(0..self.line.len());
                drop(self.line.remove(index));
            }
            14 => {
                // Whoever is given the slot leaves before it knows.
                drop(self.some_slot());
                if !self.line.is_empty() {
                    drop(self.line.remove(0));
                }
            }
            15 | 16 if !self.slots.is_empty() => {
                let index = self.rng.usize(0..self.slots.len());
                let (slot, came) = &mut self.slots[index];
                slot.head_came();
                *came = true;
            }
            17 => self.come_back(),
            18 => {
                let index = self.rng.usize(0..self.chairs.len());
                self.chairs[index].set(self.rng.bool());
                self.room.opened(&self.chairs[index]);
            }
            19 if self.rng.bool() => {
                if self.rng.u8(0..4) == 0 {
                    self.limit = self.limit.xor(Some(2));
                }
                self.limit = self.limit.map(|_| self.rng.u32(1..4));
                self.room.set_limits(limits(self.limit));
                self.chairs.iter().for_each(|c| self.room.opened(c));
            }
            _ => {}
        }
    }

    fn some_slot(&mut self) -> Option<Slot<Arc<Chair>>> {
        let index = self.rng.usize(0..self.slots.len().max(1));
        (index < self.slots.len()).then(|| self.slots.swap_remove(index).0)
    }

    fn arrive(&mut self) {
        let pick = || free(&self.room, &self.chairs);
        let taken = self.room.try_take(|| Some((pick()?, ())));
        if let Some((slot, ())) = taken {
            assert!(self.line.is_empty(), "nobody is overtaken");
            self.slots.push((slot, false));
            return;
        }
        let waiting = self.room.join(pick).expect("there is room");
        self.wait(waiting, self.line.len());
    }

    fn come_back(&mut self) {
        let Some(slot) = self.some_slot() else {
            return;
        };
        let ticket = slot.ticket();
        drop(slot);
        self.settle(); // who was given it is no longer in the line
        let order = |w: &Waiter| w.waiting.ticket().order;
        let place = self.line.partition_point(|w| order(w) <= ticket.order);
        let pick = || free(&self.room, &self.chairs);
        let waiting = self.room.join_front(ticket, pick);
        self.wait(waiting, place);
    }

    fn wait(&mut self, waiting: Waiting<Arc<Chair>>, place: usize) {
        let bell = Arc::<Bell>::default();
        bell.0.store(1, Ordering::SeqCst); // looked at once
        self.line.insert(place, Waiter { waiting, bell });
    }

    /// Looks at those who were woken: they must be the first of the line.
    fn settle(&mut self) {
        let mut index = 0;
        let mut is_prefix = true;
        while let Some(waiter) = self.line.get_mut(index) {
            let is_woken = waiter.bell.0.swap(0, Ordering::SeqCst) > 0;
            let waker = Waker::from(Arc::clone(&waiter.bell));
            match is_woken
                .then(|| poll(&mut waiter.waiting, &waker))
                .flatten()
            {
                Some(fate) => {
                    assert!(is_prefix, "somebody was overtaken");
                    self.slots.push((fate.expect("nothing failed"), false));
                    self.line.remove(index);
                }
                None => {
                    is_prefix = false;
                    index += 1;
                }
            }
        }
    }

    fn check(&self) {
        let used: u32 = self.chairs.iter().map(|c| c.seating().used()).sum();
        assert_eq!(used as usize, self.slots.len());
        let expected = Demand {
            in_flight: used,
            waiting: self.line.len() as u32,
        };
        assert_eq!(self.room.demand(), expected);
        if self.line.is_empty() {
            return;
        }
        for chair in self.chairs.iter().filter(|c| c.may_serve()) {
            match self.limit {
                Some(limit) => assert!(chair.seating().used() >= limit, "somebody waits in vain"),
                None => {
                    let mut here = self.slots.iter().filter(|s| Arc::ptr_eq(s.0.seat(), chair));
                    assert!(here.any(|(_, came)| !came), "nothing will go on");
                }
            }
        }
    }
}

#[test]
fn every_schedule_serves_in_order_and_loses_nothing() {
    for seed in 0..512 {
        let mut model = Model::new(seed);
        for _ in 0..300 {
            let before: Vec<u32> = model.chairs.iter().map(|c| c.seating().used()).collect();
            model.step();
            model.settle();
            model.check();
            if let Some(limit) = model.limit {
                for (chair, before) in model.chairs.iter().zip(before) {
                    let used = chair.seating().used();
                    assert!(used <= limit.max(before), "seed {seed}: {used} of {limit}");
                }
            }
        }
        model.slots.clear();
        model.line.clear();
        model.check();
        assert_eq!(model.room.demand(), Demand::default(), "seed {seed}");
    }
}
