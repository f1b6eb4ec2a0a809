//! The life of one replica, told once: started, probed, ready, drained, stopped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::launch::{Launch, Order, Running};
use super::log::Log;
use super::port::{Lease, fill, is_taken};
use super::supervise::Ending;
use super::{Endpoints, Readiness};
use crate::gpu::{Claim, VISIBLE};

/// The shortest pause between two probes when nobody waits.
const FIRST_PROBE: Duration = Duration::from_millis(50);
/// The longest.
const LAST_PROBE: Duration = Duration::from_secs(1);
/// The pause while somebody waits.
const HURRY: Duration = Duration::from_millis(20);
/// A probe that does not end by itself is given up after this, to be tried again. Far beyond what servers need: some
/// generate a token for it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a replica that drains is asked whether it is idle.
const IDLE_LOOK: Duration = Duration::from_millis(25);
/// By this the numbers of devices are those of their driver.
const ORDER: &str = "CUDA_DEVICE_ORDER";
/// Lines of its output that explain a failure.
const LAST_WORDS: usize = 20;

/// What makes a replica what it is: another recipe needs another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    pub(super) address: Option<SocketAddr>,
    /// It is told which device is its own.
    pub(super) gpu: bool,
}

/// What may change while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) start_timeout: Duration,
    /// With `${PORT}` still in its command.
    pub(super) ending: Ending,
    pub(super) drain: Duration,
    pub(super) hurry: bool,
}

/// What a replica is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    Serve,
    /// End when idle.
    Drain,
    /// End now.
    Stop,
}

/// What it tells.
#[derive(Debug)]
pub(super) enum News {
    /// It has its place and is started: the device, if any, and how long it waited for it.
    Placed(Option<u32>, Duration),
    Ready(SocketAddr, Duration),
    /// It cannot serve any more, because it failed or as it was asked; nothing else is said but that it is gone.
    Out {
        failed: bool,
    },
    /// Nothing of it is left. With a failure if it was not asked to go.
    Gone(Option<Failure>),
}

/// Why it ended unasked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Arc<str>,
    /// How long it had been ready; `None`: it never was.
    pub(super) ready: Option<Duration>,
    /// Its port was taken by somebody else meanwhile.
    pub(super) clash: bool,
}

/// What all replicas of a cluster share.
pub(super) struct Tools {
    pub(super) launch: Box<dyn Launch>,
    pub(super) readiness: Arc<dyn Readiness>,
    pub(super) endpoints: Arc<dyn Endpoints>,
    pub(super) log: Log,
}

/// One replica.
pub(super) struct Replica {
    pub(super) id: u64,
    pub(super) recipe: Arc<Recipe>,
    pub(super) tools: Arc<Tools>,
    pub(super) settings: watch::Receiver<Settings>,
    pub(super) duty: Arc<watch::Sender<Duty>>,
    pub(super) news: mpsc::Sender<(u64, News)>,
    /// To a place on a device; `None`: it needs none.
    pub(super) claim: Option<Claim>,
}

impl Replica {
    /// Lives to its end.
    pub(super) async fn live(mut self) {
        let failure = self.whole_life().await;
        self.leaves();
        self.tell(News::Gone(failure)).await;
        if let Some(claim) = self.claim {
            claim.give_back().await;
        }
    }

    async fn whole_life(&mut self) -> Option<Failure> {
        let mut device = None;
        if let Some(claim) = &mut self.claim {
            let (found, waited) = tokio::select! {
                placed = claim.placed() => placed,
                () = released(self.duty.subscribe()) => return None,
            };
            device = found;
            self.tell(News::Placed(found, waited)).await;
        }
        let (address, lease) = match self.listens_at() {
            Ok(place) => place,
            Err(reason) => {
                return Some(Failure {
                    reason: reason.into(),
                    ready: None,
                    clash: false,
                });
            }
        };
        let mut running = self.start(address.port(), device);
        let begun = Instant::now();
        let unasked = tokio::select! {
            exit = running.exited.recv() => Some(exit.unwrap_or_else(|| "ended".into())),
            () = self.becomes_ready(address, begun) => None,
            () = self.start_takes_too_long(begun) => {
                let limit = self.settings.borrow().start_timeout;
                Some(format!("not ready within {limit:?}"))
            }
            () = released(self.duty.subscribe()) => {
                self.end(running, false).await;
                return None;
            }
        };
        if let Some(reason) = unasked {
            return Some(self.fail(reason, None, lease.is_some(), running).await);
        }
        let ready = Instant::now();
        if let Some(claim) = &self.claim {
            claim.ready(address, ready - begun);
        }
        self.tell(News::Ready(address, ready - begun)).await;
        if let Some(reason) = self.serve(address, &mut running).await {
            let served = Some(ready.elapsed());
            return Some(self.fail(reason, served, false, running).await);
        }
        self.end(running, false).await;
        None
    }

    /// Chooses where it listens.
    fn listens_at(&self) -> Result<(SocketAddr, Option<Lease>), String> {
        match self.recipe.address {
            Some(address) if is_taken(address) => {
                Err(format!("something else listens on {address}"))
            }
            Some(address) => Ok((address, None)),
            None => {
                let lease = Lease::take().map_err(|error| format!("no free port: {error}"))?;
                let address = (Ipv4Addr::LOCALHOST, lease.port()).into();
                Ok((address, Some(lease)))
            }
        }
    }

    fn start(&self, port: u16, device: Option<u32>) -> Running {
        let filled = |text: &String| fill(text, port);
        let written = self.recipe.env.iter();
        let mut env: BTreeMap<_, _> = written.map(|(k, v)| (k.clone(), filled(v))).collect();
        if let Some(device) = device
            && !env.contains_key(VISIBLE)
        {
            env.insert(VISIBLE.to_owned(), device.to_string());
            let order = env.entry(ORDER.to_owned());
            order.or_insert_with(|| "PCI_BUS_ID".to_owned());
        }
        let order = Order {
            replica: self.id,
            command: self.recipe.command.iter().map(filled).collect(),
            env,
            directory: self.recipe.directory.clone(),
            ending: self.ending(port),
        };
        self.tools.launch.launch(order, self.tools.log.clone())
    }

    /// Returns the ending with the port filled in, now and after each change; it follows only as long as it is used.
    fn ending(&self, port: u16) -> watch::Receiver<Ending> {
        let filled = move |settings: &Settings| Ending {
            stop: settings
                .ending
                .stop
                .as_ref()
                .map(|words| words.iter().map(|word| fill(word, port)).collect()),
            timeout: settings.ending.timeout,
        };
        let mut settings = self.settings.clone();
        let (to, ending) = watch::channel(filled(&settings.borrow_and_update()));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = to.closed() => return,
                    changed = settings.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let new = filled(&settings.borrow_and_update());
                        to.send_if_modified(|old| {
                            let differs = *old != new;
                            *old = new;
                            differs
                        });
                    }
                }
            }
        });
        ending
    }

    async fn becomes_ready(&self, address: SocketAddr, begun: Instant) {
        let mut settings = self.settings.clone();
        loop {
            let probe = self.tools.readiness.probe(address);
            if let Ok(true) = tokio::time::timeout(PROBE_TIMEOUT, probe).await {
                return;
            }
            let asked = Instant::now();
            loop {
                let hurry = settings.borrow_and_update().hurry;
                let next = asked + pause(begun.elapsed(), hurry, fastrand::f64());
                tokio::select! {
                    () = sleep_until(next) => break,
                    Ok(()) = settings.changed() => {}
                }
            }
        }
    }

    async fn start_takes_too_long(&self, begun: Instant) {
        let mut settings = self.settings.clone();
        loop {
            let end = begun + settings.borrow_and_update().start_timeout;
            tokio::select! {
                () = sleep_until(end) => return,
                Ok(()) = settings.changed() => {}
            }
        }
    }

    /// Serves until it exits, with the reason, or may be stopped.
    async fn serve(&mut self, address: SocketAddr, running: &mut Running) -> Option<String> {
        let mut told = self.duty.subscribe();
        loop {
            let duty = *told.borrow_and_update();
            if duty == Duty::Stop {
                return None;
            }
            tokio::select! {
                exit = running.exited.recv() => return Some(exit.unwrap_or_else(|| "ended".into())),
                Ok(()) = told.changed() => {}
                () = self.becomes_idle(address), if duty == Duty::Drain => {
                    // Unless it was told to serve again in this very moment.
                    self.duty.send_if_modified(|duty| {
                        let ends = *duty == Duty::Drain;
                        if ends {
                            *duty = Duty::Stop;
                        }
                        ends
                    });
                }
            }
        }
    }

    /// Ends when it was seen idle twice, or when it has had its time. A request may have been about to be counted.
    async fn becomes_idle(&self, address: SocketAddr) {
        let limit = self.settings.borrow().drain;
        let watch = async {
            let mut idle = 0;
            while idle < 2 {
                sleep(IDLE_LOOK).await;
                let busy = self.tools.endpoints.in_flight(address) > 0;
                idle = if busy { 0 } else { idle + 1 };
            }
        };
        let _ = tokio::time::timeout(limit, watch).await;
    }

    /// Stops it and waits until nothing of it is left.
    async fn end(&self, mut running: Running, failed: bool) {
        self.leaves();
        self.tell(News::Out { failed }).await;
        drop(running.stop);
        while running.exited.recv().await.is_some() {}
    }

    async fn fail(
        &self,
        reason: String,
        ready: Option<Duration>,
        own_port: bool,
        running: Running,
    ) -> Failure {
        self.end(running, true).await;
        let lines = self.tools.log.last_of(self.id, LAST_WORDS);
        let clash = own_port && lines.iter().any(|line| says_taken(&line.text));
        let mut text = reason;
        for line in &lines {
            text.push('\n');
            text.push_str(&line.text);
        }
        Failure {
            reason: text.into(),
            ready,
            clash,
        }
    }

    fn leaves(&self) {
        if let Some(claim) = &self.claim {
            claim.leaves();
        }
    }

    async fn tell(&self, news: News) {
        // Nobody is interested any more: the proxy ends.
        let _ = self.news.send((self.id, news)).await;
    }
}

/// Ends when the replica is to go.
async fn released(mut duty: watch::Receiver<Duty>) {
    let _ = duty.wait_for(|&duty| duty != Duty::Serve).await;
}

/// Returns the pause before the next probe: a twentieth of the time it has taken, or short while somebody waits.
///
/// * `roll`: uniform in 0..1; spreads the probes of many replicas by ± 20 %
fn pause(elapsed: Duration, hurry: bool, roll: f64) -> Duration {
    let pause = match hurry {
        true => HURRY,
        false => (elapsed / 20).clamp(FIRST_PROBE, LAST_PROBE),
    };
    pause.mul_f64(0.8 + 0.4 * roll)
}

fn says_taken(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("address already in use") || line.contains("eaddrinuse")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_dense_at_first_and_while_somebody_waits() {
        let at = |seconds, hurry| pause(Duration::from_secs(seconds), hurry, 0.5);
        assert_eq!(at(0, false), FIRST_PROBE);
        assert_eq!(at(4, false), Duration::from_millis(200));
        assert_eq!(at(300, false), LAST_PROBE);
        assert_eq!(at(300, true), HURRY);
        let early = pause(Duration::ZERO, true, 0.0);
        assert_eq!(early, Duration::from_millis(16));
    }

    #[test]
    fn a_taken_port_is_recognised_as_servers_say_it() {
        assert!(says_taken("OSError: [Errno 98] Address already in use"));
        assert!(says_taken("Error: listen EADDRINUSE: address :::80"));
        assert!(!says_taken("cuda out of memory"));
    }
}
