//! Values of a JSON document found while it is still coming.

use crate::pointer::Pointer;

/// What was found, in the order in which it was wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    values: Vec<(Pointer, String)>,
}

impl Found {
    /// The value at a place: a string unescaped, a number, `true` or `false` as it is written. `None`: it is not there,
    /// or is something else.
    pub fn get(&self, pointer: &Pointer) -> Option<&str> {
        let mut values = self.values.iter();
        let (_, value) = values.find(|(place, _)| place == pointer)?;
        Some(value)
    }
}
