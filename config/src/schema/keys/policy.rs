//! Keys of what may be sent and how much of it.

use http::{HeaderName, Method};

use super::{Clock, YEAR};
use crate::model::MissingKey;
use crate::schema::section::section;
use crate::schema::{
    AccessShape, AnyList, CookieName, Dictionary, ExposeList, FieldPointer, FilePath, List,
    MatchHeader, Name, OriginText, OverrideShape, PerShape, Period, RateText, Scope,
    StickyCookieShape, ValueShape, Whole,
};

/// How many requests at once.
pub type Burst = Whole<1, 10_000_000>;
/// How many requests at the same time.
pub type Places = Whole<1, 1_000_000>;

section! {
    /// A list of who is let in and who is not, for `access: {list: NAME}` of routes.
    AccessListKeys {
        /// Unique name.
        [required] "name" name: Name,
        /// Who is let in; then nobody else is.
        "allow" allow: List<AccessShape>,
        /// Who is refused, before `allow` is looked at.
        "deny" deny: List<AccessShape>,
    }
    later []
}

section! {
    /// Who may send requests. The client is the rightmost address that no trusted proxy has.
    AccessKeys {
        /// Name of one of `access_lists`; its entries are added to the route's own.
        "list" list: Name,
        /// Who is refused with 403, before `allow` is looked at.
        "deny" deny: List<AccessShape>,
        /// Who is let in; then nobody else is. Empty: nobody.
        "allow" allow: List<AccessShape>,
        /// Refusals are only counted and logged; default false.
        "dry_run" dry_run: bool,
    }
    later []
}

section! {
    /// An entry of an access list that is no address block: exactly one of the two.
    AccessEntryKeys {
        /// Requests with these headers; all of them must hold.
        "header" header: Dictionary<MatchHeader, ValueShape>,
        /// A file with one address or block per line, read again when it changes.
        "file" file: FilePath,
    }
    later []
}

section! {
    /// Who is known.
    AuthKeys {
        /// API keys, sent as `Authorization: Bearer KEY` or `x-api-key: KEY`.
        "api_keys" api_keys: KeyFileKeys,
    }
    later []
}

section! {
    /// Known API keys.
    KeyFileKeys {
        /// A file of lines `NAME sha256:HEX`, the hash of the key; read again when it changes.
        [required] "file" file: FilePath,
    }
    later []
}

section! {
    /// What API keys are for on this route.
    RouteAuthKeys {
        /// A request without a known key is answered 401; default false.
        "required" required: bool,
        /// The key is forwarded upstream instead of being removed; default false.
        "keep_key" keep_key: bool,
    }
    later []
}

section! {
    /// A limit whose buckets all routes share that name it. Has exactly one of `rate` and `concurrent`.
    RateLimitPolicyKeys {
        /// Unique name.
        [required] "name" name: Name,
        /// Requests per time.
        "rate" rate: RateText,
        /// How many requests may come at once; default: those of one second.
        "burst" burst: Burst,
        /// Requests at the same time, each until the client has its last byte.
        "concurrent" concurrent: Places,
        /// What has a bucket of its own; default `route`: all requests share one.
        "per" per: PerShape,
        /// Keys with a limit of their own.
        "overrides" overrides: Dictionary<String, OverrideShape>,
        /// What a request without the key is: `shared` (default, all of them have one bucket), `refuse` or `skip`.
        "missing" missing: MissingKey,
        /// Where requests are counted: `local` (default), in this proxy.
        "scope" scope: Scope,
        /// Refusals are only counted and logged; default false.
        "dry_run" dry_run: bool,
    }
    later ["tokens"]
}

section! {
    /// A limit of a route. Has exactly one of `rate`, `concurrent` and `policy`.
    RateLimitKeys {
        /// Name in metrics and headers, unique in its route; default: its kind, `-` and a number.
        "name" name: Name,
        /// Name of one of `rate_limit_policies`, whose buckets are shared.
        "policy" policy: Name,
        /// Requests per time.
        "rate" rate: RateText,
        /// How many requests may come at once; default: those of one second.
        "burst" burst: Burst,
        /// Requests at the same time, each until the client has its last byte.
        "concurrent" concurrent: Places,
        /// What has a bucket of its own; default `route`: all requests share one.
        "per" per: PerShape,
        /// Keys with a limit of their own.
        "overrides" overrides: Dictionary<String, OverrideShape>,
        /// What a request without the key is: `shared` (default, all of them have one bucket), `refuse` or `skip`.
        "missing" missing: MissingKey,
        /// Refusals are only counted and logged; default false.
        "dry_run" dry_run: bool,
    }
    later ["tokens"]
}

section! {
    /// What has a bucket of its own: exactly one of the three.
    PerKeys {
        /// Each value of a request header.
        "header" header: MatchHeader,
        /// Each value of a cookie.
        "cookie" cookie: CookieName,
        /// Each value of a field of the JSON body, as a JSON pointer.
        "json" json: FieldPointer,
    }
    later []
}

section! {
    /// The rate of one key.
    OverrideKeys {
        /// Requests per time.
        [required] "rate" rate: RateText,
        /// How many requests may come at once; default: those of one second.
        "burst" burst: Burst,
    }
    later []
}

section! {
    /// What sites of other origins may do in a browser.
    CorsKeys {
        /// Sites, as in `https://app.example.com` and `https://*.example.com`, or `["*"]`.
        [required] "origins" origins: AnyList<OriginText>,
        /// Methods; default GET and POST.
        "methods" methods: AnyList<Method>,
        /// Request headers; default `["*"]`.
        "headers" headers: AnyList<HeaderName>,
        /// Response headers that the site may read; default none.
        "expose" expose: ExposeList,
        /// Requests may carry cookies and client certificates; default false.
        "credentials" credentials: bool,
        /// How long browsers may keep the answer to a preflight; default 5m.
        "max_age" max_age: Period<0, YEAR>,
    }
    later []
}

section! {
    /// What ties a client to a member of the split: exactly one of the four.
    StickyKeys {
        /// Value of a request header.
        "header" header: MatchHeader,
        /// A cookie that the proxy issues.
        "cookie" cookie: StickyCookieShape,
        /// The client's address.
        "client_ip" client_ip: bool,
        /// A field of the JSON body, as a JSON pointer.
        "json" json: FieldPointer,
    }
    later []
}

section! {
    /// A cookie that the proxy issues, with a random value.
    StickyCookieKeys {
        /// Name of the cookie.
        [required] "name" name: CookieName,
        /// How long browsers keep it; default none: until they are closed.
        "ttl" ttl: Clock,
    }
    later []
}
