//! Is a value legal in a native file? Asked of the very code that reads those, so that a bad one is a finding of its
//! field instead of an error of the load.

use crate::import::{Fields, Leaf};
use crate::schema::{Key, Path, Reader, Shape};

/// Checks a value.
///
/// # Errors
///
/// Why it is refused, for a finding.
pub(super) fn value<S: Shape>(leaf: &Leaf) -> Result<(), String> {
    let mut reader = Reader::new(&[]);
    if S::read(&leaf.node(), Path::ROOT, &mut reader).is_some() {
        return Ok(());
    }
    let problem = reader.finish().into_iter().next();
    Err(problem.map_or_else(
        || "it is not legal here".to_owned(),
        |problem| problem.message,
    ))
}

/// Checks a key.
///
/// # Errors
///
/// Why it is refused, for a finding.
pub(super) fn key<K: Key>(text: &str) -> Result<(), String> {
    match K::parse(text) {
        Ok(_) => Ok(()),
        Err((_, message, help)) => Err(format!("{message}: {help}")),
    }
}

/// True when each of the keys is a text or left out: what cannot be read must not become its default.
pub(super) fn readable(fields: Fields<'_>, keys: &[&str]) -> bool {
    let mut keys = keys.iter();
    keys.all(|key| !fields.has(key) || fields.text(key).is_some())
}
