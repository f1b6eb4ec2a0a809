//! Literal edits of an answer's body, streaming.
