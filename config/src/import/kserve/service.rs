//! InferenceService: routes to its components.

use super::component::{Limits, Mode};
use super::fields::INFERENCE_SERVICE;
use super::revision::{Revisions, revisions};
use super::server::{Server, server};
use crate::import::native::{Action, Edits, Match, Member, PathRule, Route};
use crate::import::{Document, Fields, Leaf, PortRef, Target, Work};
use crate::model::Position;

/// The paths of explanations.
const EXPLAIN: &str = "/v1/models/[^/:]+:explain|/v2/models/[^/]+/explain";

/// Translates all InferenceServices.
pub(super) fn translate(work: &mut Work<'_>) {
    for document in work.documents(INFERENCE_SERVICE.group, INFERENCE_SERVICE.name) {
        let fields = document.fields(work.audit);
        let legal = |text: &str| {
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            text.len() <= 63 && text.chars().all(legal)
        };
        if !legal(document.name) || !legal(document.namespace) {
            fields.lost_here(
                "its name and namespace are parts of a host: lower case letters, digits and `-`",
            );
            continue;
        }
        let annotations = fields
            .map("metadata")
            .and_then(|metadata| metadata.map("annotations"));
        let Some(mode) = mode(annotations.as_ref()) else {
            fields.lost_here(
                "with ModelMesh, servers are shared by models: write `models` of a cluster",
            );
            continue;
        };
        let Some(spec) = fields.map("spec") else {
            fields.lost_here("`spec` is missing");
            continue;
        };
        if !spec.has("predictor") {
            fields.lost_here("`spec.predictor` is missing");
            continue;
        }
        let service = Service {
            document,
            fields,
            spec,
            annotations,
            mode,
        };
        service.routes(work);
    }
}

/// Reads who runs the pods; `None`: nobody that can be translated.
fn mode(annotations: Option<&Fields<'_>>) -> Option<Mode> {
    const KEY: &str = "serving.kserve.io/deploymentMode";
    let written = annotations.and_then(|annotations| annotations.text(KEY));
    match written.as_ref().map(Leaf::as_str) {
        Some("Standard" | "RawDeployment") => Some(Mode::Standard),
        None | Some("Knative" | "Serverless") => Some(Mode::Knative),
        Some("ModelMesh") => None,
        Some(_) => {
            if let Some(annotations) = annotations {
                annotations.lost(
                    KEY,
                    "`Standard` and `Knative` are known; the latter is assumed",
                );
            }
            Some(Mode::Knative)
        }
    }
}

/// One InferenceService.
struct Service<'a> {
    document: Document<'a>,
    fields: Fields<'a>,
    spec: Fields<'a>,
    annotations: Option<Fields<'a>>,
    mode: Mode,
}

/// A component that requests can be sent to.
struct Reached {
    action: Action,
    host: Option<Leaf>,
    limits: Limits,
    at: Position,
}

impl Service<'_> {
    fn routes(&self, work: &mut Work<'_>) {
        let components = ["predictor", "transformer", "explainer"];
        let [predictor, transformer, explainer] = components.map(|name| self.component(name, work));
        let public = self.public();
        let hosts = |name: &str| {
            let base = format!("{name}.{}", self.document.namespace);
            let full = format!("{base}.svc.{}", work.options.cluster_domain);
            vec![base.clone(), format!("{base}.svc"), full]
        };
        let mut all = hosts(self.document.name);
        all.extend(public.filter(|host| !all.contains(host)));
        let inner = transformer.is_some() || explainer.is_some();
        let mut index = 0;
        let mut push = |reached: &Reached, hosts: &[String], path: Option<&str>| {
            let at = &reached.at;
            let name = work.name(&self.document, index, at);
            index += 1;
            let mut route = Route::new(at, name, reached.action.clone());
            route.matches = vec![Match {
                at: Some(at.clone()),
                hosts: hosts
                    .iter()
                    .map(|host| Leaf::text(at, host.as_str()))
                    .collect(),
                path: path.map(|path| PathRule::Regex(Leaf::text(at, path))),
                ..Match::default()
            }];
            route.timeouts = reached.limits.timeouts.clone();
            route.rewrite.host.clone_from(&reached.host);
            work.output.routes.push(route);
        };
        if let Some(explainer) = &explainer {
            push(explainer, &all, Some(EXPLAIN));
        }
        if let Some(entry) = transformer.as_ref().or(predictor.as_ref()) {
            push(entry, &all, None);
        }
        if let Some(predictor) = predictor.as_ref().filter(|_| inner) {
            push(
                predictor,
                &hosts(&format!("{}-predictor", self.document.name)),
                None,
            );
        }
    }

    /// Reads a component, and makes its clusters.
    fn component(&self, name: &str, work: &mut Work<'_>) -> Option<Reached> {
        let fields = self.spec.map(name)?;
        let server = match name {
            "predictor" => server(&fields),
            _ => {
                fields.accept("containers");
                fields.accept("art");
                Server {
                    kind: "generic",
                    grpc: false,
                }
            }
        };
        let limits = Limits::read(&fields, self.annotations.as_ref(), self.mode);
        let service = format!("{}-{name}", self.document.name);
        if let Some(members) = self.canary(name, &fields, work) {
            for cluster in members.iter().filter_map(|member| member.cluster.as_ref()) {
                if let Some(cluster) = work.output.cluster_mut(cluster.as_str()) {
                    limits.apply(cluster, server, &fields);
                }
            }
            return Some(Reached {
                action: Action::Split(members),
                host: None,
                limits,
                at: fields.at().clone(),
            });
        }
        let cluster = match self.cluster(&service, fields.at(), work) {
            Ok(cluster) => cluster,
            Err(note) => {
                self.spec.lost(name, note);
                return None;
            }
        };
        if let Some(cluster) = work.output.cluster_mut(cluster.as_str()) {
            limits.apply(cluster, server, &fields);
        }
        let namespace = self.document.namespace;
        let domain = &work.options.cluster_domain;
        let knative = self.mode == Mode::Knative;
        let host = knative.then(|| format!("{service}.{namespace}.svc.{domain}"));
        Some(Reached {
            action: Action::Cluster(cluster),
            host: host.map(|host| Leaf::text(fields.at(), host)),
            limits,
            at: fields.at().clone(),
        })
    }

    fn cluster(&self, service: &str, at: &Position, work: &mut Work<'_>) -> Result<Leaf, String> {
        let target = |port| Target {
            host: service,
            namespace: self.document.namespace,
            port,
            subset: None,
            at,
        };
        let usual = work.cluster(&target(PortRef::Number(80)));
        usual.or_else(|note| work.cluster(&target(PortRef::Only)).map_err(|_| note))
    }

    /// Reads `canaryTrafficPercent`: a split between revisions, where they are known.
    fn canary(
        &self,
        name: &str,
        component: &Fields<'_>,
        work: &mut Work<'_>,
    ) -> Option<Vec<Member>> {
        const KEY: &str = "canaryTrafficPercent";
        let percent = component.whole(KEY, 0..=100)?;
        let number = percent.whole()?;
        if self.mode == Mode::Standard {
            component.lost(
                KEY,
                "there are no revisions without Knative: write a `split`",
            );
            return None;
        }
        let known = revisions(&self.fields, name);
        let Some(Revisions { latest, previous }) = known else {
            let note = "Knative splits, behind this proxy: the revisions are not in `status`";
            component.approximated(KEY, note);
            return None;
        };
        let mut member = |revision: &str, weight: i64| {
            let at = percent.at();
            let cluster = self.cluster(revision, at, work).ok()?;
            let mut edits = Edits::default();
            for (header, value) in [
                ("knative-serving-namespace", self.document.namespace),
                ("knative-serving-revision", revision),
            ] {
                edits.set.add(Leaf::text(at, header), Leaf::text(at, value));
            }
            Some(Member {
                at: Some(at.clone()),
                cluster: Some(cluster),
                weight: Some(Leaf::number(at, weight)),
                request_headers: edits,
                ..Member::default()
            })
        };
        let members = [member(&latest, number)?, member(&previous, 100 - number)?];
        Some(members.into())
    }

    /// Returns the host that clients outside use, when there is one and it is known.
    fn public(&self) -> Option<String> {
        let metadata = self.fields.map("metadata");
        let labels = metadata.and_then(|metadata| metadata.map("labels"));
        let local = [
            "networking.kserve.io/visibility",
            "networking.knative.dev/visibility",
        ]
        .into_iter()
        .filter_map(|key| labels?.text(key))
        .any(|word| word.as_str() == "cluster-local");
        if local {
            return None;
        }
        let url = self
            .fields
            .map("status")
            .and_then(|status| status.text("url"));
        let host = url.as_ref().and_then(|url| host(url.as_str()));
        if let (None, Some(metadata)) = (&host, metadata) {
            let note =
                "reached by its names in the cluster only: the public host is not in `status.url`";
            metadata.approximated("name", note);
        }
        host
    }
}

/// Returns the host of a URL, when it is a legal one.
fn host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let end = rest.find(['/', ':', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].to_ascii_lowercase();
    let legal = |label: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.len() <= 63 && label.chars().all(legal)
    };
    (host.len() <= 253 && host.split('.').all(legal)).then_some(host)
}
