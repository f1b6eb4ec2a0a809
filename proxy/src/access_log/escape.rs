//! Making bytes that a peer chose harmless: what comes out is one line of printable text and legal inside a
//! JSON string.

use std::io::Write;

/// Appends `bytes` with control characters, bidirectional controls, line separators, `"` and `\` escaped as in
/// JSON. Bytes that are no UTF-8 appear as `\u00XX`, so that nothing is lost.
pub(super) fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes
        .iter()
        .all(|&byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
    {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_char(out, c));
        chunk
            .invalid()
            .iter()
            .for_each(|&byte| push_unit(out, u16::from(byte)));
    }
}

fn push_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c if is_treacherous(c) => c
            .encode_utf16(&mut [0; 2])
            .iter()
            .for_each(|&unit| push_unit(out, unit)),
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

fn push_unit(out: &mut Vec<u8>, unit: u16) {
    write!(out, "\\u{unit:04x}").expect("a Vec takes all bytes");
}

/// C0, DEL, C1, what reorders or hides the text around it, and what some readers take for a line end.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns at most `limit` bytes of `text`, cut between characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_breaks_lines_or_reorders_text_is_escaped() {
        assert_eq!(escaped(b"curl/8 (x)"), "curl/8 (x)");
        assert_eq!(escaped("größe".as_bytes()), "größe");
        assert_eq!(escaped(b"a\r\nb\tc\"d\\e"), r#"a\r\nb\tc\"d\\e"#);
        assert_eq!(escaped(b"\0\x1b[2J\x7f"), r"\u0000\u001b[2J\u007f");
        assert_eq!(
            escaped("\u{85}\u{202e}\u{2028}\u{2066}".as_bytes()),
            r"\u0085\u202e\u2028\u2066"
        );
        assert_eq!(escaped("\u{e0041}".as_bytes()), r"\udb40\udc41");
        assert_eq!(escaped(b"\xff\xc3x"), r"\u00ff\u00c3x");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 3), "");
    }
}
