//! Where nginx sends clients.

use super::annotations::Annotations;
use super::legal;
use crate::import::Leaf;
use crate::import::native::{Action, Redirect};
use crate::schema::{HostName, PathText};

/// Translates `temporal-redirect` and `permanent-redirect`, of which the first counts.
///
/// # Errors
///
/// When it cannot be said; it was found to be lost.
pub(super) fn annotated(notes: Annotations<'_>) -> Result<Option<Action>, ()> {
    let kinds = [
        ("temporal-redirect", "temporal-redirect-code", 302),
        ("permanent-redirect", "permanent-redirect-code", 301),
    ];
    let mut found = Ok(None);
    for (name, codes, usual) in kinds {
        let written = notes.number(codes, 300..=308);
        let Some(target) = notes.word(name) else {
            continue;
        };
        if !matches!(found, Ok(None)) {
            notes.approximated(name, "`temporal-redirect` comes first");
            continue;
        }
        let status = match written.as_ref().and_then(Leaf::whole) {
            Some(300 | 304..=306) => {
                notes.lost(codes, "no status of a redirect");
                Leaf::number(target.at(), usual)
            }
            Some(_) => written.unwrap_or_else(|| target.clone()),
            None => Leaf::number(target.at(), usual),
        };
        found = match to(&target, status) {
            Ok(redirect) => Ok(Some(Action::Redirect(Box::new(redirect)))),
            Err(note) => {
                notes.lost(name, format!("{note}; its requests are answered 503"));
                Err(())
            }
        };
    }
    found
}

/// Translates a URL, or a path, that nginx sends clients to. `$request_uri` at its end keeps path and query.
///
/// # Errors
///
/// Why it cannot be said, for a finding.
pub(super) fn to(target: &Leaf, status: Leaf) -> Result<Redirect, String> {
    let mut redirect = Redirect {
        at: Some(target.at().clone()),
        status: Some(status),
        ..Redirect::default()
    };
    let mut rest = target.as_str();
    for known in ["$scheme://$http_host", "$scheme://$host"] {
        rest = rest.strip_prefix(known).unwrap_or(rest);
    }
    if let Some((scheme, after)) = rest.split_once("://") {
        match scheme {
            "http" | "https" => redirect.scheme = Some(target.with(scheme)),
            "$scheme" => {}
            _ => return Err("a redirect leads to http or https".to_owned()),
        }
        let end = after.find(['/', '$', '?', '#']).unwrap_or(after.len());
        let own = ["$host", "$http_host"];
        let (authority, path) = match own.iter().find_map(|own| after.strip_prefix(own)) {
            Some(path) => ("", path),
            None => after.split_at(end),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if let Some(port) = port {
            let port: u16 = port.parse().map_err(|_| format!("`{port}` is no port"))?;
            redirect.port = Some(Leaf::number(target.at(), port));
        }
        if !host.is_empty() {
            let host = target.with(host);
            legal::read::<HostName>(&host)?;
            redirect.host = Some(host);
        }
        rest = path;
    }
    match rest {
        "$request_uri" | "/$request_uri" | "$uri" => {}
        "" => redirect.path = Some(target.with("/")),
        path => {
            let path = target.with(path);
            if path.as_str().contains('$') {
                return Err("no variable but `$request_uri` is known".to_owned());
            }
            legal::read::<PathText>(&path)?;
            redirect.path = Some(path);
        }
    }
    let Redirect {
        scheme,
        host,
        port,
        path,
        ..
    } = &redirect;
    match scheme.is_none() && host.is_none() && port.is_none() && path.is_none() {
        true => Err("it leads to where it comes from".to_owned()),
        false => Ok(redirect),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::nowhere;

    #[test]
    fn urls_are_taken_apart() {
        let to = |text: &str| {
            let found = super::to(&Leaf::text(&nowhere(), text), Leaf::number(&nowhere(), 301))?;
            let parts = [found.scheme, found.host, found.port, found.path];
            let words =
                parts.map(|part| part.map_or_else(|| "-".to_owned(), |one| one.to_string()));
            Ok::<_, String>(words.join(" "))
        };
        for (url, parts) in [
            ("https://www.example.com", "https www.example.com - /"),
            ("http://a.b:8080/x/y", "http a.b 8080 /x/y"),
            ("https://a.b$request_uri", "https a.b - -"),
            ("/new", "- - - /new"),
            ("https://$host$request_uri", "https - - -"),
            ("$scheme://$http_host/x", "- - - /x"),
        ] {
            assert_eq!(to(url).as_deref(), Ok(parts), "{url}");
        }
        for bad in [
            "ftp://a/",
            "https://a/?x=1",
            "https://a/$arg_x",
            "$scheme://$host$request_uri",
            "https://a:x/",
        ] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }
}
