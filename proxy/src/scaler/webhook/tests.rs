use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

/// Answers with these statuses, the last one for good, and tells what was posted.
async fn server(statuses: &'static [u16]) -> (Uri, mpsc::UnboundedReceiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (posted, posts) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for index in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let status = *statuses.get(index).or(statuses.last()).unwrap();
            let posted = posted.clone();
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let posted = posted.clone();
                async move {
                    let what = format!("{} {}", request.method(), request.uri());
                    let body = request.into_body().collect().await?.to_bytes();
                    let _ = posted.send((what, serde_json::from_slice(&body).unwrap()));
                    let response = Response::builder().status(status);
                    Ok::<_, hyper::Error>(response.body(Full::<Bytes>::default()).unwrap())
                }
            });
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    let url = format!("http://{address}/scale?token=1");
    (url.parse().unwrap(), posts)
}

#[tokio::test]
async fn every_change_is_posted_until_it_is_taken() {
    let (url, mut posts) = server(&[503, 503, 204]).await;
    let ready = Arc::new(AtomicU32::new(1));
    let current = Arc::clone(&ready);
    let (_ring, changed) = watch::channel(());
    let current = move || current.load(SeqCst);
    let webhook = Webhook::new("resnet", &url, current, changed).unwrap();
    webhook.want(3);
    let status = webhook.status();
    assert_eq!((status.ready, status.starting, status.stopping), (1, 2, 0));
    for _ in 0..3 {
        let (what, body) = posts.recv().await.unwrap();
        assert_eq!(what, "POST /scale?token=1");
        assert_eq!(
            body,
            json!({"cluster": "resnet", "desired": 3, "current": 1})
        );
    }
    webhook.want(3);
    ready.store(3, SeqCst);
    webhook.want(0);
    let (_, body) = posts.recv().await.unwrap();
    assert_eq!(
        body,
        json!({"cluster": "resnet", "desired": 0, "current": 3})
    );
    assert_eq!(webhook.status().stopping, 3);
}

#[test]
fn urls_that_cannot_be_posted_to_are_refused() {
    for bad in ["/scale", "ftp://host/", "host:1"] {
        assert!(Target::new(&Uri::from_static(bad)).is_err(), "{bad}");
    }
    let target = Target::new(&Uri::from_static("http://user@[::1]:81")).unwrap();
    assert_eq!(target.name(), "::1:81");
}
