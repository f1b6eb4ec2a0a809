//! What is going to happen, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::brain::Cause;

/// Something that happens at one moment. Numbers name clients and replicas; what was meant for an earlier visit of a
/// client to the line or to a server means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A request comes, and so many more of its burst.
    Arrive { more: usize },
    /// The client goes away, wherever its request is.
    Leave { client: u64 },
    /// A clock of a request that waits rings.
    Due { client: u64, visit: u32 },
    /// The response head comes.
    Head { client: u64, visit: u32 },
    /// The last byte comes.
    Done { client: u64, visit: u32 },
    /// The scaler looks.
    Look { cause: Cause, number: u64 },
    /// A start ends.
    Started { replica: u64, failed: bool },
    /// A server dies; the driver hears of it later.
    Crash { replica: u64 },
    /// The driver hears that a process is gone.
    Gone { replica: u64 },
    /// A server takes no connections for a while.
    Refuse { replica: u64 },
    /// The driver asks whether a replica that drains is idle.
    Drained { replica: u64 },
    /// The driver may start again.
    Unblocked,
    /// Endpoints that are down are tried.
    Probe { number: u64 },
    /// An operator or a new file changes something.
    Meddle,
    /// An operator gives an endpoint back.
    Undrain { port: u16 },
}

/// Events by time, those of one moment in the order in which they were planned.
#[derive(Default)]
pub(crate) struct Agenda {
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    planned: u64,
}

impl Agenda {
    /// * `at`: milliseconds
    pub(crate) fn plan(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.events.push(Reverse((at, self.planned, event)));
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next event that is due.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Event> {
        self.next_at().filter(|&at| at <= now)?;
        self.events.pop().map(|Reverse((.., event))| event)
    }
}
