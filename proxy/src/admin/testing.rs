//! A control without workers, and requests to its routers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::control::{Control, Parts, Source};
use crate::discovery::Discovery;
use crate::dns::Resolver;
use crate::health::Checker;
use crate::metrics::Metrics;
use crate::snapshot::{Build, Registry};
use crate::sockets::Sockets;
use crate::worker::Shared;

/// A proxy whose configuration is in a file and whose data plane does not exist.
pub(crate) struct Stage {
    pub(crate) control: Arc<Control>,
    pub(crate) file: PathBuf,
    _directory: TempDir,
}

impl Stage {
    pub(crate) async fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("forebay.yaml");
        std::fs::write(&file, text).unwrap();
        let source = Source::Paths(vec![file.clone()]);
        let (loaded, sources) = source.load().unwrap();
        let metrics = Metrics::new(1);
        let registry = Registry::default();
        let build = Build {
            config: Arc::new(loaded.config),
            held: HashMap::new(),
            hash: "0123456789abcdef".to_owned(),
            generation: 1,
            old: None,
            metrics: &metrics,
            log: None,
        };
        let snapshot = Arc::new(build.run(&registry).unwrap());
        let mut discovery = Discovery::new(Resolver::system().unwrap(), HashMap::new());
        discovery.follow(&snapshot).await;
        let checker = Checker::new();
        checker.follow(snapshot.clusters.values());
        let scaling = Arc::new(crate::scaling::Scaling::new());
        scaling.follow(&snapshot);
        let control = Control::new(Parts {
            source,
            shared: Shared::new(metrics, Vec::new()),
            registry,
            sockets: Sockets::new(1024),
            discovery,
            checker,
            scaling,
            snapshot,
            sources,
            warnings: loaded.warnings,
            admin: "127.0.0.1:9901".parse().unwrap(),
            probes: None,
        });
        Self {
            control,
            file,
            _directory: directory,
        }
    }

    pub(super) fn api(&self) -> Router {
        super::api(Arc::clone(&self.control))
    }

    pub(super) fn probes(&self) -> Router {
        super::probes(Arc::clone(&self.control))
    }
}

/// An answer read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The `code` of an error.
    pub(super) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }
}

/// Sends a request; `headers` come on top of `Host: 127.0.0.1:9901`, or replace it.
pub(super) async fn send(
    router: &Router,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:9901");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        body,
    }
}

pub(super) async fn get(router: &Router, path: &str) -> Answer {
    send(router, Method::GET, path, &[], "").await
}

pub(super) async fn post(router: &Router, path: &str, body: &str) -> Answer {
    send(
        router,
        Method::POST,
        path,
        &[("content-type", "application/json")],
        body,
    )
    .await
}
