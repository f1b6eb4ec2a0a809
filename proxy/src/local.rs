//! Tasks that stay on their worker's thread.

use std::future::Future;

use crate::upload::Hitch;

/// Lets hyper spawn on the worker's own runtime.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// The same for connections to endpoints, whose uploads can be [cut](crate::upload::Tether).
#[derive(Clone, Default)]
pub struct UpstreamExecutor(Hitch);

impl UpstreamExecutor {
    /// Where it finds the tether of an upload.
    pub fn hitch(&self) -> &Hitch {
        &self.0
    }
}

impl<F> hyper::rt::Executor<F> for UpstreamExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        match self.0.take() {
            Some(tether) => drop(tokio::task::spawn_local(tether.hold(future))),
            None => drop(tokio::task::spawn_local(future)),
        }
    }
}
