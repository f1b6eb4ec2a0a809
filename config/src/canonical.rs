//! One spelling per host and one per path, for routing, access, limits, logs and forwarding alike.
//!
//! Both functions borrow their input when it is already canonical, after one pass over its bytes. Both are
//! idempotent: what they return, they return again unchanged.

mod host;
mod path;

pub use host::{HOST_MAX, HostError, canonical_host};
pub use path::{PathError, canonical_path};
