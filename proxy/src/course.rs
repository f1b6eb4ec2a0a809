//! The course of a request through its route, until it is known who serves it and by what name of its model.

use bytes::Bytes;
use forebay_config::peek::Found;
use forebay_config::route::CompiledMatch;
use http::{Request, Response};

use crate::answer::{self, Refusal};
use crate::canonical::Target;
use crate::connection::Connection;
use crate::exchange::Exchange;
use crate::filter::{Dressing, Filters};
use crate::model_name::{Grammar, Opened, Renaming, Served, Wanted, renaming};
use crate::outgoing;
use crate::screen;
use crate::snapshot::{ListenerView, MemberView, RouteView, WorkerSnapshot};
use crate::way;

/// A request in the configuration.
#[derive(Clone, Copy)]
pub struct Course<'c, 's> {
    /// The client's.
    pub connection: &'c Connection,
    /// The generation that it sees.
    pub snapshot: &'s WorkerSnapshot,
    /// The listener it came by.
    pub view: &'s ListenerView,
    /// The route it takes.
    pub route: &'s RouteView,
    /// The condition of the route that it meets.
    pub matched: &'s CompiledMatch,
    /// Its head, as it came.
    pub request: &'c Request<()>,
    /// The same, canonical.
    pub target: &'c Target<'c>,
}

/// Who answers a request.
pub enum Chosen<'s> {
    /// An endpoint of this cluster. With what the request calls its model, if that is known already.
    Member(&'s MemberView, Option<Wanted>),
    /// The route itself.
    Answered(Response<Bytes>),
}

/// What came of a route's filters.
enum Screened {
    /// The request is in. With the fields of its body that its route asked for.
    In(Found),
    /// It is a CORS preflight, and this is the answer.
    Answered(Response<Bytes>),
}

impl<'s> Course<'_, 's> {
    /// Takes the request through what its route asks of it, and chooses who answers.
    ///
    /// # Errors
    ///
    /// A filter refuses it, no cluster serves its model, or what is wrong with its body.
    pub async fn run(
        self,
        opened: &mut Opened,
        exchange: &mut Exchange,
        dressing: &mut Dressing<'s>,
    ) -> Result<Chosen<'s>, Refusal> {
        let route = self.route;
        let fields = match &route.filters {
            None => Found::default(),
            Some(filters) => match self.screen(filters, opened, exchange, dressing).await? {
                Screened::In(fields) => fields,
                Screened::Answered(answer) => return Ok(Chosen::Answered(answer)),
            },
        };
        match (&route.split, &route.models) {
            (Some(split), _) => {
                let (request, connection, view) = (self.request, self.connection, self.view);
                let member =
                    screen::member(route, split, request, &fields, connection, view, dressing);
                Ok(Chosen::Member(member, None))
            }
            (None, Some(models)) => Box::pin(self.by_model(models, opened, exchange)).await,
            (None, None) => {
                exchange.admit(self.snapshot.traffic(route.cell));
                let answer = answer::by_route(&route.config, self.connection, self.target)?;
                Ok(Chosen::Answered(answer))
            }
        }
    }

    async fn screen(
        self,
        filters: &'s Filters,
        opened: &mut Opened,
        exchange: &mut Exchange,
        dressing: &mut Dressing<'s>,
    ) -> Result<Screened, Refusal> {
        let screened = self.pass(filters, opened, exchange, dressing).await;
        if !matches!(screened, Ok(Screened::In(_))) {
            exchange.belong(self.snapshot.traffic(self.route.cell));
            exchange.server = screen::server(self.route);
        }
        screened
    }

    async fn pass(
        self,
        filters: &'s Filters,
        opened: &mut Opened,
        exchange: &mut Exchange,
        dressing: &mut Dressing<'s>,
    ) -> Result<Screened, Refusal> {
        let client = match &exchange.log {
            Some(log) => log.client,
            None => screen::client_ip(self.request, self.connection, self.view),
        };
        if let Some(answer) = screen::enter(filters, self.request, client, exchange, dressing)? {
            return Ok(Screened::Answered(answer));
        }
        let fields = match filters.fields() {
            None => Found::default(),
            Some(places) => {
                let timeouts = &self.route.config.timeouts;
                opened.fields(places, timeouts, exchange).await?
            }
        };
        screen::admit(filters, self.request, client, &fields, exchange)?;
        Ok(Screened::In(fields))
    }

    /// The cluster that serves the model, or the list of all models if the request asks for that.
    async fn by_model(
        self,
        models: &'s Served,
        opened: &mut Opened,
        exchange: &mut Exchange,
    ) -> Result<Chosen<'s>, Refusal> {
        let config = &self.route.config;
        let path = way::path(self.view, config, self.matched, self.target)?;
        let own = self.snapshot.traffic(self.route.cell);
        if let Some(answer) = models.listing(self.request.method(), &path) {
            exchange.belong(own);
            return Ok(Chosen::Answered(answer));
        }
        let wanted = match outgoing::check_declared(self.request.headers(), config.body_max) {
            Err(reason) => Err(reason.into()),
            Ok(()) => {
                let grammar = models.grammar();
                self.model(grammar, &path, opened, exchange).await
            }
        };
        let chosen =
            wanted.and_then(|wanted| Ok(Chosen::Member(models.member(&wanted)?, Some(wanted))));
        if chosen.is_err() {
            exchange.belong(own);
            exchange.server = models.server();
        }
        chosen
    }

    async fn model(
        self,
        grammar: Grammar,
        path: &str,
        opened: &mut Opened,
        exchange: &mut Exchange,
    ) -> Result<Wanted, Refusal> {
        let timeouts = &self.route.config.timeouts;
        let wanted = opened.model(grammar, self.request, path, timeouts, exchange);
        wanted.await
    }

    /// True when a cluster that gets the request, or a copy of it, may have to be told another name of the model.
    pub fn may_rename(self, member: &MemberView) -> bool {
        let mut mirrors = self.route.mirrors.iter();
        renaming::has_aliases(&member.cluster.config)
            || mirrors.any(|mirrors| mirrors.clusters().any(renaming::has_aliases))
    }

    /// What clusters have to be told in place of the name of the model; `None`: nothing.
    ///
    /// * `asked`: what the request calls it, when that is known already
    ///
    /// # Errors
    ///
    /// What is wrong with the body, or an alias that cannot be replaced.
    pub async fn renaming(
        self,
        asked: Option<Wanted>,
        member: &MemberView,
        opened: &mut Opened,
        exchange: &mut Exchange,
    ) -> Result<Option<Renaming>, Refusal> {
        let (route, cluster) = (self.route, &member.cluster.config);
        let path = way::path(self.view, &route.config, self.matched, self.target)?;
        let asked = match asked {
            Some(asked) => asked,
            None => {
                let grammar = Grammar::of(cluster.server);
                self.model(grammar, &path, opened, exchange).await?
            }
        };
        let mirrors = route.mirrors.iter();
        let others = mirrors.flat_map(|mirrors| mirrors.clusters());
        Renaming::new(asked, cluster, others, &path, self.request.uri().query())
    }
}
