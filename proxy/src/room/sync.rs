//! What the room is built of. Its loom tests compile the same files over loom's instead.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64};
pub(super) use std::sync::{Mutex, MutexGuard};
