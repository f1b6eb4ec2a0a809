//! What upstream is told in place of an alias, wherever the request names its model.

use std::borrow::Cow;

use bytes::Bytes;
use forebay_config::Cluster;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderName};

use super::edit::{self, Edit, Editing};
use super::grammar::encoded;
use super::open::{Spot, Wanted};
use crate::answer::Refusal;
use crate::error::Reason;
use crate::outgoing::declared_length;
use crate::upload::Ahead;

static CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
static REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
static DIGEST: HeaderName = HeaderName::from_static("digest");
static CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// A model that some cluster knows by another name than the request.
#[derive(Clone, Debug)]
pub struct Renaming {
    asked: Wanted,
    /// What the primary's cluster is told; `None`: what the request says.
    to: Option<String>,
    /// Path and query before anything was replaced in them.
    path: String,
    query: Option<String>,
}

/// What a cluster calls the model that a request calls so; `None`: it has none of that name.
fn told<'c>(cluster: &'c Cluster, name: &str) -> Option<&'c str> {
    let first = cluster.models.first()?;
    let knows = cluster.models.iter().any(|known| known == name);
    knows.then_some(first)
}

/// True when a cluster has to be told another name than some requests say.
pub fn has_aliases(cluster: &Cluster) -> bool {
    cluster.models.len() > 1
}

impl Renaming {
    /// What a request has to be told differently; `None`: nothing.
    ///
    /// * `primary`: the cluster that serves it
    /// * `others`: clusters that get copies
    /// * `path`: as the servers see it
    /// * `query`: as it was sent
    ///
    /// # Errors
    ///
    /// The name would have to be replaced in messages that are still to come.
    pub fn new<'c>(
        asked: Wanted,
        primary: &Cluster,
        others: impl IntoIterator<Item = &'c Cluster>,
        path: &str,
        query: Option<&str>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(name) = &asked.name else {
            return Ok(None);
        };
        let to = told(primary, name).filter(|to| to != name);
        if let (Some(first), Spot::Body(named)) = (to, &asked.spot)
            && named.comes_again()
        {
            return Err(Refusal::saying(
                Reason::UnknownModel,
                format!(
                    "each message of a stream names the model, so it must be called `{first}` there"
                ),
            ));
        }
        let mut others = others.into_iter().filter_map(|other| told(other, name));
        if to.is_none() && others.all(|told| told == name) {
            return Ok(None);
        }
        Ok(Some(Self {
            to: to.map(str::to_owned),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            asked,
        }))
    }

    /// The path that the primary's cluster gets.
    pub fn path<'p>(&self, path: Cow<'p, str>) -> Cow<'p, str> {
        match (&self.asked.spot, &self.to) {
            (Spot::Path(range), Some(to)) => {
                let mut path = path.into_owned();
                path.replace_range(range.clone(), &encoded(to));
                Cow::Owned(path)
            }
            _ => path,
        }
    }

    /// The query that the primary's cluster gets.
    pub fn query<'q>(&self, query: &'q str) -> Cow<'q, str> {
        with_name(query, &self.asked.spot, self.to.as_deref())
    }

    /// Replaces the name in what was read of the body, and corrects the declared length.
    pub fn body(&self, ahead: &mut Ahead, headers: &mut HeaderMap) {
        let edits = self.edits(self.to.as_deref());
        if edits.is_empty() {
            return;
        }
        grow(headers, edit::growth(&edits));
        let mut editing = Editing::new(edits);
        ahead.edit(|piece: &Bytes| editing.pass(piece));
    }

    fn edits(&self, to: Option<&str>) -> Vec<Edit> {
        match (&self.asked.spot, to) {
            (Spot::Body(named), Some(to)) => named.edits(to),
            _ => Vec::new(),
        }
    }

    /// What another cluster has to be told; `None`: the same as the primary's.
    fn other<'c>(&self, cluster: &'c Cluster) -> Option<&'c str> {
        let name = self.asked.name.as_deref()?;
        let primary = self.to.as_deref().unwrap_or(name);
        told(cluster, name).filter(|told| *told != primary)
    }

    /// Path and query that another cluster gets; `None`: those of the primary.
    pub fn target_of(&self, cluster: &Cluster) -> Option<String> {
        if !matches!(self.asked.spot, Spot::Path(_) | Spot::Query(_)) {
            return None;
        }
        let to = self.other(cluster)?;
        let mut target = match &self.asked.spot {
            Spot::Path(range) => {
                let mut path = self.path.clone();
                path.replace_range(range.clone(), &encoded(to));
                path
            }
            _ => self.path.clone(),
        };
        if let Some(query) = &self.query {
            target.push('?');
            target.push_str(&with_name(query, &self.asked.spot, Some(to)));
        }
        Some(target)
    }

    /// What makes of the primary's body the one of another cluster; empty: they are the same.
    pub fn edits_of(&self, cluster: &Cluster) -> Vec<Edit> {
        let Some(to) = self.other(cluster) else {
            return Vec::new();
        };
        if matches!(&self.asked.spot, Spot::Body(named) if named.comes_again()) {
            return Vec::new();
        }
        edit::after(&self.edits(self.to.as_deref()), self.edits(Some(to)))
    }
}

fn with_name<'q>(query: &'q str, spot: &Spot, to: Option<&str>) -> Cow<'q, str> {
    match (spot, to) {
        (Spot::Query(range), Some(to)) => {
            let mut query = query.to_owned();
            query.replace_range(range.clone(), &encoded(to));
            Cow::Owned(query)
        }
        _ => Cow::Borrowed(query),
    }
}

/// Corrects what the head says of a body that grew.
pub fn grow(headers: &mut HeaderMap, growth: i64) {
    if headers.contains_key(CONTENT_LENGTH) {
        let length = declared_length(headers).saturating_add_signed(growth);
        headers.insert(CONTENT_LENGTH, length.into());
    }
    for digest in [&CONTENT_DIGEST, &REPR_DIGEST, &DIGEST, &CONTENT_MD5] {
        headers.remove(digest);
    }
}
