//! What happens to a request. A request walks [`listener`] → [`gateway`] → [`cluster`] → [`upstream`] and its answer
//! walks back: one task on one thread, no channel, no lock held across an await. Read [`gateway`] first.

pub mod access_log;
pub mod answer;
pub mod body;
pub mod canonical;
pub mod cluster;
pub mod connection;
pub mod error;
pub mod exchange;
pub mod flow;
pub mod gateway;
pub mod headers;
pub mod io;
pub mod listener;
pub mod local;
pub mod metrics;
pub mod proxy_protocol;
pub mod sniff;
pub mod snapshot;
pub mod tcp;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod worker;
