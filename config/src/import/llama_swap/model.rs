//! A model becomes a cluster of one local process.

use super::macros::Macros;
use super::place::{Place, place};
use super::rooms::Rooms;
use super::settings::{Settings, Timeouts, YEAR, loading, seconds};
use super::{Taken, command};
use crate::import::native::{
    ClientTls, Cluster, GpuShare, Health, Keepalive, Pairs, Process, ProcessKeys, Queue, Scale,
};
use crate::import::{Fields, Leaf};

/// How many requests there are at once when nothing is written.
const REQUESTS: i64 = 10;
/// Every device. Drivers stop at the first number that no device has, so a process sees those there are, as without the
/// variable; without it, it would be given the device that its room is on.
const DEVICES: &str = "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15";

/// What a model became.
pub(super) struct Built {
    /// Its name, and where it was written.
    pub(super) id: Leaf,
    /// Its cluster.
    pub(super) cluster: Cluster,
    /// Its own clock to the head of an answer.
    pub(super) first_byte: Option<Leaf>,
}

impl Built {
    /// Reads a model. `None`: it cannot be started or reached, and a finding says why.
    pub(super) fn read(
        id: &Leaf,
        model: &Fields<'_>,
        settings: &Settings,
        rooms: &Rooms,
        taken: &mut Taken,
    ) -> Option<Self> {
        let at = model.at();
        let macros = settings.macros.of_model(id.as_str(), model);
        let (command, words) = command(model, &macros)?;
        let place = located(model, &macros, command.as_str())?;
        let share = rooms.share(id.as_str());
        let mut keys = ProcessKeys {
            at: Some(command.at().clone()),
            command: Some(macros.native(&command)),
            stop: stop(model, &macros),
            stop_timeout: stop_timeout(model, settings),
            address: place.address.map(|address| {
                let at = model.place("proxy");
                Leaf::text(at, address)
            }),
            env: environment(model, &macros),
        };
        if share.is_some() {
            let name = Leaf::text(at, "CUDA_VISIBLE_DEVICES");
            keys.env.add(name, Leaf::text(at, DEVICES));
        }
        let (server, health) = ready(model, &macros, &words);
        let timeouts = Timeouts::read(model);
        let start = &settings.start_timeout;
        let start_at = start.1.as_ref().map_or(at, Leaf::at);
        let scale = Scale {
            at: Some(at.clone()),
            idle: Some(ttl(model, settings)),
            start_timeout: Some(Leaf::text(start_at, format!("{}s", start.0))),
            min_residency: share.is_some().then(|| Leaf::text(at, "0s")),
            gpu: share.map_or_else(GpuShare::default, |share| GpuShare {
                memory: Some(Leaf::text(at, format!("{}%", share.memory))),
                cores: share.alone.then(|| Leaf::number(at, 100)),
                at: None,
            }),
            process: Some(Process::new(macros.asked(), keys)),
            ..Scale::default()
        };
        // Looked into, so that each of them is found to be lost.
        let _filters = model.map("filters");
        let heartbeat = loading(model).or_else(|| settings.loading.clone());
        let cluster = Cluster {
            at: Some(id.at().clone()),
            name: Some(id.with(taken.cluster(id.as_str()))),
            server: Some(Leaf::text(at, server)),
            models: names(id, model, taken),
            tls: place.tls.map(|name| ClientTls {
                server_name: Some(Leaf::text(model.place("proxy"), name)),
                ..ClientTls::default()
            }),
            connect_timeout: timeouts.connect,
            keepalive: Keepalive {
                idle: timeouts.idle,
                ..Keepalive::default()
            },
            health,
            concurrency: Some(concurrency(model)),
            queue: Queue {
                heartbeat: heartbeat.filter(|interval| interval.as_str() != "none"),
                ..Queue::default()
            },
            scale: Some(scale),
            ..Cluster::default()
        };
        Some(Self {
            id: id.clone(),
            cluster,
            first_byte: timeouts.first_byte,
        })
    }

    /// True for one of the names that requests use.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.cluster.models.iter().any(|own| own.as_str() == name)
    }

    /// True when it takes room on a device.
    pub(super) fn shares_a_device(&self) -> bool {
        let scale = self.cluster.scale.as_ref();
        scale.is_some_and(|scale| scale.gpu.memory.is_some())
    }
}

/// Reads `cmd`: as it is written in the native file, and as words.
fn command(model: &Fields<'_>, macros: &Macros) -> Option<(Leaf, Vec<String>)> {
    if !model.has("cmd") {
        model.lost_here("`cmd` is missing");
        return None;
    }
    let (leaf, words) = line(model, "cmd", macros, &["PORT"])?;
    if command::has_comment(leaf.as_str()) {
        let note = "what follows a word that begins with `#` is a comment here";
        model.approximated("cmd", note);
    }
    Some((leaf, words))
}

/// Reads a command line.
fn line(
    model: &Fields<'_>,
    key: &str,
    macros: &Macros,
    left: &[&str],
) -> Option<(Leaf, Vec<String>)> {
    let leaf = macros.line(model, key, left)?;
    let text = command::clean(leaf.as_str());
    match shlex::split(&text) {
        Some(words) if words.first().is_some_and(|program| !program.is_empty()) => {
            Some((leaf.with(text), words))
        }
        Some(_) => {
            model.lost(key, "it names no program");
            None
        }
        None => {
            model.lost(key, "a quote is not closed");
            None
        }
    }
}

fn stop(model: &Fields<'_>, macros: &Macros) -> Option<Leaf> {
    let written = model.scalar("cmdStop")?;
    if written.as_str().trim().is_empty() {
        return None;
    }
    let (leaf, _) = line(model, "cmdStop", macros, &["PORT", "PID"])?;
    Some(macros.native(&leaf))
}

/// Reads `proxy`, and holds it against the command.
fn located(model: &Fields<'_>, macros: &Macros, command: &str) -> Option<Place> {
    let ported = command.contains("${PORT}");
    let read = match model.has("proxy") {
        true => place(macros.text(model, "proxy", &["PORT"])?.as_str()),
        false => Ok(Place::default()),
    };
    let place = match read {
        Ok(place) => place,
        Err(note) => {
            model.lost("proxy", format!("{note}; the model is left out"));
            return None;
        }
    };
    if place.address.is_none() && !ported {
        let note = "nobody knows where it listens: `${PORT}` is not in it, and `proxy` has no port";
        model.lost("cmd", format!("{note}; the model is left out"));
        return None;
    }
    if place.address.is_some() && ported {
        model.approximated("cmd", "`${PORT}` is the port of `proxy`");
    }
    if place.elsewhere {
        model.approximated("proxy", "it is reached at 127.0.0.1");
    }
    if place.path {
        model.lost("proxy", "its path is not put in front of those of requests");
    }
    Some(place)
}

/// Reads `env`; of a variable that is written twice the last value counts.
fn environment(model: &Fields<'_>, macros: &Macros) -> Pairs<Leaf> {
    let mut values: Vec<(Leaf, Leaf)> = Vec::new();
    for item in model.texts("env") {
        let named = item.as_str().split_once('=');
        let illegal = |c: char| c.is_whitespace() || c.is_control();
        let Some((name, value)) = named.filter(|(name, value)| {
            !name.is_empty() && !name.contains(illegal) && !value.contains('\0')
        }) else {
            model.lost("env", "each is NAME=VALUE");
            continue;
        };
        values.retain(|(known, _)| known.as_str() != name);
        values.push((item.with(name), macros.native(&item.with(value))));
    }
    let mut pairs = Pairs::default();
    for (name, value) in values {
        pairs.add(name, value);
    }
    pairs
}

/// Reads `unloadTimeout`; 0 is that of the file, whose 0 is the default, which is the same here.
fn stop_timeout(model: &Fields<'_>, settings: &Settings) -> Option<Leaf> {
    let own = model.whole("unloadTimeout", 0..=3600);
    let written = |leaf: &Leaf| leaf.whole() != Some(0);
    let found = own.filter(written);
    let found = found.or_else(|| settings.unload_timeout.clone().filter(written));
    found.as_ref().map(seconds)
}

/// Reads `ttl`; -1 is that of the file.
fn ttl(model: &Fields<'_>, settings: &Settings) -> Leaf {
    let own = model.whole("ttl", -1..=YEAR);
    let own = own.and_then(|leaf| Some((leaf.whole()?, Some(leaf))));
    let (number, leaf) = own
        .filter(|(number, _)| *number >= 0)
        .unwrap_or_else(|| settings.ttl.clone());
    let at = leaf.as_ref().map_or(model.at(), Leaf::at);
    match number {
        0 => Leaf::text(at, "none"),
        number => Leaf::text(at, format!("{number}s")),
    }
}

/// Finds the kind of the server, and what is asked where that is not what such servers are asked anyway.
fn ready(model: &Fields<'_>, macros: &Macros, words: &[String]) -> (&'static str, Option<Health>) {
    let known = command::kind(words);
    let written = macros.text(model, "checkEndpoint", &[]);
    let path = written.as_ref().map_or("/health", Leaf::as_str);
    let kind = match (known, path) {
        (Some(kind), _) => kind,
        (None, "/health") => "llama.cpp",
        (None, _) => "generic",
    };
    if kind != "generic" && path == command::ready(kind) {
        return (kind, None);
    }
    let at = model.place("checkEndpoint");
    if written.is_some() {
        model.approximated("checkEndpoint", "asked as long as it runs");
    }
    let leaf = |text: &str| Some(Leaf::text(at, text));
    let mut health = Health {
        at: Some(at.clone()),
        ..Health::default()
    };
    match path {
        "none" => health.kind = leaf("tcp"),
        path if path.starts_with('/') => health.path = leaf(path),
        path => health.path = leaf(&format!("/{path}")),
    }
    (kind, Some(health))
}

/// Reads `concurrencyLimit`; 0 is the default.
fn concurrency(model: &Fields<'_>) -> Leaf {
    let written = model.whole("concurrencyLimit", 0..=1_000_000);
    let written = written.filter(|leaf| leaf.whole() != Some(0));
    written.unwrap_or_else(|| Leaf::number(model.place("concurrencyLimit"), REQUESTS))
}

/// Collects the names that requests use; the first is what the server is told.
fn names(id: &Leaf, model: &Fields<'_>, taken: &mut Taken) -> Vec<Leaf> {
    let legal = |name: &Leaf| {
        let text = name.as_str();
        !text.is_empty() && text.len() <= 256 && !text.contains(char::is_control)
    };
    let mut names = Vec::new();
    let told = model.scalar("useModelName");
    if let Some(told) =
        told.filter(|told| !told.as_str().is_empty() && told.as_str() != id.as_str())
    {
        if legal(&told) && taken.model(told.as_str()) {
            names.push(told.with(told.as_str()));
        } else {
            let note = "another model has the name, or nobody can: the server is told the own one";
            model.lost("useModelName", note);
        }
    }
    names.push(id.clone());
    for alias in model.texts("aliases") {
        if names.iter().any(|name| name.as_str() == alias.as_str()) {
            continue;
        }
        if !legal(&alias) {
            model.lost(
                "aliases",
                "a name has 1 to 256 bytes without control characters",
            );
        } else if taken.model(alias.as_str()) {
            names.push(alias.with(alias.as_str()));
        } else {
            model.lost("aliases", format!("`{alias}` is another model's name"));
        }
    }
    names
}
