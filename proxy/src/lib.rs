//! What happens to a request. A request walks [`listener`] → [`gateway`] → [`cluster`] → [`upstream`] and its answer
//! walks back: one task on one thread, no channel, no lock held across an await. Read [`gateway`] first.

pub mod access_log;
pub mod admin;
pub mod answer;
pub mod body;
pub mod canonical;
pub mod cli;
pub mod cluster;
pub mod connection;
pub mod control;
pub mod demo;
pub mod discovery;
pub mod dns;
pub mod error;
pub mod exchange;
pub mod flow;
pub mod gateway;
pub mod headers;
pub mod io;
pub mod listener;
pub mod load;
pub mod local;
pub mod memory;
pub mod metrics;
pub mod proxy_protocol;
pub mod server;
pub mod snapshot;
pub mod sniff;
pub mod sockets;
pub mod tcp;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod watch;
pub mod worker;
