//! Why a configuration was refused.

use forebay_config::Position;
use forebay_config::diagnostic::Diagnostics;

use crate::load::LoadError;
use crate::snapshot::BuildError;

/// Why a new configuration did not go live. The last good one serves on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Unreadable or illegal.
    #[error("{0}")]
    Load(LoadError),
    /// Legal, but a file it names cannot be used.
    #[error("{0}")]
    Build(#[from] BuildError),
    /// A new listener could not be bound.
    #[error("cannot bind listener `{name}` to {address}: {error}")]
    Bind {
        /// The listener.
        name: String,
        /// Its address.
        address: std::net::SocketAddr,
        /// What the system said.
        error: std::io::Error,
        /// Where it was written.
        position: Position,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log: {0}")]
    Log(std::io::Error),
    /// Every file is empty, as one is for a moment while it is written in place.
    #[error("the configuration is empty: a file that is being written is not applied")]
    Empty,
    /// The process is stopping.
    #[error("the proxy is draining")]
    Draining,
}

impl ReloadError {
    /// Where in the configuration the first problem is.
    pub fn position(&self) -> Option<&Position> {
        match self {
            Self::Load(LoadError::Invalid { diagnostics, .. }) => {
                diagnostics.first_error().map(|d| &d.position)
            }
            Self::Build(error) => error.position.as_ref(),
            Self::Bind { position, .. } => Some(position),
            Self::Load(LoadError::Read(_)) | Self::Log(_) | Self::Empty | Self::Draining => None,
        }
    }

    /// Every finding, when there are any.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Self::Load(LoadError::Invalid { diagnostics, .. }) => Some(diagnostics),
            _ => None,
        }
    }

    /// One line for status and log.
    pub fn summary(&self) -> String {
        match self {
            Self::Load(LoadError::Invalid { diagnostics, .. }) => diagnostics
                .first_error()
                .map_or_else(|| self.to_string(), |first| first.message.clone()),
            _ => self.to_string(),
        }
    }
}
