//! Which route a request takes.

use std::sync::Arc;

use forebay_config::route::{CompiledMatch, Lookup, ModelName, RequestHead};
use http::Request;

use crate::answer::Refusal;
use crate::canonical::Target;
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::filter::cors;
use crate::model_name::Opened;
use crate::screen;
use crate::snapshot::{ListenerView, RouteView};
use crate::way;

/// A route, and the condition of it that the request meets.
type Taken<'v> = (&'v Arc<RouteView>, &'v CompiledMatch);

/// Where a request belongs.
enum Where<'v> {
    /// To this route.
    Route(Taken<'v>),
    /// To this one, if it asks for its model.
    Depends(Taken<'v>),
}

/// Finds the route of a request. Its body is looked into only when the model decides.
///
/// # Errors
///
/// No route is for it, or what is wrong with the body.
pub async fn route<'v>(
    view: &'v ListenerView,
    request: &Request<()>,
    target: &Target<'_>,
    opened: &mut Opened,
    exchange: &mut Exchange,
) -> Result<Taken<'v>, Refusal> {
    match find(view, request, target, ModelName::Unknown, opened)? {
        Where::Route(taken) => Ok(taken),
        Where::Depends(maybe) => {
            let again = by_model(view, request, target, maybe, opened, exchange);
            Box::pin(again).await
        }
    }
}

/// The second look at the configuration, with the model's name.
///
/// * `maybe`: the route that asks for it. Its clocks run meanwhile; how much it takes of a body does not matter yet
async fn by_model<'v>(
    view: &'v ListenerView,
    request: &Request<()>,
    target: &Target<'_>,
    maybe: Taken<'_>,
    opened: &mut Opened,
    exchange: &mut Exchange,
) -> Result<Taken<'v>, Refusal> {
    let config = &maybe.0.config;
    let path = way::path(view, config, maybe.1, target)?;
    let timeouts = &config.timeouts;
    let wanted = opened.model(view.asks, request, &path, timeouts, exchange);
    let wanted = wanted.await?;
    let name = wanted.name.as_deref();
    let name = name.map_or(ModelName::None, ModelName::Named);
    match find(view, request, target, name, opened)? {
        Where::Route(taken) | Where::Depends(taken) => Ok(taken),
    }
}

/// The only look at the configuration, unless the model matters.
///
/// * `model`: unknown until the answer is that it matters
fn find<'v>(
    view: &'v ListenerView,
    request: &Request<()>,
    target: &Target<'_>,
    model: ModelName<'_>,
    opened: &Opened,
) -> Result<Where<'v>, Refusal> {
    let head = RequestHead {
        host: &target.host,
        path: &target.path,
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
        model,
    };
    if let Some(method) = cors::requested_method(request) {
        // It names no model but in its path; whoever the request itself may belong to answers for it.
        let named = match view.asks.is_empty() {
            true => None,
            false => screen::model_in_path(view, request, target, opened),
        };
        let head = RequestHead {
            model: named
                .as_deref()
                .map_or(ModelName::Unknown, ModelName::Named),
            ..head
        };
        let asked = RequestHead {
            method: &method,
            ..head
        };
        // A route that answers preflights, else one that wants them for itself, else the one they ask about.
        if let Lookup::Found { route, matched } | Lookup::NeedsModel { route, matched } =
            view.table.find(&asked)
        {
            let filters = view.routes[route].filters.as_ref();
            let answers = filters.is_some_and(|filters| filters.cors.is_some());
            if answers || !matches!(view.table.find(&head), Lookup::Found { .. }) {
                return Ok(Where::Route((&view.routes[route], matched)));
            }
        }
    }
    match view.table.find(&head) {
        Lookup::Found { route, matched } => Ok(Where::Route((&view.routes[route], matched))),
        Lookup::NeedsModel { route, matched } => Ok(Where::Depends((&view.routes[route], matched))),
        Lookup::MethodNotAllowed { allow } => Err(Refusal::method_not_allowed(&allow)),
        Lookup::NotFound => Err(Reason::NoRoute.into()),
    }
}
