//! All idle connections of one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use forebay_config::Keepalive;
use tokio::time::Instant;

use super::berth::Peers;
use super::{Connector, Pool};
use crate::cluster::Endpoint;
use crate::worker::Shared;

/// One worker's pools, by endpoint and by how its cluster connects.
pub struct Pools {
    pools: RefCell<HashMap<(u64, u64), Rc<Pool>, foldhash::fast::FixedState>>,
    peers: Rc<Peers>,
}

impl Pools {
    /// None yet.
    ///
    /// * `shared`: the workers, who ask one another for connections they do not need
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self {
            pools: RefCell::default(),
            peers: Rc::new(Peers::new(shared)),
        }
    }

    /// The pool of an endpoint under a cluster's present settings.
    ///
    /// * `most`: its HTTP/1.1 connections, over all workers; `None`: any number
    pub fn of(
        &self,
        endpoint: &Arc<Endpoint>,
        connector: &Connector,
        keepalive: &Keepalive,
        most: Option<u32>,
    ) -> Rc<Pool> {
        let key = (endpoint.id, connector.key);
        if let Some(pool) = self.pools.borrow().get(&key) {
            pool.adjust(keepalive, most);
            return Rc::clone(pool);
        }
        let pool = Rc::new(Pool::new(endpoint, &self.peers));
        pool.adjust(keepalive, most);
        self.pools.borrow_mut().insert(key, Rc::clone(&pool));
        pool
    }

    /// Closes one idle connection to the endpoint, which another request needs the berth of.
    pub fn spare(&self, endpoint: &Endpoint) {
        let pools = self.pools.borrow();
        let same = |pool: &&Rc<Pool>| pool.endpoint.shares_berths(endpoint);
        let _ = pools.values().filter(same).any(|pool| pool.spare());
    }

    /// Closes idle connections whose time is over and forgets empty pools that nobody uses.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.pools.borrow_mut().retain(|_, pool| {
            pool.sweep(now);
            Rc::strong_count(pool) > 1 || !pool.is_empty()
        });
    }

    /// Closes the pools for which `live` is false; requests under way finish.
    pub fn retain(&self, live: impl Fn(u64, u64) -> bool) {
        self.pools
            .borrow_mut()
            .retain(|&(endpoint, connector), pool| {
                let keep = live(endpoint, connector);
                if !keep {
                    pool.close();
                }
                keep
            });
    }
}
