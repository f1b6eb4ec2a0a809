//! JSON written again on one line with fields replaced, all else as it was: numbers keep their digits, members their
//! order, even names that come twice.

use std::borrow::Cow;

use forebay_config::pointer::Pointer;
use serde::de::IgnoredAny;

use crate::secret::REDACTED;

/// Deeper documents are not embedded: common parsers stop at 128 levels, and a line has some of its own.
const MAX_DEPTH: usize = 100;

/// The text is no JSON document, or one that not every parser would read.
#[derive(Debug, PartialEq)]
pub(super) struct Unfit;

/// Appends `text` as a JSON string.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes all bytes and a string is JSON");
}

/// Appends the document `text` with what `redact` covers replaced.
///
/// # Errors
///
/// The text is broken, deeper than 100 levels, or has numbers beyond `f64` or halves of surrogate pairs; `out` is then
/// as it was.
pub(super) fn push(out: &mut Vec<u8>, text: &str, redact: &[Pointer]) -> Result<(), Unfit> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Unfit)?;
    let before = out.len();
    let mut copy = Copy {
        text,
        at: 0,
        redact,
        path: Vec::new(),
    };
    let result = copy.value(out, 0);
    if result.is_err() {
        out.truncate(before);
    }
    result
}

/// Copies one document; that its grammar is right is known before.
struct Copy<'a> {
    text: &'a str,
    at: usize,
    redact: &'a [Pointer],
    path: Vec<Cow<'a, str>>,
}

impl<'a> Copy<'a> {
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Unfit> {
        let before = out.len();
        match self.peek()? {
            b'{' => self.object(out, depth)?,
            b'[' => self.array(out, depth)?,
            b'"' => {
                let token = self.string()?;
                unescaped(token)?;
                out.extend_from_slice(token.as_bytes());
            }
            _ => {
                let token = self.word();
                if token.starts_with(|first: char| first == '-' || first.is_ascii_digit())
                    && !token.parse::<f64>().is_ok_and(f64::is_finite)
                {
                    return Err(Unfit);
                }
                out.extend_from_slice(token.as_bytes());
            }
        }
        if self.is_covered() {
            out.truncate(before);
            push_string(out, REDACTED);
        }
        Ok(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Unfit> {
        self.enter(out, depth)?;
        while self.peek()? != b'}' {
            self.comma(out)?;
            let token = self.string()?;
            let name = unescaped(token)?;
            out.extend_from_slice(token.as_bytes());
            self.peek()?;
            self.take(out)?; // the colon
            self.path.push(name);
            self.value(out, depth + 1)?;
            self.path.pop();
        }
        self.take(out)
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Unfit> {
        self.enter(out, depth)?;
        let mut index = 0u64;
        while self.peek()? != b']' {
            self.comma(out)?;
            self.path.push(Cow::Owned(index.to_string()));
            self.value(out, depth + 1)?;
            self.path.pop();
            index += 1;
        }
        self.take(out)
    }

    fn enter(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Unfit> {
        if depth >= MAX_DEPTH {
            return Err(Unfit);
        }
        self.take(out)
    }

    /// Copies a comma, if one is next, and goes to what follows it.
    fn comma(&mut self, out: &mut Vec<u8>) -> Result<(), Unfit> {
        if self.peek()? == b',' {
            self.take(out)?;
            self.peek()?;
        }
        Ok(())
    }

    /// Passes white space; returns the byte after it.
    fn peek(&mut self) -> Result<u8, Unfit> {
        let rest = &self.text.as_bytes()[self.at..];
        let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
        self.at += space.count();
        self.text.as_bytes().get(self.at).copied().ok_or(Unfit)
    }

    /// Copies one byte of punctuation.
    fn take(&mut self, out: &mut Vec<u8>) -> Result<(), Unfit> {
        out.push(*self.text.as_bytes().get(self.at).ok_or(Unfit)?);
        self.at += 1;
        Ok(())
    }

    /// Passes a string; returns it with its quotes.
    fn string(&mut self) -> Result<&'a str, Unfit> {
        let start = self.at;
        let mut escaped = false;
        for (offset, byte) in self.text.as_bytes()[start..].iter().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at = start + offset + 1;
                    return self.text.get(start..self.at).ok_or(Unfit);
                }
                _ => {}
            }
        }
        Err(Unfit)
    }

    /// Passes a number or a literal.
    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let length = rest.bytes().position(|byte| is_end(&byte));
        let word = &rest[..length.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn is_covered(&self) -> bool {
        let mut here = self
            .redact
            .iter()
            .filter(|pointer| pointer.tokens.len() == self.path.len())
            .peekable();
        if here.peek().is_none() {
            return false; // what contains this place was looked at before
        }
        let path: Vec<&str> = self.path.iter().map(|token| &**token).collect();
        here.any(|pointer| pointer.covers(&path))
    }
}

/// The text a JSON string stands for.
fn unescaped(token: &str) -> Result<Cow<'_, str>, Unfit> {
    if token.contains('\\') {
        return serde_json::from_str(token)
            .map(Cow::Owned)
            .map_err(|_| Unfit);
    }
    token
        .get(1..token.len() - 1)
        .map(Cow::Borrowed)
        .ok_or(Unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(text: &str, redact: &[&str]) -> Result<String, Unfit> {
        let redact: Vec<_> = redact
            .iter()
            .map(|pointer| Pointer::parse(pointer).unwrap())
            .collect();
        let mut out = Vec::new();
        push(&mut out, text, &redact)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_is_not_redacted_keeps_its_digits_and_order() {
        let text = " { \"b\" : 1.50 ,\r\n\t\"a\":[ 12345678901234567890123 , -0, true,null,{ } ,[ ]],\"b\":\"\\u0041 ,]}\\\"\" } ";
        assert_eq!(
            copied(text, &[]).unwrap(),
            "{\"b\":1.50,\"a\":[12345678901234567890123,-0,true,null,{},[]],\"b\":\"\\u0041 ,]}\\\"\"}"
        );
        assert_eq!(copied(" 7 ", &[]).unwrap(), "7");
    }

    #[test]
    fn every_covered_place_is_replaced() {
        let text = r#"{"a":{"x":1},"a":[2],"\u0062":3,"c":[{"d":4,"e":5},{"d":[6]}],"/":7}"#;
        assert_eq!(
            copied(text, &["/a", "/b", "/c/*/d", "/~1", "/none/x"]).unwrap(),
            r#"{"a":"[redacted]","a":"[redacted]","\u0062":"[redacted]","c":[{"d":"[redacted]","e":5},{"d":"[redacted]"}],"/":"[redacted]"}"#
        );
        assert_eq!(copied(text, &[""]).unwrap(), "\"[redacted]\"");
        assert_eq!(
            copied("[1,[2,3]]", &["/1/0"]).unwrap(),
            "[1,[\"[redacted]\",3]]"
        );
    }

    #[test]
    fn what_some_parser_would_refuse_is_unfit() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(copied(&deep(MAX_DEPTH), &[]).is_ok());
        for text in [
            "",
            "{",
            "{} x",
            "{'a':1}",
            "[1e999]",
            "\"\\ud800\"",
            "{\"\\udc00\":1}",
            "01",
            "\"\n\"",
            &deep(MAX_DEPTH + 1),
            &deep(100_000),
        ] {
            assert_eq!(copied(text, &[]), Err(Unfit), "{text:.20}");
        }
    }
}
