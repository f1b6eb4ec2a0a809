//! What is wrong with a configuration, where, and what would be right.

use std::fmt;

use serde::Serialize;

use crate::load::SourceFile;
use crate::model::Position;

/// Characters of a source line that are shown around a caret; JSON is often one very long line.
const SHOWN: usize = 160;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted and probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $severity:ident $text:literal;)+) => {
        /// Stable names of findings: a number never changes its meaning and is never used again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// All codes, in order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the name that is printed: `E` or `W` and three digits.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// Returns how bad a finding of this code is.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }
        }
    };
}

codes! {
    /// The text is not YAML, or not JSON in a `.json` file.
    Syntax = Error "E001";
    /// A key is written twice in one map.
    DuplicateKey = Error "E002";
    /// The file is too deep, too large, or holds several documents.
    Document = Error "E003";
    /// Two files set the same top-level key.
    TwoFiles = Error "E004";
    /// An environment variable is unset or badly written.
    Environment = Error "E005";
    /// A plain value runs on into the next line, mostly because a colon is missing there.
    RunOn = Error "E006";
    /// A plain value ends with a quote that is opened nowhere.
    StrayQuote = Error "E007";
    /// A key that does not exist.
    UnknownKey = Error "E010";
    /// A key whose feature this build does not have yet.
    NotBuilt = Error "E011";
    /// A list where a map belongs, a string where a number belongs, and so on.
    WrongType = Error "E012";
    /// A value that cannot be read as what its key wants.
    BadValue = Error "E013";
    /// A value outside its range.
    OutOfRange = Error "E014";
    /// A key that must be there.
    MissingKey = Error "E015";
    /// Keys that exclude each other.
    Conflict = Error "E016";
    /// A regular expression that does not compile.
    BadRegex = Error "E017";
    /// A path that no canonical request path can match.
    BadPath = Error "E018";
    /// A header that must not be edited.
    ReservedHeader = Error "E019";
    /// Two entries of one list have the same name.
    DuplicateName = Error "E020";
    /// A name that nothing has.
    UnknownReference = Error "E021";
    /// A route has no action, or more than one.
    Action = Error "E022";
    /// The weights of a split sum up to nothing or too much.
    Weights = Error "E023";
    /// A tcp listener and its route do not fit together.
    Tcp = Error "E024";
    /// Two sockets want the same address.
    AddressClash = Error "E025";
    /// The admin API would be open to others.
    Exposed = Error "E026";
    /// A cluster cannot have any endpoint, or has one twice.
    Endpoints = Error "E027";
    /// A certificate without its key, or a key without its certificate.
    TlsPair = Error "E028";
    /// A rewrite that does not fit its match.
    Rewrite = Error "E029";
    /// A certificate, key or CA bundle that cannot be used.
    UnusableFile = Error "E030";
    /// A field of an imported document that protects somebody and is not translated.
    Unprotected = Error "E040";
    /// A cluster that no route names.
    UnusedCluster = Warning "W001";
    /// A route that no request can reach.
    Unreachable = Warning "W002";
    /// A weight that does not do what it seems to.
    IdleWeight = Warning "W003";
    /// A subset that no static endpoint belongs to.
    EmptySubset = Warning "W004";
    /// A key that has no effect where it is.
    NoEffect = Warning "W005";
    /// A certificate that clients will not accept because of its dates.
    CertificateDates = Warning "W006";
    /// Access rules that let nobody in.
    BlocksAll = Warning "W007";
    /// A share that is smaller than a sticky split can give.
    StickyShare = Warning "W008";
    /// Any site may read answers with the user's credentials.
    OpenCors = Warning "W009";
    /// A mirror to a cluster that gets the same requests as primary.
    DoubleLoad = Warning "W010";
    /// A comparison whose noise is the mirror itself.
    SelfNoise = Warning "W011";
    /// Further attempts that there is no time for.
    RetryTime = Warning "W012";
    /// Further attempts that may do a request twice.
    DoneTwice = Warning "W013";
    /// A mirror whose copies are dropped while its cluster has no replica.
    DroppedCopies = Warning "W014";
    /// Requests give up before a start does.
    GivesUp = Warning "W015";
    /// A match on a model that none of the route's clusters serves.
    UnservedModel = Warning "W016";
    /// Replicas that the devices have no room for at once.
    NoRoom = Warning "W017";
    /// A field of an imported document that is not translated.
    NotTranslated = Warning "W040";
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Which kind of finding it is.
    pub code: Code,
    /// Lower case, without a full stop; names the path of the key. Never holds the value of a secret.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Where it was written.
    pub position: Position,
}

impl Diagnostic {
    /// Makes a finding; its severity follows from `code`.
    pub fn new(code: Code, position: &Position, message: impl Into<String>) -> Self {
        Self {
            severity: code.severity(),
            code,
            message: message.into(),
            help: None,
            position: position.clone(),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Renders the finding for a terminal, without colour: the place, the message, the line with a caret and the
    /// help. The line is left out when its file is not among `sources`.
    pub fn render(&self, sources: &[SourceFile]) -> String {
        let mut text = self.to_string();
        let source = sources
            .iter()
            .find(|source| source.name == self.position.file);
        let line = source.and_then(|source| {
            source
                .text
                .lines()
                .nth((self.position.line as usize).checked_sub(1)?)
        });
        if let Some(line) = line {
            let (shown, column) = window(line, self.position.column as usize);
            let number = self.position.line.to_string();
            let gutter = " ".repeat(number.len());
            let caret = "^".repeat(token_length(&shown, column));
            let indent = " ".repeat(column);
            text.push_str(&format!(
                "\n{gutter} |\n{number} | {shown}\n{gutter} | {indent}{caret}"
            ));
            if let Some(help) = &self.help {
                text.push_str(&format!("\n{gutter} = help: {help}"));
            }
        } else if let Some(help) = &self.help {
            text.push_str(&format!("\n = help: {help}"));
        }
        text
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { file, line, column } = &self.position;
        write!(
            f,
            "{file}:{line}:{column}: {}[{}]: {}",
            self.severity,
            self.code.as_str(),
            self.message
        )
    }
}

/// Every finding of one load, at least one of them an error; ordered by file, then by place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Renders all findings, a blank line between two of them.
    pub fn render(&self, sources: &[SourceFile]) -> String {
        render_all(&self.0, sources)
    }

    /// Returns the first error.
    pub fn first_error(&self) -> Option<&Diagnostic> {
        self.0
            .iter()
            .find(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Renders findings one after the other, a blank line between two of them.
pub fn render_all(diagnostics: &[Diagnostic], sources: &[SourceFile]) -> String {
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.render(sources))
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// Returns what the operator wrote, short and without control characters, for use inside a message.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().count() > 60 {
        shown.push('…');
    }
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

/// Returns the candidate that was probably meant by `written`.
pub(crate) fn did_you_mean<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (written.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(written.len()) <= 8)
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(written: &str, candidate: &str) -> usize {
    let fold = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    strsim::damerau_levenshtein(&fold(written), &fold(candidate))
}

/// Cuts a long line around `column` (1-based); returns it with the 0-based place of the caret.
fn window(line: &str, column: usize) -> (String, usize) {
    let column = column.saturating_sub(1);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    if line.chars().nth(SHOWN).is_none() {
        return (line.chars().map(clean).collect(), column);
    }
    let start = column.saturating_sub(SHOWN / 2);
    let shown: String = line.chars().skip(start).take(SHOWN).map(clean).collect();
    (format!("…{shown}…"), column - start + 1)
}

/// Returns how many characters the word at `column` (0-based) has, at least 1.
fn token_length(line: &str, column: usize) -> usize {
    let mut rest = line.chars().skip(column);
    let Some(first) = rest.next() else { return 1 };
    if first == '"' || first == '\'' {
        return rest.position(|c| c == first).map_or(1, |place| place + 2);
    }
    if !first.is_alphanumeric() && !"/.*$_~-".contains(first) {
        return 1;
    }
    let word: Vec<char> = rest
        .take_while(|c| !c.is_whitespace() && !",]}".contains(*c))
        .collect();
    let colon = usize::from(word.last() == Some(&':'));
    1 + word.len() - colon
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn source(text: &str) -> Vec<SourceFile> {
        vec![SourceFile {
            name: Arc::from("a.yaml"),
            directory: ".".into(),
            text: text.to_owned(),
        }]
    }

    fn at(line: u32, column: u32) -> Position {
        Position {
            file: Arc::from("a.yaml"),
            line,
            column,
        }
    }

    #[test]
    fn a_finding_shows_its_line_a_caret_and_the_help() {
        let finding = Diagnostic::new(Code::UnknownKey, &at(2, 3), "unknown key `nme`")
            .help("did you mean `name`?");
        assert_eq!(
            finding.render(&source("routes:\n  nme: é\n")),
            "a.yaml:2:3: error[E010]: unknown key `nme`\n  |\n2 |   nme: é\n  |   ^^^\n  = help: did you mean `name`?"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let finding = Diagnostic::new(Code::BadValue, &at(1, 1001), "m");
        let text = finding.render(&source(&format!(
            "{}bad{}",
            "x".repeat(1000),
            " y".repeat(1000)
        )));
        let lines: Vec<&str> = text.lines().collect();
        let caret = lines[3].chars().position(|c| c == '^').unwrap();
        assert_eq!(
            lines[2].chars().skip(caret).take(3).collect::<String>(),
            "bad"
        );
        assert!(lines[2].chars().count() < 200);
    }

    #[test]
    fn a_place_outside_the_text_is_no_panic() {
        for (line, column) in [(0, 0), (9, 9), (1, 900)] {
            let finding = Diagnostic::new(Code::Syntax, &at(line, column), "m");
            assert!(finding.render(&source("a")).contains("error[E001]: m"));
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(
            did_you_mean("clusterr", ["route", "cluster"]),
            Some("cluster")
        );
        assert_eq!(
            did_you_mean("request-headers", ["request_headers"]),
            Some("request_headers")
        );
        assert_eq!(did_you_mean("mirrors", ["routes", "listeners"]), None);
    }

    #[test]
    fn every_code_is_unique_and_starts_with_its_severity() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()));
            assert_eq!(
                code.as_str().starts_with('E'),
                code.severity() == Severity::Error
            );
        }
    }
}
