//! Models by name: where a request names its model, what it is called upstream, and which cluster serves it.
//!
//! [`grammar`] is the table of where each kind of server looks for the name; [`scan`] finds it in a body that is still
//! coming; [`Opened`] reads as much of the body as that takes; [`Served`] knows who serves which name; [`edit`] replaces
//! an alias by the name that upstream knows, byte for byte where it is written.
//!
//! A request is never routed by one name while its server acts on another: a body that names its model twice is refused,
//! however late the second one comes.

pub mod edit;
pub mod grammar;
mod grpc;
mod multipart;
mod open;
mod part;
pub mod renaming;
pub mod scan;
mod served;

pub use grammar::Grammar;
pub use open::{Opened, Wanted};
pub use renaming::Renaming;
pub use served::Served;

/// Bytes of a body that are looked at before the request is sent on.
pub const LOOKED_AT: usize = 64 << 10;

/// Bytes of a name that are read; a longer one names nothing.
pub const LONGEST: usize = forebay_config::peek::LONGEST;
