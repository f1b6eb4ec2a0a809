//! What a route does with a request.

use http::StatusCode;

use super::route::{edits, pairs};
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Action, HeaderEdits, Member, Redirect, Respond};
use crate::schema::keys::{MemberKeys, RedirectKeys, RespondKeys, RouteKeys};
use crate::schema::{At, List, Path, Reader};

/// Reads what a route does: exactly one of its keys says it.
pub(super) fn action(keys: &RouteKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Action> {
    let cluster = keys.cluster.as_ref().map(|at| (&at.position, "cluster"));
    let split = keys.split.as_ref().map(|at| (&at.position, "split"));
    let by_model = keys.by_model.as_ref().map(|at| (&at.position, "by_model"));
    let redirect = keys.redirect.as_ref().map(|at| (&at.position, "redirect"));
    let respond = keys.respond.as_ref().map(|at| (&at.position, "respond"));
    let mut written: Vec<_> = [cluster, split, by_model, redirect, respond]
        .into_iter()
        .flatten()
        .collect();
    written.sort_by_key(|(position, _)| (position.line, position.column));
    let all = "exactly one of `cluster`, `split`, `by_model`, `redirect` and `respond`";
    match written.as_slice() {
        [] if keys.broken => return None,
        [] => {
            let help = "add `cluster: NAME`";
            reader.refuse(
                Code::Action,
                &keys.position,
                path,
                format!("a route has {all}, this one has none"),
                help,
            );
            return None;
        }
        [_] => {}
        [(_, first), (position, second), ..] => {
            let message = format!("a route has {all}, this one has `{first}` and `{second}`");
            reader.refuse(
                Code::Action,
                position,
                path,
                message,
                &format!("remove `{first}` or `{second}`"),
            );
            return None;
        }
    }
    if let Some(at) = &keys.cluster {
        let edits = HeaderEdits::default();
        return Some(Action::Forward(vec![Member {
            cluster: at.value.0.clone(),
            weight: 1,
            request_headers: edits.clone(),
            response_headers: edits,
        }]));
    }
    if let Some(at) = &keys.split {
        return split_members(at, path.key("split"), reader).map(Action::Forward);
    }
    if keys.by_model.is_some() {
        return Some(Action::ByModel);
    }
    if let Some(at) = &keys.redirect {
        return redirect_to(&at.value, path.key("redirect"), reader).map(Action::Redirect);
    }
    keys.respond
        .as_ref()
        .map(|at| Action::Respond(respond_with(&at.value)))
}

fn split_members(
    at: &At<List<MemberKeys>>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Vec<Member>> {
    let list = &at.value;
    let member = |at: &At<MemberKeys>| {
        Some(Member {
            cluster: at.value.cluster.as_ref()?.value.0.clone(),
            weight: at
                .value
                .weight
                .as_ref()
                .map_or(1, |weight| weight.value.narrow()),
            request_headers: edits(&at.value.request_headers),
            response_headers: edits(&at.value.response_headers),
        })
    };
    let members: Vec<Member> = list.items.iter().filter_map(member).collect();
    if list.incomplete || list.items.iter().any(|item| item.value.broken) {
        return None;
    }
    let sum: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let problem = match sum {
        _ if members.is_empty() => "the list is empty".to_owned(),
        0 => "all weights are 0, so no request would be forwarded".to_owned(),
        sum if sum > u64::from(u32::MAX) => {
            format!("the sum of the weights, {sum}, is larger than {}", u32::MAX)
        }
        _ => {
            if let [only] = &list.items[..]
                && let Some(weight) = &only.value.weight
            {
                let message =
                    format!("{path}[0].weight: the weight of the only member has no effect");
                let finding = Diagnostic::new(Code::IdleWeight, &weight.position, message);
                reader.report(finding.help("use `cluster: NAME`"));
            }
            return Some(members);
        }
    };
    reader.refuse(Code::Weights, &at.position, path, problem, "");
    None
}

fn redirect_to(keys: &RedirectKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Redirect> {
    if keys.scheme.is_none() && keys.host.is_none() && keys.port.is_none() && keys.path.is_none() {
        if !keys.broken {
            let message = "redirects to the request's own address";
            let help = "set `scheme`, `host`, `port` or `path`";
            reader.refuse(Code::MissingKey, &keys.position, path, message, help);
        }
        return None;
    }
    Some(Redirect {
        scheme: keys.scheme.as_ref().map(|at| at.value.as_str().to_owned()),
        host: keys.host.as_ref().map(|at| at.value.0.clone()),
        port: keys
            .port
            .as_ref()
            .and_then(|at| u16::try_from(at.value.0).ok()),
        path: keys.path.as_ref().map(|at| at.value.0.clone()),
        status: keys
            .status
            .as_ref()
            .map_or(StatusCode::FOUND, |at| at.value.0),
    })
}

fn respond_with(keys: &RespondKeys) -> Respond {
    let status = keys
        .status
        .as_ref()
        .and_then(|at| StatusCode::from_u16(u16::try_from(at.value.0).ok()?).ok());
    Respond {
        status: status.unwrap_or(StatusCode::OK),
        headers: keys
            .headers
            .as_ref()
            .map(|at| pairs(&at.value))
            .unwrap_or_default(),
        body: keys
            .body
            .as_ref()
            .map(|at| at.value.0.clone())
            .unwrap_or_default(),
    }
}
