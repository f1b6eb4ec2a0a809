//! `${env:NAME}` and `${env:NAME:-default}` inside strings.

use crate::diagnostic::{Code, Diagnostic, quoted};
use crate::node::{Kind, Node, Value};
use crate::schema::Reader;

/// Expands environment variables in every string of the tree; `$${` is a literal `${`.
pub(super) fn expand(
    node: &mut Node,
    env: &dyn Fn(&str) -> Option<String>,
    reader: &mut Reader<'_>,
) {
    match &mut node.value {
        Value::Map(entries) => entries
            .iter_mut()
            .for_each(|entry| expand(&mut entry.value, env, reader)),
        Value::List(items) => items.iter_mut().for_each(|item| expand(item, env, reader)),
        Value::Scalar(scalar) if scalar.kind == Kind::Text && scalar.text.contains("${") => {
            match expanded(&scalar.text, env) {
                Ok(text) if text != scalar.text => {
                    scalar.unexpanded = Some(std::mem::replace(&mut scalar.text, text));
                }
                Ok(_) => {}
                Err((message, help)) => {
                    reader.report(
                        Diagnostic::new(Code::Environment, &node.position, message).help(help),
                    );
                }
            }
        }
        Value::Scalar(_) => {}
    }
}

fn expanded(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(inner) = rest[at..].strip_prefix("${env:") else {
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        };
        let form = || "`${env:NAME}` or `${env:NAME:-default}`; `$${` is a literal `${`".to_owned();
        let Some((inner, after)) = inner.split_once('}') else {
            return Err(("`${env:` is not closed by `}`".to_owned(), form()));
        };
        let (name, default) = inner
            .split_once(":-")
            .map_or((inner, None), |(name, default)| (name, Some(default)));
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(legal)
        {
            return Err((
                format!(
                    "{} is not the name of an environment variable",
                    quoted(name)
                ),
                form(),
            ));
        }
        match env(name).or_else(|| default.map(str::to_owned)) {
            Some(value) => out.push_str(&value),
            None => {
                let help = format!("set it, or give a default: `${{env:{name}:-default}}`");
                return Err((
                    format!("the environment variable `{name}` is not set"),
                    help,
                ));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "PORT").then(|| "80${env:PORT}".to_owned())
    }

    #[test]
    fn variables_are_expanded_once() {
        assert_eq!(
            expanded("a ${env:PORT} b", &env).unwrap(),
            "a 80${env:PORT} b"
        );
        assert_eq!(expanded("${env:X:-a:-b}${env:Y:-}", &env).unwrap(), "a:-b");
        assert_eq!(
            expanded("$${env:PORT} ${PORT} $1 $", &env).unwrap(),
            "${env:PORT} ${PORT} $1 $"
        );
    }

    #[test]
    fn what_is_unset_or_malformed_is_an_error() {
        for text in [
            "${env:X}",
            "${env:}",
            "${env:PORT",
            "${env:1A}",
            "${env:A B:-c}",
        ] {
            assert!(expanded(text, &env).is_err(), "{text}");
        }
    }
}
