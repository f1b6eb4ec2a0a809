//! What a translator can say: routes, clusters and listeners as typed parts of the native tree.
//!
//! The types are the fence around imported documents: nothing in here can name a process, a file or an admin key,
//! except [`Process`], which only exists with an [`Asked`](super::Asked) in hand. A part's `at` is its
//! place in the source; `None`: that of the part it is in. Empty parts and `None` are left out of the tree.

mod cluster;
mod part;
mod policy;
mod route;

pub use self::cluster::*;
pub use self::part::Pairs;
pub(super) use self::part::Part;
pub use self::policy::*;
pub use self::route::*;
