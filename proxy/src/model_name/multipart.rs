//! A text field of a form (RFC 7578), found while the form is still coming.
//!
//! Readers of forms differ in what they let pass. So whatever some take for a delimiter and others do not, and anything
//! but line ends before the first one, makes the form unreadable here: nobody is to find another field than we do.

use std::ops::Range;

use memchr::memmem;

use super::LONGEST;
use super::part::{Part, part};

/// Bytes of the headers of one part.
const MOST_HEADERS: usize = 4 << 10;

/// Looks for a field of a form.
#[derive(Debug)]
pub(super) struct Form {
    /// Two dashes and the boundary.
    delimiter: memmem::Finder<'static>,
    field: &'static str,
    state: State,
    /// What is not decided yet, from `cursor` on.
    held: Vec<u8>,
    cursor: usize,
    /// Where `held` begins, in bytes of the body.
    base: u64,
    named: u32,
    text: Vec<u8>,
    value: Option<Range<u64>>,
    /// The field is a file, too long, no text, or not the field to everybody.
    unfit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Before,
    /// In a part that began there, perhaps the one that is looked for.
    Data {
        start: u64,
        ours: bool,
    },
    /// What follows a delimiter on its line.
    Line,
    Headers,
    Over,
    Broken,
}

/// Where a part ends in what is here.
enum Edge {
    None,
    /// The line end before the delimiter.
    At(usize),
    /// Perhaps there, as some readers have it.
    Unclear,
}

impl Form {
    pub(super) fn new(boundary: &[u8], field: &'static str) -> Self {
        let delimiter = [b"--", boundary].concat();
        Self {
            delimiter: memmem::Finder::new(&delimiter).into_owned(),
            field,
            state: State::Before,
            held: Vec::new(),
            cursor: 0,
            base: 0,
            named: 0,
            text: Vec::new(),
            value: None,
            unfit: false,
        }
    }

    /// Looks at the next bytes; the result does not depend on how the form is cut into pieces.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.is_done() {
            return;
        }
        self.held.extend_from_slice(bytes);
        while self.step() {}
        self.held.drain(..self.cursor);
        self.base += std::mem::take(&mut self.cursor) as u64;
    }

    fn is_done(&self) -> bool {
        self.named > 1 || matches!(self.state, State::Over | State::Broken)
    }

    /// True when no field can come any more, and none did.
    pub(super) fn is_absent(&self) -> bool {
        self.unfit || self.is_done() && self.named == 0
    }

    /// True when the field came twice, or when it came and what follows cannot be read.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.named > 1 || self.named == 1 && self.state == State::Broken
    }

    /// The field's text and where it is, once it is whole.
    pub(super) fn value(&self) -> Option<(&str, Range<u64>)> {
        let range = self.value.clone().filter(|_| !self.unfit)?;
        Some((std::str::from_utf8(&self.text).ok()?, range))
    }

    /// Goes on as far as one state leads; false: more bytes are needed, or none.
    fn step(&mut self) -> bool {
        let rest = &self.held[self.cursor..];
        // Whatever the pieces, no more than this is one line or the headers of one part.
        let bounded = &rest[..rest.len().min(MOST_HEADERS)];
        match self.state {
            State::Before => {
                let ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
                let ends = ends.count();
                let (rest, needle) = (&rest[ends..], self.delimiter.needle());
                let length = needle.len().min(rest.len());
                let fits = rest[..length] == needle[..length];
                let whole = length == needle.len();
                self.cursor += ends + if whole { length } else { 0 };
                self.state = match (fits, whole) {
                    (true, true) => State::Line,
                    (true, false) => State::Before,
                    (false, _) => State::Broken,
                };
                self.state == State::Line
            }
            State::Data { start, ours } => {
                let edge = self.edge(rest, self.place() == start);
                let length = self.delimiter.needle().len();
                let data = match edge {
                    Edge::At(at) => at,
                    // As much stays as tells what is before a delimiter that is not whole yet.
                    Edge::None | Edge::Unclear => rest.len().saturating_sub(length + 3),
                };
                if ours {
                    let room = (LONGEST + 1).saturating_sub(self.text.len());
                    self.text.extend_from_slice(&rest[..data.min(room)]);
                    self.unfit |= self.text.len() > LONGEST;
                }
                self.cursor += data;
                match edge {
                    Edge::None => return false,
                    Edge::Unclear => self.state = State::Broken,
                    Edge::At(_) => {
                        if ours {
                            self.value = Some(start..self.place());
                            self.unfit |= std::str::from_utf8(&self.text).is_err();
                        }
                        self.cursor += 2 + length;
                        self.state = State::Line;
                    }
                }
                self.state == State::Line
            }
            State::Line => {
                if rest.starts_with(b"--") {
                    self.state = match rest.get(2) {
                        None => State::Line,
                        Some(b' ' | b'\t' | b'\r' | b'\n') => State::Over,
                        Some(_) => State::Broken,
                    };
                } else if let Some(end) = memmem::find(bounded, b"\r\n") {
                    let blank = rest[..end].iter().all(|byte| matches!(byte, b' ' | b'\t'));
                    self.cursor += end; // the line end may also be the one that ends the headers
                    self.state = if blank { State::Headers } else { State::Broken };
                    return blank;
                } else if rest.len() >= MOST_HEADERS {
                    self.state = State::Broken;
                }
                false
            }
            State::Headers => {
                let Some(end) = memmem::find(bounded, b"\r\n\r\n") else {
                    if rest.len() >= MOST_HEADERS {
                        self.state = State::Broken;
                    }
                    return false;
                };
                let part = part(&rest[..end], self.field);
                let ours = part != Part::Other;
                self.unfit |= part == Part::Unfit;
                self.cursor += end + 4;
                self.named += u32::from(ours);
                let start = self.place();
                self.state = State::Data { start, ours };
                !self.is_done()
            }
            State::Over | State::Broken => false,
        }
    }

    /// Where the data of a part ends; `begins`: it begins with `rest`, else its first bytes were seen before.
    fn edge(&self, rest: &[u8], begins: bool) -> Edge {
        for at in self.delimiter.find_iter(rest) {
            match &rest[at.saturating_sub(2)..at] {
                b"\r\n" => return Edge::At(at - 2),
                [] | [_] if !begins => {} // was looked at with what is before it
                [] | [.., b'\r' | b'\n'] => return Edge::Unclear,
                _ => {}
            }
        }
        Edge::None
    }

    /// Where the cursor is, in bytes of the body.
    fn place(&self) -> u64 {
        self.base + self.cursor as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(headers: &str, body: &str) -> String {
        format!("--b\r\n{headers}\r\n\r\n{body}\r\n")
    }

    fn field(name: &str, body: &str) -> String {
        part(
            &format!("Content-Disposition: form-data; name=\"{name}\""),
            body,
        )
    }

    /// The value and the text at its place; whatever the pieces, the same.
    fn read(form: &str) -> (Option<(String, String)>, bool, bool) {
        let run = |size: usize| {
            let mut parser = Form::new(b"b", "model");
            form.as_bytes()
                .chunks(size)
                .for_each(|piece| parser.feed(piece));
            let value = parser.value().map(|(text, at)| {
                (
                    text.to_owned(),
                    form[at.start as usize..at.end as usize].to_owned(),
                )
            });
            (value, parser.is_absent(), parser.is_ambiguous())
        };
        let whole = run(usize::MAX);
        for size in [1, 2, 3, 7, 50] {
            assert_eq!(run(size), whole, "{size}: {form}");
        }
        whole
    }

    fn value(form: &str) -> Option<String> {
        let (value, _, ambiguous) = read(form);
        assert!(!ambiguous, "{form}");
        let (text, there) = value?;
        assert_eq!(text, there);
        Some(text)
    }

    #[test]
    fn a_field_is_found_among_others() {
        let file = part(
            "content-disposition: form-data; name=\"file\"; filename=\"a;b\\\".wav\"\r\ncontent-type: audio/wav",
            "RIFF\r\n--a\r\n-b\r\n\0\r",
        );
        for form in [
            format!("{file}{}--b--\r\n", field("model", "whisper-1")),
            format!("{}{file}--b--", field("model", "whisper-1")),
            format!("\r\n\r\n{}{file}", field("model", "whisper-1")),
            format!("{}--b \t\r\n", field("model", "whisper-1")),
            format!("{}{}--b--", part("", "x"), field("model", "whisper-1")),
            format!(
                "{}{}--b--",
                part("", "x--b\r\r\n--c"),
                field("model", "whisper-1")
            ),
            format!("{}{}--b--", part("", ""), field("model", "whisper-1")),
            format!(
                "{}--b--",
                part("CONTENT-DISPOSITION:form-data;NAME=model", "whisper-1")
            ),
            format!(
                "{}--b--",
                part(
                    "a: b\r\nContent-Disposition: form-data; x=\"y\"; name=model\r\nc: d",
                    "whisper-1"
                )
            ),
        ] {
            assert_eq!(value(&form).as_deref(), Some("whisper-1"), "{form}");
        }
        assert_eq!(
            value(&format!("{}--b--", field("model", ""))).as_deref(),
            Some("")
        );
    }

    #[test]
    fn what_is_no_field_of_that_name_is_not_found() {
        for form in [
            format!("{}--b--", field("models", "x")),
            format!("{}--b--", field("Model", "x")),
            field("model", "cut off").trim_end().to_owned(),
            format!(
                "{}--b--",
                part(
                    "content-disposition: form-data; name=\"model\"; filename=\"x\"",
                    "x"
                )
            ),
            format!(
                "{}--b--",
                part("content-disposition: form-data; name*=utf-8''model", "x")
            ),
            format!("{}--b--", part("x-other: form-data; name=\"model\"", "x")),
            "--b--".to_owned(),
            "--b--\r\n".to_owned(),
            format!("a preamble\r\n{}", field("model", "x")),
            format!("{{\"model\":\"y\"}}\r\n{}", field("model", "x")),
            format!("--bb{}", field("model", "x")),
            format!("{}--b--", field("model", &"x".repeat(LONGEST + 1))),
            String::new(),
        ] {
            assert_eq!(value(&form), None, "{form:.80}");
        }
        let absent = |form: &str| read(form).1;
        assert!(absent(&format!("{}--b--\r\n", field("other", "x"))));
        assert!(!absent(&field("other", "x")), "it may still come");
    }

    #[test]
    fn a_field_that_comes_twice_is_noticed() {
        let twice = |form: String| read(&form).2;
        assert!(twice(format!(
            "{}{}",
            field("model", "a"),
            field("model", "a")
        )));
        let extended = part("content-disposition: form-data; name*=utf-8''model", "b");
        assert!(twice(format!("{}{extended}", field("model", "a"))));
        let unreadable = part(&format!("a: {}", "x".repeat(MOST_HEADERS)), "b");
        assert!(twice(format!("{}{unreadable}", field("model", "a"))));
        assert!(twice(format!("{}--b?\r\n", field("model", "a"))));
        assert!(twice(format!("{}--b--?\r\n", field("model", "a"))));
        assert!(
            !twice(format!(
                "{}--b--\r\n{}",
                field("model", "a"),
                field("model", "b")
            )),
            "after its end"
        );
    }

    #[test]
    fn what_only_some_take_for_a_delimiter_is_not_passed_over() {
        let hidden = "--b\ncontent-disposition: form-data; name=\"model\"\n\nb\n";
        for data in ["\n", "\r", "x\n", "x\n\r", ""] {
            let file = part(
                "content-disposition: form-data; name=f",
                &format!("{data}{hidden}"),
            );
            let (value, absent, _) = read(&format!("{file}{}", field("model", "a")));
            assert!(value.is_none() && absent, "{data:?}");
            let (_, _, ambiguous) = read(&format!("{}{file}", field("model", "a")));
            assert!(ambiguous, "{data:?}");
        }
    }

    #[test]
    fn nothing_much_is_held() {
        let mut parser = Form::new(b"b", "model");
        parser.feed(part("content-disposition: form-data; name=f", "").as_bytes());
        for _ in 0..100 {
            parser.feed(&[b'\r'; 1000]);
        }
        assert!(parser.held.len() < 10 && parser.text.is_empty());
    }
}
