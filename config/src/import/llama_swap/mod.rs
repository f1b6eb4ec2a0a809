//! The configuration of llama-swap: a format of its own, read only when the command line names it.

mod command;
mod fields;
mod macros;
mod matrix;
mod model;
mod peers;
mod place;
mod rooms;
mod settings;

use std::collections::HashSet;

use self::fields::FIELDS;
use self::model::Built;
use self::rooms::Rooms;
use self::settings::Settings;
use super::coverage::Kind;
use super::native::{self, Action, Gpu, Match};
use super::{Fields, Format, Leaf, Translator, Work};
use crate::model::Position;

/// Every kind translated here, and how.
pub(super) const TRANSLATOR: Translator = Translator {
    kinds: &[KIND],
    services: |_| {},
    routes: translate,
};

/// What becomes of its keys.
pub(super) const KIND: Kind = Kind {
    group: "",
    name: "llama-swap",
    versions: &[""],
    format: Some(Format::LlamaSwap),
    proto: false,
    fields: FIELDS,
};

/// Names that are taken, of all documents.
#[derive(Default)]
pub(super) struct Taken {
    models: HashSet<String>,
    clusters: HashSet<String>,
}

impl Taken {
    /// Takes the name of a model; false: another one has it.
    pub(super) fn model(&mut self, name: &str) -> bool {
        self.models.insert(name.to_owned())
    }

    /// Makes the name of a cluster from that of a model.
    pub(super) fn cluster(&mut self, model: &str) -> String {
        let legal = |c: char| match c {
            c if c.is_ascii_alphanumeric() || "-_./:".contains(c) => c,
            _ => '_',
        };
        let whole: String = model.chars().map(legal).take(240).collect();
        let mut name = whole.clone();
        let mut number = 1;
        while !self.clusters.insert(name.clone()) {
            number += 1;
            name = format!("{whole}-{number}");
        }
        name
    }
}

fn translate(work: &mut Work<'_>) {
    let Some(asked) = work.asked() else { return };
    let mut taken = Taken::default();
    let mut by_model: Option<Position> = None;
    let mut required = None;
    for document in work.documents(KIND.group, KIND.name) {
        let root = document.fields(work.audit);
        if !root.has("models") {
            root.lost_here("this is no configuration of llama-swap: `models` is missing");
            continue;
        }
        required = keys(&root).or(required);
        let settings = Settings::read(&root, asked);
        let built = read(&root, &settings, &mut taken, work);
        if let Some(first) = built.first() {
            by_model.get_or_insert_with(|| first.id.at().clone());
        }
        let own = built.iter().filter_map(own_route);
        work.output.routes.extend(own);
        for built in built {
            work.output.add_cluster(built.cluster);
        }
        peers::translate(&root, &settings.macros, &mut taken, work);
    }
    if let Some(at) = by_model {
        work.output.routes.push(by_name(&at));
    }
    if let Some(auth) = required {
        for route in &mut work.output.routes {
            route.auth = Some(auth.clone());
        }
    }
}

/// Reads the models of one document.
fn read<'a>(
    root: &Fields<'a>,
    settings: &Settings,
    taken: &mut Taken,
    work: &mut Work<'a>,
) -> Vec<Built> {
    let asked = settings.macros.asked();
    let models = root.named("models");
    let mut own: Vec<(Leaf, Fields<'a>)> = Vec::new();
    for (id, model) in models {
        let legal = !id.as_str().is_empty()
            && id.as_str().len() <= 256
            && !id.as_str().contains(char::is_control);
        if !legal {
            model.lost_here("the name of a model has 1 to 256 bytes without control characters");
        } else if !taken.model(id.as_str()) {
            model.lost_here(format!("a model `{id}` is there already"));
        } else {
            own.push((id, model));
        }
    }
    let ids: Vec<&str> = own.iter().map(|(id, _)| id.as_str()).collect();
    let rooms = Rooms::read(root, &ids);
    let mut built: Vec<Built> = own
        .iter()
        .filter_map(|(id, model)| Built::read(id, model, settings, &rooms, taken))
        .collect();
    preload(root, &mut built);
    let shared = built.iter().find(|one| one.shares_a_device());
    if let Some(first) = shared.filter(|_| work.output.gpus.is_empty()) {
        let at = first.id.at();
        let memory = Leaf::text(at, "1GiB");
        let device = Gpu::new(asked, Leaf::number(at, 0), memory);
        work.output.gpus.push(device);
    }
    built
}

/// Has replicas started at once.
fn preload(root: &Fields<'_>, built: &mut [Built]) {
    let Some(start) = root.map("hooks").and_then(|hooks| hooks.map("on_startup")) else {
        return;
    };
    for name in start.texts("preload") {
        let named = name.as_str().trim();
        let found = built.iter_mut().find(|one| one.is_called(named));
        match found.map(|one| &mut one.cluster.scale) {
            Some(Some(scale)) => scale.preload = Some(Leaf::flag(name.at(), true)),
            _ => start.lost("preload", format!("there is no model `{name}`")),
        }
    }
}

/// Keeps what `apiKeys` asks for, whatever is in it: without the keys the native file is refused. An empty list asks for
/// nothing.
fn keys(root: &Fields<'_>) -> Option<native::Auth> {
    let empty = root.is_empty_list("apiKeys");
    let _read = root.texts("apiKeys");
    if empty || !root.has("apiKeys") {
        return None;
    }
    root.lost_security(
        "apiKeys",
        "write lines `NAME sha256:HEX` and name their file: `auth: {api_keys: {file: keys.txt}}`",
    );
    let at = root.place("apiKeys");
    Some(native::Auth {
        required: Some(Leaf::flag(at, true)),
        at: Some(at.clone()),
        keep_key: None,
    })
}

/// Makes the route of everything that names its model in the request.
fn by_name(at: &Position) -> native::Route {
    let flag = Leaf::flag(at, true);
    let mut route = native::Route::new(at, Leaf::text(at, "llama-swap"), Action::ByModel(flag));
    route.timeouts = patient(at);
    route
}

/// The clocks there: none, unless a model has one.
fn patient(at: &Position) -> native::Timeouts {
    native::Timeouts {
        first_byte: Some(Leaf::text(at, "none")),
        idle: Some(Leaf::text(at, "none")),
        ..native::Timeouts::default()
    }
}

/// Makes the route of a model that has clocks of its own.
fn own_route(built: &Built) -> Option<native::Route> {
    let first_byte = built.first_byte.clone()?;
    let at = built.id.at();
    let cluster = built.cluster.name.clone()?;
    let name = Leaf::text(at, format!("llama-swap/{cluster}"));
    let mut route = native::Route::new(at, name, Action::Cluster(cluster));
    let names = built.cluster.models.iter();
    route.matches = names
        .map(|name| Match {
            model: Some(name.clone()),
            ..Match::default()
        })
        .collect();
    route.timeouts = patient(at);
    route.timeouts.first_byte = Some(first_byte);
    Some(route)
}
