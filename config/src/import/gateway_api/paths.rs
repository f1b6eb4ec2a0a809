//! What filters make of paths.

use super::legal;
use crate::import::{Fields, Leaf};
use crate::schema::PathText;

/// A change of the path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// The whole path becomes this.
    Whole(Leaf),
    /// The matched prefix becomes this.
    Prefix(Leaf),
}

/// Reads `path` of a redirect or a rewrite; the inner `None`: there is none. The outer: it cannot be expressed, and a
/// finding says so.
pub(super) fn change(filter: Fields<'_>) -> Option<Option<Change>> {
    if !filter.has("path") {
        return Some(None);
    }
    let path = filter.map("path")?;
    let kind = path.text("type");
    let key = match kind.as_ref().map(Leaf::as_str) {
        Some("ReplaceFullPath") => "replaceFullPath",
        Some("ReplacePrefixMatch") => "replacePrefixMatch",
        Some(_) => {
            path.lost("type", "this type is not known");
            return None;
        }
        None => {
            path.lost_here("`type` is missing");
            return None;
        }
    };
    let value = match path.has(key) {
        true => path.text(key)?,
        false => Leaf::text(path.at(), ""),
    };
    let value = match value.as_str() {
        "" => value.with("/"),
        _ => value,
    };
    if let Err(why) = legal::value::<PathText>(&value) {
        path.lost(key, why);
        return None;
    }
    Some(Some(match key {
        "replaceFullPath" => Change::Whole(value),
        _ => Change::Prefix(value),
    }))
}
