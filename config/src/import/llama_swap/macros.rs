//! `${NAME}`: macros of the file and of a model, replaced in texts.

use super::command::without_comments;
use crate::import::{Asked, Fields, Leaf};

/// Texts longer than this are refused: macros can grow beyond all measure.
const LONGEST: usize = 1 << 20;

/// Macros in the order of their definition; each may use those before it.
#[derive(Clone, Debug)]
pub(super) struct Macros {
    asked: Asked,
    entries: Vec<(String, String)>,
}

impl Macros {
    /// Reads `macros` of the whole file.
    pub(super) fn of_file(root: &Fields<'_>, asked: Asked) -> Self {
        let mut macros = Self {
            asked,
            entries: Vec::new(),
        };
        macros.read(root);
        macros
    }

    /// Adds those of a model, which replace those of the file where they stand.
    pub(super) fn of_model(&self, id: &str, model: &Fields<'_>) -> Self {
        let mut macros = self.clone();
        let own = ("MODEL_ID".to_owned(), id.to_owned());
        macros.entries.insert(0, own);
        macros.read(model);
        macros
    }

    fn read(&mut self, fields: &Fields<'_>) {
        for (name, value) in fields.pairs("macros") {
            let (name, value) = (name.as_str(), value.as_str().to_owned());
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if matches!(name, "PORT" | "MODEL_ID" | "PID") {
                fields.lost("macros", format!("`{name}` is a reserved name"));
            } else if name.is_empty() || !name.chars().all(legal) {
                fields.lost(
                    "macros",
                    "a name of a macro has letters, digits, `_` and `-`",
                );
            } else if let Some(known) = self.entries.iter_mut().find(|(known, _)| known == name) {
                known.1 = value;
            } else {
                self.entries.push((name.to_owned(), value));
            }
        }
    }

    /// Returns a text with its macros replaced; what is wrong is a finding, and the text is lost.
    ///
    /// * `left`: names that stay, for the native file
    pub(super) fn text(&self, fields: &Fields<'_>, key: &str, left: &[&str]) -> Option<Leaf> {
        self.replaced(fields, key, left, str::to_owned)
    }

    /// Like [`Macros::text`] for a command line: macros in comments are not looked at.
    pub(super) fn line(&self, fields: &Fields<'_>, key: &str, left: &[&str]) -> Option<Leaf> {
        self.replaced(fields, key, left, without_comments)
    }

    fn replaced(
        &self,
        fields: &Fields<'_>,
        key: &str,
        left: &[&str],
        prepare: fn(&str) -> String,
    ) -> Option<Leaf> {
        let leaf = fields.scalar(key)?;
        match self.replace(prepare(leaf.as_str()), left) {
            Ok(text) => Some(leaf.with(text)),
            Err(note) => {
                fields.lost(key, note);
                None
            }
        }
    }

    /// Replaces macros, the last defined first.
    ///
    /// # Errors
    ///
    /// A macro is unknown, or the text grows too long.
    fn replace(&self, mut text: String, left: &[&str]) -> Result<String, String> {
        for (name, value) in self.entries.iter().rev() {
            let slug = format!("${{{name}}}");
            let count = text.matches(&slug).count();
            if count == 0 {
                continue;
            }
            let grown = count.saturating_mul(value.len()).saturating_add(text.len());
            if grown > LONGEST {
                return Err(format!("with the macro `{name}` it is too long"));
            }
            text = text.replace(&slug, value);
        }
        match unknown(&text, left) {
            Some(name) => Err(format!("the macro `${{{name}}}` is not known")),
            None => Ok(text),
        }
    }

    /// Makes the value of the native file: variables of the environment are written as they are there.
    pub(super) fn native(&self, leaf: &Leaf) -> Leaf {
        match leaf.as_str().contains("${env.") {
            true => leaf.expanding(self.asked, variables(leaf.as_str())),
            false => leaf.clone(),
        }
    }

    /// Returns the proof that processes may be named.
    pub(super) fn asked(&self) -> Asked {
        self.asked
    }
}

/// Finds the first `${NAME}` that nobody replaced. `${env.NAME}` is none of them.
fn unknown<'t>(text: &'t str, left: &[&str]) -> Option<&'t str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut rest = text;
    while let Some((_, tail)) = rest.split_once("${") {
        if let Some((name, _)) = tail.split_once('}')
            && !name.is_empty()
            && name.chars().all(legal)
            && !left.contains(&name)
        {
            return Some(name);
        }
        rest = tail;
    }
    None
}

/// Writes `${env.NAME}` as `${env:NAME}`, and protects what else looks like one.
fn variables(text: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("${") {
        out.push_str(before);
        let named = tail
            .strip_prefix("env.")
            .and_then(|tail| tail.split_once('}'));
        let name = |name: &str| {
            let digit = name.starts_with(|c: char| c.is_ascii_digit());
            !name.is_empty() && !digit && name.chars().all(legal)
        };
        match named.filter(|(text, _)| name(text)) {
            Some((name, after)) => {
                out.push_str(&format!("${{env:{name}}}"));
                rest = after;
            }
            None => {
                out.push_str("$${");
                rest = tail;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::{unknown, variables};

    #[test]
    fn variables_are_written_as_in_native_files() {
        for (written, native) in [
            ("${env.HOME}/m", "${env:HOME}/m"),
            ("a ${env.A} ${PORT} ${env.}", "a ${env:A} $${PORT} $${env.}"),
            ("${env:A}", "$${env:A}"),
        ] {
            assert_eq!(variables(written), native);
        }
    }

    #[test]
    fn what_nobody_replaced_is_found() {
        assert_eq!(unknown("a ${env.X} ${PORT} ${b}", &["PORT"]), Some("b"));
        assert_eq!(unknown("${PORT} ${} ${x y} ${", &["PORT"]), None);
    }
}
