//! Integration tests over real sockets: one binary of modules. Ports are the kernel's choice, conditions are awaited.
#![allow(clippy::unwrap_used, missing_docs)]

mod basics;
mod deploy;
mod drain;
mod http2;
mod listeners;
mod reload;
mod tls;
mod support;
