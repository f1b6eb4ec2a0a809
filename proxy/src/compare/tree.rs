//! A JSON document with its numbers as they are written, so that no digit is lost before two of them are held against
//! each other.

use std::borrow::Cow;

/// As deep as `serde_json` goes by default.
const MOST_DEPTH: usize = 127;

/// A value of a JSON document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree<'a> {
    Null,
    Bool(bool),
    /// As it is written; its grammar is JSON's.
    Number(&'a str),
    /// Unescaped.
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    /// Sorted by key, each key once: of several the last one won.
    Record(Vec<(Cow<'a, str>, Tree<'a>)>),
}

impl<'a> Tree<'a> {
    /// Reads a whole document. `None`: it is not JSON, or deeper than 127 levels.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        let tree = reader.value(MOST_DEPTH)?;
        reader.space();
        (reader.at == text.len()).then_some(tree)
    }

    /// Its compact text, at most `most` characters of it.
    pub(super) fn excerpt(&self, most: usize) -> String {
        let mut out = String::new();
        // A character has at most four bytes: what is beyond them is not looked at.
        self.write(&mut out, most.saturating_mul(4));
        super::cut(&mut out, most);
        out
    }

    fn write(&self, out: &mut String, most: usize) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(number) => out.push_str(&number[..number.len().min(most)]),
            Self::Text(text) => quote(text, out, most),
            Self::List(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    if out.len() > most {
                        return;
                    }
                    out.push_str(if index == 0 { "" } else { "," });
                    element.write(out, most);
                }
                out.push(']');
            }
            Self::Record(members) => {
                out.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if out.len() > most {
                        return;
                    }
                    out.push_str(if index == 0 { "" } else { "," });
                    quote(key, out, most);
                    out.push(':');
                    value.write(out, most);
                }
                out.push('}');
            }
        }
    }
}

/// Appends a JSON string of at most the first `most` characters of `text`.
fn quote(text: &str, out: &mut String, most: usize) {
    let end = text
        .char_indices()
        .nth(most)
        .map_or(text.len(), |(at, _)| at);
    out.push_str(&serde_json::Value::from(&text[..end]).to_string());
}

/// A place in a text that is being read.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over `token` when it is next.
    fn take(&mut self, token: &str) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at..)?;
        rest.starts_with(token.as_bytes())
            .then(|| self.at += token.len())
    }

    fn value(&mut self, depth: usize) -> Option<Tree<'a>> {
        self.space();
        match self.peek()? {
            b'n' => self.take("null").map(|()| Tree::Null),
            b't' => self.take("true").map(|()| Tree::Bool(true)),
            b'f' => self.take("false").map(|()| Tree::Bool(false)),
            b'"' => self.string().map(Tree::Text),
            b'[' => self.list(depth.checked_sub(1)?),
            b'{' => self.record(depth.checked_sub(1)?),
            _ => self.number().map(Tree::Number),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Tree<'a>> {
        self.take("[")?;
        self.space();
        let mut elements = Vec::new();
        if self.take("]").is_some() {
            return Some(Tree::List(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            self.space();
            if self.take("]").is_some() {
                return Some(Tree::List(elements));
            }
            self.take(",")?;
        }
    }

    fn record(&mut self, depth: usize) -> Option<Tree<'a>> {
        self.take("{")?;
        self.space();
        let mut members = Vec::new();
        if self.take("}").is_some() {
            return Some(Tree::Record(members));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.take(":")?;
            members.push((key, self.value(depth)?));
            self.space();
            if self.take("}").is_some() {
                return Some(Tree::Record(last_of_each(members)));
            }
            self.take(",")?;
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        self.take("\"")?;
        let mut plain = true;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    plain = false;
                    self.at += 2;
                }
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        if plain {
            return Some(Cow::Borrowed(&self.text[start + 1..self.at - 1]));
        }
        serde_json::from_str(self.text.get(start..self.at)?)
            .ok()
            .map(Cow::Owned)
    }

    fn number(&mut self) -> Option<&'a str> {
        let start = self.at;
        let _ = self.take("-");
        if self.take("0").is_none() {
            self.digits()?;
        }
        if self.take(".").is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(&self.text[start..self.at])
    }

    /// At least one digit.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// Sorted by key; of equal keys the last one that was written.
fn last_of_each<'a>(mut members: Vec<(Cow<'a, str>, Tree<'a>)>) -> Vec<(Cow<'a, str>, Tree<'a>)> {
    members.reverse();
    members.sort_by(|(left, _), (right, _)| left.cmp(right));
    members.dedup_by(|(later, _), (kept, _)| later == kept);
    members
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn value(tree: &Tree<'_>) -> Value {
        match tree {
            Tree::Null => Value::Null,
            Tree::Bool(truth) => Value::Bool(*truth),
            Tree::Number(number) => serde_json::from_str(number).unwrap(),
            Tree::Text(text) => Value::from(text.as_ref()),
            Tree::List(elements) => elements.iter().map(value).collect(),
            Tree::Record(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, tree)| (key.to_string(), value(tree)))
                    .collect(),
            ),
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let bad = [
            "",
            "nul",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "+1",
            "NaN",
            "\"a",
            "\"\\x\"",
            "\"\n\"",
            "1 1",
            "\"\\",
            "\"\\é\"",
            "[",
            "{\"a\":1,}",
            "\"\\ud800\"",
        ];
        for text in bad {
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
            assert_eq!(Tree::parse(text), None, "{text}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Tree::parse(&deep(MOST_DEPTH)).is_some());
        assert!(Tree::parse(&deep(MOST_DEPTH + 1)).is_none());
        assert!(Tree::parse(&deep(100_000)).is_none());
    }

    #[test]
    fn of_equal_keys_the_last_one_wins() {
        let tree = Tree::parse(r#"{"b": 1, "a": 2, "b": 3, "\u0061": 4}"#).unwrap();
        assert_eq!(tree.excerpt(200), r#"{"a":4,"b":3}"#);
    }

    #[test]
    fn an_excerpt_is_cut_by_characters() {
        let long = format!("[\"{}\"]", "é".repeat(10_000));
        assert_eq!(
            Tree::parse(&long).unwrap().excerpt(200).chars().count(),
            200
        );
        let many = format!("[{}1]", "1,".repeat(10_000));
        assert_eq!(Tree::parse(&many).unwrap().excerpt(5), "[1,1,");
    }

    proptest! {
        #[test]
        fn it_reads_what_serde_json_reads(text in r#"[\[\]{}",:\\u0-9a-f.eE+ntrl -]{0,24}"#) {
            let ours = Tree::parse(&text).map(|tree| value(&tree));
            prop_assert_eq!(ours, serde_json::from_str::<Value>(&text).ok());
        }
    }
}
