//! What became of the fields of imported documents.

use std::fmt;

use serde::Serialize;

use crate::model::Position;

/// What became of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It means here what it meant there, or it says nothing about traffic.
    Ok,
    /// It has an effect, and a note says what differs.
    Approximated,
    /// It has no effect.
    Lost,
}

impl Level {
    /// Returns the word of messages and of the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Approximated => "approximated",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of one field of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What became of it.
    pub level: Level,
    /// Without it somebody may get what they should not: access, authentication or TLS. Only for what is lost.
    pub security: bool,
    /// Kind and `namespace/name`, as in `VirtualService ml/resnet`.
    pub document: String,
    /// The field, as in `spec.http[0].timeout`; empty: the whole document.
    pub path: String,
    /// The field in its kind's table, as in `spec.http[].timeout`.
    pub field: String,
    /// Where it was written.
    pub position: Position,
    /// What differs, or why it is lost; empty when there is nothing to say. Never holds the value of a secret.
    pub note: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { file, line, column } = &self.position;
        write!(f, "{file}:{line}:{column}: {}: {}", self.level, self.what())
    }
}

impl Finding {
    /// Returns document, field and note, for messages that show place and level themselves.
    pub fn what(&self) -> String {
        let mut text = self.document.clone();
        for part in [&self.path, &self.note] {
            if !part.is_empty() {
                text.push_str(": ");
                text.push_str(part);
            }
        }
        text
    }
}
