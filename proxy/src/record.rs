//! Requests and answers written down for an outside comparison system.
