//! Copies of requests, which never delay or fail the primary.
