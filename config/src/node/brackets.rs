//! Where a bracket or a quote was forgotten. A YAML parser reads on and complains many lines later.

/// What is open at some place, and where it was opened: line and column, 1-based.
type Open = (char, u32, u32, usize);

/// Finds the first bracket or quote that is not closed, or was never opened. Only for a text that is known not to be
/// YAML: it goes by indentation and by line ends, where YAML itself would be more patient.
pub(super) fn unbalanced(text: &str) -> Option<(u32, u32, String)> {
    let mut open: Vec<Open> = Vec::new();
    let mut block_scalar: Option<usize> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim();
        if code.is_empty()
            || code.starts_with('#')
            || block_scalar.is_some_and(|outer| indent > outer)
        {
            continue;
        }
        block_scalar = None;
        if let Some((bracket, line, column, _)) = open
            .last()
            .filter(|open| indent <= open.3 && starts_entry(code))
        {
            return Some((*line, *column, format!("this `{bracket}` is not closed")));
        }
        if let Some(found) = scan(line, number, indent, &mut open) {
            return Some(found);
        }
        let header = code
            .split(" #")
            .next()
            .unwrap_or_default()
            .trim_end_matches(['+', '-']);
        if open.is_empty() && header.ends_with(['|', '>']) {
            block_scalar = Some(indent);
        }
    }
    open.last().map(|(bracket, line, column, _)| {
        (*line, *column, format!("this `{bracket}` is not closed"))
    })
}

/// True for a line that starts an item of a block list or a key of a block map.
fn starts_entry(code: &str) -> bool {
    let word = code
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte))
        .count();
    let after = &code[word..];
    code == "-" || code.starts_with("- ") || (word > 0 && (after == ":" || after.starts_with(": ")))
}

/// Looks through one line; brackets that stay open are left in `open`.
fn scan(
    line: &str,
    number: u32,
    indent: usize,
    open: &mut Vec<Open>,
) -> Option<(u32, u32, String)> {
    let mut before = ' ';
    let mut text = 0_u32; // brackets inside a plain value, such as `${env:PORT}`
    let mut chars = (1_u32..).zip(line.chars()).peekable();
    while let Some((column, c)) = chars.next() {
        let fresh = before.is_whitespace() || "[{,:-".contains(before);
        match c {
            '#' if before.is_whitespace() => return None,
            '"' | '\'' if fresh => {
                let mut closed = false;
                while let Some((_, inner)) = chars.next() {
                    let doubled = c == '\'' && matches!(chars.peek(), Some((_, '\'')));
                    if (inner == '\\' && c == '"') || (inner == c && doubled) {
                        chars.next();
                    } else if inner == c {
                        closed = true;
                        break;
                    }
                }
                if !closed {
                    return Some((
                        number,
                        column,
                        format!("this `{c}` is not closed in its line"),
                    ));
                }
            }
            '[' | '{' if fresh || !open.is_empty() => open.push((c, number, column, indent)),
            '[' | '{' => text += 1,
            ']' | '}' if text > 0 => text -= 1,
            ']' | '}' => {
                let opener = if c == ']' { '[' } else { '{' };
                match open.pop() {
                    Some((bracket, ..)) if bracket == opener => {}
                    Some((bracket, line, column, _)) => {
                        return Some((
                            line,
                            column,
                            format!("this `{bracket}` is closed by `{c}`"),
                        ));
                    }
                    None => return Some((number, column, format!("this `{c}` closes nothing"))),
                }
            }
            _ => {}
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<(u32, u32)> {
        unbalanced(text).map(|(line, column, _)| (line, column))
    }

    #[test]
    fn an_open_bracket_is_found_where_it_was_opened() {
        assert_eq!(place("a:\n- {b: 1\n- {b: 2}\n"), Some((2, 3)));
        assert_eq!(place("a: [1, 2\nb: 3\n"), Some((1, 4)));
        assert_eq!(place("a: [1,\n  2\n"), Some((1, 4)));
        assert_eq!(place("a: {b: [1}\n"), Some((1, 8)));
        assert_eq!(place("a: 1]\n"), Some((1, 5)));
    }

    #[test]
    fn an_open_quote_is_found_where_it_was_opened() {
        assert_eq!(place("a: \"x\nb: \"y\"\n"), Some((1, 4)));
        assert_eq!(place("a: ['it''s', \"\\\"\", 'x]\n"), Some((1, 20)));
    }

    #[test]
    fn text_is_left_alone() {
        assert_eq!(
            place("a: don't # [\nb: |\n  [ {\nc: [\n  1,\n]\nd: x[1\ne: \"a]\"\nf: ${env:A}\n"),
            None
        );
    }
}
