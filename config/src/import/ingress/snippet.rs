//! Pieces of nginx's own configuration: taken apart into statements, of which a few are understood.

use super::{legal, policy, redirect};
use crate::import::Leaf;
use crate::import::native::{Action, Edits, Replace, Respond, Route};
use crate::schema::{EditableHeader, FindText, HeaderText, Key, MediaType, RewriteHost};

/// Beginnings of directives that protect somebody.
const PROTECTING: &[&str] = &[
    "allow",
    "deny",
    "auth_",
    "satisfy",
    "access_by_lua",
    "modsecurity",
    "valid_referers",
    "proxy_ssl_verify",
    "ssl_verify",
    "ssl_client",
    "secure_link",
];

/// A directive, its arguments, and whether a block follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) words: Vec<String>,
    /// In how many blocks it is.
    pub(super) depth: usize,
    pub(super) block: bool,
}

/// Takes a snippet apart.
pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut depth = 0;
    let mut chars = text.chars().peekable();
    let mut end = |words: &mut Vec<String>, depth: usize, block: bool| {
        if !words.is_empty() {
            found.push(Statement {
                words: std::mem::take(words),
                depth,
                block,
            });
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_none() => while chars.next().is_some_and(|c| c != '\n') {},
            '\'' | '"' if word.is_none() => {
                let mut quoted = String::new();
                while let Some(inner) = chars.next() {
                    match inner {
                        '\\' => match chars.next() {
                            Some(escaped @ ('\'' | '"' | '\\')) => quoted.push(escaped),
                            Some('n') => quoted.push('\n'),
                            Some('t') => quoted.push('\t'),
                            Some('r') => quoted.push('\r'),
                            Some(other) => quoted.extend(['\\', other]),
                            None => {}
                        },
                        inner if inner == c => break,
                        inner => quoted.push(inner),
                    }
                }
                words.push(quoted);
            }
            '$' if chars.peek() == Some(&'{') => {
                let word = word.get_or_insert_default();
                word.push(c);
                for inner in chars.by_ref() {
                    word.push(inner);
                    if inner == '}' {
                        break;
                    }
                }
            }
            ';' | '{' | '}' => {
                words.extend(word.take());
                end(&mut words, depth, c == '{');
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.take());
    end(&mut words, depth, false);
    found
}

/// True when a statement may keep somebody out.
pub(super) fn protects(statement: &Statement) -> bool {
    let Some(directive) = statement.words.first() else {
        return false;
    };
    let refuses = directive == "return"
        && matches!(
            statement.words.get(1).map(String::as_str),
            Some("401" | "403" | "444")
        );
    refuses || PROTECTING.iter().any(|start| directive.starts_with(start))
}

/// What is lost of a snippet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// What and why, each once.
    pub(super) notes: Vec<String>,
    /// Something of it kept somebody out.
    pub(super) security: bool,
    /// What has an effect that differs.
    pub(super) differs: Vec<String>,
}

impl Losses {
    fn lost(&mut self, statement: &Statement, why: impl std::fmt::Display) {
        let directive = statement.words.first().map_or("", String::as_str);
        self.notes.push(format!("`{directive}`: {why}"));
        self.security |= protects(statement);
    }
}

/// Puts what a `configuration-snippet` says into a route. Its `return` is the last value: the action.
pub(super) fn apply(snippet: &Leaf, route: &mut Route) -> (Losses, Option<Action>) {
    let mut losses = Losses::default();
    let mut action = None;
    let mut replaces = Replaces::default();
    let statements = statements(snippet.as_str());
    for statement in &statements {
        if statement.depth > 0 || statement.block {
            losses.lost(statement, "blocks are not translated");
            continue;
        }
        let words: Vec<Leaf> = statement
            .words
            .iter()
            .map(|word| snippet.with(word))
            .collect();
        let (directive, arguments) = (statement.words[0].as_str(), &words[1..]);
        let done = match directive {
            "more_set_headers" => lines(arguments, &mut route.response_headers),
            "more_set_input_headers" => lines(arguments, &mut route.request_headers),
            "more_clear_headers" => clear(arguments, &mut route.response_headers),
            "more_clear_input_headers" => clear(arguments, &mut route.request_headers),
            "add_header" => added(arguments, route, &mut losses),
            "proxy_set_header" => sent(arguments, route),
            "sub_filter" | "sub_filter_once" | "sub_filter_types" => {
                replaces.read(directive, arguments)
            }
            "return" if action.is_some() => Ok(()),
            "return" => answer(arguments).map(|found| action = Some(found)),
            _ => Err("not translated".to_owned()),
        };
        if let Err(why) = done {
            losses.lost(statement, why);
            if directive == "return" {
                action = Some(policy::unavailable(snippet.at())); // nothing was meant to be forwarded
            }
        }
    }
    route.body.replace.extend(replaces.finish());
    (losses, action)
}

/// Checks a value that nginx would expand.
fn constant<S: crate::schema::Shape>(value: &Leaf) -> Result<(), String> {
    if value.as_str().contains('$') {
        return Err("variables are not known".to_owned());
    }
    // The value may be a secret, which no note holds.
    legal::read::<S>(value)
        .map(|_| ())
        .map_err(|_| "the value is not legal here".to_owned())
}

/// Returns a name of a header in lower case.
fn named(name: &Leaf) -> Result<Leaf, String> {
    let lower = name.with(name.as_str().to_ascii_lowercase());
    match EditableHeader::parse(lower.as_str()) {
        Ok(_) => Ok(lower),
        Err((_, why, _)) => Err(why),
    }
}

/// Makes a header have this value, or none.
fn set(edits: &mut Edits, name: &Leaf, value: &Leaf) -> Result<(), String> {
    let name = named(name)?;
    if value.as_str().is_empty() {
        edits.remove.push(name);
        return Ok(());
    }
    constant::<HeaderText>(value)?;
    match edits.set.add(name, value.clone()) {
        true => Ok(()),
        false => Err("the header is set twice".to_owned()),
    }
}

/// Reads `"Name: value"` arguments.
fn lines(arguments: &[Leaf], edits: &mut Edits) -> Result<(), String> {
    for line in arguments {
        let text = line.as_str();
        if text.starts_with('-') {
            return Err("options are not known".to_owned());
        }
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        set(edits, &line.with(name.trim()), &line.with(value.trim()))?;
    }
    Ok(())
}

fn clear(arguments: &[Leaf], edits: &mut Edits) -> Result<(), String> {
    for name in arguments {
        if name.as_str().starts_with('-') || name.as_str().contains('*') {
            return Err("options and patterns are not known".to_owned());
        }
        edits.remove.push(named(name)?);
    }
    Ok(())
}

fn added(arguments: &[Leaf], route: &mut Route, losses: &mut Losses) -> Result<(), String> {
    let (name, value, always) = match arguments {
        [name, value] => (name, value, false),
        [name, value, word] if word.as_str() == "always" => (name, value, true),
        _ => return Err("expected a name and a value".to_owned()),
    };
    if value.as_str().is_empty() {
        return Ok(()); // nginx adds no empty header
    }
    let name = named(name)?;
    constant::<HeaderText>(value)?;
    if !route.response_headers.add.add(name, value.clone()) {
        return Err("the header is added twice".to_owned());
    }
    if !always {
        losses
            .differs
            .push("`add_header`: errors have the header too".to_owned());
    }
    Ok(())
}

/// What the proxy does by itself.
const OWN: &[(&str, &[&str])] = &[
    ("host", &["$host", "$http_host", "$best_http_host"]),
    ("upgrade", &["$http_upgrade"]),
    (
        "connection",
        &["upgrade", "$connection_upgrade", "", "keep-alive"],
    ),
    (
        "x-forwarded-for",
        &["$proxy_add_x_forwarded_for", "$remote_addr"],
    ),
    ("x-forwarded-proto", &["$scheme", "$pass_access_scheme"]),
    (
        "x-forwarded-host",
        &["$host", "$http_host", "$best_http_host"],
    ),
    ("x-request-id", &["$request_id", "$req_id"]),
];

fn sent(arguments: &[Leaf], route: &mut Route) -> Result<(), String> {
    let [name, value] = arguments else {
        return Err("expected a name and a value".to_owned());
    };
    let lower = name.as_str().to_ascii_lowercase();
    let own = OWN.iter().find(|(name, _)| *name == lower);
    if own.is_some_and(|(_, values)| values.contains(&value.as_str())) {
        return Ok(());
    }
    if lower == "host" {
        constant::<RewriteHost>(value)?;
        route.rewrite.host = Some(value.clone());
        return Ok(());
    }
    set(&mut route.request_headers, name, value)
}

/// Reads the arguments of `return`.
pub(super) fn answer(arguments: &[Leaf]) -> Result<Action, String> {
    let (status, text) = match arguments {
        [url] if url.whole().is_none() => (url.with("302"), Some(url)),
        [status] => (status.clone(), None),
        [status, text] => (status.clone(), Some(text)),
        _ => return Err("expected a status and a text".to_owned()),
    };
    let number = status.whole().filter(|number| (200..=599).contains(number));
    let Some(number) = number.filter(|number| *number != 444) else {
        return Err(format!("the status `{status}` cannot be sent"));
    };
    let status = Leaf::number(status.at(), number);
    let sends = matches!(number, 301..=303 | 307 | 308);
    match text {
        Some(url) if sends => {
            let redirect = redirect::to(url, status)?;
            Ok(Action::Redirect(Box::new(redirect)))
        }
        text => {
            let text = text.filter(|text| !text.as_str().is_empty());
            if text.is_some_and(|text| text.as_str().contains('$')) {
                return Err("variables are not known".to_owned());
            }
            let mut respond = Respond {
                status: Some(status),
                body: text.cloned(),
                ..Respond::default()
            };
            if let Some(text) = text {
                let kind = (text.with("content-type"), text.with("text/html"));
                respond.headers.add(kind.0, kind.1);
            }
            Ok(Action::Respond(Box::new(respond)))
        }
    }
}

/// What `sub_filter` and its companions say together.
#[derive(Default)]
struct Replaces {
    texts: Vec<(Leaf, Leaf)>,
    every: bool,
    types: Option<Vec<Leaf>>,
}

impl Replaces {
    fn read(&mut self, directive: &str, arguments: &[Leaf]) -> Result<(), String> {
        match (directive, arguments) {
            ("sub_filter", [find, with]) => {
                constant::<FindText>(find)?;
                if with.as_str().contains('$') {
                    return Err("variables are not known".to_owned());
                }
                self.texts.push((find.clone(), with.clone()));
                Ok(())
            }
            ("sub_filter_once", [word]) => match word.as_str() {
                "on" => Ok(()),
                "off" => {
                    self.every = true;
                    Ok(())
                }
                _ => Err("expected `on` or `off`".to_owned()),
            },
            ("sub_filter_types", [_, ..]) => {
                let mut types = Vec::new();
                for kind in arguments {
                    let kind = match kind.as_str() {
                        "*" => kind.with("*/*"),
                        text => kind.with(text.to_ascii_lowercase()),
                    };
                    legal::read::<MediaType>(&kind)?;
                    types.push(kind);
                }
                self.types = Some(types);
                Ok(())
            }
            _ => Err("the number of arguments is wrong".to_owned()),
        }
    }

    fn finish(self) -> Vec<Replace> {
        let types = |find: &Leaf| {
            let mut types = self.types.clone()?;
            let html = ["text/html", "*/*"];
            if !types.iter().any(|kind| html.contains(&kind.as_str())) {
                types.insert(0, find.with("text/html"));
            }
            Some(types)
        };
        let one = |(find, with): &(Leaf, Leaf)| Replace {
            at: None,
            types: types(find),
            once: (!self.every).then(|| Leaf::flag(find.at(), true)),
            ignore_case: Some(Leaf::flag(find.at(), true)),
            find: Some(find.clone()),
            with: Some(with.clone()),
        };
        self.texts.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::nowhere;

    #[test]
    fn snippets_are_taken_apart() {
        let text = "# a; comment\nmore_set_headers \"X-A: b; c\" 'D: e';\nif ($a = \"x\") {\n  return 403;\n}\n\
                    sub_filter '<head>' '<head>\\'\"';x ${a;b}y;last";
        let words: Vec<(Vec<String>, usize, bool)> = statements(text)
            .into_iter()
            .map(|one| (one.words, one.depth, one.block))
            .collect();
        let wanted: Vec<(Vec<String>, usize, bool)> = [
            (vec!["more_set_headers", "X-A: b; c", "D: e"], 0, false),
            (vec!["if", "($a", "=", "x", ")"], 0, true),
            (vec!["return", "403"], 1, false),
            (vec!["sub_filter", "<head>", "<head>'\""], 0, false),
            (vec!["x", "${a;b}y"], 0, false),
            (vec!["last"], 0, false),
        ]
        .into_iter()
        .map(|(words, depth, block)| (words.into_iter().map(str::to_owned).collect(), depth, block))
        .collect();
        assert_eq!(words, wanted);
    }

    #[test]
    fn statements_that_keep_somebody_out_are_known() {
        for (text, wanted) in [
            ("deny all;", true),
            ("auth_basic x;", true),
            ("return 403;", true),
            ("return 404;", false),
            ("add_header X deny;", false),
        ] {
            assert_eq!(statements(text).iter().any(protects), wanted, "{text}");
        }
    }

    #[test]
    fn a_snippet_of_any_shape_is_read_to_its_end() {
        for text in [
            "", ";", "{", "}", "}}}", "'", "\"\\", "a 'b", "${", "# x", "return",
        ] {
            let leaf = Leaf::text(&nowhere(), text);
            let action = Action::Cluster(leaf.clone());
            let _ = apply(&leaf, &mut Route::new(&nowhere(), leaf.clone(), action));
        }
    }
}
