//! TLS: what listeners show, what clusters trust.
//!
//! * [`server`]: certificates chosen by SNI, client certificates, resumption, reload without a gap
//! * [`client`]: trusted roots and the client certificate towards endpoints
//! * `files`: PEM files read strictly, with errors that name the file
//!
//! *ring* is handed to every builder, so nothing depends on a process-wide default.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

pub mod client;
mod files;
pub mod server;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use server::{Loaded, ServerTlsState, client_is_current};

/// What HTTP listeners offer, preferred first.
pub const ALPN_HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
/// What a client that only speaks HTTP/1.1 offers.
pub const ALPN_HTTP1: &[&[u8]] = &[b"http/1.1"];
/// What a client that only speaks HTTP/2 offers.
pub const ALPN_HTTP2: &[&[u8]] = &[b"h2"];
/// No ALPN at all, for byte pumps.
pub const ALPN_NONE: &[&[u8]] = &[];

/// Why TLS settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default())]
pub struct TlsError {
    /// The file at fault; `None` when no file is.
    pub path: Option<PathBuf>,
    /// What is wrong with it, lower case, without the path.
    pub message: String,
}

impl TlsError {
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self {
            path: Some(path.to_owned()),
            message: message.into(),
        }
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self {
            path: None,
            message: message.into(),
        }
    }
}

/// Returns the one provider of this process: *ring*, TLS 1.2 and 1.3.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

fn owned(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|name| name.to_vec()).collect()
}
