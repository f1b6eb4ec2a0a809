//! Whether a value would be legal in a native file: asked before it is put there, so that it becomes a finding.

use crate::import::Leaf;
use crate::schema::{Key, Path, Reader, Shape};

/// Reads a value as a native file would.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn read<S: Shape>(leaf: &Leaf) -> Result<S, String> {
    let mut reader = Reader::new(&[]);
    let read = S::read(&leaf.node(), Path::ROOT, &mut reader);
    read.ok_or_else(|| format!("`{leaf}` has no counterpart"))
}

/// True when a native file may have this value.
pub(super) fn is<S: Shape>(leaf: &Leaf) -> bool {
    read::<S>(leaf).is_ok()
}

/// True when a native file may have this key.
pub(super) fn is_key<K: Key>(leaf: &Leaf) -> bool {
    K::parse(leaf.as_str()).is_ok()
}
