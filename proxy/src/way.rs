//! The way of one request from its route to an endpoint and back: what is settled before it is taken apart, how it
//! leaves, how its answer arrives.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use forebay_config::Route;
use forebay_config::rewrite;
use forebay_config::route::CompiledMatch;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use crate::answer::Refusal;
use crate::canonical::Target;
use crate::connection::Connection;
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::filter::Dressing;
use crate::gateway::Outcome;
use crate::headers::{self, Origin, Survey, X_REQUEST_ID};
use crate::mirror::Sampled;
use crate::model_name::{Opened, Renaming};
use crate::outgoing::{self, is_grpc};
use crate::replace::{self, Applies};
use crate::retry::Allowance;
use crate::sending::{Arrived, Sending};
use crate::snapshot::{ListenerView, MemberView, RouteView};
use crate::tunnel::Tunnel;
use crate::upload::{Ahead, Client, Keep, RETURNS, RequestBody, Upload};

/// The way of one request through the configuration.
pub struct Way<'w> {
    /// The client's.
    pub connection: &'w Connection,
    /// The listener it came by.
    pub view: &'w ListenerView,
    /// The route it took.
    pub route: &'w RouteView,
    /// The condition of the route that it meets.
    pub matched: &'w CompiledMatch,
    /// Where the split led.
    pub member: &'w MemberView,
    /// What the route allows after a failure.
    pub allowance: Allowance<'w>,
    /// What upstream has to be told in place of the model's name; `None`: nothing.
    pub renaming: Option<&'w Renaming>,
}

/// What is settled before the request is taken apart.
pub struct Plan {
    /// `None`: as the client wrote it.
    pub uri: Option<Uri>,
    /// As the client wrote it.
    pub host: HeaderValue,
    /// The protocol to speak to the endpoint.
    pub http2: bool,
    /// The protocol to switch to.
    pub upgrade: Option<HeaderValue>,
    /// Key of a consistent hash.
    pub key: Option<Vec<u8>>,
}

/// The path of a request as the servers behind its route see it.
///
/// # Errors
///
/// What the route makes of the path is none.
pub fn path<'p>(
    view: &'p ListenerView,
    config: &'p Route,
    matched: &CompiledMatch,
    target: &'p Target<'_>,
) -> Result<Cow<'p, str>, Reason> {
    match &config.rewrite.path {
        None => Ok(Cow::Borrowed(&*target.path)),
        Some(rewrite) => rewrite::rewritten_path(rewrite, matched, &target.path, view.config.path)
            .map_err(|_| Reason::BadPath),
    }
}

impl<'w> Way<'w> {
    /// Settles where the request goes and over which protocol.
    pub fn plan(
        &self,
        request: &Request<()>,
        target: Target<'_>,
        survey: &Survey,
        bodiless: bool,
    ) -> Result<Plan, Refusal> {
        let (connection, view, member) = (self.connection, self.view, self.member);
        let config = &self.route.config;
        let upgrade = if survey.upgrade && bodiless {
            headers::requested_upgrade(request.headers(), request.version())
        } else {
            None
        };
        let http2 = upgrade.is_none()
            && member
                .cluster
                .wants_http2(survey.content_type && is_grpc(request.headers()));
        let key = outgoing::hash_key(&member.cluster.config.balance, request, connection, view);
        let mut path = match &config.rewrite.path {
            None => target.path,
            Some(_) => Cow::Owned(path(self.view, config, self.matched, &target)?.into_owned()),
        };
        let mut query = target.query.map(Cow::Borrowed);
        if let Some(renaming) = self.renaming {
            path = renaming.path(path);
            query = target.query.map(|query| renaming.query(query));
        }
        let uri = outgoing::new_uri(request, path, query, http2, || {
            outgoing::authority(config, &target.authority, member)
        })?;
        Ok(Plan {
            uri,
            host: target.authority,
            http2,
            upgrade,
            key,
        })
    }

    /// Turns the client's request into the endpoint's: identity, host and headers.
    pub fn depart(
        &self,
        request: &mut Request<()>,
        opened: Opened,
        plan: &mut Plan,
        survey: &Survey,
        exchange: &mut Exchange,
    ) -> (Box<Request<RequestBody>>, Option<Sampled<'w>>) {
        let (connection, view, member) = (self.connection, self.view, self.member);
        let (config, http2) = (&self.route.config, plan.http2);
        let trusted = view
            .config
            .trusted_proxies
            .iter()
            .any(|net| net.contains(&connection.peer_ip()));
        let host_moved = request.uri().authority().is_some();
        let version = request.version();
        let headers = request.headers_mut();
        headers::prepare_request(
            headers,
            survey,
            &Origin {
                peer: &connection.peer_value,
                trusted,
                tls: connection.tls.is_some(),
                host: &plan.host,
            },
        );
        if let Some(filters) = &self.route.filters {
            filters.remove_key(exchange.passed.caller.as_ref(), headers);
        }
        outgoing::identify(headers, survey, connection, trusted, exchange);
        headers::edit(headers, &config.request_headers);
        headers::edit(headers, &member.request_headers);
        if self.route.replace.is_some() {
            replace::edit_request_headers(headers);
        }
        // Named in the target, or named as hop-by-hop, or not there at all in HTTP/1.0.
        let host_lost = host_moved || survey.hop_by_hop || version == Version::HTTP_10;
        // Taken from the plan, which lives on: it is a part of the block that the client's head was read into.
        let host = std::mem::replace(&mut plan.host, HeaderValue::from_static(""));
        outgoing::address(headers, config, host_lost.then_some(host), http2);
        if survey.hop_by_hop && !http2 && headers.contains_key(TE) {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if let Some(upgrade) = &plan.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, upgrade.clone());
        }
        let copies = self.copies(headers, plan.upgrade.is_some());
        let (client, mut peeked) = opened.into_parts();
        if let (Some(renaming), Some(peeked)) = (self.renaming, &mut peeked) {
            renaming.body(peeked, headers);
        }
        let body = self.body(client, peeked, copies.as_ref(), exchange);
        if !http2 && !body.is_empty() && !headers.contains_key(CONTENT_LENGTH) {
            // hyper's client sends a GET or HEAD of unknown length without its body unless told how to frame it.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(uri) = plan.uri.take() {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = if http2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        request.extensions_mut().clear();
        (Box::new(std::mem::take(request).map(|()| body)), copies)
    }

    /// The request on its way to an endpoint.
    ///
    /// * `demand`: it counts as such
    pub fn sending<'p>(
        &self,
        plan: &'p Plan,
        copies: Option<Sampled<'p>>,
        dressing: &'p Dressing<'p>,
        demand: bool,
    ) -> Sending<'p>
    where
        'w: 'p,
    {
        let config = &self.route.config;
        Sending {
            connection: self.connection,
            member: self.member,
            key: plan.key.as_deref(),
            http2: plan.http2,
            upgrade: plan.upgrade.is_some(),
            allowance: self.allowance,
            copies,
            wake: config.wake,
            response_headers: &config.response_headers,
            dressing,
            demand,
        }
    }

    /// The copies that the request gets.
    fn copies(&self, headers: &HeaderMap, upgrade: bool) -> Option<Sampled<'w>> {
        let mirrors = self.route.mirrors.as_ref()?;
        let sampled = mirrors.sample(headers.get(&X_REQUEST_ID))?;
        if upgrade {
            sampled.refuse("upgrade");
            return None;
        }
        Some(sampled.renamed(self.renaming))
    }

    /// The request's body, shared when others want it as well.
    fn body(
        &self,
        client: Client,
        peeked: Option<Ahead>,
        copies: Option<&Sampled<'_>>,
        exchange: &Exchange,
    ) -> RequestBody {
        let flow = Rc::clone(exchange.flow());
        let keep = self.keep(&client, peeked.as_ref());
        if peeked.is_none() && copies.is_none() && (keep.is_none() || client.is_over()) {
            return RequestBody::direct(client, flow);
        }
        let seen = copies.and_then(Sampled::capture);
        let upload = Upload::new(client, peeked.unwrap_or_default(), keep, seen);
        RequestBody::shared(&upload, flow)
    }

    /// What is kept of the body: for further attempts, else for a return to the waiting room.
    fn keep(&self, client: &Client, peeked: Option<&Ahead>) -> Option<Keep> {
        if let Some(most) = self.allowance.keeps() {
            return Some(Keep { most, budget: None });
        }
        let cluster = &self.member.cluster;
        let some = !client.is_over() || peeked.is_some();
        let short = || {
            client
                .size_hint()
                .exact()
                .is_none_or(|bytes| bytes <= RETURNS)
        };
        (cluster.config.has_room() && some && short()).then(|| Keep {
            most: RETURNS,
            budget: Some(Arc::clone(cluster.state.room().bytes())),
        })
    }

    /// Prepares the answer for edits of its body, if it gets any.
    fn edit(
        &self,
        response: &mut Response<Incoming>,
        head_only: bool,
    ) -> Option<Box<replace::Stream>> {
        let replacing = self.route.replace.as_ref()?;
        let (status, headers) = (response.status(), response.headers());
        let stream = match replacing.replacer.applies(status, headers, head_only) {
            Applies::No => return None,
            Applies::Skipped(coding) => {
                replacing.skipped(&self.route.config.name, &coding);
                return None;
            }
            Applies::Head => None,
            Applies::Stream(stream) => Some(Box::new(stream)),
        };
        replace::edit_response_headers(response.headers_mut());
        stream
    }

    /// Turns the endpoint's answer into the client's.
    pub fn arrive(&self, mut arrived: Box<Arrived>, head_only: bool) -> Result<Outcome, Refusal> {
        let (connection, config) = (self.connection, &self.route.config);
        let response = &mut arrived.response;
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let new_protocol = response
            .headers()
            .get(UPGRADE)
            .cloned()
            .filter(|_| switching);
        if switching && (arrived.switched.is_none() || new_protocol.is_none()) {
            return Err(Reason::UpstreamProtocol.into());
        }
        *response.version_mut() = if connection.http2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        let edit = self.edit(response, head_only);
        headers::prepare_response(response.headers_mut());
        headers::edit(response.headers_mut(), &config.response_headers);
        headers::edit(response.headers_mut(), &self.member.response_headers);
        response.extensions_mut().clear();
        let (Some(protocol), Some(switched)) = (new_protocol, arrived.switched.take()) else {
            return Ok(Outcome::Upstream(arrived, edit));
        };
        let (mut head, _) = arrived.response.into_parts();
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol);
        connection.switch_to(Tunnel::new(
            switched,
            arrived.lease.into_in_flight(),
            config.timeouts.tunnel,
        ));
        Ok(Outcome::Tunnel(head))
    }
}
