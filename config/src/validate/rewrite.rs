//! Edits of path and host.

use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Action, Match, PathMatch, PathRewrite, Rewrite};
use crate::schema::keys::{ReplaceKeys, RewriteKeys, RouteKeys};
use crate::schema::{At, Path, PathText, Reader};

/// Reads `rewrite` and holds it against what the route matches and does.
pub(super) fn rewrite(
    keys: &RouteKeys,
    matches: &[Match],
    action: Option<&Action>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Rewrite {
    let rewrite = keys
        .rewrite
        .as_ref()
        .map(|at| edits(&at.value, path.key("rewrite"), reader))
        .unwrap_or_default();
    let prefixed = |one: &Match| matches!(one.path, Some(PathMatch::Prefix(_)));
    if let Some(RewriteKeys {
        prefix: Some(prefix),
        ..
    }) = keys.rewrite.as_ref().map(|at| &at.value)
        && !keys.broken
        && (matches.is_empty() || !matches.iter().all(prefixed))
    {
        let message =
            "`prefix` replaces the matched prefix, and not every `match` of this route has one";
        let help = "give each match `path: {prefix: …}`, or rewrite with `path` or `regex`";
        reader.refuse(
            Code::Rewrite,
            &prefix.position,
            path.key("rewrite"),
            message,
            help,
        );
    }
    if let (Some(at), Some(Action::Redirect(_) | Action::Respond(_))) = (&keys.rewrite, action) {
        let message = format!("{path}.rewrite: has no effect, because the route forwards nothing");
        reader.report(Diagnostic::new(Code::NoEffect, &at.position, message));
    }
    rewrite
}

fn edits(keys: &RewriteKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Rewrite {
    let text = |at: &At<PathText>| at.value.0.clone();
    let mut found: Vec<PathRewrite> = Vec::new();
    found.extend(keys.prefix.as_ref().map(|at| PathRewrite::Prefix(text(at))));
    found.extend(keys.path.as_ref().map(|at| PathRewrite::Path(text(at))));
    found.extend(
        keys.regex
            .as_ref()
            .and_then(|at| replace(&at.value, path.key("regex"), reader)),
    );
    if found.len() > 1 {
        let message = "`prefix`, `path` and `regex` exclude each other";
        reader.refuse(
            Code::Conflict,
            &keys.position,
            path,
            message,
            "keep one of them",
        );
    }
    Rewrite {
        path: found.pop(),
        host: keys.host.as_ref().map(|at| at.value.0.clone()),
    }
}

fn replace(keys: &ReplaceKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<PathRewrite> {
    let find = &keys.find.as_ref()?.value.free;
    let with = keys.with.as_ref()?;
    if let Some(group) = missing_group(&with.value.0, find) {
        let message = format!("`find` has no group `{group}`");
        reader.refuse(
            Code::Rewrite,
            &with.position,
            path.key("with"),
            message,
            "`$$` stands for a dollar sign",
        );
    }
    Some(PathRewrite::Regex {
        find: find.clone(),
        with: with.value.0.clone(),
    })
}

/// Returns the first group in `with`, such as `$1` or `${name}`, that the expression does not have.
fn missing_group<'a>(with: &'a str, find: &regex::Regex) -> Option<&'a str> {
    let mut rest = with;
    while let Some((_, after)) = rest.split_once('$') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (name, tail) = match after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some(parts) => parts,
            None => after.split_at(digits),
        };
        let known = match name.parse::<usize>() {
            Ok(index) => index < find.captures_len(),
            Err(_) => name.is_empty() || find.capture_names().flatten().any(|known| known == name),
        };
        if !known {
            return Some(name);
        }
        rest = if name.is_empty() {
            after.strip_prefix('$').unwrap_or(after)
        } else {
            tail
        };
    }
    None
}
