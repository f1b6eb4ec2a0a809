//! Which copies a request gets, and how they differ from it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};
use tokio::time::Instant;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::copy::Copy;
use super::observation::{Observation, Pair, Record, Whose};
use super::state::Outcome;
use super::view::{MirrorView, Mirrors};
use crate::capture::{Capture, Kept, SeenRequest};
use crate::headers::{self, X_REQUEST_ID};
use crate::model_name::{Renaming, edit, renaming};
use crate::outgoing::is_grpc;
use crate::snapshot::{ClusterView, MemberView};
use crate::upload::{RequestBody, tee};
use crate::worker::Worker;

/// Whose copy it is.
static X_FOREBAY_MIRROR: HeaderName = HeaderName::from_static("x-forebay-mirror");

/// Separates the sample that is compared from the one that is copied.
const COMPARE_SEED: u64 = 0x636f_6d70_6172_6500;

/// What one request is sampled for.
pub struct Sampled<'m> {
    mirrors: &'m Mirrors,
    /// Indices of the mirrors that get a copy, and whether its answer is compared.
    copies: Vec<(usize, bool)>,
    record: bool,
    /// What clusters have to be told in place of the model's name; `None`: nothing.
    renaming: Option<&'m Renaming>,
}

/// A number that is below a share, in millionths, for that share of all request ids.
fn draw(id: &[u8], seed: Option<u64>) -> u32 {
    let hash = match seed {
        None => xxh3_64(id),
        Some(seed) => xxh3_64_with_seed(id, seed),
    };
    ((u128::from(hash) * 10_000) >> 64) as u32 * 100
}

impl Mirrors {
    /// What the request with this id is sampled for; `None`: nothing.
    pub fn sample(&self, id: Option<&HeaderValue>) -> Option<Sampled<'_>> {
        let id = id.map_or(&b""[..], HeaderValue::as_bytes);
        let drawn = draw(id, None);
        let compared = draw(id, Some(COMPARE_SEED));
        let copies = self.all.iter().enumerate();
        let copies: Vec<_> = copies
            .filter(|(_, mirror)| drawn < mirror.config.sample)
            .map(|(index, mirror)| {
                let compare = mirror.compare.as_ref();
                (index, compare.is_some_and(|(c, _)| compared < c.sample))
            })
            .collect();
        let record = self.record.as_ref().is_some_and(|record| drawn < record.1);
        (record || !copies.is_empty()).then_some(Sampled {
            mirrors: self,
            copies,
            record,
            renaming: None,
        })
    }
}

impl<'m> Sampled<'m> {
    /// The same, each cluster told its own name of the model.
    #[must_use]
    pub fn renamed(self, renaming: Option<&'m Renaming>) -> Self {
        Self { renaming, ..self }
    }
}

impl Sampled<'_> {
    /// Keeps the request's body for what is written down; `None`: nothing is.
    pub fn capture(&self) -> Option<Capture> {
        let (_, _, most) = self.mirrors.record.as_ref().filter(|_| self.record)?;
        Some(Capture::new(*most, Arc::clone(&self.mirrors.budget)))
    }

    /// Counts copies that a request which becomes a tunnel does not get.
    pub fn refuse(&self, reason: &'static str) {
        for &(index, _) in &self.copies {
            self.mirrors.all[index]
                .state
                .count(Outcome::Dropped(reason));
        }
    }

    /// Bytes kept of the answer to a copy; `None`: nobody looks at it.
    fn kept(&self, mirror: &MirrorView, compare: bool) -> Option<u64> {
        let compared = mirror.compare.as_ref().filter(|_| compare);
        let compared = compared.map(|(compare, _)| compare.max_body);
        compared.max(self.recorded())
    }

    /// Bytes kept of the primary's answer; `None`: nobody looks at it.
    fn most(&self) -> Option<u64> {
        let copies = self.copies.iter();
        let kept = copies.map(|&(index, compare)| self.kept(&self.mirrors.all[index], compare));
        kept.fold(self.recorded(), Option::max)
    }

    fn recorded(&self) -> Option<u64> {
        let record = self.mirrors.record.as_ref().filter(|_| self.record);
        record.map(|record| record.2)
    }

    fn pairs(&self) -> Vec<Pair> {
        let compared = self.copies.iter().filter(|(_, compare)| *compare);
        let pair = |&(index, _): &(usize, bool)| {
            let mirror = &self.mirrors.all[index];
            let (config, noise) = mirror.compare.as_ref()?;
            Some(Pair {
                mirror: index,
                config: Arc::clone(config),
                state: Arc::clone(&mirror.state),
                comparer: Arc::clone(&self.mirrors.comparer),
                primary: None,
                copy: None,
                noise: noise.as_ref().map(|_| None),
            })
        };
        compared.filter_map(pair).collect()
    }

    fn record(&self, request: &Request<RequestBody>) -> Option<Record> {
        let (recorder, _, most) = self.mirrors.record.as_ref().filter(|_| self.record)?;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let authority = match request.uri().authority() {
            Some(authority) => authority.to_string(),
            None => request.headers().get(HOST).map(text).unwrap_or_default(),
        };
        let upload = request.body().upload().map(Rc::clone);
        Some(Record {
            recorder: Arc::clone(recorder),
            time: SystemTime::now(),
            most: *most,
            request: Arc::new(SeenRequest {
                id: request
                    .headers()
                    .get(&X_REQUEST_ID)
                    .map(text)
                    .unwrap_or_default(),
                route: Arc::clone(&self.mirrors.route),
                method: request.method().clone(),
                authority,
                target: request
                    .uri()
                    .path_and_query()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                headers: request.headers().clone(),
                body: Kept {
                    whole: upload.is_none(),
                    ..Kept::default()
                },
            }),
            upload,
        })
    }
}

/// Starts the copies of a request that has its endpoint, before anything of its body is read.
pub fn begin(
    sampled: &Sampled<'_>,
    worker: &Rc<Worker>,
    member: &MemberView,
    request: &Request<RequestBody>,
) -> Rc<Observation> {
    let mirrors = sampled.mirrors;
    let body = sampled
        .most()
        .map(|most| Capture::new(most, Arc::clone(&mirrors.budget)));
    let observation = Observation::new(
        member.cluster.config.name.as_str().into(),
        body,
        sampled.pairs(),
        sampled.record(request),
    );
    for &(index, compare) in &sampled.copies {
        let mirror = &mirrors.all[index];
        let starting = Starting {
            worker,
            mirror,
            request,
            observation: &observation,
            renaming: sampled.renaming,
            most: sampled.kept(mirror, compare),
        };
        let whose = Whose::Mirror(index, Arc::clone(&mirror.name));
        starting.start(&mirror.cluster, whose);
        if let (Some((_, Some(noise))), true) = (&mirror.compare, compare) {
            starting.start(noise, Whose::Noise(index, Arc::clone(&mirror.name)));
        }
    }
    observation
}

struct Starting<'a> {
    worker: &'a Rc<Worker>,
    mirror: &'a Arc<MirrorView>,
    request: &'a Request<RequestBody>,
    observation: &'a Rc<Observation>,
    renaming: Option<&'a Renaming>,
    /// Bytes kept of the answer.
    most: Option<u64>,
}

impl Starting<'_> {
    fn start(&self, cluster: &Arc<ClusterView>, whose: Whose) {
        let Self {
            mirror, request, ..
        } = self;
        let state = &mirror.state;
        let Some(under_way) = state.enter(mirror.config.max_in_flight) else {
            return self.dropped(cluster, &whose, "in_flight");
        };
        if !state.reach(&whose).admits(Instant::now()) {
            return self.dropped(cluster, &whose, "unreachable");
        }
        let http2 = cluster.wants_http2(is_grpc(request.headers()));
        let Some(mut head) = head_of(request, mirror, &whose, cluster, http2) else {
            return self.dropped(cluster, &whose, "bad_request");
        };
        let edits = self.rename(cluster, &mut head);
        let body = request.body().upload().map(|upload| {
            let (writer, reader) = tee(
                mirror.config.max_lag,
                upload.length(),
                Arc::clone(&state.budget),
                edits,
            );
            upload.tee(writer);
            reader
        });
        let copy = Copy {
            worker: Rc::clone(self.worker),
            mirror: Arc::clone(mirror),
            cluster: Arc::clone(cluster),
            whose,
            head,
            http2,
            body,
            under_way: Some(under_way),
            keep: self
                .most
                .map(|most| Capture::new(most, Arc::clone(&state.budget))),
            observation: Rc::clone(self.observation),
            waited: Duration::ZERO,
        };
        let task = tokio::task::spawn_local(copy.run());
        self.observation.follow(task.abort_handle());
    }

    /// Tells a cluster its own name of the model: in the head at once, in the body by what is returned.
    fn rename(&self, cluster: &ClusterView, head: &mut Request<()>) -> Vec<edit::Edit> {
        let Some(renaming) = self.renaming else {
            return Vec::new();
        };
        let uri = head.uri();
        if let Some(target) = renaming.target_of(&cluster.config)
            && let Ok(target) = PathAndQuery::try_from(target)
        {
            let mut parts = uri.clone().into_parts();
            parts.path_and_query = Some(target);
            if let Ok(uri) = Uri::from_parts(parts) {
                *head.uri_mut() = uri;
            }
        }
        let edits = renaming.edits_of(&cluster.config);
        if !edits.is_empty() {
            renaming::grow(head.headers_mut(), edit::growth(&edits));
        }
        edits
    }

    fn dropped(&self, cluster: &ClusterView, whose: &Whose, reason: &'static str) {
        if matches!(whose, Whose::Mirror(..)) {
            self.mirror.state.count(Outcome::Dropped(reason));
        }
        let cluster = cluster.config.name.as_str().into();
        let seen = crate::capture::Seen::Nothing(reason);
        self.observation.copied(whose, &cluster, seen);
    }
}

/// The head of a copy: the primary's, with the protocol and the name of its own; `None`: it has no legal target.
fn head_of(
    request: &Request<RequestBody>,
    mirror: &MirrorView,
    whose: &Whose,
    cluster: &ClusterView,
    http2: bool,
) -> Option<Request<()>> {
    let mut headers: HeaderMap = request.headers().clone();
    let host = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok()?,
        None => headers.get(HOST)?.clone(),
    };
    headers.remove(EXPECT);
    headers.remove(CONNECTION);
    headers.insert(&X_FOREBAY_MIRROR, mirror.tag.clone());
    if matches!(whose, Whose::Mirror(..)) {
        // What differs between the primary and its twin is noise only if both get the same.
        headers::edit(&mut headers, &mirror.config.request_headers);
    }
    let host = headers.remove(HOST).unwrap_or(host);
    headers.remove(TRANSFER_ENCODING);
    let mut parts = http::uri::Parts::default();
    let root = || PathAndQuery::from_static("/");
    parts.path_and_query = Some(request.uri().path_and_query().cloned().unwrap_or_else(root));
    if http2 {
        let tls = cluster.connector.tls.is_some();
        parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(Authority::try_from(host.as_bytes()).ok()?);
    } else {
        headers.insert(HOST, host);
        if headers.contains_key(TE) {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if !request.body().is_empty() && !headers.contains_key(CONTENT_LENGTH) {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = Uri::from_parts(parts).ok()?;
    *head.version_mut() = if http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    *head.headers_mut() = headers;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn a_share_of_all_request_ids_is_drawn() {
        for (share, want) in [
            (100, 0.0001),
            (10_000, 0.01),
            (300_000, 0.3),
            (1_000_000, 1.0),
        ] {
            let ids = (0..200_000u32).map(|id| format!("request-{id}"));
            let drawn = ids.filter(|id| draw(id.as_bytes(), None) < share).count();
            let got = drawn as f64 / 200_000.0;
            let sigma = (want * (1.0 - want) / 200_000.0_f64).sqrt();
            assert!(
                (got - want).abs() <= 4.0 * sigma,
                "{share}: {got} is not {want}"
            );
        }
    }

    #[test]
    fn the_compared_sample_is_independent_of_the_copied_one() {
        let ids = (0..100_000u32).map(|id| format!("{id}"));
        let both = ids.filter(|id| {
            draw(id.as_bytes(), None) < 500_000
                && draw(id.as_bytes(), Some(super::COMPARE_SEED)) < 500_000
        });
        let share = both.count() as f64 / 100_000.0;
        assert!((0.24..0.26).contains(&share), "{share}");
    }
}
