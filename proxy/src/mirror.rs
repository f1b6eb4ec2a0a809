//! Copies of requests, which never delay or fail the primary.
//!
//! [`Mirrors`] is what a route has, compiled when the configuration loads. A request that is in the sample gets an
//! [`Observation`]: it starts the copies once the primary has its endpoint, each a task of its own on the same
//! worker, and gathers what came of all of them for comparing and recording.

mod begin;
mod copy;
mod observation;
mod reach;
mod state;
mod view;

pub use begin::{Sampled, begin};
pub use observation::Observation;
pub use state::{MirrorState, Outcome};
pub use view::{Compiler, Ledger, MirrorError, MirrorView, Mirrors};
