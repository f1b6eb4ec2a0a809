//! Which cluster serves which name, and the answers that tell what is served.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use forebay_config::ServerKind;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response};
use serde_json::{Value, json};

use super::grammar::{Grammar, decoded};
use super::open::{Spot, Wanted};
use crate::access_log::rfc3339;
use crate::answer::Refusal;
use crate::error::Reason;
use crate::snapshot::MemberView;

/// Names that a refusal lists.
const LISTED: usize = 50;
/// Bytes of names that a refusal lists, and of the name that it repeats.
const LISTED_BYTES: usize = 2 << 10;
const REPEATED: usize = 128;

/// The models of a route with `by_model`, compiled when the configuration loads.
pub struct Served {
    members: Box<[MemberView]>,
    /// Index in `members` by name and alias.
    by_name: HashMap<Box<str>, usize>,
    /// Every name in file order, the first of each cluster before its aliases.
    names: Box<[(Box<str>, usize)]>,
    grammar: Grammar,
    loaded: SystemTime,
}

impl Served {
    /// * `members`: one for each cluster with `models`, in file order
    /// * `loaded`: when the configuration was
    pub fn new(members: Vec<MemberView>, loaded: SystemTime) -> Self {
        let names = members.iter().enumerate().flat_map(|(index, member)| {
            let names = member.cluster.config.models.iter();
            names.map(move |name| (Box::from(name.as_str()), index))
        });
        let names: Box<[(Box<str>, usize)]> = names.collect();
        let grammar = members
            .iter()
            .map(|member| Grammar::of(member.cluster.config.server));
        Self {
            by_name: names.iter().cloned().collect(),
            grammar: grammar.fold(Grammar::default(), |all, one| all | one),
            names,
            members: members.into(),
            loaded,
        }
    }

    /// Where the servers of any of the clusters look for a name.
    pub fn grammar(&self) -> Grammar {
        self.grammar
    }

    /// The clusters, in file order.
    pub fn members(&self) -> &[MemberView] {
        &self.members
    }

    /// What speaks behind all of them; `None`: they differ.
    pub fn server(&self) -> Option<ServerKind> {
        let mut kinds = self
            .members
            .iter()
            .map(|member| member.cluster.config.server);
        let first = kinds.next()?;
        kinds.all(|kind| kind == first).then_some(first)
    }

    /// The cluster that serves what is asked for.
    ///
    /// # Errors
    ///
    /// `unknown_model`, with the names that are known.
    pub fn member(&self, asked: &Wanted) -> Result<&MemberView, Refusal> {
        let index = asked
            .name
            .as_deref()
            .and_then(|name| self.by_name.get(name));
        match index {
            Some(&index) => Ok(&self.members[index]),
            None => Err(Refusal::saying(Reason::UnknownModel, self.unknown(asked))),
        }
    }

    fn unknown(&self, asked: &Wanted) -> String {
        let what = match (&asked.name, &asked.spot) {
            (Some(name), _) => {
                let end = name.floor_char_boundary(REPEATED);
                let dots = if end < name.len() { "…" } else { "" };
                format!("no cluster serves the model `{}{dots}`", &name[..end])
            }
            (None, Spot::Encoded) => {
                "the body is compressed (content-encoding) or not in UTF-8 (charset), and therefore not searched for the name of its model".into()
            }
            (None, Spot::NotInBody(true)) => {
                "the first 64 KiB of the body do not name a model, where the name must be".into()
            }
            (None, Spot::NotInBody(false)) => "the body does not name a model".into(),
            (None, Spot::Path(_) | Spot::Query(_)) => "the name of the model is not UTF-8".into(),
            (None, Spot::Nowhere | Spot::Body(_)) => "the request does not name a model".into(),
        };
        let mut bytes = 0;
        let fits = |(name, _): &&(Box<str>, usize)| {
            bytes += name.len() + 2;
            bytes <= LISTED_BYTES
        };
        let listed: Vec<&str> = self
            .names
            .iter()
            .take(LISTED)
            .take_while(fits)
            .map(|(name, _)| &**name)
            .collect();
        let more = match self.names.len() - listed.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{what}; there are: {}{more}", listed.join(", "))
    }

    /// The answer to a request that asks which models there are; `None`: it asks something else.
    ///
    /// * `path`: as the servers see it
    pub fn listing(&self, method: &Method, path: &str) -> Option<Response<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        if path == "/api/tags" && self.tags().next().is_some() {
            let tags: Vec<Value> = self.tags().collect();
            return Some(answer(&json!({ "models": tags })));
        }
        let rest = path.strip_prefix("/v1/models")?;
        if matches!(rest, "" | "/") {
            let data: Vec<Value> = self
                .names
                .iter()
                .map(|(name, _)| self.model(name))
                .collect();
            return Some(answer(&json!({ "object": "list", "data": data })));
        }
        let rest = rest.strip_prefix('/')?;
        // One that is not known here may be a model's version: whoever looks for the name says whether it is.
        let name = decoded(rest.strip_suffix('/').unwrap_or(rest))?;
        let (name, &index) = self.by_name.get_key_value(&*name)?;
        // Where this is the servers' own question for the state of a model, they answer it.
        let grammar = Grammar::of(self.members[index].cluster.config.server);
        let own = grammar.has_status()
            && self.members[index].cluster.config.server != ServerKind::Generic;
        (!own).then(|| answer(&self.model(name)))
    }

    fn model(&self, name: &str) -> Value {
        let created = self
            .loaded
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        json!({ "id": name, "object": "model", "created": created, "owned_by": "forebay" })
    }

    /// What Ollama says of its models, as far as that is known without asking it.
    fn tags(&self) -> impl Iterator<Item = Value> {
        let of_ollama =
            |index: usize| self.members[index].cluster.config.server == ServerKind::Ollama;
        let names = self
            .names
            .iter()
            .filter(move |(_, index)| of_ollama(*index));
        names.map(|(name, _)| {
            json!({
                "name": name, "model": name, "modified_at": rfc3339(self.loaded),
                "size": 0, "digest": "", "details": {},
            })
        })
    }
}

fn answer(body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
