//! The syntax of one operator of a format string.

use super::FormatError;

/// `%NAME(argument):limit%`, read but not understood.
pub(super) struct Operator<'a> {
    /// Offset of its first `%`.
    pub(super) at: usize,
    pub(super) name: &'a str,
    pub(super) argument: Option<&'a str>,
    /// Offset of the argument.
    pub(super) argument_at: usize,
    pub(super) limit: Option<usize>,
    /// Offset of what follows it.
    pub(super) end: usize,
}

impl<'a> Operator<'a> {
    /// Reads the operator whose `%` is at `at`. As in Envoy an argument ends with the first `)` that leaves an
    /// operator behind, so it may hold `%` and `)`, only not together.
    pub(super) fn read(format: &'a str, at: usize) -> Result<Self, FormatError> {
        let fail = |message: &str| FormatError {
            offset: at,
            message: message.to_owned(),
        };
        let after = &format[at + 1..];
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let name = &after[..after.find(|c| !is_name(c)).unwrap_or(after.len())];
        if name.is_empty() {
            return Err(fail(
                "`%` starts no operator; a percent sign is written `%%`",
            ));
        }
        let rest = &after[name.len()..];
        let argument_at = at + 1 + name.len() + 1;
        let Some(inside) = rest.strip_prefix('(') else {
            let (limit, used) =
                tail(rest).ok_or_else(|| fail("the operator has no closing `%`"))?;
            return Ok(Self {
                at,
                name,
                argument: None,
                argument_at,
                limit,
                end: argument_at - 1 + used,
            });
        };
        for (close, _) in inside.match_indices(')') {
            if let Some((limit, used)) = tail(&inside[close + 1..]) {
                let argument = Some(&inside[..close]);
                return Ok(Self {
                    at,
                    name,
                    argument,
                    argument_at,
                    limit,
                    end: argument_at + close + 1 + used,
                });
            }
        }
        Err(fail("the operator has no closing `)%`"))
    }

    pub(super) fn error(&self, message: String) -> FormatError {
        FormatError {
            offset: self.at,
            message,
        }
    }
}

/// Reads `%` or `:digits%`; returns the number and how many bytes it took.
fn tail(rest: &str) -> Option<(Option<usize>, usize)> {
    if rest.starts_with('%') {
        return Some((None, 1));
    }
    let digits = rest.strip_prefix(':')?;
    let length = digits.find('%')?;
    Some((Some(digits[..length].parse().ok()?), length + 2))
}
