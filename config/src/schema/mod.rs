//! The typed keys of the file: what may be written where, and how it is read.
//!
//! A type that can stand in a configuration is a [`Shape`]: it knows how it is read and how it is described, side by
//! side, so that parser and [JSON Schema](json_schema) cannot disagree. [`keys`] lists every key.

mod collection;
mod describe;
mod endpoint;
mod http;
pub mod keys;
mod leaf;
mod named;
pub(crate) mod policy;
mod reader;
mod scale;
mod section;
mod special;
mod traffic;

pub use self::collection::{At, Dictionary, Key, List, OneOrMany, OrNone};
pub use self::describe::{Book, json_schema};
pub use self::endpoint::{EndpointShape, HostPort};
pub use self::http::{
    BodyText, CookieName, EditableHeader, HeaderText, HostName, HostRule, MatchHeader, PathText,
    Pattern, PlainText, RedirectStatus, RewriteHost, RewritePath, Scheme,
};
pub use self::leaf::{Bytes, FilePath, Name, Period, Priority, Share, Token, Whole};
pub use self::named::{DeviceMemory, MemoryShare, ModelName, Part, Yes};
pub use self::policy::{
    AccessShape, AnyList, ExposeList, OriginText, OverrideShape, OverrideValue, PerShape, RateText,
    Scope, StickyCookieShape,
};
pub use self::reader::{Path, Reader};
pub use self::scale::{CommandShape, Empty, Factor, Positive, VariableName, VariableText};
pub use self::special::{BalanceShape, FormatShape, ListenAddress, TargetShape, ValueShape};
pub use self::traffic::{
    CheckKind, CheckPath, FieldPointer, FindText, FineShare, MediaType, PointerText, RetryCase,
    RetryMethodsShape, ServiceName, Statuses, Tolerable, UrlText,
};

use serde_json::Value;

use crate::node::Node;

/// Something that can stand in a configuration.
pub trait Shape: Sized {
    /// True when `null` is a value of its own and does not just mean that the key is left out.
    const READS_NULL: bool = false;

    /// Reads a node. `None`: a problem was reported to `reader`.
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// Describes what [`read`](Self::read) accepts as a JSON Schema.
    fn schema(book: &mut Book) -> Value;
}
