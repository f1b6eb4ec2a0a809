//! Endpoints that a name server tells of.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use forebay::control::Source;
use forebay::discovery::Discovery;
use forebay::dns::Resolver;
use forebay::server::{Options, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::support::proxy::config;
use crate::support::{Client, respond, until};

/// Answers every question for A records with these addresses for a second, and every other with nothing.
async fn name_server(addresses: Arc<Mutex<Vec<Ipv4Addr>>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0u8; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            let name = question[12..].iter().position(|&b| b == 0).unwrap();
            let end = 12 + name + 1 + 4;
            assert!(end <= length);
            let wants_v4 = question[end - 4..end - 2] == [0, 1];
            let known = addresses.lock().unwrap().clone();
            let known = if wants_v4 { known } else { Vec::new() };
            let mut answer = question[..2].to_vec();
            answer.extend([0x85, 0x80, 0, 1, 0, known.len() as u8, 0, 0, 0, 0]);
            answer.extend(&question[12..end]);
            for ip in known {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(ip.octets());
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

/// Answers every request on this address with its own IP.
async fn naming(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut got = Vec::new();
                while socket.read_buf(&mut got).await.is_ok_and(|n| n > 0) {
                    if got.ends_with(b"\r\n\r\n") {
                        got.clear();
                        let _ = socket
                            .write_all(&respond(200, &address.ip().to_string()))
                            .await;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_s_addresses_serve_and_changes_follow_its_time_to_live() {
    let first = naming("127.0.0.1:0".parse().unwrap()).await;
    let second = naming(SocketAddr::new(
        Ipv4Addr::new(127, 0, 0, 2).into(),
        first.port(),
    ))
    .await;
    let known = Arc::new(Mutex::new(vec![Ipv4Addr::LOCALHOST]));
    let server = name_server(Arc::clone(&known)).await;
    let name = "model.forebay.test";
    let text = config(&format!(
        "routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, balance: round_robin, \
         discover: {{dns: {{name: {name}, port: {}, refresh: 5s}}}}}}]\n",
        first.port()
    ));
    // The proxy's own resolver is the system's: the name is pinned for it, and a second discovery asks ours.
    let pinned: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let options = Options {
        source: Source::Text(text.as_str().into()),
        resolve: vec![((name.to_owned(), first.port()), pinned)],
        admin_port_may_move: false,
    };
    let proxy = Server::start(options).await.unwrap();
    let control = Arc::clone(proxy.control());
    let at = control.addresses().await[0].1;
    assert_eq!(
        Client::get(at, "/").await.reason(),
        "connect_failed",
        "a pinned name is not asked for"
    );

    let resolver = Resolver::with_server(server).unwrap();
    let mut discovery = Discovery::new(resolver, HashMap::new());
    discovery.follow(&control.snapshot()).await;
    assert_eq!(
        Client::get(at, "/").await.text(),
        "127.0.0.1",
        "the first answer is waited for"
    );

    known.lock().unwrap().push(Ipv4Addr::new(127, 0, 0, 2));
    let mut seen = std::collections::BTreeSet::new();
    until("both serve", async || {
        seen.insert(Client::get(at, "/").await.text());
        seen.len() == 2
    })
    .await;
    assert!(seen.contains(&second.ip().to_string()), "{seen:?}");
    *known.lock().unwrap() = vec![Ipv4Addr::new(127, 0, 0, 2)];
    until("only the second is left", async || {
        let snapshot = control.snapshot();
        let set = snapshot.clusters["a"].state.endpoints();
        set.endpoints.len() == 1 && set.endpoints[0].address == second
    })
    .await;
    assert_eq!(Client::get(at, "/").await.text(), "127.0.0.2");
    control.drain(
        Some(std::time::Duration::ZERO),
        Some(std::time::Duration::ZERO),
    );
    tokio::time::timeout(crate::support::PATIENCE, proxy.ended())
        .await
        .expect("the drain ends");
}
