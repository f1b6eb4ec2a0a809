//! Connections to endpoints that have no more of them than slots: who needs one and cannot open it asks for one that is
//! idle, also those of other workers.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

use super::{ConnectError, Connection, Connector, Pool};
use crate::cluster::{Berth, Endpoint};
use crate::io::Io;
use crate::worker::{Order, Shared};

/// How long an endpoint may take to close a connection that we have closed, before its berth is free whatever it does.
const LINGER: Duration = Duration::from_millis(250);

/// All workers, as those see them who want something of them.
pub(super) struct Peers(Arc<Shared>);

impl Peers {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Asks each worker to close a connection to the endpoint that it does not need.
    fn ask(&self, endpoint: &Arc<Endpoint>) {
        for mailbox in &self.0.mailboxes {
            let _ = mailbox.send(Order::Spare(Arc::clone(endpoint))); // one that has ended holds none
        }
    }
}

impl Pool {
    pub(super) async fn connect_http1(
        self: &Rc<Self>,
        connector: &Connector,
    ) -> Result<(Connection, bool), ConnectError> {
        let berth = match self.endpoint.berth(self.most.get()) {
            Some(berth) => berth,
            None => {
                let idle = || self.idle_http1(true, Instant::now());
                match self.moor(connector, idle).await? {
                    Ok(connection) => return Ok((Connection::Http1(connection), true)),
                    Err(berth) => berth,
                }
            }
        };
        let connection = connector.http1(&self.endpoint, Some(berth)).await?;
        Ok((Connection::Http1(connection), false))
    }

    /// The right to a connection of one's own, such as for a tunnel.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn berth(&self, connector: &Connector) -> Result<Berth, ConnectError> {
        if let Some(berth) = self.endpoint.berth(self.most.get()) {
            return Ok(berth);
        }
        let nothing = || None::<Berth>;
        match self.moor(connector, nothing).await? {
            Ok(berth) | Err(berth) => Ok(berth),
        }
    }

    /// Waits for a berth, or for something that does as well. Each connection in use belongs to another slot, so one
    /// is idle, or about to be, or being closed.
    async fn moor<T>(
        &self,
        connector: &Connector,
        mut instead: impl FnMut() -> Option<T>,
    ) -> Result<Result<T, Berth>, ConnectError> {
        let wanting = self.endpoint.want_berth();
        let found = async {
            loop {
                let mut freed = pin!(wanting.freed());
                freed.as_mut().enable();
                if let Some(found) = instead() {
                    return Ok(found);
                }
                if let Some(berth) = self.endpoint.berth(self.most.get()) {
                    return Err(berth);
                }
                self.peers.ask(&self.endpoint);
                freed.await;
            }
        };
        let found = tokio::time::timeout(connector.timeout, found).await;
        found.map_err(|_| ConnectError::Crowded)
    }
}

/// Waits until the other side has closed a connection whose end we have told it of.
pub(super) async fn linger(mut io: Io) {
    let closed = async {
        let mut block = [0u8; 1 << 10];
        while matches!(io.read(&mut block).await, Ok(1..)) {}
    };
    let _ = tokio::time::timeout(LINGER, closed).await; // it may do as it likes
}
