//! What is done to requests besides their way: headers, clocks, retries, copies, browser rules.

use super::text::shaped;
use crate::import::native::{Cors, Edits, Methods, Mirror, Retry};
use crate::import::{Fields, Leaf};
use crate::schema::{EditableHeader, HeaderText, Key, OriginText, RewriteHost};

/// What `headers` of a rule or a destination says.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers {
    pub(super) request: Edits,
    pub(super) response: Edits,
    /// What `Host` becomes.
    pub(super) host: Option<Leaf>,
}

/// Reads `headers` of a rule or a destination.
pub(super) fn headers(fields: &Fields<'_>) -> Headers {
    let mut headers = Headers::default();
    let Some(both) = fields.map("headers") else {
        return headers;
    };
    if let Some(request) = both.map("request") {
        headers.request = edits(&request, Some(&mut headers.host));
    }
    if let Some(response) = both.map("response") {
        headers.response = edits(&response, None);
    }
    headers
}

fn edits(fields: &Fields<'_>, mut host: Option<&mut Option<Leaf>>) -> Edits {
    let mut edits = Edits {
        at: Some(fields.at().clone()),
        ..Edits::default()
    };
    for key in ["set", "add"] {
        let pairs = fields.pairs(key);
        let Some(map) = fields.map(key) else { continue };
        for (name, value) in pairs {
            let lower = name.with(name.as_str().to_ascii_lowercase());
            if let (":authority" | "host", Some(host)) = (lower.as_str(), host.as_deref_mut()) {
                match shaped::<RewriteHost>(&value) {
                    Ok(_) => *host = Some(value),
                    Err(note) => map.lost(name.as_str(), note),
                }
                continue;
            }
            let legal = EditableHeader::parse(lower.as_str());
            let legal = legal.map_err(|(_, message, _)| message);
            let value = legal.and_then(|_| plain(&value));
            let kept = value.and_then(|value| {
                shaped::<HeaderText>(&value)?;
                let to = if key == "set" {
                    &mut edits.set
                } else {
                    &mut edits.add
                };
                match to.add(lower, value) {
                    true => Ok(()),
                    false => Err("the header is there already".to_owned()),
                }
            });
            if let Err(note) = kept {
                map.lost(name.as_str(), note);
            }
        }
    }
    for name in fields.texts("remove") {
        let lower = name.with(name.as_str().to_ascii_lowercase());
        match EditableHeader::parse(lower.as_str()) {
            Ok(_) => edits.remove.push(lower),
            Err((_, message, _)) => fields.lost("remove", message),
        }
    }
    edits
}

/// Takes `%%` for `%`; variables such as `%REQ(x)%` are not filled in.
fn plain(value: &Leaf) -> Result<Leaf, String> {
    let parts: Vec<&str> = value.as_str().split("%%").collect();
    match parts.iter().any(|part| part.contains('%')) {
        true => Err("variables in values are not filled in".to_owned()),
        false => Ok(value.with(parts.join("%"))),
    }
}

/// Reads `retries`.
pub(super) fn retry(rule: &Fields<'_>) -> Option<Retry> {
    let fields = rule.map("retries")?;
    let mut retry = Retry {
        at: Some(fields.at().clone()),
        per_try: fields.duration("perTryTimeout").map(|time| clock(&time)),
        ..Retry::default()
    };
    if let Some(attempts) = fields.whole("attempts", 0..=i64::from(i32::MAX)) {
        let fits = attempts.whole().is_some_and(|number| number <= 10);
        let most = Leaf::number(attempts.at(), 10);
        retry.attempts = Some(if fits { attempts } else { most });
    }
    let Some(on) = fields.text("retryOn") else {
        return Some(retry);
    };
    let mut when: Vec<&str> = Vec::new();
    let mut unknown: Vec<&str> = Vec::new();
    let words = on.as_str().split(',').map(str::trim);
    for word in words.filter(|word| !word.is_empty()) {
        let reasons: &[&str] = match word {
            "5xx" => &["connect", "refused", "reset", "500-599"],
            "gateway-error" => &["502-504"],
            "reset" => &["connect", "reset"],
            "reset-before-request" | "connect-failure" | "http3-post-connect-failure" => {
                &["connect"]
            }
            "refused-stream" => &["refused"],
            "retriable-4xx" => &["409"],
            // Numbers beside it say which.
            "retriable-status-codes" => &[],
            number
                if number
                    .parse()
                    .is_ok_and(|code: u16| (400..600).contains(&code)) =>
            {
                when.push(number);
                continue;
            }
            other => {
                unknown.push(other);
                continue;
            }
        };
        when.extend(reasons);
    }
    if !unknown.is_empty() {
        let note = format!("not tried again because of {}", unknown.join(", "));
        fields.approximated("retryOn", note);
    }
    let mut seen = Vec::new();
    when.retain(|word| {
        !seen.contains(word) && {
            seen.push(*word);
            true
        }
    });
    match when.is_empty() {
        // Nothing that is known here: nothing is tried again.
        true => retry.attempts = Some(Leaf::number(on.at(), 0)),
        false => {
            let begun = |word: &&str| !matches!(*word, "connect" | "refused");
            if when.iter().any(begun) {
                retry.methods = Some(Methods::Word(on.with("all")));
            }
            retry.when = Some(when.into_iter().map(|word| on.with(word)).collect());
        }
    }
    Some(retry)
}

/// Writes a clock; no time switches it off.
pub(super) fn clock(time: &Leaf) -> Leaf {
    match time.as_str() {
        "0s" | "0ms" => time.with("none"),
        _ => time.clone(),
    }
}

/// Writes a percentage in the steps of 0.01 % there are; `Err`: it is none.
pub(super) fn percentage(fields: &Fields<'_>, key: &str) -> Result<Option<Leaf>, String> {
    let Some((number, leaf)) = fields.float(key) else {
        return match fields.has(key) {
            true => Err("the percentage is not a number".to_owned()),
            false => Ok(None),
        };
    };
    if !(0.0..=100.0).contains(&number) {
        return Err("a percentage is from 0 to 100".to_owned());
    }
    let steps = number * 100.0;
    let near = (steps - 1e-6).ceil().max(0.0);
    if (near - steps).abs() > 1e-6 {
        fields.approximated(key, "rounded up to a step of 0.01 %");
    }
    let near = near as u32;
    let text = match near % 100 {
        0 => format!("{}%", near / 100),
        part => format!("{}.{part:02}%", near / 100),
    };
    Ok(Some(leaf.with(text)))
}

/// Makes a copy to `cluster`; `None` when no request is copied.
///
/// * `number`: how many copies the rule has before this one
pub(super) fn mirror(
    cluster: Leaf,
    sample: Option<Leaf>,
    timeout: Option<&Leaf>,
    before: &[Mirror],
) -> Option<Mirror> {
    if sample
        .as_ref()
        .is_some_and(|sample| sample.as_str() == "0%")
    {
        return None;
    }
    let same = |one: &&Mirror| {
        let own = one.cluster.as_ref();
        own.is_some_and(|own| own.as_str() == cluster.as_str())
    };
    let twice = before.iter().filter(same).count();
    // As long as a request may be quiet, where nothing else is said.
    let timeout = timeout.map_or_else(|| cluster.with("300s"), Leaf::clone);
    Some(Mirror {
        at: Some(cluster.at().clone()),
        name: (twice > 0).then(|| cluster.with(format!("{cluster}-{}", twice + 1))),
        cluster: Some(cluster),
        sample: sample.filter(|sample| sample.as_str() != "100%"),
        timeout: Some(timeout),
        ..Mirror::default()
    })
}

/// Reads `corsPolicy`.
pub(super) fn cors(rule: &Fields<'_>) -> Option<Cors> {
    let fields = rule.map("corsPolicy")?;
    let origins = origins(&fields);
    let list = |key| {
        let values = fields.texts(key);
        let any = values.iter().find(|value| value.as_str() == "*");
        any.map_or_else(|| values.clone(), |any| vec![any.clone()])
    };
    let methods = list("allowMethods");
    let legal = |method: &Leaf| method.as_str() == "*" || shaped::<http::Method>(method).is_ok();
    let (methods, odd): (Vec<Leaf>, Vec<Leaf>) = methods.into_iter().partition(legal);
    if let Some(odd) = odd.first() {
        fields.lost(
            "allowMethods",
            format!("`{odd}` is no method that can be routed"),
        );
    }
    let credentials = fields.flag("allowCredentials");
    let cors = Cors {
        at: Some(fields.at().clone()),
        origins: Some(origins),
        methods: Some(methods),
        headers: Some(names(&fields, list("allowHeaders"), "allowHeaders")),
        expose: Some(names(&fields, list("exposeHeaders"), "exposeHeaders")),
        credentials: credentials
            .filter(|on| *on)
            .map(|on| Leaf::flag(fields.place("allowCredentials"), on)),
        max_age: fields.duration("maxAge"),
    };
    if let Some(unmatched) = fields.text("unmatchedPreflights")
        && unmatched.as_str() == "FORWARD"
    {
        fields.approximated("unmatchedPreflights", "preflights are always answered here");
    }
    let any = cors
        .origins
        .as_ref()
        .is_some_and(|origins| !origins.is_empty());
    if !any {
        fields.lost_here("no site is left that could be named");
    }
    any.then_some(cors)
}

/// Keeps what is the name of a header.
fn names(fields: &Fields<'_>, names: Vec<Leaf>, key: &str) -> Vec<Leaf> {
    let legal = |name: &Leaf| name.as_str() == "*" || shaped::<http::HeaderName>(name).is_ok();
    let (names, odd): (Vec<Leaf>, Vec<Leaf>) = names.into_iter().partition(legal);
    if let Some(odd) = odd.first() {
        fields.lost(key, format!("`{odd}` is not the name of a header"));
    }
    names
}

fn origins(fields: &Fields<'_>) -> Vec<Leaf> {
    let mut origins: Vec<Leaf> = Vec::new();
    for item in fields.maps("allowOrigins") {
        let read = super::text::Text::read(&item).and_then(|text| origin(&text));
        match read {
            Ok(origin) => origins.push(origin),
            Err(note) => item.lost_here(note),
        }
    }
    for origin in fields.texts("allowOrigin") {
        match origin.as_str() == "*" || shaped::<OriginText>(&origin).is_ok() {
            true => origins.push(origin),
            false => fields.lost(
                "allowOrigin",
                format!("`{origin}` is not the origin of a site"),
            ),
        }
    }
    match origins.iter().find(|origin| origin.as_str() == "*") {
        Some(any) => vec![any.clone()],
        None => origins,
    }
}

/// Writes a site, or all sites below a name. `Err` says why it is neither.
fn origin(text: &super::text::Text) -> Result<Leaf, String> {
    use super::text::Text;
    match text {
        Text::Exact(leaf) if leaf.as_str() == "*" => Ok(leaf.clone()),
        Text::Exact(leaf) => shaped::<OriginText>(leaf).map(|_| leaf.clone()),
        Text::Regex(leaf) => {
            let pattern = leaf.as_str();
            let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
            let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
            if matches!(pattern, ".*" | "*") {
                return Ok(leaf.with("*"));
            }
            let site = pattern.replace("://.*\\.", "://*.").replace("\\.", ".");
            let meta = |c: char| "\\^$|?+()[]{}".contains(c);
            let unescaped = pattern.replace("\\.", "").replace("://.*", "://");
            if site.contains(meta) || unescaped.contains(['.', '*']) {
                return Err("sites are named, or all below a name are meant".to_owned());
            }
            let site = leaf.with(site);
            shaped::<OriginText>(&site).map(|_| site)
        }
        Text::Prefix(_) | Text::Present => {
            Err("sites are named, or all below a name are meant".to_owned())
        }
    }
}
