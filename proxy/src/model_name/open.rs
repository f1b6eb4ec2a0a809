//! A request whose body is read ahead as far as somebody must know what is in it.

use std::ops::Range;
use std::sync::Arc;

use forebay_config::Timeouts;
use forebay_config::peek::{Found, Peek, Places, Progress};
use http::Request;

use super::LOOKED_AT;
use super::grammar::{self, Format, Grammar, Head, Place};
use super::scan::{Named, Scan, Seen};
use crate::answer::Refusal;
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::upload::{Ahead, Client};

/// A body, and what was read of it before it is sent.
pub struct Opened {
    client: Client,
    ahead: Option<Ahead>,
    bodiless: bool,
    /// The format that the body was last read by, and the name found so.
    read: Option<(Format, Option<Named>)>,
}

/// What a request calls its model, and where.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As it is meant; `None`: it names none that can be found.
    pub name: Option<String>,
    /// Where.
    pub spot: Spot,
}

/// Where a name is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Nowhere.
    Nowhere,
    /// Perhaps in a body that is compressed or not in UTF-8.
    Encoded,
    /// Not in what was read of the body; true: the body goes on.
    NotInBody(bool),
    /// In these bytes of the path.
    Path(Range<usize>),
    /// In these bytes of the query.
    Query(Range<usize>),
    /// In the body.
    Body(Named),
}

impl Opened {
    /// A body of which nothing was read.
    pub fn new(client: Client) -> Self {
        Self {
            bodiless: client.is_over(),
            client,
            ahead: None,
            read: None,
        }
    }

    /// True when there is no body.
    pub fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// At most `max` bytes in all. To be called once the route is known; before, no more than [`LOOKED_AT`] is read.
    ///
    /// # Errors
    ///
    /// More came already.
    pub fn bound(&mut self, max: Option<u64>) -> Result<(), Reason> {
        self.client.bound(max)
    }

    /// The rest of the body, and what was read of it.
    pub fn into_parts(self) -> (Client, Option<Ahead>) {
        (self.client, self.ahead)
    }

    /// Looks for the fields of a JSON body that limits or the split ask for.
    ///
    /// # Errors
    ///
    /// The body is too large or broken, or its client left.
    pub async fn fields(
        &mut self,
        places: &Arc<Places>,
        timeouts: &Timeouts,
        exchange: &Exchange,
    ) -> Result<Found, Reason> {
        if self.bodiless {
            return Ok(Found::default());
        }
        let flow = exchange.flow();
        flow.bind(timeouts);
        let mut peek = Peek::of(Arc::clone(places));
        let enough = |data: &[u8]| peek.feed(data) == Progress::Done;
        let ahead = self.ahead.get_or_insert_default();
        ahead
            .read_on(&mut self.client, flow, LOOKED_AT, enough)
            .await?;
        Ok(peek.finish())
    }

    /// Finds what the request calls its model. Of a body no more is read than that takes.
    ///
    /// * `path`: canonical, as the servers see it
    /// * `timeouts`: of the route whose clocks run meanwhile
    ///
    /// # Errors
    ///
    /// The body is larger than it is [bound](Self::bound) to be or broken, its client left, or it names its model twice.
    pub async fn model(
        &mut self,
        grammar: Grammar,
        request: &Request<()>,
        path: &str,
        timeouts: &Timeouts,
        exchange: &mut Exchange,
    ) -> Result<Wanted, Refusal> {
        let wanted = match self.in_head(grammar, request, path) {
            Ok(wanted) => wanted,
            Err(format) => self.in_body(format, timeouts, exchange).await?,
        };
        if let Some(log) = &mut exchange.log {
            log.model.clone_from(&wanted.name);
        }
        Ok(wanted)
    }

    async fn in_body(
        &mut self,
        format: Format,
        timeouts: &Timeouts,
        exchange: &Exchange,
    ) -> Result<Wanted, Refusal> {
        let known = matches!(&self.read, Some((read, _)) if *read == format);
        if !known {
            let named = self.read_name(&format, timeouts, exchange).await?;
            self.read = Some((format, named));
        }
        let named = self.read.as_ref().and_then(|(_, named)| named.clone());
        Ok(match named {
            Some(named) => Wanted {
                name: Some(named.text.clone()),
                spot: Spot::Body(named),
            },
            None => Wanted {
                name: None,
                spot: Spot::NotInBody(self.is_longer()),
            },
        })
    }

    /// True when the body has more than is looked at.
    fn is_longer(&self) -> bool {
        let ahead = self.ahead.iter().flat_map(Ahead::data);
        let read: usize = ahead.map(bytes::Bytes::len).sum();
        read > LOOKED_AT || !self.client.is_spent()
    }

    /// Finds the name in the head; an error says how the body has to be read.
    pub fn in_head(
        &self,
        grammar: Grammar,
        request: &Request<()>,
        path: &str,
    ) -> Result<Wanted, Format> {
        let query = request.uri().query();
        let place = grammar.place(&Head {
            method: request.method(),
            path,
            query,
            headers: request.headers(),
            bodiless: self.bodiless,
        });
        let (name, spot) = match place {
            Place::Nowhere => (None, Spot::Nowhere),
            Place::Encoded => (None, Spot::Encoded),
            Place::Path(range) => (grammar::decoded(&path[range.clone()]), Spot::Path(range)),
            Place::Query(range) => {
                let text = &query.unwrap_or_default()[range.clone()];
                (grammar::form_decoded(text), Spot::Query(range))
            }
            Place::Body(_) if self.bodiless => (None, Spot::NotInBody(false)),
            Place::Body(format) => return Err(format),
        };
        Ok(Wanted {
            name: name.map(std::borrow::Cow::into_owned),
            spot,
        })
    }

    async fn read_name(
        &mut self,
        format: &Format,
        timeouts: &Timeouts,
        exchange: &Exchange,
    ) -> Result<Option<Named>, Refusal> {
        let flow = exchange.flow();
        flow.bind(timeouts);
        let mut scan = Scan::new(format);
        let ahead = self.ahead.get_or_insert_default();
        let enough = |data: &[u8]| scan.feed(data) != Seen::Looking;
        ahead
            .read_on(&mut self.client, flow, LOOKED_AT, enough)
            .await?;
        let named = match scan.seen() {
            Seen::Twice => return Err(twice()),
            Seen::Looking | Seen::Absent => return Ok(None),
            Seen::Found => scan.named(),
        };
        // What was read together with the name, but not looked at yet, and what still comes.
        let mut rest = Scan::new(format);
        for data in ahead.data() {
            rest.feed(data);
        }
        if rest.seen() == Seen::Twice {
            return Err(twice());
        }
        self.client
            .watch(Box::new(move |data| match rest.feed(data) {
                Seen::Twice => Err(Reason::BadRequest),
                _ => Ok(()),
            }));
        Ok(named)
    }
}

fn twice() -> Refusal {
    Refusal::saying(
        Reason::BadRequest,
        "the body names its model twice, or goes on behind the name with what not all servers read alike, \
         so that they may not agree which model it asks for"
            .to_owned(),
    )
}
