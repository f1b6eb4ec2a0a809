//! The admin API, the dashboard and the probes.
//!
//! [`api`] is everything, for the operator; [`probes`] is what kubelets and Prometheus may see without a token;
//! [`serve`] keeps either from ever hanging or filling memory. Nothing here runs on the workers.

mod answer;
mod command;
mod describe;
mod endpoints;
mod guard;
mod health;
mod limits;
mod logs;
mod page;
mod scale;
mod serve;
mod stall;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;
mod weights;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, delete, get, post};
use forebay_config::Secret;
use http::{Method, StatusCode};
use tokio::sync::Semaphore;

use crate::control::Control;
use answer::{Refusal, Turns};

pub use serve::{serve, serve_until};

/// The OpenAPI description of [`api`].
pub const OPENAPI: &str = include_str!("admin/openapi.json");

/// Answers whose size depends on the configuration, at once.
const LARGE_ANSWERS: usize = 8;
/// Requests that wait for the end of a drain, at once: the other connections stay free for probes.
const WAITING: usize = 64;
/// Reloads that run or wait for their turn.
const RELOADS: usize = 8;
/// Those who follow what processes print, at once.
const FOLLOWERS: usize = 16;

const WEIGHTS: &str = "/api/routes/{route}/weights";
const DRAIN: &str = "/api/clusters/{cluster}/endpoints/{endpoint}/drain";
const UNDRAIN: &str = "/api/clusters/{cluster}/endpoints/{endpoint}/undrain";
const SCALE: &str = "/api/clusters/{cluster}/scale";
const LOGS: &str = "/api/logs/{cluster}";

/// What the handlers work with.
struct Desk {
    control: Arc<Control>,
    token: Option<Secret>,
    /// Lower case.
    hosts: Vec<String>,
    turns: Turns,
    waiting: Arc<Semaphore>,
    reloads: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

impl Desk {
    /// `admin:` is read once: a change of it takes effect at the next start.
    fn new(control: Arc<Control>) -> Arc<Self> {
        let snapshot = control.snapshot();
        let admin = &snapshot.config.admin;
        Arc::new(Self {
            token: admin.token.clone(),
            hosts: admin
                .hosts
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
            turns: Turns::new(LARGE_ANSWERS),
            waiting: Arc::new(Semaphore::new(WAITING)),
            reloads: Arc::new(Semaphore::new(RELOADS)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            control,
        })
    }
}

type Handler = MethodRouter<Arc<Desk>>;

/// What probes and the API have in common.
fn open_routes() -> Vec<(&'static str, Method, Handler)> {
    vec![
        ("/livez", Method::GET, get(health::live)),
        ("/readyz", Method::GET, get(health::ready)),
        ("/metrics", Method::GET, get(health::metrics)),
        ("/wait-for-drain", Method::GET, get(health::wait_for_drain)),
    ]
}

/// Every route of the API, one method each.
fn routes() -> Vec<(&'static str, Method, Handler)> {
    let mut routes = open_routes();
    routes.extend([
        (
            "/",
            Method::GET,
            get(|| async { Redirect::permanent("/ui/") }),
        ),
        (
            "/ui",
            Method::GET,
            get(|| async { Redirect::permanent("/ui/") }),
        ),
        ("/ui/", Method::GET, get(page::dashboard)),
        ("/ui/style.css", Method::GET, get(page::style)),
        ("/ui/refresh.js", Method::GET, get(page::script)),
        ("/api/config", Method::GET, get(view::config)),
        ("/api/config/status", Method::GET, get(view::status)),
        ("/api/routes", Method::GET, get(view::routes)),
        ("/api/clusters", Method::GET, get(view::clusters)),
        ("/api/limits", Method::GET, get(limits::limits)),
        ("/api/mirrors", Method::GET, get(view::mirrors)),
        (LOGS, Method::GET, get(logs::logs)),
        ("/api/openapi.json", Method::GET, get(openapi)),
        ("/api/reload", Method::POST, command(post(command::reload))),
        ("/api/drain", Method::POST, command(post(command::drain))),
        (DRAIN, Method::POST, command(post(endpoints::drain))),
        (UNDRAIN, Method::POST, command(post(endpoints::undrain))),
        (SCALE, Method::POST, command(post(scale::scale))),
        (WEIGHTS, Method::POST, command(post(weights::set))),
        (WEIGHTS, Method::DELETE, command(delete(weights::clear))),
    ]);
    routes
}

/// A route that changes something.
fn command(handler: Handler) -> Handler {
    handler.route_layer(from_fn(guard::command_rules))
}

fn router(routes: Vec<(&'static str, Method, Handler)>) -> Router<Arc<Desk>> {
    let add = |router: Router<Arc<Desk>>, (path, _, handler)| router.route(path, handler);
    routes
        .into_iter()
        .fold(Router::new(), add)
        .fallback(nothing_here)
}

/// Returns the whole admin API of a running proxy, with the rules of `admin:` in front.
pub fn api(control: Arc<Control>) -> Router {
    let desk = Desk::new(control);
    router(routes())
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&desk), guard::guard))
        .layer(map_response(guard::finish))
        .with_state(desk)
}

/// Returns what `admin.probes` serves: health and metrics, no token, nothing that changes anything, 404 for all else.
pub fn probes(control: Arc<Control>) -> Router {
    router(open_routes())
        .method_not_allowed_fallback(nothing_here)
        .layer(map_response(guard::finish))
        .with_state(Desk::new(control))
}

async fn openapi(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    desk.turns
        .render("application/json", || OPENAPI.as_bytes().to_vec())
        .await
}

async fn nothing_here() -> Refusal {
    Refusal::not_found("there is nothing at this address")
}

async fn wrong_method(method: Method) -> Response {
    let message = format!("{method} is not possible here");
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
    .into_response()
}
