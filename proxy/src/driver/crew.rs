//! All replicas of one cluster: carries out the [`plan`], publishes who serves, and hears what became of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_config::{Process, Scale};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::plan::{Action, Goal, Phase, View, plan};
use super::replica::{Duty, Failure, News, Recipe, Replica, Settings, Tools};
use super::supervise::Ending;
use crate::gpu::{Claim, Notice, Tenancy};
use crate::scaler::Replicas;

/// How often in a row a port that was taken meanwhile costs nothing but another one.
const CLASHES: u32 = 3;

/// What the scaler sees.
#[derive(Debug, Default)]
pub(super) struct Board {
    status: Mutex<Replicas>,
    pub(super) changed: watch::Sender<()>,
}

impl Board {
    pub(super) fn status(&self) -> Replicas {
        self.lock().clone()
    }

    fn publish(&self, new: Replicas) {
        let mut status = self.lock();
        if *status != new {
            *status = new;
            drop(status);
            self.changed.send_replace(());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Replicas> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    /// Run this from now on, with at most so many replicas.
    Recipe(Recipe, u32),
    /// Stop all, without waiting for their work.
    Shutdown,
}

/// What comes in from the handle.
pub(super) struct Inbox {
    pub(super) wanted: watch::Receiver<u32>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// Which replicas make room for others.
    pub(super) notices: mpsc::UnboundedReceiver<Notice>,
}

struct Member {
    recipe: Arc<Recipe>,
    phase: Phase,
    address: Option<SocketAddr>,
    /// It went by itself, and what it left is still being removed: until then nothing is known of the reason.
    failing: bool,
    duty: Arc<watch::Sender<Duty>>,
    /// Its claim to a place on a device.
    claim: Option<u64>,
    placed: bool,
    /// How long it waited for its place.
    waited: Duration,
    /// It makes room for others.
    evicted: bool,
}

/// The replicas of one cluster.
pub(super) struct Crew {
    cluster: Arc<str>,
    tools: Arc<Tools>,
    board: Arc<Board>,
    settings: watch::Receiver<Settings>,
    /// `None`: the proxy shares no devices.
    tenancy: Option<Arc<Tenancy>>,
    recipe: Arc<Recipe>,
    max: u32,
    /// So many ran another command and have no successor that is ready.
    owed: u32,
    members: BTreeMap<u64, Member>,
    serving: Vec<SocketAddr>,
    teller: mpsc::Sender<(u64, News)>,
    news: mpsc::Receiver<(u64, News)>,
    backoff: Backoff,
    /// A start waits for this.
    blocked_until: Option<Instant>,
    clashes: u32,
    status: Replicas,
}

impl Recipe {
    pub(super) fn of(scale: &Scale, process: &Process) -> Self {
        Self {
            gpu: scale.gpu.is_some(),
            command: process.command.clone(),
            env: process.env.clone(),
            directory: process.directory.clone(),
            address: process.address,
        }
    }
}

impl Ending {
    pub(super) fn of(process: &Process) -> Self {
        Self {
            stop: process.stop.clone(),
            timeout: process.stop_timeout,
        }
    }
}

impl Crew {
    pub(super) fn new(
        cluster: Arc<str>,
        tools: Tools,
        board: Arc<Board>,
        settings: watch::Receiver<Settings>,
        tenancy: Option<Arc<Tenancy>>,
        (recipe, max): (Recipe, u32),
    ) -> Self {
        let (teller, news) = mpsc::channel(64);
        Self {
            cluster,
            tools: Arc::new(tools),
            board,
            settings,
            tenancy,
            recipe: Arc::new(recipe),
            max,
            owed: 0,
            members: BTreeMap::new(),
            serving: Vec::new(),
            teller,
            news,
            backoff: Backoff::default(),
            blocked_until: None,
            clashes: 0,
            status: Replicas::default(),
        }
    }

    /// Works until it is shut down, or the handle is dropped and everybody has finished.
    pub(super) async fn run(mut self, mut inbox: Inbox) {
        let (mut dropped, mut closing) = (false, false);
        loop {
            let wanted = *inbox.wanted.borrow_and_update();
            if closing {
                self.blocked_until = None;
            } else {
                self.advance(if dropped { 0 } else { wanted });
            }
            self.publish();
            if (closing || dropped) && self.members.is_empty() {
                return;
            }
            let pause = self.blocked_until;
            tokio::select! {
                Some((id, news)) = self.news.recv() => self.hear(id, news),
                Some(notice) = inbox.notices.recv() => self.make_room(notice),
                changed = inbox.wanted.changed(), if !dropped => dropped = changed.is_err(),
                Some(command) = inbox.commands.recv() => match command {
                    Command::Recipe(recipe, max) => self.adopt(recipe, max),
                    Command::Shutdown => {
                        closing = true;
                        self.dismiss();
                    }
                },
                () = sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {}
            }
        }
    }

    fn adopt(&mut self, recipe: Recipe, max: u32) {
        self.max = max;
        if *self.recipe != recipe {
            tracing::info!(cluster = %self.cluster, "the command changed: replicas are replaced");
            self.recipe = Arc::new(recipe);
            let serves = |member: &&Member| member.phase == Phase::Ready && !member.evicted;
            self.owed = count(self.members.values().filter(serves));
            for member in self.members.values() {
                if let Some((tenancy, claim)) = self.tenancy.as_ref().zip(member.claim) {
                    tenancy.set_stale(claim, member.recipe != self.recipe);
                }
            }
            self.backoff.reset();
            self.clashes = 0;
            self.status.failed_in_a_row = 0;
        }
    }

    fn dismiss(&mut self) {
        for member in self.members.values_mut() {
            member.phase = Phase::Stopping;
        }
        self.list();
        for member in self.members.values() {
            member.duty.send_replace(Duty::Stop);
        }
    }

    /// One step towards what is wanted.
    fn advance(&mut self, wanted: u32) {
        let max = match self.recipe.address {
            Some(_) => self.max.min(1),
            None => self.max,
        };
        let wanted = self.affordable(wanted);
        let views: Vec<View> = self
            .members
            .iter()
            .map(|(&id, m)| self.view(id, m))
            .collect();
        let actions = plan(Goal { wanted, max }, &views);
        let starts = actions.iter().filter(|&&a| a == Action::Start).count();
        for action in actions {
            match action {
                Action::Start => {}
                Action::Cancel(id) => self.tell(id, Phase::Stopping, Duty::Stop),
                Action::Drain(id) => self.tell(id, Phase::Draining, Duty::Drain),
                Action::Resume(id) => self.resume(id),
            }
        }
        self.blocked_until = self.backoff.until(Instant::now()).filter(|_| starts > 0);
        let failing = |member: &Member| member.failing && member.recipe == self.recipe;
        if self.blocked_until.is_none() && !self.members.values().any(failing) {
            (0..starts).for_each(|_| self.start());
        }
    }

    /// What of the wanted is worth a place on a device: without a reason to load more there is only what is there, and
    /// its successors.
    fn affordable(&mut self, wanted: u32) -> u32 {
        if wanted == 0 {
            self.owed = 0;
        }
        let Some(tenancy) = self.tenancy.as_ref().filter(|_| self.recipe.gpu) else {
            return wanted;
        };
        let current = |member: &&Member| member.recipe == self.recipe && !member.evicted;
        let of = |phase| {
            let members = self.members.values().filter(current);
            count(members.filter(|member| member.placed && member.phase == phase))
        };
        // One that drains can be taken back, which needs no place.
        let serving = of(Phase::Ready) + of(Phase::Draining);
        tenancy.target(wanted, serving + of(Phase::Starting).max(self.owed))
    }

    /// Takes one out for others, or back.
    fn make_room(&mut self, notice: Notice) {
        let (claim, evicted) = match notice {
            Notice::Evict(claim) => (claim, true),
            Notice::Keep(claim) => (claim, false),
        };
        let mut members = self.members.values_mut();
        if let Some(member) = members.find(|member| member.claim == Some(claim)) {
            member.evicted = evicted;
            self.status.evictions += u64::from(evicted);
        }
    }

    fn view(&self, id: u64, member: &Member) -> View {
        let busy = |address| self.tools.endpoints.in_flight(address) > 0;
        View {
            id,
            phase: member.phase,
            stale: member.recipe != self.recipe,
            busy: member.address.is_some_and(busy),
            placed: member.placed,
            evicted: member.evicted,
        }
    }

    /// Takes it out of the list before it hears of it.
    fn tell(&mut self, id: u64, phase: Phase, duty: Duty) {
        if let Some(member) = self.members.get_mut(&id) {
            member.phase = phase;
            let (to, claim) = (member.duty.clone(), member.claim);
            self.list();
            self.leaves(claim, true);
            to.send_replace(duty);
        }
    }

    fn resume(&mut self, id: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            let in_time = member.duty.send_if_modified(|duty| {
                let drains = *duty == Duty::Drain;
                if drains {
                    *duty = Duty::Serve;
                }
                drains
            });
            member.phase = if in_time {
                Phase::Ready
            } else {
                Phase::Stopping
            };
            let claim = member.claim.filter(|_| in_time);
            self.leaves(claim, false);
            self.list();
        }
    }

    fn leaves(&self, claim: Option<u64>, leaves: bool) {
        if let Some((tenancy, claim)) = self.tenancy.as_ref().zip(claim) {
            tenancy.set_leaving(claim, leaves);
        }
    }

    fn start(&mut self) {
        self.status.starts += 1;
        let id = self.status.starts;
        let duty = Arc::new(watch::Sender::new(Duty::Serve));
        let tenancy = self.tenancy.as_ref().filter(|_| self.recipe.gpu);
        let claim = tenancy.map(|tenancy| tenancy.ask(self.owed > 0));
        let claimed = claim.as_ref().map(Claim::id);
        let replica = Replica {
            id,
            recipe: self.recipe.clone(),
            tools: self.tools.clone(),
            settings: self.settings.clone(),
            duty: duty.clone(),
            news: self.teller.clone(),
            claim,
        };
        let member = Member {
            recipe: self.recipe.clone(),
            phase: Phase::Starting,
            address: None,
            failing: false,
            duty,
            claim: claimed,
            placed: claimed.is_none(),
            waited: Duration::ZERO,
            evicted: false,
        };
        self.members.insert(id, member);
        match claimed {
            None => tracing::info!(cluster = %self.cluster, replica = id, "starting"),
            Some(_) => tracing::debug!(cluster = %self.cluster, replica = id, "wants a device"),
        }
        tokio::spawn(replica.live());
    }

    fn hear(&mut self, id: u64, news: News) {
        match news {
            News::Placed(device, waited) => {
                if let Some(member) = self.members.get_mut(&id) {
                    (member.placed, member.waited) = (true, waited);
                    tracing::info!(cluster = %self.cluster, replica = id, device, ?waited, "starting");
                }
            }
            News::Ready(address, took) => {
                let Some(member) = self.members.get_mut(&id) else {
                    return;
                };
                if member.phase == Phase::Starting {
                    member.phase = Phase::Ready;
                    member.address = Some(address);
                    self.clashes = 0;
                    self.status.failed_in_a_row = 0;
                    self.status.last_start = Some(took);
                    self.status.last_place = Some(member.waited);
                    if member.recipe == self.recipe {
                        self.owed = self.owed.saturating_sub(1);
                    }
                    tracing::info!(cluster = %self.cluster, replica = id, %address, ?took, "ready");
                }
            }
            News::Out { failed } => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.phase = Phase::Stopping;
                    member.failing = failed;
                }
            }
            News::Gone(failure) => {
                let Some(member) = self.members.remove(&id) else {
                    return;
                };
                match failure {
                    // What an old command does wrong says nothing about the new one.
                    Some(failure) if member.recipe == self.recipe => self.failed(id, failure),
                    _ => tracing::info!(cluster = %self.cluster, replica = id, "stopped"),
                }
            }
        }
        self.list();
    }

    fn failed(&mut self, id: u64, failure: Failure) {
        // What it printed last is in lines of its own.
        let (reason, printed) = match failure.reason.split_once('\n') {
            Some((reason, printed)) => (reason, printed.replace('\n', " | ")),
            None => (&*failure.reason, String::new()),
        };
        let cluster = &self.cluster;
        if failure.clash && self.clashes < CLASHES {
            self.clashes += 1;
            tracing::info!(%cluster, replica = id, "its port was taken meanwhile: another one");
            return;
        }
        match failure.ready {
            Some(ready) => {
                tracing::warn!(%cluster, replica = id, ?ready, reason, printed, "crashed")
            }
            None => {
                tracing::warn!(%cluster, replica = id, reason, printed, "could not start");
                self.status.failed_in_a_row = self.status.failed_in_a_row.saturating_add(1);
            }
        }
        self.backoff
            .failed(failure.ready.unwrap_or(Duration::ZERO), Instant::now());
        self.status.last_failure = Some(failure.reason);
    }

    /// Says who serves, if that changed.
    fn list(&mut self) {
        let ready = self.members.values().filter(|m| m.phase == Phase::Ready);
        let serving: Vec<SocketAddr> = ready.filter_map(|m| m.address).collect();
        if self.serving != serving {
            self.tools.endpoints.serve(&serving);
            self.serving = serving;
        }
    }

    fn publish(&mut self) {
        let (mut starting, mut ready, mut stopping, mut placing) = (0, 0, 0, 0);
        for member in self.members.values() {
            match member.phase {
                Phase::Starting => {
                    starting += 1;
                    placing += u32::from(!member.placed);
                }
                Phase::Ready => ready += 1,
                Phase::Draining | Phase::Stopping => stopping += 1,
            }
        }
        (self.status.starting, self.status.ready) = (starting, ready);
        (self.status.stopping, self.status.placing) = (stopping, placing);
        self.board.publish(self.status.clone());
    }
}

fn count<T>(of: impl Iterator<Item = T>) -> u32 {
    u32::try_from(of.count()).unwrap_or(u32::MAX)
}
