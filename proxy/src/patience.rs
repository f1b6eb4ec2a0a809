//! What a client gets while its request waits for a replica, in clusters that ask for it.
//!
//! # Heartbeats
//!
//! With `queue.heartbeat` a client that reads events gets the head of its answer, `200` with
//! `content-type: text/event-stream`, after the first period of waiting, and in each period a comment, which every reader
//! of events passes over. The events of the endpoint follow byte for byte. Whatever comes instead is told as one event in
//! the shape of OpenAI's errors, and then the answer is cut, so that it does not look complete; see [`Parting`].
//!
//! A client reads events when its `Accept` says so or when its POST has `"stream": true` at the top of a JSON body. Of a
//! body the first 64 KiB are looked at, once a heartbeat is due. Requests in HTTP/1.0, HEAD, those that ask for another
//! protocol, and those whose answer is JSON line by line (Ollama's own API, `Accept: application/x-ndjson`) get none. What the early head can carry is the request id, the word on other sites, the sticky cookie
//! and the route's `response_headers`; `x-forebay-cold-start` and the endpoint's own fields cannot go with it, and the
//! endpoint is asked for an answer without a content coding.
//!
//! How it works: the request's whole life is one future. It is boxed in configurations that have heartbeats at all. The
//! part that waits keeps a [`Vigil`], which says through the [`Pulse`] that a head may go; then [`Attended`] returns a
//! response whose body, [`Beats`], owns that future, comments until it is there, and is its body from then on.
//!
//! # Waiting page
//!
//! With `queue.waiting_page` a browser that would wait for the first replica gets a page that asks again by itself; see
//! [`page`].

mod beats;
pub mod page;
mod parting;
mod pulse;
mod vigil;

pub use beats::{Attended, Beats};
pub use parting::{Parting, are_events};
pub use pulse::{Early, Pulse};
pub use vigil::Vigil;
