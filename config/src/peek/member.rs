//! One member of the document's object: how often it is named, and where its value is.

use std::ops::Range;

use super::places::Places;
use super::{Peek, Progress};
use crate::pointer::Pointer;

/// Looks for a string member of the object that a JSON document is, while the document comes.
///
/// A name counts in whatever ASCII case, as servers written in Go read it. A member that comes twice is an ambiguity
/// that is reported and not settled: so its value is certain as soon as it was read, and whoever goes on feeding learns
/// of another one. The same is said of a member followed by what is not JSON: a server that reads it all the same, with
/// comments perhaps, may find another one there.
#[derive(Clone, Debug)]
pub struct Member {
    peek: Peek,
    done: bool,
}

/// What is known of a member so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight<'a> {
    /// It may still come.
    Looking,
    /// It came, as a string.
    Found {
        /// Unescaped.
        text: &'a str,
        /// Where the string is, in bytes of the document, its quotes included.
        at: Range<u64>,
    },
    /// There is none that is a string of at most [`LONGEST`](super::LONGEST) valid bytes, or no JSON object.
    Absent,
    /// It was named twice, or what follows it is not JSON.
    Twice,
}

impl Member {
    /// * `names`: any of them is the member; not empty. `null` or an empty string under another name than the first is
    ///   none: clients that know both names send one of them so
    pub fn new(names: &[&str]) -> Self {
        let pointer = |name: &&str| Pointer {
            tokens: vec![(*name).to_owned()],
        };
        let wanted: Vec<Pointer> = names.iter().map(pointer).collect();
        Self {
            peek: Peek::of(Places::new(&wanted).in_any_case().into()),
            done: false,
        }
    }

    /// Looks at the next bytes; the result does not depend on how the document is cut into pieces.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !self.done && self.peek.named() < 2 {
            self.done = self.peek.feed(bytes) == Progress::Done;
        }
    }

    /// What is known so far.
    pub fn sight(&self) -> Sight<'_> {
        if self.peek.named() > 1 {
            return Sight::Twice;
        }
        match self.peek.string() {
            Some(_) if self.peek.is_broken() => Sight::Twice,
            Some((Some(text), at)) => Sight::Found { text, at },
            Some((None, _)) => Sight::Absent,
            None if self.done || self.peek.passed() => Sight::Absent,
            None => Sight::Looking,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds pieces of this size until something is known; then whether the rest changes it.
    fn sight(document: &[u8], size: usize) -> (Option<(String, Range<u64>)>, bool) {
        let mut member = Member::new(&["model"]);
        let mut first = None;
        for piece in document.chunks(size) {
            member.feed(piece);
            if let (None, Sight::Found { text, at }) = (&first, member.sight()) {
                first = Some((text.to_owned(), at));
            }
        }
        (first, member.sight() == Sight::Twice)
    }

    fn found(document: &str) -> Option<(String, String)> {
        let (bytewise, twice) = sight(document.as_bytes(), 1);
        assert!(!twice, "{document}");
        let (whole, _) = sight(document.as_bytes(), usize::MAX);
        assert_eq!(whole, bytewise, "{document}");
        let (text, at) = bytewise?;
        let written = &document[at.start as usize..at.end as usize];
        Some((text, written.to_owned()))
    }

    #[test]
    fn the_member_of_the_document_is_found_where_it_is_written() {
        for (document, text, written) in [
            (r#"{"model":"m"}"#, "m", r#""m""#),
            (
                r#" { "a" : [1, {"model": "x"}], "model" : "m" , "b": {"model": 1} } "#,
                "m",
                r#""m""#,
            ),
            (
                r#"{"model": "org\/m\u0065", "x": 1}"#,
                "org/me",
                r#""org\/m\u0065""#,
            ),
            (r#"{"m\u006fdel": "ü😀", "x": 1}"#, "ü😀", r#""ü😀""#),
            (r#"{"Model": "m"}"#, "m", r#""m""#),
            ("\u{feff}{\"model\":\"m\"}", "m", "\"m\""),
            (r#"{"a": "\"model\": \"x\"", "model": ""}"#, "", r#""""#),
            (r#"{"model": "m", "messages": ["#, "m", r#""m""#),
        ] {
            assert_eq!(
                found(document),
                Some((text.into(), written.into())),
                "{document}"
            );
        }
        for document in [
            r#"{"messages": [{"model": "x"}]}"#,
            r#"{"model": 5}"#,
            r#"{"model": null, "x": "m"}"#,
            r#"{"model": {"model": "x"}}"#,
            r#"{"model": ["x"]}"#,
            r#"{"model": "\ud83d"}"#,
            r#"[{"model": "x"}]"#,
            r#""model""#,
            r#"{"model" "m"}"#,
            "model=m",
            "",
        ] {
            assert_eq!(found(document), None, "{document}");
        }
    }

    #[test]
    fn a_second_one_is_noticed_however_late() {
        let filler = format!(r#""prompt": "{}""#, "x".repeat(100_000));
        for document in [
            r#"{"model": "a", "model": "b"}"#.to_owned(),
            r#"{"model": "a", "MODEL": "a"}"#.to_owned(),
            r#"{"model": 1, "mo\u0064el": "b"}"#.to_owned(),
            format!(r#"{{"model": "a", {filler}, "model": null}}"#),
        ] {
            for size in [1, 7, usize::MAX] {
                assert!(sight(document.as_bytes(), size).1, "{document:.60}");
            }
        }
    }

    #[test]
    fn what_cannot_come_any_more_is_not_waited_for() {
        let is = |document: &str, wanted: Sight<'_>| {
            let mut member = Member::new(&["model", "name"]);
            member.feed(document.as_bytes());
            assert_eq!(member.sight(), wanted, "{document}");
        };
        is(r#"{"model": 5, "#, Sight::Absent);
        is("[", Sight::Absent);
        is("PK", Sight::Absent);
        is(r#"{"model": 5"#, Sight::Looking);
        is(r#"{"model": "a"#, Sight::Looking);
        is(
            r#"{"name": "a""#,
            Sight::Found {
                text: "a",
                at: 9..12,
            },
        );
        is(r#"{"name": "a", "model""#, Sight::Twice);
        is(r#"{"model": "a", "name": "a""#, Sight::Twice);
        is(r#"{"model": "a", "name": 5"#, Sight::Twice);
    }

    #[test]
    fn an_empty_value_under_another_name_is_none() {
        for (document, value) in [
            (r#"{"model":"m","system":"","name":""}"#, "m"),
            (r#"{"model":"m","name":null}"#, "m"),
            (r#"{"name":"","model":"m"}"#, "m"),
            (r#"{"name":null,"model":"m"}"#, "m"),
            (r#"{"model":null,"name":"m"}"#, ""),
            (r#"{"name":"m"}"#, "m"),
        ] {
            for size in [1, 3, usize::MAX] {
                let mut member = Member::new(&["model", "name"]);
                document
                    .as_bytes()
                    .chunks(size)
                    .for_each(|piece| member.feed(piece));
                match member.sight() {
                    Sight::Found { text, at } => {
                        assert_eq!(text, value, "{document}");
                        let written = &document[at.start as usize..at.end as usize];
                        assert_eq!(written.trim_matches('"'), value, "{document}");
                    }
                    other => assert_eq!((other, value), (Sight::Twice, ""), "{document}"),
                }
            }
        }
    }

    #[test]
    fn what_is_not_json_may_hide_another_one() {
        for document in [
            r#"{"model": "a", /* */ "model": "b"}"#,
            r#"{"model": "a", 'model': 'b'}"#,
            r#"{"model": "a" model: "b"}"#,
            "{\"model\": \"a\", \"\0\": 1}",
        ] {
            assert!(sight(document.as_bytes(), 1).1, "{document}");
        }
        assert!(
            !sight(br#"{"model": "a"} // {"model": "b"}"#, 1).1,
            "after its end"
        );
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(
            text in "[{}\\[\\]:,\"\\\\model 1]{0,60}", size in 1usize..9,
        ) {
            for document in [text.clone(), format!(r#"{{"model": "{text}"#), format!(r#"{{"a": {text}, "model": "m"}}"#)] {
                // What came before a second one, or before what is not JSON, may have been seen or not.
                let settled = |size| match sight(document.as_bytes(), size) {
                    (_, true) => None,
                    (first, false) => Some(first),
                };
                prop_assert_eq!(settled(size), settled(usize::MAX));
            }
        }
    }
}
