//! Weights by API: an overlay over those of the files.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::Desk;
use super::answer::{NAMES, Refusal, json_answer};
use super::command::{arguments, clock};
use crate::control::{Control, GivenWeights, RouteWeights, WeightsError};

/// Body of a change of weights.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightsArguments {
    weights: Option<Listed>,
    #[serde(rename = "for")]
    lasting: Option<String>,
}

/// Weights as they are written: nothing is lost of a name that comes twice.
enum Listed {
    Named(Vec<(String, Value)>),
    InOrder(Vec<Value>),
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Listed;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of clusters and weights, or a list of weights")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
        let mut named = Vec::new();
        while let Some(entry) = map.next_entry()? {
            named.push(entry);
        }
        Ok(Listed::Named(named))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listed, A::Error> {
        let mut weights = Vec::new();
        while let Some(weight) = list.next_element()? {
            weights.push(weight);
        }
        Ok(Listed::InOrder(weights))
    }
}

type RoutePath = Result<Path<String>, PathRejection>;

/// Sets the weights of a route, for a while or until its split changes on disk; answers when every worker knows them.
pub(super) async fn set(
    State(desk): State<Arc<Desk>>,
    route: RoutePath,
    body: Body,
) -> Result<Response, Refusal> {
    let route = name(route)?;
    let wanted: WeightsArguments = arguments(body).await?;
    let lasting = clock("for", wanted.lasting)?;
    let Some(weights) = wanted.weights else {
        return Err(Refusal::bad_request(FORM));
    };
    let weights = given(weights)?;
    let act =
        |control: Arc<Control>| async move { control.set_weights(&route, weights, lasting).await };
    change(&desk, act).await
}

/// Returns a route to the weights of the files.
pub(super) async fn clear(
    State(desk): State<Arc<Desk>>,
    route: RoutePath,
) -> Result<Response, Refusal> {
    let route = name(route)?;
    change(&desk, |control| async move {
        control.clear_weights(&route).await
    })
    .await
}

/// Acts on a task of its own: a caller who hangs up must not stop a change half way.
async fn change<F>(desk: &Desk, act: impl FnOnce(Arc<Control>) -> F) -> Result<Response, Refusal>
where
    F: Future<Output = Result<RouteWeights, WeightsError>> + Send + 'static,
{
    let Ok(place) = Arc::clone(&desk.reloads).try_acquire_owned() else {
        return Err(Refusal::overloaded("too many changes wait for their turn"));
    };
    let acting = act(Arc::clone(&desk.control));
    let changing = tokio::spawn(async move {
        let _place = place;
        acting.await
    });
    match changing.await {
        Ok(Ok(weights)) => Ok(json_answer(StatusCode::OK, &json!(weights))),
        Ok(Err(error)) => Err(refused(&error, &desk.control)),
        Err(error) => {
            tracing::error!(%error, "a change of weights failed");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let message = "the change failed; the log says more";
            Err(Refusal::new(status, "internal", message))
        }
    }
}

fn refused(error: &WeightsError, control: &Control) -> Refusal {
    let message = error.to_string();
    match error {
        WeightsError::UnknownRoute(_) => {
            let snapshot = control.snapshot();
            let routes = snapshot.config.routes.iter().take(NAMES);
            let names: Vec<&str> = routes.map(|route| route.name.as_str()).collect();
            Refusal::not_found(message).with("routes", names)
        }
        WeightsError::Illegal(_) => Refusal::bad_request(message),
        WeightsError::Draining => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message)
        }
    }
}

/// The decoded name in a path.
fn name(path: RoutePath) -> Result<String, Refusal> {
    match path {
        Ok(Path(name)) => Ok(name),
        Err(error) => Err(Refusal::bad_request(error.body_text())),
    }
}

const FORM: &str = "`weights` is an object of clusters and weights, such as {\"a\": 90, \"b\": 10}, \
                    or a list with the weight of each member in file order";

fn given(weights: Listed) -> Result<GivenWeights, Refusal> {
    let number = |value: &Value| {
        let weight = value.as_u64().and_then(|w| u32::try_from(w).ok());
        weight.ok_or_else(|| {
            Refusal::bad_request(format!(
                "a weight is a whole number 0 … 1000000, not {value}"
            ))
        })
    };
    match weights {
        Listed::Named(named) if !named.is_empty() => {
            let mut weights = BTreeMap::new();
            for (name, value) in named {
                let weight = number(&value)?;
                if weights.insert(name.clone(), weight).is_some() {
                    let message = format!("`weights` names `{name}` twice");
                    return Err(Refusal::bad_request(message));
                }
            }
            Ok(GivenWeights::ByName(weights))
        }
        Listed::Named(_) => Err(Refusal::bad_request(FORM)),
        Listed::InOrder(list) => {
            let list = list.iter().map(number).collect::<Result<_, _>>()?;
            Ok(GivenWeights::InOrder(list))
        }
    }
}
