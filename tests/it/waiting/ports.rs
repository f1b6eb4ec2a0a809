//! Servers that speak gRPC at a port of their own.

use ::h2::server::SendResponse;
use bytes::Bytes;
use http::{Request, Response};

use super::*;
use crate::support::h2::{self, H2, H2Upstream, fields, soon};

/// Says OK at once.
async fn well(mut respond: SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    let _ = stream.send_trailers(fields(&[("grpc-status", "0")]));
}

async fn speaking_grpc() -> H2Upstream {
    H2Upstream::start(|_, respond| well(respond)).await
}

fn call() -> Request<()> {
    let call = h2::post("/inference.GRPCInferenceService/ModelInfer");
    let call = call.header("content-type", "application/grpc");
    call.header("te", "trailers").body(()).unwrap()
}

/// A call on a connection of its own.
fn begin_call(at: SocketAddr) -> JoinHandle<h2::Answer> {
    tokio::spawn(async move {
        let client = H2::connect(at).await;
        soon("an answer", client.send(call())).await.unwrap()
    })
}

fn calls(upstream: &H2Upstream) -> usize {
    upstream.heads.lock().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_of_a_server_share_its_slots() {
    let (server, grpc) = (Server::start(0).await, speaking_grpc().await);
    let keys = format!("ports: {{grpc: {}}}, concurrency: 1", grpc.address.port());
    let proxy = Proxy::start(&leading_to(&[server.address()], &keys)).await;
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let second = begin_call(proxy.address());
    waits(&proxy, 1).await;
    assert_eq!(calls(&grpc), 0, "its one slot is taken");
    server.permits.add_permits(1);
    assert_served(&first.await.unwrap(), "/first");
    assert_eq!(second.await.unwrap().trailer("grpc-status"), "0");
    assert_eq!((calls(&grpc), server.seen.count()), (1, 1));

    // Each keeps to its own port, by connections that are kept.
    server.permits.add_permits(ALL);
    for _ in 0..3 {
        let answer = get(proxy.address(), "/next").await.unwrap();
        assert_served(&answer, "/next");
        let answer = begin_call(proxy.address()).await.unwrap();
        assert_eq!(answer.trailer("grpc-status"), "0");
    }
    assert_eq!((calls(&grpc), server.seen.count()), (4, 4));
    assert!(grpc.connections() <= 2, "one for each worker");
    let label = format!("endpoint=\"{}\"", server.address());
    let label = label.as_str();
    until("everything is given back", async || {
        proxy.metric("forebay_endpoint_in_flight", &[label]) == 0.0 && waiting(&proxy) == 0.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_may_move_the_port_of_grpc() {
    let server = Server::start(ALL).await;
    let (one, two) = (speaking_grpc().await, speaking_grpc().await);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("forebay.yaml");
    let shape = |grpc: &H2Upstream| {
        let keys = format!("ports: {{grpc: {}}}, concurrency: 4", grpc.address.port());
        leading_to(&[server.address()], &keys)
    };
    std::fs::write(&path, shape(&one)).unwrap();
    let proxy = Proxy::start_on(&path).await;
    begin_call(proxy.address()).await.unwrap();
    assert_eq!((calls(&one), calls(&two)), (1, 0));
    std::fs::write(&path, shape(&two)).unwrap();
    proxy.control().reload().await.unwrap();
    begin_call(proxy.address()).await.unwrap();
    assert_eq!((calls(&one), calls(&two)), (1, 1));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_copies_grpc_to_its_port_too() {
    let (server, copies) = (Server::start(ALL).await, Server::start(ALL).await);
    let (grpc, copied) = (speaking_grpc().await, speaking_grpc().await);
    let config = proxy::config(&format!(
        "routes: [{{name: r, cluster: a, mirrors: [{{cluster: b}}]}}]\n\
         clusters:\n- {{name: a, endpoints: ['{}'], ports: {{grpc: {}}}}}\n\
         - {{name: b, endpoints: ['{}'], ports: {{grpc: {}}}}}\n",
        server.address(),
        grpc.address.port(),
        copies.address(),
        copied.address.port(),
    ));
    let proxy = Proxy::start(&config).await;
    begin_call(proxy.address()).await.unwrap();
    until("the copy came", async || calls(&copied) == 1).await;
    assert_eq!((server.seen.count(), copies.seen.count()), (0, 0));
    proxy.stop().await;
}
