//! The devices that local processes share: who gets which, and who goes for it.

mod plan;

pub use plan::{STUCK, TURN, Why};
