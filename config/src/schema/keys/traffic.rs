//! Keys of what happens to a request besides its way: copies, records, further attempts, edits of bodies.

use http::HeaderName;

use super::{Clock, HeaderEditKeys};
use crate::schema::section::section;
use crate::schema::{
    Bytes, FilePath, FindText, FineShare, List, MediaType, Name, OrNone, PlainText, PointerText,
    RetryCase, RetryMethodsShape, Share, Tolerable, UrlText, Whole,
};

/// Bytes of one body that are held; at most 1 GiB.
pub type Held = Bytes<0, { 1 << 30 }>;

section! {
    /// Where copies of requests go; their answers are discarded.
    MirrorKeys {
        /// Unique in its route; default: the cluster's name.
        "name" name: Name,
        /// Name of a cluster.
        [required] "cluster" cluster: Name,
        /// Share of requests that are copied, in steps of 0.01 %; default 100%.
        "sample" sample: FineShare,
        /// Copies under way at once; more are dropped; default 256.
        "max_in_flight" max_in_flight: Whole<1, 1_000_000>,
        /// How far a copy may be behind before it is cut; default 1MiB.
        "max_lag" max_lag: Bytes<1, { 1 << 30 }>,
        /// Held for all copies together; default 64MiB.
        "max_bytes" max_bytes: Bytes<1, { 1 << 40 }>,
        /// From the start of a copy to the last byte of its answer; default 30s.
        "timeout" timeout: Clock,
        /// Copies wake and scale their cluster; default false.
        "demand" demand: bool,
        /// Edits of the copy's headers, after those of the route and of the split's member.
        "request_headers" request_headers: HeaderEditKeys,
        /// Its answers are held against those of the primary.
        "compare" compare: CompareKeys,
    }
    later []
}

section! {
    /// How the answers to a copy are held against those of the primary.
    CompareKeys {
        /// Share of the copies that are compared, in steps of 0.01 %; default 100%.
        "sample" sample: FineShare,
        /// Name of a cluster that is a second primary: what differs between the two is noise; default: nothing is.
        "noise" noise: Name,
        /// Headers that are compared, besides the status; default none.
        "headers" headers: List<HeaderName>,
        /// Fields of JSON bodies that are not compared, as JSON pointers; `*` is any field or element.
        "ignore" ignore: List<PointerText>,
        /// How far numbers may be apart; default: not at all.
        "tolerance" tolerance: ToleranceKeys,
        /// Arrays are compared in their order; false: in any; default true.
        "array_order" array_order: bool,
        /// Larger bodies are not compared; default 1MiB.
        "max_body" max_body: Held,
    }
    later []
}

section! {
    /// Two numbers are equal when they are at most `abs`, or `rel` times the larger one, apart.
    ToleranceKeys {
        /// A number; default 0.
        "abs" abs: Tolerable,
        /// A part of the larger number; default 0.
        "rel" rel: Tolerable,
    }
    later []
}

section! {
    /// What is written down of requests and answers. Has `path`, `url` or both.
    RecordKeys {
        /// A file to which JSON lines are appended.
        "path" path: FilePath,
        /// Where batches of lines are posted.
        "url" url: UrlText,
        /// Share of requests that are written down, in steps of 0.01 %; default 100%.
        "sample" sample: FineShare,
        /// Larger bodies are cut off here; default 1MiB.
        "max_body" max_body: Held,
        /// Fields of JSON bodies whose values are replaced, as JSON pointers; `*` is any field or element.
        "redact" redact: List<PointerText>,
        /// A file this large is moved aside; default 100MiB.
        "max_file" max_file: Bytes<{ 1 << 10 }, { 1 << 50 }>,
        /// Files kept besides the one that is written; default 5.
        "keep" keep: Whole<0, 1000>,
    }
    later []
}

section! {
    /// Which requests are tried again.
    RetryKeys {
        /// Attempts after the first; default 2. 0: none at all.
        "attempts" attempts: Whole<0, 10>,
        /// `connect`, `refused`, `reset`, statuses from 400 to 599; default `[connect, refused]`.
        "when" when: List<RetryCase>,
        /// Whose requests may be done twice: `idempotent` (default), `all`, or a list.
        "methods" methods: RetryMethodsShape,
        /// Retries may be this share of the requests in flight, and at least 3; default 20%.
        "budget" budget: Share,
        /// Kept of a request's body to be sent again; a longer one is not retried; default 1MiB.
        "max_body" max_body: Held,
        /// How long one attempt may take to the head of its response; default none.
        "per_try" per_try: Clock,
    }
    later []
}

section! {
    /// Bounds of the request's body, edits of the answer's.
    BodyKeys {
        /// Largest request body; default none.
        "max" max: OrNone<Bytes<0, { 1 << 50 }>>,
        /// Texts that are replaced in the bodies of answers; at one place the first that fits counts.
        "replace" replace: List<BodyReplaceKeys>,
    }
    later []
}

section! {
    /// A text that is replaced in the bodies of answers.
    BodyReplaceKeys {
        /// What is looked for; 1 to 4096 bytes.
        [required] "find" find: FindText,
        /// What stands there instead.
        [required] "with" with: PlainText,
        /// Media types it is done in, as in `text/*`; default `[text/html]`.
        "types" types: List<MediaType>,
        /// Only the first time in a body; default false.
        "once" once: bool,
        /// ASCII letters match in either case; default false.
        "ignore_case" ignore_case: bool,
    }
    later []
}
