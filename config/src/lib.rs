//! What the operator means: the configuration of Forebay as pure data. No I/O, no runtime, no clock.
//!
//! [`node`] is the file as written, [`schema`] its typed keys, [`validate`] turns them into the [`model`];
//! [`load`](load::load) does all of it, with [`import`] for documents of other programs. [`canonical`], [`route`], [`rewrite`] and [`split`] are what the model
//! means for one request.

pub mod model;

pub mod canonical;
pub mod diagnostic;
pub mod import;
pub mod load;
pub mod node;
pub mod peek;
pub mod pointer;
pub mod rewrite;
pub mod route;
pub mod schema;
pub mod split;
pub mod units;
pub mod validate;

pub use model::*;
