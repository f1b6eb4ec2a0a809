//! A text field of a form (RFC 7578), found while the form is still coming.

use std::ops::Range;

use memchr::memmem;

use super::LONGEST;

/// Bytes of the headers of one part.
const MOST_HEADERS: usize = 4 << 10;

/// Looks for a field of a form.
#[derive(Debug)]
pub(super) struct Form {
    /// The line end that belongs to it included.
    delimiter: memmem::Finder<'static>,
    field: &'static str,
    state: State,
    /// What is not decided yet, from `cursor` on.
    held: Vec<u8>,
    cursor: usize,
    /// Where `held` begins, in bytes of the body; the body begins at 2, after a line end that is ours.
    base: u64,
    named: u32,
    text: Vec<u8>,
    value: Option<Range<u64>>,
    /// The field is a file, too long, or no text.
    unfit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first part, in a part, or in the one that is looked for, which began there.
    Data(Option<u64>),
    /// What follows a delimiter on its line.
    Line,
    Headers,
    Over,
    Broken,
}

impl Form {
    pub(super) fn new(boundary: &[u8], field: &'static str) -> Self {
        let delimiter = [b"\r\n--", boundary].concat();
        Self {
            delimiter: memmem::Finder::new(&delimiter).into_owned(),
            field,
            state: State::Data(None),
            held: b"\r\n".to_vec(),
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
            State::Data(ours) => {
                let found = self.delimiter.find(rest);
                let keep = self.delimiter.needle().len() - 1;
                let data = found.unwrap_or(rest.len().saturating_sub(keep));
                if ours.is_some() {
                    let room = (LONGEST + 1).saturating_sub(self.text.len());
                    self.text.extend_from_slice(&rest[..data.min(room)]);
                    self.unfit |= self.text.len() > LONGEST;
                }
                self.cursor += data;
                if found.is_none() {
                    return false;
                }
                if let Some(start) = ours {
                    self.value = Some(start..self.place());
                    self.unfit |= std::str::from_utf8(&self.text).is_err();
                }
                self.cursor += keep + 1;
                self.state = State::Line;
                true
            }
            State::Line => {
                if rest.starts_with(b"--") {
                    self.state = State::Over;
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
                let (ours, fit) = is_field(&rest[..end], self.field);
                self.unfit |= ours && !fit;
                self.cursor += end + 4;
                self.named += u32::from(ours);
                self.state = State::Data(ours.then(|| self.place()));
                !self.is_done()
            }
            State::Over | State::Broken => false,
        }
    }

    /// Where the cursor is, in bytes of the body.
    fn place(&self) -> u64 {
        (self.base + self.cursor as u64).saturating_sub(2)
    }
}

/// Whether the headers of a part name this field, and whether the part is a text.
fn is_field(headers: &[u8], field: &str) -> (bool, bool) {
    const NAME: &[u8] = b"content-disposition";
    let (mut ours, mut fit) = (false, true);
    for line in headers.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        if !line[..colon].trim_ascii().eq_ignore_ascii_case(NAME) {
            continue;
        }
        parameters(&line[colon + 1..], |name, value| {
            // `name*=utf-8''model` is read by some and not by others: a field that is there, but not to be used.
            let plain = name.strip_suffix(b"*").unwrap_or(name);
            let extended = plain.len() < name.len();
            if plain.eq_ignore_ascii_case(b"name") {
                ours |= extended || value == field.as_bytes();
                fit &= !extended;
            }
            fit &= !plain.eq_ignore_ascii_case(b"filename");
        });
    }
    (ours, fit)
}

/// Shows the parameters of a field value such as `form-data; name="a"`: name and value, unquoted.
pub(super) fn parameters(field: &[u8], mut show: impl FnMut(&[u8], &[u8])) {
    let mut rest = field;
    let mut first = true;
    while !rest.is_empty() {
        let (mut quoted, mut escaped) = (false, false);
        let ends = |&byte: &u8| {
            let end = byte == b';' && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = byte == b'\\' && quoted && !escaped;
            end
        };
        let end = rest.iter().position(ends).unwrap_or(rest.len());
        let part = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if std::mem::take(&mut first) {
            continue; // the value itself
        }
        let Some(equals) = part.iter().position(|&byte| byte == b'=') else {
            continue;
        };
        let (name, value) = (part[..equals].trim_ascii(), part[equals + 1..].trim_ascii());
        match value {
            [b'"', inner @ .., b'"'] => show(name, &unescaped(inner)),
            _ => show(name, value),
        }
    }
}

fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'\\', Some(&next @ (b'"' | b'\\'))) => {
                out.push(next);
                bytes.next();
            }
            _ => out.push(byte),
        }
    }
    out
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
            format!("a preamble\r\n{}{file}", field("model", "whisper-1")),
            format!("{}--b \t\r\n", field("model", "whisper-1")),
            format!("{}{}--b--", part("", "x"), field("model", "whisper-1")),
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
            format!("--bb{}", field("model", "x")),
            format!("{}--b--", field("model", &"x".repeat(LONGEST + 1))),
            String::new(),
        ] {
            assert_eq!(value(&form), None, "{form:.80}");
        }
        let absent = |form: &str| read(form).1;
        assert!(absent(&format!("{}--b--", field("other", "x"))));
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
    fn nothing_much_is_held() {
        let mut parser = Form::new(b"b", "model");
        parser.feed(part("content-disposition: form-data; name=f", "").as_bytes());
        for _ in 0..100 {
            parser.feed(&[b'\r'; 1000]);
        }
        assert!(parser.held.len() < 10 && parser.text.is_empty());
    }
}
