//! What a file says for all its models.

use super::macros::Macros;
use crate::import::{Asked, Fields, Leaf};

/// The longest time a native file can say, in seconds: a year.
pub(super) const YEAR: i64 = 365 * 86_400;

/// What holds for every model that says nothing else.
pub(super) struct Settings {
    /// Macros of the file.
    pub(super) macros: Macros,
    /// Seconds that a start may take, and where it was written.
    pub(super) start_timeout: (i64, Option<Leaf>),
    /// Seconds without requests after which a model is stopped; 0: never.
    pub(super) ttl: (i64, Option<Leaf>),
    /// Seconds after which a process that was told to end is killed.
    pub(super) unload_timeout: Option<Leaf>,
    /// Clients hear of a start while they wait.
    pub(super) loading: Option<Leaf>,
}

impl Settings {
    /// Reads them.
    pub(super) fn read(root: &Fields<'_>, asked: Asked) -> Self {
        let macros = Macros::of_file(root, asked);
        root.accept("startPort");
        let start = root.whole("healthCheckTimeout", -YEAR..=YEAR);
        let ttl = root.whole("globalTTL", 0..=YEAR);
        let number = |leaf: &Option<Leaf>| leaf.as_ref().and_then(Leaf::whole);
        if root.flag("includeAliasesInList") == Some(false) {
            root.approximated("includeAliasesInList", "aliases are in the list too");
        }
        Self {
            macros,
            start_timeout: (number(&start).unwrap_or(120).max(15), start),
            ttl: (number(&ttl).unwrap_or(0), ttl),
            unload_timeout: root.whole("unloadTimeout", 0..=3600),
            loading: loading(root),
        }
    }
}

/// Reads `sendLoadingState` of the file or a model: `Some`, with the interval at which clients get a comment, or `none`.
pub(super) fn loading(fields: &Fields<'_>) -> Option<Leaf> {
    let at = fields.place("sendLoadingState");
    let interval = match fields.flag("sendLoadingState")? {
        true => "1s",
        false => "none",
    };
    Some(Leaf::text(at, interval))
}

/// Writes seconds as a native duration.
pub(super) fn seconds(leaf: &Leaf) -> Leaf {
    leaf.with(format!("{leaf}s"))
}

/// The clocks of connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeouts {
    /// To connect.
    pub(super) connect: Option<Leaf>,
    /// To the head of an answer.
    pub(super) first_byte: Option<Leaf>,
    /// Of an idle connection.
    pub(super) idle: Option<Leaf>,
}

impl Timeouts {
    /// Reads `timeouts` of a model or a peer. 0 is none.
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        let Some(timeouts) = fields.map("timeouts") else {
            return Self::default();
        };
        let read = |key: &str, most: i64| {
            let leaf = timeouts.whole(key, 0..=most)?;
            Some((leaf.whole() != Some(0)).then(|| seconds(&leaf)))
        };
        let endless = |key: &str, written: Option<Option<Leaf>>| {
            if matches!(written, Some(None)) {
                timeouts.approximated(key, "at most an hour");
                return Some(Leaf::text(timeouts.place(key), "3600s"));
            }
            written.flatten()
        };
        Self {
            connect: endless("connect", read("connect", 3600)),
            first_byte: read("responseHeader", YEAR).flatten(),
            idle: endless("idleConn", read("idleConn", 3600)),
        }
    }
}
