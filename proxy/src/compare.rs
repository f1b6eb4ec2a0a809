//! Answers of copies held against those of the primary, off the workers.
//!
//! A worker hands what it kept of both answers to the [`Comparer`], whose thread finds their [`differences`] and counts
//! them in the mirror's [`Tally`]. A second primary, the noise cluster, tells what differs anyway: a field is a
//! regression only when it differs clearly more often than that (Diffy's rule).

mod bag;
mod comparer;
mod difference;
mod document;
mod found;
mod judge;
mod latency;
mod number;
mod tally;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

pub use comparer::{Comparer, Job, MOST_BYTES, MOST_JOBS};
pub use difference::differences;
pub use found::{Bodies, Difference, Differences, FIELDS_CUT, MOST_EXAMPLE, MOST_FIELDS, ORDERED};
pub use tally::{MOST_NAMES, OTHER, Tally, Verdict};

/// Cuts a text to at most `most` characters.
fn cut(text: &mut String, most: usize) {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
    }
}
