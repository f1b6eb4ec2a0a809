//! Real handshakes over memory.

use std::fs;
use std::sync::Arc;
use std::time::SystemTime;

use forebay_config::{ClientTls, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::{ClientConfig, SignatureScheme};

use super::client::{self, client_config};
use super::testing::{Authority, at, expired, meet, params, serving};
use super::*;

fn trusting(authority: &Authority) -> Arc<ClientConfig> {
    client_config(&authority.client(), ALPN_HTTP).unwrap()
}

fn load(tls: &ServerTls) -> ServerTlsState {
    ServerTlsState::load(tls, ALPN_HTTP).unwrap()
}

fn refusal(tls: &ServerTls) -> TlsError {
    ServerTlsState::load(tls, ALPN_HTTP).unwrap_err()
}

#[tokio::test]
async fn the_certificate_is_chosen_by_sni() {
    let authority = Authority::new();
    let first = authority.issue("first", &["default.test"]);
    let exact = authority.issue("exact", &["a.wild.test", "b.test"]);
    let wild = authority.issue("wild", &["*.wild.test", "a.wild.test"]);
    let state = load(&serving(vec![first.clone(), wild.clone(), exact.clone()]));
    let certificates = || (state.config(), trusting(&authority));

    for (name, expected) in [
        ("default.test", &first),
        ("b.test", &exact),
        ("B.TEST", &exact),
        ("x.wild.test", &wild),
        ("a.wild.test", &wild), // both have it: file order
    ] {
        let (server, client) = certificates();
        let met = meet(server, client, name).await.unwrap();
        assert!(met.saw(expected), "{name}");
    }
    // A wildcard stands for one label, and never for its parent: the default is shown, the client refuses it.
    for name in ["x.y.wild.test", "wild.test", "elsewhere.test"] {
        let (server, client) = certificates();
        let error = meet(server, client, name).await.err().unwrap();
        assert!(error.contains("NotValidForName"), "{error}");
        assert!(error.contains("default.test"), "{error}");
    }
}

#[tokio::test]
async fn an_exact_name_wins_over_an_earlier_wildcard() {
    let authority = Authority::new();
    let wild = authority.issue("wild", &["*.w.test"]);
    let exact = authority.issue("exact", &["a.w.test"]);
    let state = load(&serving(vec![wild.clone(), exact.clone()]));
    let shown = async |name| {
        meet(state.config(), trusting(&authority), name)
            .await
            .unwrap()
    };
    assert!(shown("a.w.test").await.saw(&exact));
    assert!(shown("b.w.test").await.saw(&wild));
}

#[tokio::test]
async fn of_two_certificates_for_a_name_the_client_gets_one_it_can_verify() {
    let authority = Authority::new();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let modern = authority.issue_for("modern", &["a.test"], ed25519);
    let common = authority.issue("common", &["a.test"]);
    let state = load(&serving(vec![modern.clone(), common.clone()]));
    let met = meet(state.config(), trusting(&authority), "a.test").await;
    assert!(met.unwrap().saw(&modern));

    let mut provider = rustls::crypto::ring::default_provider();
    let mapping = provider.signature_verification_algorithms.mapping;
    let without: Vec<_> = mapping
        .iter()
        .filter(|(scheme, _)| *scheme != SignatureScheme::ED25519)
        .copied()
        .collect();
    provider.signature_verification_algorithms.mapping = without.leak();
    let ca = authority.path("ca.crt");
    let roots = files::roots(&ca, &fs::read(&ca).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let met = meet(state.config(), Arc::new(client), "a.test").await;
    assert!(met.unwrap().saw(&common));
}

#[tokio::test]
async fn alpn_is_agreed_left_out_or_refused() {
    let authority = Authority::new();
    let tls = serving(vec![authority.issue("a", &["a.test"])]);
    let agreed = async |ours: &[&[u8]], theirs: &[&[u8]]| {
        let state = ServerTlsState::load(&tls, ours).unwrap();
        let client = client_config(&authority.client(), theirs).unwrap();
        let met = meet(state.config(), client, "a.test").await?;
        Ok::<_, String>(met.alpn().map(<[u8]>::to_vec))
    };
    let h2 = Some(b"h2".to_vec());
    let http1 = Some(b"http/1.1".to_vec());
    assert_eq!(agreed(ALPN_HTTP, ALPN_HTTP).await.unwrap(), h2);
    assert_eq!(agreed(ALPN_HTTP, &[b"http/1.1", b"h2"]).await.unwrap(), h2);
    assert_eq!(agreed(ALPN_HTTP, ALPN_HTTP1).await.unwrap(), http1);
    assert_eq!(agreed(ALPN_HTTP, ALPN_NONE).await.unwrap(), None);
    assert_eq!(agreed(ALPN_NONE, ALPN_HTTP).await.unwrap(), None);
    let refused = agreed(ALPN_HTTP, &[b"spdy/3"]).await.unwrap_err();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[tokio::test]
async fn a_client_ca_makes_certificates_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut tls = serving(vec![authority.issue("a", &["a.test"])]);
    tls.client_ca = Some(authority.path("ca.crt"));
    let state = load(&tls);
    let with = async |client: ClientTls| {
        let client = client_config(&client, ALPN_HTTP).unwrap();
        meet(state.config(), client, "a.test").await
    };
    let good = authority.issue("client", &["client.test"]);
    let met = with(authority.client_with(&good)).await.unwrap();
    let connection = met.server.get_ref().1;
    assert!(client_is_current(connection, SystemTime::now()));
    assert!(!client_is_current(connection, at(1 << 40)));
    assert!(with(authority.client()).await.is_err());
    let bad = stranger.issue("client", &["client.test"]);
    assert!(with(authority.client_with(&bad)).await.is_err());
}

#[tokio::test]
async fn sessions_survive_a_rotation_but_not_a_change_of_the_client_ca() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut tls = serving(vec![authority.issue("a", &["a.test"])]);
    tls.client_ca = Some(authority.path("ca.crt"));
    let state = load(&tls);
    let pair = authority.issue("client", &["client.test"]);
    let client = client_config(&authority.client_with(&pair), ALPN_HTTP).unwrap();
    let again = async || meet(state.config(), Arc::clone(&client), "a.test").await;

    assert!(!again().await.unwrap().resumed());
    let resumed = again().await.unwrap();
    assert!(resumed.resumed());
    let connection = resumed.server.get_ref().1;
    assert!(!client_is_current(connection, at(1 << 40)));
    assert_eq!(state.config().max_early_data_size, 0);
    authority.issue("a", &["a.test"]);
    assert!(state.reload(&tls).unwrap());
    assert!(again().await.unwrap().resumed());

    // Now somebody else's clients are asked for: the old ticket must not let this one in.
    tls.client_ca = Some(other.path("ca.crt"));
    assert!(state.reload(&tls).unwrap());
    assert!(again().await.is_err());

    // Both are trusted: it may come in again, but by showing its certificate.
    let both = [authority.path("ca.crt"), other.path("ca.crt")].map(|ca| fs::read(ca).unwrap());
    tls.client_ca = Some(authority.write("both.crt", both.concat()));
    assert!(state.reload(&tls).unwrap());
    assert!(!again().await.unwrap().resumed());
    assert!(again().await.unwrap().resumed());

    // The same file with other contents counts as a change too.
    authority.write("both.crt", &both[0]);
    assert!(state.reload(&tls).unwrap());
    assert!(!again().await.unwrap().resumed());
}

#[tokio::test]
async fn resumption_of_tls_12_ends_with_the_client_ca_too() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut tls = serving(vec![authority.issue("a", &["a.test"])]);
    tls.client_ca = Some(authority.path("ca.crt"));
    let state = load(&tls);
    let pair = authority.issue("client", &["client.test"]);
    let (ca, certificate, key) = (authority.path("ca.crt"), pair.certificate, pair.key);
    let roots = files::roots(&ca, &fs::read(&ca).unwrap()).unwrap();
    let shown = files::certified_key(&mut files::Reader::default(), &certificate, &key).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)));
    let client = Arc::new(client);
    let again = async || meet(state.config(), Arc::clone(&client), "a.test").await;
    assert!(!again().await.unwrap().resumed());
    assert!(again().await.unwrap().resumed());
    tls.client_ca = Some(other.path("ca.crt"));
    assert!(state.reload(&tls).unwrap());
    assert!(again().await.is_err());
}

#[tokio::test]
async fn a_hundred_rotations_leave_old_connections_alone() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let tls = serving(vec![pair.clone()]);
    let state = load(&tls);
    let client = trusting(&authority);
    let connect = async || meet(state.config(), Arc::clone(&client), "a.test").await;
    let mut old = connect().await.unwrap();
    for _ in 0..100 {
        authority.issue("a", &["a.test"]);
        assert!(state.reload(&tls).unwrap());
        assert!(!state.reload(&tls).unwrap(), "nothing changed since");
        let fresh = trusting(&authority); // no session to resume: sees the certificate of now
        let met = meet(state.config(), fresh, "a.test").await.unwrap();
        assert!(met.saw(&pair));
        old.ping().await.unwrap();
    }
    connect().await.unwrap();
}

#[tokio::test]
async fn half_written_files_keep_the_old_pair() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let tls = serving(vec![pair.clone()]);
    let state = load(&tls);
    let before = state.config();
    let (certificate, key) = authority.pems(&["a.test"], KeyPair::generate().unwrap());

    let refused = |file: &str, contents: &[u8], at: &std::path::Path, why: &str| {
        authority.write(file, contents);
        let error = state.reload(&tls).unwrap_err();
        assert_eq!(error.path.as_deref(), Some(at), "{error}");
        assert!(error.message.contains(why), "{error}");
        assert!(Arc::ptr_eq(&state.config(), &before));
    };
    let half = &certificate.as_bytes()[..certificate.len() / 2];
    refused("a.crt", half, &pair.certificate, "cut off");
    refused("a.crt", b"", &pair.certificate, "no certificate in it");
    // The new certificate is complete, the key is still the old one, then half the new one.
    let whole = certificate.as_bytes();
    refused("a.crt", whole, &pair.key, "does not match");
    refused("a.key", &key.as_bytes()[..60], &pair.key, "cut off");
    refused("a.key", b"", &pair.key, "no private key in it");

    authority.write("a.key", &key);
    assert!(state.reload(&tls).unwrap());
    let met = meet(state.config(), trusting(&authority), "a.test").await;
    assert!(met.unwrap().saw(&pair));
}

#[test]
fn every_error_names_the_file_and_what_is_wrong() {
    let authority = Authority::new();
    let good = authority.issue("good", &["a.test"]);
    let ca = authority.path("ca.crt");
    let broken_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cases = [
        ("missing.crt", None, true, "no such file"),
        ("der.crt", Some(broken_der), true, "not a valid X.509"),
        ("junk.crt", Some("hello"), true, "no certificate in it"),
        ("missing.key", None, false, "no such file"),
        ("encrypted.key", Some(encrypted), false, "passphrase"),
        ("junk.key", Some("hello"), false, "no private key in it"),
    ];
    for (file, contents, is_certificate, why) in cases {
        if let Some(contents) = contents {
            authority.write(file, contents);
        }
        let mut pair = good.clone();
        let place = match is_certificate {
            true => &mut pair.certificate,
            false => &mut pair.key,
        };
        *place = authority.path(file);
        let error = refusal(&serving(vec![pair]));
        assert_eq!(error.path, Some(authority.path(file)));
        assert!(error.message.contains(why), "{error}");
        assert!(error.to_string().contains(file), "{error}");
    }
    let mut directory = good.clone();
    directory.certificate = authority.path("");
    let error = refusal(&serving(vec![directory]));
    assert_eq!(error.message, "is not a regular file");
    let mut tls = serving(vec![good]);
    tls.client_ca = Some(authority.write("ca.crt", broken_der));
    let error = refusal(&tls);
    assert_eq!(error.path, Some(ca));
    assert!(error.message.contains("certificate 1: "), "{error}");
}

#[test]
fn an_expired_certificate_is_only_warned_about() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let certificate = expired(&["a.test"]).self_signed(&key).unwrap();
    let mut pair = authority.issue("live", &["b.test"]);
    let live = pair.clone();
    pair.certificate = authority.write("old.crt", certificate.pem());
    pair.key = authority.write("old.key", key.serialize_pem());
    let state = load(&serving(vec![live, pair]));
    let end_of_2001 = at(1_009_843_200);
    assert_eq!(state.expires_at(), Some(end_of_2001));
    let warnings = state.current().warnings(SystemTime::now());
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("old.crt: the certificate expired"));
    let warnings = state.current().warnings(at(0));
    assert!(warnings.iter().all(|text| text.contains("not valid yet")));
    assert!(!warnings.is_empty());
}

#[test]
fn a_request_for_another_name_needs_a_certificate_good_for_both() {
    let authority = Authority::new();
    let shared = authority.issue("shared", &["a.test", "*.w.test", "10.0.0.1"]);
    let alone = authority.issue("alone", &["alone.test"]);
    let loaded = load(&serving(vec![shared, alone])).current();
    for (sni, host, fine) in [
        (Some("a.test"), "a.test", true),
        (Some("A.Test"), "a.test", true),
        (Some("a.test"), "x.w.test", true),
        (Some("x.w.test"), "a.test", true),
        (Some("a.test"), "x.y.w.test", false),
        (Some("a.test"), "w.test", false),
        (Some("a.test"), "alone.test", false),
        (Some("alone.test"), "a.test", false),
        (Some("alone.test"), "alone.test", true),
        (Some("unknown.test"), "unknown.test", true), // the client took the default for it
        (Some("unknown.test"), "a.test", true),
        (Some("unknown.test"), "alone.test", false),
        (Some("a.test"), "10.0.0.1", true),
        (Some("a.test"), "10.0.0.2", false),
        (None, "a.test", true),
        (None, "alone.test", false),
        (None, "10.9.9.9", true),
        (None, "[::1]", true),
        (None, "", false),
        (Some("a.test"), "not a name", false),
    ] {
        assert_eq!(loaded.covers(sni, host), fine, "{sni:?} {host}");
    }
}

#[test]
fn files_to_watch_are_listed_once() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let mut tls = serving(vec![pair.clone(), pair.clone()]);
    tls.client_ca = Some(authority.path("ca.crt"));
    let expected = vec![pair.certificate, pair.key, authority.path("ca.crt")];
    assert_eq!(load(&tls).files(), expected);
}

#[tokio::test]
async fn without_client_certificates_nothing_can_go_stale() {
    let authority = Authority::new();
    let state = load(&serving(vec![authority.issue("a", &["a.test"])]));
    let met = meet(state.config(), trusting(&authority), "a.test").await;
    let met = met.unwrap();
    assert!(client_is_current(met.server.get_ref().1, at(1 << 40)));
}

#[test]
fn a_client_configuration_notices_changed_files() {
    let authority = Authority::new();
    let pair = authority.issue("client", &["client.test"]);
    let tls = authority.client_with(&pair);
    let before = client::fingerprint(&tls).unwrap();
    assert_eq!(client::fingerprint(&tls).unwrap(), before);
    assert_eq!(client::files_of(&tls).len(), 3);
    authority.issue("client", &["client.test"]);
    assert_ne!(client::fingerprint(&tls).unwrap(), before);
    fs::remove_file(&pair.key).unwrap();
    let error = client_config(&tls, ALPN_HTTP).unwrap_err();
    assert_eq!(error.path, Some(pair.key));
}

#[test]
fn the_name_looked_for_is_the_endpoints_unless_configured() {
    let named = ClientTls {
        server_name: Some("m.example.com".to_owned()),
        ..ClientTls::default()
    };
    let plain = ClientTls::default();
    let name = |tls, host| {
        client::server_name(tls, host)
            .unwrap()
            .to_str()
            .into_owned()
    };
    assert_eq!(name(&named, "10.0.0.1"), "m.example.com");
    assert_eq!(name(&plain, "host.example."), "host.example");
    assert_eq!(name(&plain, "10.0.0.1"), "10.0.0.1");
    assert_eq!(name(&plain, "[::1]"), "::1");
    assert!(client::server_name(&plain, "no name").is_err());
}

#[tokio::test]
async fn a_self_signed_server_is_trusted_only_as_the_very_certificate_listed() {
    let authority = Authority::new();
    let self_signed = |stem: &str, mut params: CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained); // as `openssl req -x509` does
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        forebay_config::CertificateFiles {
            certificate: authority.write(&format!("{stem}.crt"), certificate.pem()),
            key: authority.write(&format!("{stem}.key"), key.serialize_pem()),
        }
    };
    let listed = self_signed("listed", params(&["a.test"]));
    let stranger = self_signed("stranger", params(&["a.test"]));
    let stale = self_signed("stale", expired(&["a.test"]));
    let attempt = async |shown: &forebay_config::CertificateFiles,
                         trusted: &forebay_config::CertificateFiles,
                         name: &str| {
        let tls = ClientTls {
            ca: Some(trusted.certificate.clone()),
            ..ClientTls::default()
        };
        let client = client_config(&tls, ALPN_HTTP).unwrap();
        meet(load(&serving(vec![shown.clone()])).config(), client, name).await
    };
    assert!(attempt(&listed, &listed, "a.test").await.is_ok());
    assert!(attempt(&listed, &listed, "b.test").await.is_err());
    assert!(attempt(&stranger, &listed, "a.test").await.is_err());
    assert!(attempt(&stale, &stale, "a.test").await.is_err());
}

#[tokio::test]
async fn servers_of_another_authority_are_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let state = load(&serving(vec![stranger.issue("a", &["a.test"])]));
    let error = meet(state.config(), trusting(&authority), "a.test")
        .await
        .err()
        .unwrap();
    assert!(error.contains("UnknownIssuer"), "{error}");
}
