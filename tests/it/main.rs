//! Integration tests over real sockets: one binary of modules. Ports are the kernel's choice, conditions are awaited.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod basics;
mod cancel;
mod clocks;
mod deploy;
mod drain;
mod examples;
mod framing;
mod health;
mod http2;
mod listeners;
mod mirrors;
mod models;
mod policy;
mod reload;
mod retries;
mod streaming;
mod support;
mod tls;
mod upstreams;
mod waiting;
