//! A connection to a cluster with a waiting room: it waits like a request, and has its slot for its whole life.

use std::pin::pin;
use std::sync::Arc;
use std::task::Context;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{Call, Connected};
use crate::admission::{Admitted, Waits, enter, wait};
use crate::cluster::Endpoint;
use crate::error::Reason;
use crate::io::Stream;
use crate::room::{Slot, Ticket};
use crate::worker::Stage;

/// Attempts after which a connection that no endpoint takes does not wait again.
const MOST_RETURNS: u32 = 50;

impl Call<'_> {
    /// Connects once there is a slot.
    ///
    /// * `client`: nothing is read from it
    pub(super) async fn in_turn(&self, client: &Stream) -> Result<Connected, Reason> {
        let state = &self.member.cluster.state;
        let waits = Waits::new(state);
        let mut ticket = None;
        let mut last = Reason::NoEndpoint;
        for _ in 0..MOST_RETURNS {
            if self.is_full() {
                return Err(Reason::BreakerOpen);
            }
            let Admitted { chosen, slot } = self.admit(client, ticket, &waits).await?;
            ticket = slot.as_ref().map(Slot::ticket);
            let endpoint: Arc<Endpoint> = chosen.endpoint;
            let error = match self.connect(&endpoint, chosen.probe, slot).await {
                Ok(mut connected) => {
                    connected.in_flight.head_came();
                    return Ok(connected);
                }
                Err(error) => error,
            };
            last = error.reason();
            if error.is_ours() || !state.has_room() {
                break;
            }
            state.mark_down(&endpoint);
        }
        Err(last)
    }

    /// Takes a free slot, or waits for one.
    ///
    /// * `ticket`: where it stood before an endpoint did not take it
    async fn admit(
        &self,
        client: &Stream,
        ticket: Option<Ticket>,
        waits: &Waits<'_>,
    ) -> Result<Admitted, Reason> {
        let cluster = &self.member.cluster;
        let state = &cluster.state;
        let choice = self.choice(&[]);
        if ticket.is_none()
            && let Some((slot, probe)) = state.take_slot(&choice)
        {
            state.arrived();
            return Ok(Admitted::with_slot(slot, probe));
        }
        let wakes = self.wake || cluster.config.scale.is_none();
        if !wakes && !state.room().replicas().exist() {
            return Err(Reason::Asleep);
        }
        let _patient = (!wakes).then(|| state.waits_without_demand());
        let waiting = match ticket {
            Some(ticket) => state.wait_again(ticket, &choice),
            None => enter(cluster, &choice)?,
        };
        let mut leaves = pin!(self.leaves(client.tcp()));
        let gone = |cx: &mut Context<'_>| leaves.as_mut().poll(cx);
        let slot = wait(cluster, waiting, wakes, waits, gone).await?;
        Ok(Admitted::with_slot(slot, None))
    }

    /// Resolves when it makes no sense to wait any more: the client is gone, or everything ends.
    async fn leaves(&self, client: &TcpStream) -> Reason {
        let ended = self.worker.ended.notified();
        if self.worker.stage() >= Stage::Ended {
            return Reason::Draining;
        }
        tokio::select! {
            () = left(client) => Reason::ClientClosed,
            () = ended => Reason::Draining,
        }
    }
}

/// Resolves when the client has reset the connection, or closed it without a word. One that has sent something may
/// have closed its sending side only, and waits for an answer.
async fn left(client: &TcpStream) {
    // The mask of PRIORITY includes a closed reading side.
    let _ = client.ready(Interest::PRIORITY).await;
    let mut byte = [0u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    if matches!(recv(client, &mut byte, flags), Ok((_, 1..))) {
        let _ = client.ready(Interest::ERROR).await;
    }
}
