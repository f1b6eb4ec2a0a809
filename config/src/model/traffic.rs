//! What happens to a forwarded request besides its way: further attempts, edits of the answer's body.

use std::time::Duration;

use http::{Method, StatusCode};

/// `cutover:` of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cutover {
    /// New weights hold as soon as the configuration does.
    #[default]
    AtOnce,
    /// A member gets a larger share than before only once its cluster has an endpoint that is ready.
    Ready,
}

/// `retry:` of a route. Without it a request goes to up to two further endpoints, and only while no byte of it was
/// written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first; 0 … 10, default 2. 0: none at all.
    pub attempts: u32,
    /// What is tried again.
    pub when: RetryWhen,
    /// Whose requests are tried again after something of them was written.
    pub methods: RetryMethods,
    /// Retries under way in the route's cluster may be this share of its requests in flight, in millionths, and at
    /// least 3; default 200 000.
    pub budget: u32,
    /// Bytes of a request's body that are kept to be sent again; a longer one is not retried. Default 1 MiB.
    pub max_body: u64,
    /// How long one attempt may take to its response head, connecting included; over it counts as 504. Of a request with
    /// a body it runs from the last byte handed over: a client that is slow is not the endpoint's fault. `None`: only
    /// the route's clocks.
    pub per_try: Option<Duration>,
}

/// What is tried again; default `connect` and `refused`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryWhen {
    /// No connection could be made, or nothing of the request was written: any method.
    pub connect: bool,
    /// The endpoint says that it did nothing with the request (HTTP/2 REFUSED_STREAM, GOAWAY): any method.
    pub refused: bool,
    /// The connection broke, or the answer was no HTTP, before its head was whole.
    pub reset: bool,
    /// The endpoint answered with one of these; 400 … 599.
    pub statuses: Vec<StatusCode>,
}

impl Default for RetryWhen {
    fn default() -> Self {
        Self {
            connect: true,
            refused: true,
            reset: false,
            statuses: Vec::new(),
        }
    }
}

/// Whose requests may be done twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RetryMethods {
    /// GET, HEAD, OPTIONS, PUT, DELETE, and whatever carries an `Idempotency-Key`.
    #[default]
    Idempotent,
    /// Every request.
    All,
    /// These, and whatever carries an `Idempotency-Key`.
    Only(Vec<Method>),
}

/// One entry of `body.replace` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replace {
    /// Bytes that are looked for in response bodies; 1 … 4096.
    pub find: String,
    /// What stands there instead.
    pub with: String,
    /// Media types it is done in, lower case, without parameters; `*/*` and `text/*` are possible. Default `text/html`.
    pub types: Vec<String>,
    /// Only the first time in a body; default false.
    pub once: bool,
    /// ASCII letters match in either case; default false.
    pub ignore_case: bool,
}
