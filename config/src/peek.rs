//! Values of a JSON document found while it is still coming.
//!
//! Every byte is looked at once, nothing is parsed into a tree, and what is kept is bounded. A document may name a
//! member twice; Python's `json`, and with it most model servers, takes the last one, so that is what is found here:
//! a limit cannot be dodged by a second `"user"`, nor by a second `"metadata"` around it. The price is that an object
//! must be read to its end before anything in it is certain.

mod member;
mod places;
mod scan;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use crate::pointer::Pointer;

pub use member::{Member, Sight};
pub use places::Places;
pub use scan::{Peek, Progress};

/// Bytes of a key or value that are kept, unescaped. A longer value is not found, a longer key matches nothing.
pub const LONGEST: usize = 4096;

/// Objects and arrays within each other; a document with more counts as no JSON.
pub const DEEPEST: usize = 512;

/// What was found, in the order in which it was wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    places: Option<Arc<Places>>, // none: nothing was looked for
    values: Vec<Option<String>>, // as many as places
    broken: bool,
}

impl Found {
    /// The value at a place: a string unescaped, a number, `true` or `false` as it is written. `None`: it is not there,
    /// or is something else.
    pub fn get(&self, pointer: &Pointer) -> Option<&str> {
        let slot = self.places.as_ref()?.slot(pointer)?;
        self.values.get(slot)?.as_deref()
    }

    /// True when what was looked at is not JSON, so that nothing was found. An endpoint that reads it all the same, as
    /// UTF-16 perhaps, may see other values: whoever must not be dodged refuses it.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}
