//! What an Ingress says for all of its paths: who may send how much, clocks, bodies, headers, copies.

use ipnet::IpNet;

use super::annotations::Annotations;
use super::collect::Ingress;
use super::{cors, legal, mirror, redirect, snippet};
use crate::import::native::{
    Access, AccessRule, Action, Key, RateLimit, RateLimitPolicy, Respond, Route, Sticky, Timeouts,
};
use crate::import::{Leaf, Work};
use crate::model::Position;
use crate::schema::keys::Burst;
use crate::schema::{CookieName, HeaderText, RateText, RewriteHost};

/// What all routes of an Ingress have. Its action counts when `answers`.
pub(super) struct Template {
    pub(super) route: Route,
    /// nginx answers itself, before it asks who may come in.
    pub(super) answers: bool,
}

impl Template {
    /// Says nothing; for canaries.
    pub(super) fn empty(at: &Position) -> Self {
        let dummy = Leaf::text(at, "");
        Self {
            route: Route::new(at, dummy.clone(), Action::Cluster(dummy)),
            answers: false,
        }
    }
}

/// Translates the annotations that hold for all paths.
pub(super) fn template(work: &mut Work<'_>, ingress: &Ingress<'_>, at: &Position) -> Template {
    let notes = ingress.notes;
    let Template { mut route, .. } = Template::empty(at);
    let mut action = match redirect::annotated(notes) {
        Ok(action) => action,
        Err(()) => Some(unavailable(at)),
    };
    if let Some(text) = notes.word("configuration-snippet") {
        let (losses, answer) = snippet::apply(&text, &mut route);
        let note = losses.notes.join("; ");
        match (losses.notes.is_empty(), losses.security) {
            (false, true) => notes.lost_security("configuration-snippet", note),
            (false, false) => notes.lost("configuration-snippet", note),
            (true, _) if !losses.differs.is_empty() => {
                notes.approximated("configuration-snippet", losses.differs.join("; "));
            }
            (true, _) => {}
        }
        action = answer.or(action);
    }
    if let Some(text) = notes.word("server-snippet") {
        let statements = snippet::statements(text.as_str());
        if statements.iter().any(snippet::protects) {
            notes.lost_security("server-snippet", "this is no nginx");
        }
    }
    if let Some(prefix) = notes.word("x-forwarded-prefix") {
        match legal::is::<HeaderText>(&prefix) && !prefix.as_str().contains('$') {
            true if notes.has("rewrite-target") => {
                let name = prefix.with("x-forwarded-prefix");
                route.request_headers.set.add(name, prefix);
            }
            true => notes.approximated("x-forwarded-prefix", "nginx sends it with rewrites only"),
            false => notes.lost("x-forwarded-prefix", "it is no constant value"),
        }
    }
    if let Some(host) = notes.word("upstream-vhost") {
        match legal::is::<RewriteHost>(&host) && !host.as_str().contains('$') {
            true => route.rewrite.host = Some(host),
            false => notes.lost("upstream-vhost", "it is no constant host"),
        }
    }
    route.timeouts = timeouts(notes);
    route.body.max = body(notes);
    route.cors = cors::cors(notes);
    route.access = access(notes);
    let limits = limits(work, ingress);
    route.sticky = sticky(notes);
    if let Some(mirror) = mirror::mirror(work, ingress) {
        route.mirrors.push(mirror);
    }
    let answers = action.is_some();
    match action {
        Some(action) => bare(&mut route, action),
        None => {
            route.rate_limits = limits.iter().map(share).collect();
            work.output.limits.extend(limits);
        }
    }
    Template { route, answers }
}

/// Makes a route answer by itself: nothing of it is forwarded, and nginx answers before it asks who the client is.
pub(super) fn bare(route: &mut Route, action: Action) {
    route.action = action;
    route.mirrors.clear();
    route.access = None;
    route.rate_limits.clear();
    route.sticky = None;
    route.rewrite = crate::import::native::Rewrite::default();
    route.body = crate::import::native::Body::default();
    route.timeouts = Timeouts::default();
    route.request_headers = crate::import::native::Edits::default();
}

/// What requests get whose backend cannot be said: they must not reach another route.
pub(super) fn unavailable(at: &Position) -> Action {
    Action::Respond(Box::new(Respond {
        status: Some(Leaf::number(at, 503)),
        ..Respond::default()
    }))
}

fn timeouts(notes: Annotations<'_>) -> Timeouts {
    let read = seconds(notes, "proxy-read-timeout");
    let send = seconds(notes, "proxy-send-timeout");
    let longer = match (&read, &send) {
        (Some(read), Some(send)) if send.whole() > read.whole() => Some(send),
        (Some(read), _) => Some(read),
        (None, send) => send.as_ref(),
    };
    let clock = |leaf: &Leaf| leaf.with(format!("{leaf}s"));
    Timeouts {
        first_byte: read.as_ref().map(clock),
        idle: longer.map(clock),
        tunnel: longer.map(clock),
        ..Timeouts::default()
    }
}

/// Reads a number of seconds, with or without the unit.
pub(super) fn seconds(notes: Annotations<'_>, name: &str) -> Option<Leaf> {
    let leaf = notes.word(name)?;
    let text = leaf.as_str();
    let number = text.strip_suffix('s').unwrap_or(text).parse::<i64>();
    match number {
        Ok(number @ 1..=31_536_000) => Some(Leaf::number(leaf.at(), number)),
        _ => {
            notes.lost(name, "expected a whole number of seconds");
            None
        }
    }
}

/// Translates `proxy-body-size`, in nginx's units.
fn body(notes: Annotations<'_>) -> Option<Leaf> {
    let leaf = notes.word("proxy-body-size")?;
    let text = leaf.as_str();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => Some(("", 1)),
        "k" => Some(("KiB", 1 << 10)),
        "m" => Some(("MiB", 1 << 20)),
        "g" => Some(("GiB", 1 << 30)),
        _ => None,
    };
    let size = digits.parse::<u64>().ok().zip(unit);
    let size = size.filter(|(number, (_, factor))| {
        let bytes = number.checked_mul(*factor);
        bytes.is_some_and(|bytes| bytes <= 1 << 50)
    });
    match size {
        Some((0, _)) => Some(leaf.with("none")),
        Some((number, (unit, _))) => Some(leaf.with(format!("{number}{unit}"))),
        None => {
            notes.lost("proxy-body-size", "expected a size such as `8m`");
            None
        }
    }
}

fn access(notes: Annotations<'_>) -> Option<Access> {
    let read = |name: &str| {
        if !notes.has(name) {
            return None;
        }
        let mut rules = Vec::new();
        for net in notes.list(name) {
            match legal::is::<IpNet>(&net) {
                true => rules.push(AccessRule::Net(net)),
                false => notes.lost_security(name, format!("`{net}` is no address block")),
            }
        }
        Some(rules)
    };
    // The former name of the list; nginx knows one of both.
    let old = read("whitelist-source-range");
    let allow = match (read("allowlist-source-range"), old) {
        (Some(new), Some(_)) => {
            notes.approximated("whitelist-source-range", "`allowlist-source-range` counts");
            Some(new)
        }
        (new, old) => new.or(old),
    };
    // An empty list is nginx's way to say nothing; one of which nothing is left lets nobody in.
    let meant = |name: &str| !notes.list(name).is_empty();
    let allow =
        allow.filter(|_| meant("allowlist-source-range") || meant("whitelist-source-range"));
    let deny = read("denylist-source-range").filter(|rules| !rules.is_empty());
    if allow.is_none() && deny.is_none() {
        return None;
    }
    Some(Access {
        at: None,
        deny,
        allow,
    })
}

/// Translates limits, whose buckets all paths of an Ingress share. nginx's `burst` is how many may come early, one more
/// than that may come at once.
fn limits(work: &Work<'_>, ingress: &Ingress<'_>) -> Vec<RateLimitPolicy> {
    let notes = ingress.notes;
    let multiplier = notes.number("limit-burst-multiplier", 1..=10_000);
    let multiplier = multiplier.as_ref().and_then(Leaf::whole).unwrap_or(5);
    let number = |name: &str| {
        let most = notes.number(name, 0..=1_000_000);
        most.filter(|one| one.whole() != Some(0))
    };
    let policy = |name: &str, most: &Leaf| {
        let own = work.name(&ingress.document, 0, most.at());
        let own = own.as_str().trim_end_matches("/0");
        RateLimitPolicy {
            at: Some(most.at().clone()),
            name: Some(most.with(format!("{own}/{name}"))),
            per: Some(Key::Word(most.with("client_ip"))),
            ..RateLimitPolicy::default()
        }
    };
    let mut limits = Vec::new();
    if let Some(most) = number("limit-connections") {
        limits.push(RateLimitPolicy {
            concurrent: Some(most.clone()),
            ..policy("limit-connections", &most)
        });
    }
    for (name, unit) in [("limit-rpm", "m"), ("limit-rps", "s")] {
        let Some(most) = number(name) else { continue };
        let each = most.whole().unwrap_or(1);
        let rate = most.with(format!("{each}/{unit}"));
        let early = each.saturating_mul(multiplier);
        let burst = Leaf::number(most.at(), early.saturating_add(1));
        if !legal::is::<RateText>(&rate) || !legal::is::<Burst>(&burst) {
            notes.lost(name, "the limit is too high to be counted");
            continue;
        }
        limits.push(RateLimitPolicy {
            rate: Some(rate),
            burst: Some(burst),
            ..policy(name, &most)
        });
    }
    limits
}

/// Makes a route share a limit.
fn share(policy: &RateLimitPolicy) -> RateLimit {
    let name = policy.name.as_ref();
    let short = name.and_then(|name| {
        let (_, short) = name.as_str().rsplit_once('/')?;
        Some(name.with(short))
    });
    RateLimit {
        at: policy.at.clone(),
        name: short,
        policy: name.cloned(),
        ..RateLimit::default()
    }
}

/// Returns the name of the cookie that ties clients to endpoints, if one does.
pub(super) fn cookie(notes: Annotations<'_>) -> Option<Leaf> {
    let affinity = notes.word("affinity");
    let name = notes.word("session-cookie-name");
    let affinity = affinity?;
    if affinity.as_str() != "cookie" {
        notes.lost("affinity", "`cookie` is the only kind");
        return None;
    }
    let name = name.unwrap_or_else(|| affinity.with("INGRESSCOOKIE"));
    if !legal::is::<CookieName>(&name) {
        notes.lost("session-cookie-name", "it is no name of a cookie");
        return None;
    }
    Some(name)
}

/// Translates affinity: the proxy issues the cookie, and clusters choose endpoints by it.
fn sticky(notes: Annotations<'_>) -> Option<Sticky> {
    let name = cookie(notes);
    if name.is_none() {
        let rest = [
            "affinity-mode",
            "affinity-canary-behavior",
            "session-cookie-name",
        ];
        rest.iter().for_each(|name| {
            if notes.has(name) && !notes.has("affinity") {
                notes.approximated(name, "nothing is tied to anything");
            }
        });
    }
    let ages = ["session-cookie-max-age", "session-cookie-expires"];
    let ages = ages.map(|name| {
        let age = notes.number(name, -1..=31_536_000);
        age.filter(|age| age.whole() > Some(0))
    });
    let age = ages.into_iter().flatten().next();
    for name in ["affinity-mode", "affinity-canary-behavior"] {
        if let Some(word) = notes.word(name)
            && !["balanced", "persistent", "sticky", "legacy"].contains(&word.as_str())
        {
            notes.lost(name, "the word is not known");
        }
    }
    let ttl = age.map(|age| age.with(format!("{age}s")));
    Some(Sticky::Cookie(name?, ttl))
}
