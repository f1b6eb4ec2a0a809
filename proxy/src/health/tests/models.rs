//! Servers that are asked for one model, or at another port.

use forebay_config::{self as config, ServerKind};

use super::super::is_ready;
use super::*;

/// A cluster of a kind of server with one model, whose endpoints start.
fn with_model(kind: ServerKind) -> Subject {
    let mut trial = Trial::http(&[]);
    let mut config = plain_cluster();
    config.server = kind;
    config.models = vec!["m/1".to_owned()];
    trial.subject.config = Arc::new(config);
    trial.subject.clone()
}

/// Answers with whatever text is in there.
fn text_of(text: &Arc<Mutex<&'static str>>) -> Arc<Answering> {
    let text = Arc::clone(text);
    Arc::new(move |_, _| {
        let body = Bytes::from_static(text.lock().unwrap().as_bytes());
        Response::new(Full::new(body).boxed())
    })
}

#[tokio::test]
async fn a_server_whose_model_is_not_available_is_not_ready() {
    let text = Arc::new(Mutex::new(""));
    let server = Server::start(text_of(&text)).await;
    let subject = with_model(ServerKind::TensorflowServing);
    for (says, ready) in [
        (r#"{"model_version_status": [{"state": "LOADING"}]}"#, false),
        ("not yet", false),
        ("", false),
        (
            r#"{"model_version_status": [{"state": "END"}, {"state": "AVAILABLE"}]}"#,
            true,
        ),
    ] {
        *text.lock().unwrap() = says;
        assert_eq!(is_ready(&subject, server.address).await, ready, "{says}");
    }
    let heads = server.heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.uri() == "/v1/models/m%2F1"));
}

#[tokio::test]
async fn a_model_that_is_not_ready_has_another_status() {
    let status = Arc::new(AtomicU32::new(400));
    let server = Server::start(status_of(&status)).await;
    let subject = with_model(ServerKind::Triton);
    assert!(!is_ready(&subject, server.address).await);
    status.store(200, Ordering::Relaxed);
    assert!(is_ready(&subject, server.address).await);
    let heads = server.heads.lock().unwrap();
    assert!(
        heads
            .iter()
            .all(|head| head.uri() == "/v2/models/m%2F1/ready")
    );
}

#[tokio::test]
async fn grpc_is_checked_where_it_listens() {
    let serving = Server::start_http2(Arc::new(|_, _| grpc(Some(1), "0"))).await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (service, other) = (String::new(), other.local_addr().unwrap());
    let mut trial = Trial::new(&[], HealthKind::Grpc { service });
    let mut config = config::Cluster::clone(&trial.subject.config);
    config.ports.grpc = Some(serving.address.port());
    trial.subject.config = Arc::new(config);
    assert!(is_ready(&trial.subject, other).await);
    assert_eq!(serving.count(), 1);
}

#[tokio::test]
async fn checks_ask_for_the_model_where_nothing_says_otherwise() {
    let text = Arc::new(Mutex::new(""));
    let server = Server::start(text_of(&text)).await;
    let mut trial = Trial::new(&[server.address], HealthKind::Server);
    let mut config = config::Cluster::clone(&trial.subject.config);
    config.server = ServerKind::TensorflowServing;
    config.models = vec!["m".to_owned()];
    trial.subject.config = Arc::new(config);
    trial.follow();
    trial.fails_with("no JSON").await;
    *text.lock().unwrap() = r#"{"model_version_status": [{"state": "AVAILABLE"}]}"#;
    trial.becomes(EndpointState::Healthy).await;
}
