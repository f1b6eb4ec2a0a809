//! Where requests wait for a free slot, cold or saturated.
//!
//! A [`Room`] belongs to one cluster, outlives generations of the configuration and is shared by all workers. It knows
//! nothing of HTTP and has no clock of its own: whoever waits races its [`Waiting`] with its deadlines, see [`Clocks`].
//!
//! # How no wake-up is lost
//!
//! `crowd` holds the number of those that wait and of the slots in use in one word that is only changed by
//! read-modify-write, so all of its changes have one order. Who arrives counts itself there and *then* looks for a free
//! slot; who releases frees the slot and *then* uncounts it there. Whichever of the two changes comes first, the other
//! one sees what was done before it: the released slot is found, or the one that waits is. An endpoint that is opened
//! changes the word as well, after its limit or health changed and before its slots are looked at.

mod clocks;
mod line;
#[cfg(test)]
mod loom;
mod slots;
mod sync;
#[cfg(test)]
mod tests;
mod waiting;

pub use clocks::{Clocks, Due, Replicas};
pub use line::Ticket;
pub use slots::{Seat, Seating, Slot};
pub use waiting::{Demand, Full, Limits, Report, Room, Waiting};
