use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{DnsError, Family, Resolution, Resolver, files, follow};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the server does with a question.
#[derive(Clone)]
enum Reply {
    Records(Vec<IpAddr>, u32),
    Alias(&'static str, Vec<IpAddr>, u32),
    NoData,
    Error(ResponseCode),
    Silence,
    /// Over UDP only the truncation bit, the records over TCP.
    Truncated(Vec<IpAddr>),
}

type Zone = Arc<Mutex<HashMap<(String, RecordType), Reply>>>;

/// A name server on UDP and TCP at the same port; names it does not know do not exist.
struct Server {
    address: SocketAddr,
    zone: Zone,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let server = Self {
            address: udp.local_addr().unwrap(),
            zone: Zone::default(),
            asked: Arc::default(),
        };
        let (zone, asked) = (Arc::clone(&server.zone), Arc::clone(&server.asked));
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.unwrap();
                if let Some(reply) = reply(&zone, &asked, &buffer[..length], false) {
                    udp.send_to(&reply, peer).await.unwrap();
                }
            }
        });
        let (zone, asked) = (Arc::clone(&server.zone), Arc::clone(&server.asked));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let (zone, asked) = (Arc::clone(&zone), Arc::clone(&asked));
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; length.into()];
                        stream.read_exact(&mut question).await.unwrap();
                        if let Some(reply) = reply(&zone, &asked, &question, true) {
                            stream
                                .write_u16(reply.len().try_into().unwrap())
                                .await
                                .unwrap();
                            stream.write_all(&reply).await.unwrap();
                        }
                    }
                });
            }
        });
        server
    }

    fn set(&self, name: &str, family: RecordType, reply: Reply) {
        self.zone
            .lock()
            .unwrap()
            .insert((name.to_owned(), family), reply);
    }

    fn both(&self, name: &str, reply: &Reply) {
        self.set(name, RecordType::A, reply.clone());
        self.set(name, RecordType::AAAA, reply.clone());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn resolver(&self) -> Resolver {
        Resolver::with_server(self.address).unwrap()
    }
}

fn reply(zone: &Zone, asked: &Mutex<Vec<String>>, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries[0].clone();
    let (name, family) = (query.name().clone(), query.query_type());
    asked.lock().unwrap().push(format!("{name} {family}"));
    let reply = zone
        .lock()
        .unwrap()
        .get(&(name.to_string(), family))
        .cloned();
    let mut message = question.into_response();
    let records = |owner: &Name, ips: &[IpAddr], ttl| {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == (family == RecordType::A);
        let record = |ip: &IpAddr| Record::from_rdata(owner.clone(), ttl, RData::from(*ip));
        ips.iter().filter(of_family).map(record).collect::<Vec<_>>()
    };
    match reply {
        Some(Reply::Silence) => return None,
        Some(Reply::Records(ips, ttl)) => drop(message.add_answers(records(&name, &ips, ttl))),
        Some(Reply::Alias(target, ips, ttl)) => {
            let target = Name::from_ascii(target).unwrap();
            message.add_answer(Record::from_rdata(
                name.clone(),
                ttl,
                RData::CNAME(CNAME(target.clone())),
            ));
            message.add_answers(records(&target, &ips, 600));
        }
        Some(Reply::Truncated(ips)) if tcp => drop(message.add_answers(records(&name, &ips, 60))),
        Some(Reply::Truncated(_)) => message.metadata.truncation = true,
        Some(Reply::Error(code)) => message.metadata.response_code = code,
        Some(Reply::NoData) => drop(message.add_authority(soa())),
        None => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(soa());
        }
    }
    Some(message.to_vec().unwrap())
}

fn soa() -> Record {
    let zone = Name::from_ascii("example.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 60, 60, 60, 2);
    Record::from_rdata(zone, 2, RData::SOA(soa))
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses
        .iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

fn sockets(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

#[tokio::test]
async fn both_families_are_asked_and_merged_with_the_shorter_time_to_live() {
    let server = Server::start().await;
    server.set(
        "m.example.",
        RecordType::A,
        Reply::Records(ips(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]), 90),
    );
    server.set(
        "m.example.",
        RecordType::AAAA,
        Reply::Records(ips(&["fd00::1"]), 30),
    );
    let answer = server.resolver().lookup("m.example").await.unwrap();
    assert_eq!(answer.addresses, ips(&["10.0.0.1", "10.0.0.2", "fd00::1"]));
    assert_eq!(
        (answer.valid_for, answer.failed),
        (Duration::from_secs(30), None)
    );
}

#[tokio::test]
async fn the_time_to_live_is_kept_within_a_second_and_five_minutes_and_an_alias_counts() {
    let server = Server::start().await;
    let resolver = server.resolver();
    for (ttl, expected) in [(0, 1), (7, 7), (86400, 300)] {
        server.both(
            "m.example.",
            &Reply::Records(ips(&["10.0.0.1", "fd00::1"]), ttl),
        );
        let answer = resolver.lookup("m.example").await.unwrap();
        assert_eq!(answer.valid_for, Duration::from_secs(expected));
    }
    server.both(
        "alias.example.",
        &Reply::Alias("m.example.", ips(&["10.0.0.9", "fd00::9"]), 20),
    );
    let answer = resolver.lookup("alias.example").await.unwrap();
    assert_eq!(answer.addresses, ips(&["10.0.0.9", "fd00::9"]));
    assert_eq!(answer.valid_for, Duration::from_secs(20));
}

#[tokio::test]
async fn a_new_answer_is_seen_although_the_old_one_is_still_valid() {
    let server = Server::start().await;
    let resolver = server.resolver();
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        server.set(
            "m.example.",
            RecordType::A,
            Reply::Records(ips(&[address]), 3600),
        );
        server.set("m.example.", RecordType::AAAA, Reply::NoData);
        assert_eq!(
            resolver.lookup("m.example").await.unwrap().addresses,
            ips(&[address])
        );
    }
    server.both("m.example.", &Reply::NoData);
    assert!(
        resolver
            .lookup("m.example")
            .await
            .unwrap()
            .addresses
            .is_empty()
    );
    server.set(
        "m.example.",
        RecordType::A,
        Reply::Records(ips(&["10.0.0.4"]), 3600),
    );
    assert_eq!(
        resolver.lookup("m.example").await.unwrap().addresses,
        ips(&["10.0.0.4"])
    );
}

#[tokio::test]
async fn no_such_name_and_no_address_are_empty_answers_and_errors_are_errors() {
    let server = Server::start().await;
    let resolver = server.resolver();
    let gone = resolver.lookup("gone.example").await.unwrap();
    assert_eq!(
        (gone.addresses, gone.valid_for),
        (vec![], Duration::from_secs(2))
    );
    server.both("empty.example.", &Reply::NoData);
    assert!(
        resolver
            .lookup("empty.example")
            .await
            .unwrap()
            .addresses
            .is_empty()
    );
    server.both("broken.example.", &Reply::Error(ResponseCode::ServFail));
    let error = resolver.lookup("broken.example").await.unwrap_err();
    assert!(matches!(error, DnsError::Refused { .. }), "{error}");
    server.both("silent.example.", &Reply::Silence);
    let error = resolver.lookup("silent.example").await.unwrap_err();
    assert!(matches!(error, DnsError::Unreachable { .. }), "{error}");
    for bad in ["", ".", "a..b"] {
        let error = resolver.lookup(bad).await.unwrap_err();
        assert!(matches!(error, DnsError::BadName(_)), "{bad:?}: {error}");
    }
}

#[tokio::test]
async fn one_failing_family_does_not_fail_the_other() {
    let server = Server::start().await;
    server.set(
        "m.example.",
        RecordType::A,
        Reply::Records(ips(&["10.0.0.1"]), 60),
    );
    server.set(
        "m.example.",
        RecordType::AAAA,
        Reply::Error(ResponseCode::ServFail),
    );
    let answer = server.resolver().lookup("m.example").await.unwrap();
    assert_eq!(
        (answer.addresses, answer.failed),
        (ips(&["10.0.0.1"]), Some(Family::V6))
    );
    assert_eq!(answer.valid_for, Duration::from_secs(5));
    server.set("m.example.", RecordType::A, Reply::NoData);
    assert!(
        server.resolver().lookup("m.example").await.is_err(),
        "half an answer without an address is none"
    );
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let server = Server::start().await;
    let many: Vec<IpAddr> = (1..=200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    server.set("m.example.", RecordType::A, Reply::Truncated(many.clone()));
    server.set("m.example.", RecordType::AAAA, Reply::NoData);
    assert_eq!(
        server
            .resolver()
            .lookup("m.example")
            .await
            .unwrap()
            .addresses,
        many
    );
}

#[tokio::test]
async fn literals_and_localhost_ask_nobody() {
    let server = Server::start().await;
    let resolver = server.resolver();
    assert_eq!(
        resolver.lookup("10.1.2.3").await.unwrap().addresses,
        ips(&["10.1.2.3"])
    );
    assert_eq!(
        resolver.lookup("[fd00::1]").await.unwrap().addresses,
        ips(&["fd00::1"])
    );
    for name in ["localhost", "LOCALHOST.", "a.localhost"] {
        let answer = resolver.lookup(name).await.unwrap();
        assert!(answer.addresses.iter().all(IpAddr::is_loopback) && !answer.addresses.is_empty());
    }
    assert_eq!(server.asked(), [""; 0]);
}

/// A resolver over files of its own, whose only name server is `server`.
fn with_files(server: &Server, dir: &Path, resolv_conf: &str, hosts: &str) -> Resolver {
    std::fs::write(dir.join("hosts"), hosts).unwrap();
    let (config, options) = files::resolv_conf(resolv_conf.as_bytes()).unwrap();
    let (domain, search, _) = config.into_parts();
    let server = vec![super::name_server(server.address)];
    let config = super::ResolverConfig::from_parts(domain, search, server);
    let client = Arc::new(super::Client::new(config, options).unwrap());
    Resolver(Arc::new(super::Inner {
        servers: super::Servers::Fixed(client),
        hosts: dir.join("hosts"),
        overrides: HashMap::new(),
    }))
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_anew() {
    let server = Server::start().await;
    let dir = TempDir::new().unwrap();
    let resolver = with_files(
        &server,
        dir.path(),
        "",
        "127.0.0.1 localhost\n10.0.0.7 gpu\n",
    );
    assert_eq!(
        resolver.lookup("gpu").await.unwrap().addresses,
        ips(&["10.0.0.7"])
    );
    assert_eq!(
        resolver.lookup("localhost").await.unwrap().addresses,
        ips(&["127.0.0.1"])
    );
    std::fs::write(dir.path().join("hosts"), "10.0.0.8 gpu\n").unwrap();
    assert_eq!(
        resolver.lookup("gpu").await.unwrap().addresses,
        ips(&["10.0.0.8"])
    );
    assert_eq!(
        resolver.lookup("localhost").await.unwrap().addresses,
        ips(&["127.0.0.1", "::1"])
    );
    assert_eq!(server.asked(), [""; 0]);
}

#[tokio::test]
async fn search_domains_are_tried_as_resolv_conf_says() {
    let server = Server::start().await;
    let dir = TempDir::new().unwrap();
    let conf =
        "search ml.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:1 attempts:1\n";
    let resolver = with_files(&server, dir.path(), conf, "");
    server.both(
        "resnet.ml.svc.cluster.local.",
        &Reply::Records(ips(&["10.0.0.1", "fd00::1"]), 5),
    );
    assert_eq!(
        resolver.lookup("resnet.ml").await.unwrap().addresses,
        ips(&["10.0.0.1", "fd00::1"])
    );
    let names: Vec<String> = server.asked();
    assert!(
        names[0].starts_with("resnet.ml.ml.svc.cluster.local. "),
        "{names:?}"
    );
    assert_eq!(names.len(), 4, "{names:?}");

    // A trailing dot means no search.
    server.asked.lock().unwrap().clear();
    assert!(
        resolver
            .lookup("resnet.ml.")
            .await
            .unwrap()
            .addresses
            .is_empty()
    );
    assert_eq!(server.asked().len(), 2);

    // An error on the way leaves it open whether the name exists; an answer later on still counts.
    server.both(
        "other.ml.svc.cluster.local.",
        &Reply::Error(ResponseCode::ServFail),
    );
    assert!(resolver.lookup("other").await.is_err());
    server.both("other.", &Reply::Records(ips(&["10.0.0.2", "fd00::2"]), 5));
    assert_eq!(
        resolver.lookup("other").await.unwrap().addresses,
        ips(&["10.0.0.2", "fd00::2"])
    );
}

#[tokio::test]
async fn a_missing_or_changed_resolv_conf_is_coped_with() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("resolv.conf");
    let resolver = Resolver::from_files(path.clone(), dir.path().join("hosts")).unwrap();
    let servers = |resolver: &Resolver, text: Option<&[u8]>| {
        Arc::as_ptr(&resolver.0.client(text.map(<[u8]>::to_vec)).unwrap())
    };
    let missing = servers(&resolver, None);
    assert_eq!(missing, servers(&resolver, None));
    let text: &[u8] = b"nameserver 127.0.0.1\n";
    let present = servers(&resolver, Some(text));
    assert_ne!(missing, present);
    assert_eq!(present, servers(&resolver, Some(text)));
}

async fn wait_for(
    rx: &mut watch::Receiver<Resolution>,
    mut wanted: impl FnMut(&Resolution) -> bool,
) -> Resolution {
    timeout(PATIENCE, rx.wait_for(|known| wanted(known)))
        .await
        .expect("in time")
        .unwrap()
        .clone()
}

#[tokio::test]
async fn following_a_name_publishes_changes_and_keeps_the_last_good_addresses() {
    let server = Server::start().await;
    server.set("m.example.", RecordType::AAAA, Reply::NoData);
    server.set(
        "m.example.",
        RecordType::A,
        Reply::Records(ips(&["10.0.0.2", "10.0.0.1"]), 60),
    );
    let (tx, mut rx) = watch::channel(Resolution::default());
    let refresh = Duration::from_millis(100);
    let task = tokio::spawn(follow(
        server.resolver(),
        "m.example".to_owned(),
        80,
        refresh,
        tx,
    ));

    let two = sockets(&["10.0.0.1:80", "10.0.0.2:80"]);
    let known = wait_for(&mut rx, |known| known.answered).await;
    assert_eq!((known.addresses, known.error), (two.clone(), None));

    server.both("m.example.", &Reply::Error(ResponseCode::ServFail));
    let known = wait_for(&mut rx, |known| known.error.is_some()).await;
    assert_eq!(known.addresses, two, "the last good ones");

    server.both(
        "m.example.",
        &Reply::Records(ips(&["10.0.0.3", "fd00::3"]), 60),
    );
    let known = wait_for(&mut rx, |known| known.error.is_none()).await;
    assert_eq!(known.addresses, sockets(&["10.0.0.3:80", "[fd00::3]:80"]));

    server.set(
        "m.example.",
        RecordType::AAAA,
        Reply::Error(ResponseCode::ServFail),
    );
    server.set(
        "m.example.",
        RecordType::A,
        Reply::Records(ips(&["10.0.0.4"]), 60),
    );
    let expected = sockets(&["10.0.0.4:80", "[fd00::3]:80"]);
    wait_for(&mut rx, |known| known.addresses == expected).await;

    server.zone.lock().unwrap().clear();
    let known = wait_for(&mut rx, |known| known.addresses.is_empty()).await;
    assert!(known.answered && known.error.is_none());

    drop(rx);
    timeout(PATIENCE, task)
        .await
        .expect("it ends with its receivers")
        .unwrap();
}

#[tokio::test]
async fn a_pinned_name_is_never_asked() {
    let server = Server::start().await;
    let pinned = HashMap::from([(("M.example".to_owned(), 443), sockets(&["127.0.0.1:9"])[0])]);
    let resolver = server.resolver().with_overrides(pinned);
    let (tx, mut rx) = watch::channel(Resolution::default());
    let refresh = Duration::from_millis(100);
    let task = tokio::spawn(follow(resolver, "m.example.".to_owned(), 443, refresh, tx));
    let known = wait_for(&mut rx, |known| known.answered).await;
    assert_eq!(known.addresses, sockets(&["127.0.0.1:9"]));
    assert_eq!(server.asked(), [""; 0]);
    drop(rx);
    timeout(PATIENCE, task).await.unwrap().unwrap();
}
