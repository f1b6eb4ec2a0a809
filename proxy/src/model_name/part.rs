//! What the headers of one part of a form say (RFC 7578), as far as all who read forms agree on it.

/// What a part is to who looks for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Another one.
    Other,
    /// The field, as plain text.
    Field,
    /// The field to some readers and another one to others, a file, or text in an encoding of its own.
    Unfit,
}

/// Parameters that a field value such as `form-data; name="a"` has by this name, `None` for one that is not written
/// plainly: in pieces or percent-encoded (RFC 2231), or with a backslash, over whose meaning readers differ.
pub(super) fn parameters(value: &[u8], name: &str) -> Vec<Option<Box<[u8]>>> {
    let mut found = Vec::new();
    let mut rest = value;
    let mut first = true;
    while !rest.is_empty() {
        let mut quoted = false;
        let ends = |&byte: &u8| {
            quoted ^= byte == b'"';
            byte == b';' && !quoted
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
        let (key, value) = (part[..equals].trim_ascii(), part[equals + 1..].trim_ascii());
        let plain = key.split(|&byte| byte == b'*').next().unwrap_or_default();
        if !plain.eq_ignore_ascii_case(name.as_bytes()) {
            continue;
        }
        let text = match value {
            [b'"', inner @ .., b'"'] => inner,
            _ => value,
        };
        let is_plain = plain.len() == key.len() && !text.contains(&b'\\');
        found.push(is_plain.then(|| Box::from(text)));
    }
    found
}

/// What a part with these headers is to who looks for `field`.
pub(super) fn part(headers: &[u8], field: &str) -> Part {
    let Some(headers) = unfolded(headers) else {
        return Part::Unfit;
    };
    let (mut ours, mut fit) = (false, true);
    for line in headers.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = (line[..colon].trim_ascii(), &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-disposition") {
            let names = parameters(value, "name");
            let is_it = |name: &Option<Box<[u8]>>| {
                name.as_deref().is_none_or(|name| name == field.as_bytes())
            };
            ours |= names.iter().any(is_it);
            // A backslash may hide where a quoted text ends, and with it a name.
            ours |=
                value.contains(&b'\\') && memchr::memmem::find(value, field.as_bytes()).is_some();
            fit &= names.len() == 1 && names[0].is_some() && !value.contains(&b'\\');
            fit &= parameters(value, "filename").is_empty();
        } else if name.eq_ignore_ascii_case(b"content-type") {
            fit &= parameters(value, "charset").iter().all(is_utf8);
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            let plain: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];
            let value = value.trim_ascii();
            fit &= plain.iter().any(|plain| value.eq_ignore_ascii_case(plain));
        }
    }
    match (ours, fit) {
        (false, _) => Part::Other,
        (true, true) => Part::Field,
        (true, false) => Part::Unfit,
    }
}

/// True for a `charset` in which text is what it is in UTF-8, at least all that is ASCII.
pub(super) fn is_utf8(charset: &Option<Box<[u8]>>) -> bool {
    const SAME: [&str; 6] = [
        "utf-8",
        "utf8",
        "us-ascii",
        "ascii",
        "iso-8859-1",
        "windows-1252",
    ];
    let charset = charset.as_deref();
    charset.is_some_and(|name| {
        SAME.iter()
            .any(|same| name.eq_ignore_ascii_case(same.as_bytes()))
    })
}

/// Headers with each field on one line, which ends in `\n`. `None`: some other line end is among them, which not all
/// readers take for one.
fn unfolded(headers: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(headers.len());
    let mut rest = headers;
    while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(&rest[..end]);
        rest = rest[end..].strip_prefix(b"\r\n")?;
        out.push(match rest.first() {
            Some(b' ' | b'\t') => b' ',
            _ => b'\n',
        });
    }
    out.extend_from_slice(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disposition: &str) -> Part {
        let headers = format!("content-disposition: form-data{disposition}");
        part(headers.as_bytes(), "model")
    }

    #[test]
    fn a_field_is_what_everybody_reads_as_one() {
        for plain in [
            "; name=\"model\"",
            ";name=model",
            "; NAME = model; x=\"name=y\"",
            ";\r\n name=\"model\"",
            "; name=\"model\"\r\ncontent-type: text/plain; charset=UTF-8",
            "; name=\"model\"\r\ncontent-transfer-encoding: 8bit",
        ] {
            assert_eq!(read(plain), Part::Field, "{plain}");
        }
        for other in [
            "",
            "; name=\"models\"",
            "; name='model'",
            "; name=\"file\"; filename=\"a;b.wav\"",
            "; name=\"file\"; filename=\"a\\\".wav\"",
            "; name=\"file\"; filename*=utf-8''a",
            "; x=\"; name=model\"",
        ] {
            assert_eq!(read(other), Part::Other, "{other}");
        }
    }

    #[test]
    fn what_readers_differ_over_is_not_used() {
        for unfit in [
            "; name=\"model\"; filename=\"x\"",
            "; name*=utf-8''model",
            "; name*0=mo; name*1=del",
            "; name=\"x\"; name=\"model\"",
            "; name=\"model\"; name=\"x\"",
            "; name=\"mod\\el\"",
            "; filename=\"C:\\\"; name=\"model\"",
            "; name=\"x\"\ncontent-disposition: form-data; name=\"model\"",
            "; name=\"x\"\rcontent-disposition: form-data; name=\"model\"",
            "; name=\"model\"\r\ncontent-type: text/plain; charset=utf-16",
            "; name=\"model\"\r\ncontent-transfer-encoding: quoted-printable",
            "; name=\"model\"\r\ncontent-disposition: form-data; name=\"x\"; name=\"y\"",
        ] {
            assert_eq!(read(unfit), Part::Unfit, "{unfit}");
        }
    }
}
