//! Copies of requests: they arrive whole, are counted, and never change what the primary's client sees.

mod copies;
