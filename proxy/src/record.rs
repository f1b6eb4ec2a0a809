//! Requests and answers written down for an outside comparison system: one JSON line for each, appended to a file
//! that is moved aside when it is large, posted in batches to a URL, or both. A worker only queues an [`Entry`]; one
//! thread per [`Recorder`] does the rest, and what finds no room is counted and lost.

mod base64;
mod body;
mod file;
mod json;
mod line;
mod post;
mod recorder;
mod secret;
mod target;

pub use recorder::{Counts, Entry, Recorder, Role};
