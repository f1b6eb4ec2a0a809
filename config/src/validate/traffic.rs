//! What happens to a forwarded request besides its way, and which of it does not do what it seems to.

use http::Method;

use super::clock;
use super::mirror::{BODY, Reference, doubled, mirrors, record};
use super::route::not_empty;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{
    Action, Cutover, LimitKey, Match, Mirror, Position, RateLimit, Recording, Replace, Retry,
    RetryMethods, RetryWhen, Timeouts,
};
use crate::schema::keys::{BodyReplaceKeys, RetryKeys, RouteKeys};
use crate::schema::{At, List, Path, Reader, RetryCase};
use crate::units::{MILLIONTHS, show_duration};

/// The keys of a route that are read here.
pub(super) struct Traffic {
    /// When new weights hold.
    pub(super) cutover: Cutover,
    /// Where copies go.
    pub(super) mirrors: Vec<Mirror>,
    /// The clusters that mirrors name.
    pub(super) mirrored: Vec<Reference>,
    /// What is written down.
    pub(super) record: Option<Recording>,
    /// Which requests are tried again.
    pub(super) retry: Option<Retry>,
    /// Edits of the answer's body.
    pub(super) replace: Vec<Replace>,
}

/// Reads what a route says about its forwarded requests.
///
/// * `action`: what the route does, if that could be read
pub(super) fn traffic(
    keys: &RouteKeys,
    action: Option<&Action>,
    timeouts: &Timeouts,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Traffic {
    let (mirrors, mirrored) = keys.mirrors.as_ref().map_or_else(Default::default, |at| {
        mirrors(&at.value, path.key("mirrors"), reader)
    });
    let retry = keys.retry.as_ref().map(|at| {
        let path = path.key("retry");
        let retry = retry(&at.value, path, reader);
        risky_retry(&at.value, &retry, timeouts, path, reader);
        retry
    });
    let record = keys
        .record
        .as_ref()
        .and_then(|at| record(at, path.key("record"), reader));
    let body = path.key("body");
    let replace = keys.body.as_ref().and_then(|at| at.value.replace.as_ref());
    let replace = replace.map(|at| replacements(&at.value, body.key("replace"), reader));
    match action {
        Some(Action::Forward(members)) => {
            doubled(&mirrors, members, path.key("mirrors"), reader);
            if let (Some(at), [_]) = (ready(keys), &members[..]) {
                let message =
                    format!("{path}.cutover: has no effect, because there is only one member");
                let help = "weights are those of a `split`";
                reader.report(Diagnostic::new(Code::NoEffect, at, message).help(help));
            }
        }
        Some(Action::Redirect(_) | Action::Respond(_)) => {
            for (key, position) in written(keys) {
                let message =
                    format!("{path}.{key}: has no effect, because the route forwards nothing");
                reader.report(Diagnostic::new(Code::NoEffect, position, message));
            }
        }
        Some(Action::ByModel) => {
            if let Some(at) = ready(keys) {
                let message =
                    format!("{path}.cutover: has no effect, because `by_model` has no weights");
                let help = "weights are those of a `split`";
                reader.report(Diagnostic::new(Code::NoEffect, at, message).help(help));
            }
        }
        None => {}
    }
    Traffic {
        cutover: keys.cutover.as_ref().map(|at| at.value).unwrap_or_default(),
        mirrors,
        mirrored,
        record,
        retry,
        replace: replace.unwrap_or_default(),
    }
}

/// Returns where `cutover: ready` is, which does more than the default.
fn ready(keys: &RouteKeys) -> Option<&Position> {
    let ready = keys.cutover.as_ref();
    let ready = ready.filter(|at| at.value == Cutover::Ready);
    ready.map(|at| &at.position)
}

/// Returns the keys that only forwarded HTTP requests have a use for, and where they are.
pub(super) fn written(keys: &RouteKeys) -> impl Iterator<Item = (&'static str, &Position)> {
    let mirrors = keys.mirrors.as_ref();
    let mirrors = mirrors.filter(|at| !at.value.items.is_empty());
    let replace = keys.body.as_ref().and_then(|at| at.value.replace.as_ref());
    let replace = replace.filter(|at| !at.value.items.is_empty());
    let all = [
        ("cutover", ready(keys)),
        ("mirrors", mirrors.map(|at| &at.position)),
        ("record", keys.record.as_ref().map(|at| &at.position)),
        ("retry", keys.retry.as_ref().map(|at| &at.position)),
        ("body.replace", replace.map(|at| &at.position)),
    ];
    all.into_iter()
        .filter_map(|(key, position)| Some((key, position?)))
}

fn retry(keys: &RetryKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Retry {
    let when = keys.when.as_ref().map_or_else(RetryWhen::default, |at| {
        let help = "`attempts: 0` tries nothing again; leave `when` out for connect and refused";
        not_empty(at, help, path.key("when"), reader);
        retry_when(&at.value)
    });
    Retry {
        attempts: keys.attempts.as_ref().map_or(2, |at| at.value.narrow()),
        when,
        methods: keys
            .methods
            .as_ref()
            .map(|at| at.value.0.clone())
            .unwrap_or_default(),
        budget: keys.budget.as_ref().map_or(MILLIONTHS / 5, |at| at.value.0),
        max_body: keys.max_body.as_ref().map_or(BODY, |at| at.value.0),
        per_try: clock(&keys.per_try, None),
    }
}

fn retry_when(list: &List<RetryCase>) -> RetryWhen {
    let mut when = RetryWhen {
        connect: false,
        refused: false,
        reset: false,
        statuses: Vec::new(),
    };
    for at in &list.items {
        match &at.value {
            RetryCase::Connect => when.connect = true,
            RetryCase::Refused => when.refused = true,
            RetryCase::Reset => when.reset = true,
            RetryCase::Statuses(statuses) => {
                for status in &statuses.0 {
                    if !when.statuses.contains(status) {
                        when.statuses.push(*status);
                    }
                }
            }
        }
    }
    when
}

/// Reports retries that may do something twice, and those that there is no time for.
fn risky_retry(
    keys: &RetryKeys,
    retry: &Retry,
    timeouts: &Timeouts,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let begun = retry.when.reset || !retry.when.statuses.is_empty();
    let twice = match &retry.methods {
        RetryMethods::Idempotent => None,
        RetryMethods::All => Some("POST and PATCH included".to_owned()),
        RetryMethods::Only(methods) => methods
            .iter()
            .find(|method| !method.is_idempotent())
            .map(|method| format!("{method} included")),
    };
    if let (Some(at), Some(which), true) = (&keys.methods, twice, begun && retry.attempts > 0) {
        let message = format!(
            "{path}.methods: an endpoint may have begun what is tried again, so that a request may be done twice, {which}"
        );
        let help =
            "`idempotent` tries again what may be done twice, and what has an `Idempotency-Key`";
        reader.report(Diagnostic::new(Code::DoneTwice, &at.position, message).help(help));
    }
    if let (Some(at), Some(each), Some(total)) = (&keys.per_try, retry.per_try, timeouts.total)
        && retry.attempts > 0
        && each.saturating_mul(retry.attempts + 1) > total
    {
        let message = format!(
            "{path}.per_try: {} attempts of {} take longer than `timeouts.total`, {}",
            retry.attempts + 1,
            show_duration(each),
            show_duration(total)
        );
        let help = "shorten `per_try`, lower `attempts`, or raise `total`";
        reader.report(Diagnostic::new(Code::RetryTime, &at.position, message).help(help));
    }
}

/// Reads `body.replace`, and reports entries that an earlier one leaves nothing.
fn replacements(
    list: &List<BodyReplaceKeys>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Vec<Replace> {
    let mut found: Vec<(Replace, &Position)> = Vec::new();
    for (index, at) in list.items.iter().enumerate() {
        let path = path.item(index, None);
        let Some(one) = replacement(at, path, reader) else {
            continue;
        };
        let first = found.iter().find(|(first, _)| shadows(first, &one));
        if let Some((_, first)) = first {
            let message =
                format!("{path}: never fits, because an earlier entry always fits where it would");
            let help = format!("it is at {}:{}", first.file, first.line);
            reader.report(Diagnostic::new(Code::NoEffect, &at.position, message).help(help));
        }
        found.push((one, &at.position));
    }
    found.into_iter().map(|(one, _)| one).collect()
}

fn replacement(
    at: &At<BodyReplaceKeys>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Replace> {
    let keys = &at.value;
    if let Some(types) = &keys.types {
        let help = "leave `types` out for text/html; `*/*` is every media type";
        not_empty(types, help, path.key("types"), reader);
    }
    let types = keys.types.as_ref().map_or_else(
        || vec!["text/html".to_owned()],
        |at| at.value.items.iter().map(|at| at.value.0.clone()).collect(),
    );
    Some(Replace {
        find: keys.find.as_ref()?.value.0.clone(),
        with: keys.with.as_ref()?.value.0.clone(),
        types,
        once: keys.once.as_ref().is_some_and(|at| at.value),
        ignore_case: keys.ignore_case.as_ref().is_some_and(|at| at.value),
    })
}

/// True when wherever the second could match the first does: it looks for the same, or for how the second begins.
fn shadows(first: &Replace, second: &Replace) -> bool {
    let front = second.find.as_bytes().get(..first.find.len());
    let same = front.is_some_and(|front| match first.ignore_case {
        true => front.eq_ignore_ascii_case(first.find.as_bytes()),
        false => front == first.find.as_bytes() && !second.ignore_case,
    });
    let covers = |wide: &str, narrow: &str| {
        wide == "*/*"
            || wide == narrow
            || wide
                .strip_suffix('*')
                .is_some_and(|kind| narrow.starts_with(kind))
    };
    let covered = |narrow: &String| first.types.iter().any(|wide| covers(wide, narrow));
    same && !first.once && second.types.iter().all(covered)
}

/// True when every request of the route is a GET or HEAD, which have no body.
pub(super) fn bodiless(matches: &[Match]) -> bool {
    let without = |method: &Method| matches!(*method, Method::GET | Method::HEAD);
    let only = |one: &Match| !one.methods.is_empty() && one.methods.iter().all(without);
    !matches.is_empty() && matches.iter().all(only)
}

/// Reports a key that looks into bodies where there are none.
fn no_body(position: &Position, path: Path<'_>, reader: &mut Reader<'_>) {
    let message =
        format!("{path}: has no effect, because this route's requests, GET and HEAD, have no body");
    let help = "add `POST` to the methods of `match`, or use a header";
    reader.report(Diagnostic::new(Code::NoEffect, position, message).help(help));
}

/// Reports keys that look into bodies, on a route whose requests have none.
pub(super) fn no_bodies(
    keys: &RouteKeys,
    limits: Option<&[RateLimit]>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let sticky = keys.sticky.as_ref().and_then(|at| at.value.json.as_ref());
    if let Some(at) = sticky {
        no_body(&at.position, path.key("sticky"), reader);
    }
    let list = path.key("rate_limits");
    for (index, limit) in limits.iter().copied().flatten().enumerate() {
        if matches!(limit.rule().per, LimitKey::Json(_)) {
            no_body(&limit.position, list.item(index, Some(&limit.name)), reader);
        }
    }
}
