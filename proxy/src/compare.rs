//! Answers of copies held against those of the primary, off the workers.
