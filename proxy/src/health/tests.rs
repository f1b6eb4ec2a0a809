//! Checks over real sockets.

mod models;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay_config::{Balance, Health, HealthKind, UpstreamProtocol};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::dial::Wire;
use super::{Checker, Streak, Subject, Task};
use crate::cluster::tests::{health, plain_cluster};
use crate::cluster::{Candidate, ClusterState, Endpoint, EndpointState};
use crate::upstream::{Connector, ConnectorTls};

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(3600);

type Answer = Response<BoxBody<Bytes, Infallible>>;
type Answering = dyn Fn(&Request<()>, &[u8]) -> Answer + Send + Sync;

fn boxed(wire: impl Wire + 'static) -> Box<dyn Wire> {
    Box::new(wire)
}

/// A server that remembers what it was asked.
struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<Request<()>>>>,
    asked: watch::Receiver<usize>,
    _task: Task,
}

impl Server {
    async fn start(answering: Arc<Answering>) -> Self {
        Self::start_with(answering, false, |tcp| Box::pin(async { boxed(tcp) })).await
    }

    async fn start_http2(answering: Arc<Answering>) -> Self {
        Self::start_with(answering, true, |tcp| Box::pin(async { boxed(tcp) })).await
    }

    async fn start_with(
        answering: Arc<Answering>,
        http2: bool,
        accept: impl Fn(tokio::net::TcpStream) -> Pin<Box<dyn Future<Output = Box<dyn Wire>> + Send>>
        + Send
        + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (count, asked) = watch::channel(0);
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let wire = accept(tcp).await;
                let (answering, seen, count) =
                    (Arc::clone(&answering), Arc::clone(&seen), count.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answering, seen, count) =
                        (Arc::clone(&answering), Arc::clone(&seen), count.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let head = Request::from_parts(parts, ());
                        let answer = answering(&head, &body);
                        seen.lock().unwrap().push(head);
                        count.send_modify(|count| *count += 1);
                        Ok::<_, Infallible>(answer)
                    }
                });
                tokio::spawn(async move {
                    let io = TokioIo::new(wire);
                    let _ = if http2 {
                        let server = http2::Builder::new(TokioExecutor::new());
                        server.serve_connection(io, service).await
                    } else {
                        let server = http1::Builder::new();
                        server.serve_connection(io, service).await
                    };
                });
            }
        });
        Self {
            address,
            heads,
            asked,
            _task: Task(task.abort_handle()),
        }
    }

    async fn asked(&self, times: usize) {
        let mut asked = self.asked.clone();
        let enough = asked.wait_for(|count| *count >= times);
        tokio::time::timeout(SOON, enough).await.unwrap().unwrap();
    }

    fn count(&self) -> usize {
        *self.asked.borrow()
    }
}

fn answer(status: u16) -> Answer {
    let mut answer = Response::new(Empty::new().boxed());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// Answers with whatever status is in there.
fn status_of(status: &Arc<AtomicU32>) -> Arc<Answering> {
    let status = Arc::clone(status);
    Arc::new(move |_, _| answer(status.load(Ordering::Relaxed) as u16))
}

/// A cluster of one generation and its checks.
struct Trial {
    checker: Checker,
    subject: Subject,
}

fn candidate(address: SocketAddr) -> Candidate {
    Candidate {
        address,
        host: "localhost".into(),
        weight: 1,
    }
}

impl Trial {
    fn new(addresses: &[SocketAddr], kind: HealthKind) -> Self {
        let mut config = plain_cluster();
        config.health = Some(Health {
            kind,
            interval: Duration::from_millis(20),
            ..health()
        });
        let state = Arc::new(ClusterState::new("c"));
        let connector = Connector {
            timeout: SOON,
            limit: Some(0), // checks are not held up by it
            tls: None,
            key: 0,
            port: None,
        };
        let subject = Subject {
            config: Arc::new(config),
            state,
            connector,
        };
        let trial = Self {
            checker: Checker::new(),
            subject,
        };
        trial.serve(addresses);
        trial
    }

    fn http(addresses: &[SocketAddr]) -> Self {
        let (path, status) = ("/ready?x=1".to_owned(), vec![StatusCode::OK]);
        Self::new(addresses, HealthKind::Http { path, status })
    }

    fn change(mut self, change: impl FnOnce(&mut Health)) -> Self {
        self.set(change);
        self
    }

    fn set(&mut self, change: impl FnOnce(&mut Health)) {
        change(
            Arc::make_mut(&mut self.subject.config)
                .health
                .as_mut()
                .unwrap(),
        );
    }

    fn serve(&self, addresses: &[SocketAddr]) {
        let candidates = addresses.iter().map(|a| candidate(*a)).collect();
        self.subject.state.update(candidates, &Balance::Random);
    }

    /// What a reload does.
    fn follow(&mut self) {
        self.subject.state = Arc::new(self.subject.state.next_generation());
        self.checker.follow([self.subject.clone()]);
    }

    fn endpoint(&self, index: usize) -> Arc<Endpoint> {
        Arc::clone(&self.subject.state.endpoints().endpoints[index])
    }

    async fn becomes(&self, wanted: EndpointState) {
        let mut changes = self.subject.state.changes();
        let endpoint = self.endpoint(0);
        let changed = async {
            while endpoint.state() != wanted {
                changes.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(SOON, changed).await.is_err() {
            panic!("{:?} is not {wanted:?}", endpoint.report());
        }
    }

    async fn fails_with(&self, text: &str) {
        self.becomes(EndpointState::Unhealthy).await;
        let error = self.endpoint(0).report().check_error.unwrap();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn the_first_check_decides_and_then_so_many_in_a_row() {
    let health = Health {
        unhealthy: NonZeroU32::new(3).unwrap(),
        healthy: NonZeroU32::new(2).unwrap(),
        ..health()
    };
    let mut streak = Streak::default();
    assert_eq!(streak.count(false, None, &health), Some(false));
    assert_eq!(streak.count(true, Some(false), &health), None);
    assert_eq!(streak.count(false, Some(false), &health), None);
    assert_eq!(streak.count(true, Some(false), &health), None);
    assert_eq!(streak.count(true, Some(false), &health), Some(true));
    assert_eq!(streak.count(false, Some(true), &health), None);
    assert_eq!(streak.count(false, Some(true), &health), None);
    assert_eq!(streak.count(true, Some(true), &health), None);
    assert_eq!(streak.count(false, Some(true), &health), None);
    assert_eq!(streak.count(false, Some(true), &health), None);
    assert_eq!(streak.count(false, Some(true), &health), Some(false));
}

#[tokio::test]
async fn the_status_tells_whether_an_endpoint_is_healthy() {
    let status = Arc::new(AtomicU32::new(200));
    let server = Server::start(status_of(&status)).await;
    let mut trial = Trial::http(&[server.address]);
    trial.follow();
    assert_eq!(trial.endpoint(0).state(), EndpointState::Unknown);
    trial.becomes(EndpointState::Healthy).await;
    status.store(204, Ordering::Relaxed);
    let before = server.count();
    trial.fails_with("status 204").await;
    assert!(server.count() >= before + 2);
    status.store(200, Ordering::Relaxed);
    trial.becomes(EndpointState::Healthy).await;
    assert_eq!(trial.endpoint(0).report().check_error, None);
    assert_eq!(trial.endpoint(0).connections(), 0);
    let heads = server.heads.lock().unwrap();
    assert_eq!(heads[0].uri(), "/ready?x=1");
    let host = format!("localhost:{}", server.address.port());
    assert_eq!(heads[0].headers()["host"], host.as_str());
    let agent = heads[0].headers()["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("forebay-health/"));
}

#[tokio::test]
async fn http2_is_spoken_where_the_cluster_does() {
    let server = Server::start_http2(Arc::new(|_, _| answer(200))).await;
    let mut trial = Trial::http(&[server.address]);
    Arc::make_mut(&mut trial.subject.config).protocol = UpstreamProtocol::Http2;
    trial.follow();
    trial.becomes(EndpointState::Healthy).await;
    let heads = server.heads.lock().unwrap();
    assert_eq!(heads[0].version(), http::Version::HTTP_2);
    let host = format!("http://localhost:{}/ready?x=1", server.address.port());
    assert_eq!(heads[0].uri(), host.as_str());
}

#[tokio::test]
async fn a_check_goes_over_tls_where_the_cluster_does() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let server = Server::start_with(Arc::new(|_, _| answer(200)), false, move |tcp| {
        let acceptor = acceptor.clone();
        Box::pin(async move { boxed(acceptor.accept(tcp).await.unwrap()) })
    })
    .await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    let mut trial = Trial::http(&[server.address]);
    trial.subject.connector.tls = Some(Arc::new(ConnectorTls {
        http1: Arc::clone(&client),
        http2: client,
        server_name: None,
    }));
    trial.follow();
    trial.becomes(EndpointState::Healthy).await;
}

#[tokio::test]
async fn an_endpoint_that_accepts_is_healthy_for_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut trial = Trial::new(&[address], HealthKind::Tcp);
    trial.follow();
    trial.becomes(EndpointState::Healthy).await;
    drop(listener);
    trial.fails_with("cannot connect").await;
    let _listener = TcpListener::bind(address).await.unwrap();
    trial.becomes(EndpointState::Healthy).await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_in_time_is_unhealthy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut trial = Trial::http(&[address]).change(|h| h.timeout = Duration::from_millis(30));
    trial.follow();
    trial.fails_with("no answer within 30ms").await;
}

#[tokio::test]
async fn an_answer_without_end_is_read_no_further_than_needed() {
    let endless = futures_util::stream::repeat_with(|| {
        Ok(http_body::Frame::data(Bytes::from_static(&[b'x'; 4096])))
    });
    let endless = Mutex::new(Some(endless));
    let answering = move |_: &Request<()>, _: &[u8]| {
        let stream = endless.lock().unwrap().take();
        let body = http_body_util::StreamBody::new(stream.unwrap());
        Response::new(BoxBody::new(body))
    };
    let server = Server::start(Arc::new(answering)).await;
    let mut trial = Trial::http(&[server.address]).change(|h| h.interval = NEVER);
    trial.follow();
    trial.becomes(EndpointState::Healthy).await;
}

/// Answers as a gRPC server does: a message, then trailers.
fn grpc(serving: Option<u8>, status: &'static str) -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    let Some(serving) = serving else {
        let mut answer = answer(200);
        *answer.headers_mut() = trailers;
        return answer;
    };
    let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, serving]);
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    Response::new(body.boxed())
}

#[tokio::test]
async fn a_grpc_server_says_itself_whether_it_serves() {
    for (serving, status, error) in [
        (Some(1), "0", None),
        (Some(2), "0", Some("NOT_SERVING")),
        (Some(3), "0", Some("SERVICE_UNKNOWN")),
        (Some(1), "14", Some("grpc-status 14")),
        (None, "12", Some("UNIMPLEMENTED")),
        (None, "5", Some("NOT_FOUND")),
    ] {
        let answering = move |head: &Request<()>, body: &[u8]| {
            assert_eq!(head.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(head.headers()["content-type"], "application/grpc");
            assert_eq!(body, [0, 0, 0, 0, 5, 0x0a, 3, b'l', b'l', b'm']);
            grpc(serving, status)
        };
        let server = Server::start_http2(Arc::new(answering)).await;
        let service = "llm".to_owned();
        let mut trial = Trial::new(&[server.address], HealthKind::Grpc { service });
        trial.follow();
        match error {
            None => trial.becomes(EndpointState::Healthy).await,
            Some(error) => trial.fails_with(error).await,
        }
    }
}

#[tokio::test]
async fn another_port_can_be_asked() {
    let server = Server::start(Arc::new(|_, _| answer(200))).await;
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let port = server.address.port();
    let mut trial = Trial::http(&[nobody]).change(|h| h.port = Some(port));
    trial.follow();
    trial.becomes(EndpointState::Healthy).await;
    let heads = server.heads.lock().unwrap();
    assert_eq!(
        heads[0].headers()["host"],
        format!("localhost:{port}").as_str()
    );
}

#[tokio::test]
async fn a_new_endpoint_is_checked_at_once_and_one_that_went_no_longer() {
    let servers = [
        Server::start(Arc::new(|_, _| answer(200))).await,
        Server::start(Arc::new(|_, _| answer(200))).await,
    ];
    let [first, second] = [servers[0].address, servers[1].address];
    let mut trial = Trial::http(&[first]);
    trial.follow();
    servers[0].asked(2).await;
    trial.serve(&[second]);
    servers[1].asked(2).await;
    trial.set(|h| h.interval = NEVER);
    trial.follow();
    servers[1].asked(3).await;
    let gone = servers[0].count();
    trial.serve(&[first, second]);
    servers[0].asked(gone + 1).await;
    assert_eq!(servers[0].count(), gone + 1);
}

#[tokio::test]
async fn a_reload_keeps_state_and_schedule_of_what_did_not_change() {
    let server = Server::start(Arc::new(|_, _| answer(200))).await;
    let mut trial = Trial::http(&[server.address]).change(|h| h.interval = NEVER);
    trial.follow();
    trial.becomes(EndpointState::Healthy).await;
    for _ in 0..20 {
        trial.follow();
        tokio::task::yield_now().await;
        assert_eq!(trial.endpoint(0).state(), EndpointState::Healthy);
    }
    trial.set(|h| h.healthy = NonZeroU32::new(2).unwrap());
    trial.follow();
    server.asked(2).await;
    assert_eq!(server.count(), 2, "only the change asked again");
}

#[tokio::test]
async fn without_health_an_endpoint_is_healthy_and_nothing_is_asked() {
    let server = Server::start(Arc::new(|_, _| answer(500))).await;
    let mut trial = Trial::http(&[server.address]);
    trial.follow();
    trial.becomes(EndpointState::Unhealthy).await;
    Arc::make_mut(&mut trial.subject.config).health = None;
    trial.follow();
    assert_eq!(trial.endpoint(0).state(), EndpointState::Healthy);
    assert!(trial.checker.clusters.lock().unwrap().is_empty());
    let report = trial.endpoint(0).report();
    assert_eq!(report.check_error, None);
}
