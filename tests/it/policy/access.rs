//! Allow and deny: by address, header and list file; no spelling of a path and no forged address gets around them.

use super::{behind_a_proxy, get, guarded, put};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, until};

const DENIED: &[&str] = &["route=\"r\""];

fn denied(proxy: &Proxy) -> f64 {
    proxy.metric("forebay_access_denied_total", DENIED)
}

#[tokio::test(flavor = "multi_thread")]
async fn deny_comes_first_and_allow_shuts_out_the_rest() {
    let upstream = Upstream::fixed("ok").await;
    let rules = "access: {deny: [10.9.0.0/16, {header: {user-agent: {regex: 'curl.*'}}}], allow: [10.0.0.0/8]}";
    let proxy = Proxy::start(&behind_a_proxy(upstream.address, rules)).await;
    assert_eq!(denied(&proxy), 0.0, "exported from the start");
    for (lines, status) in [
        ("x-forwarded-for: 10.1.2.3\r\n", 200),
        ("x-forwarded-for: 10.9.2.3\r\n", 403),
        ("x-forwarded-for: 192.0.2.1\r\n", 403),
        ("x-forwarded-for: 10.1.2.3\r\nuser-agent: curl/8\r\n", 403),
        (
            "x-forwarded-for: 10.1.2.3\r\nuser-agent: x\r\nuser-agent: curl/8\r\n",
            403,
        ),
        ("x-forwarded-for: 10.1.2.3, 10.9.0.1\r\n", 403),
        ("x-forwarded-for: 10.9.0.1, 10.1.2.3\r\n", 200),
        (
            "x-forwarded-for: 10.9.0.1\r\nx-forwarded-for: 10.1.2.3\r\n",
            200,
        ),
        ("x-forwarded-for: ::ffff:10.9.0.1\r\n", 403),
        ("", 403),
    ] {
        let answer = get(proxy.address(), "/", lines).await;
        assert_eq!(answer.status, status, "{lines}");
        if status == 403 {
            assert_eq!(answer.reason(), "denied");
        }
    }
    assert_eq!(denied(&proxy), 7.0);
    assert_eq!(
        proxy.metric(
            "forebay_requests_total",
            &["route=\"r\"", "reason=\"denied\""]
        ),
        7.0
    );
    assert_eq!(
        proxy.metric("forebay_arrivals_total", &["cluster=\"a\""]),
        3.0
    );
    assert_eq!(upstream.text().matches("GET / ").count(), 3);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_address_is_never_believed() {
    let upstream = Upstream::fixed("ok").await;
    let rules = "access: {allow: [10.0.0.0/8]}";
    let proxy = Proxy::start(&guarded(upstream.address, rules, "")).await;
    for lines in [
        "x-forwarded-for: 10.0.0.1\r\n",
        "x-forwarded-for: 10.0.0.1\r\nconnection: x-forwarded-for\r\n",
        "X_Forwarded_For: 10.0.0.1\r\n",
        "x-real-ip: 10.0.0.1\r\n",
        "forwarded: for=10.0.0.1\r\n",
        "x-forwarded-for: 10.0.0.1, 10.0.0.1\r\nx-forwarded-for: 10.0.0.1\r\n",
        "x-client-ip: 10.0.0.1\r\ntrue-client-ip: 10.0.0.1\r\n",
    ] {
        let answer = get(proxy.address(), "/", lines).await;
        assert_eq!((answer.status, answer.reason()), (403, "denied"), "{lines}");
    }
    assert_eq!(upstream.text(), "");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_serves() {
    let upstream = Upstream::fixed("ok").await;
    let rules = "access: {allow: [], dry_run: true}";
    let proxy = Proxy::start(&guarded(upstream.address, rules, "")).await;
    assert_eq!(Client::get(proxy.address(), "/").await.status, 200);
    assert_eq!(denied(&proxy), 1.0);
    proxy.stop().await;
}

/// Spellings of `/admin/keys` that some server somewhere takes for it.
fn spellings() -> Vec<String> {
    let mut all = Vec::new();
    let escaped = |text: &str, mask: u32| -> String {
        let each = text
            .bytes()
            .enumerate()
            .map(|(i, byte)| match mask >> i & 1 {
                0 => char::from(byte).to_string(),
                _ if mask & 0x8000 != 0 => format!("%{byte:02X}"),
                _ => format!("%{byte:02x}"),
            });
        each.collect()
    };
    for mask in 0..32 {
        for upper in [0, 0x8000] {
            let admin = escaped("admin", mask | upper);
            for path in [
                "/{}/keys",
                "//{}//keys",
                "/./{}/./keys",
                "/x/../{}/keys",
                "/{}/y/%2e%2e/keys",
                "/%2E/{}/keys",
                "/{}/keys?x=1",
                "/x/%2e./{}/keys",
                "/{}/keys/.",
                "/{}/keys/x/..",
            ] {
                all.push(path.replace("{}", &admin));
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_spellings_of_a_denied_path_stay_denied() {
    let upstream = Upstream::fixed("ok").await;
    let text = config(&format!(
        "routes:\n- {{name: secret, match: {{path: {{prefix: /admin}}}}, cluster: a, access: {{allow: []}}}}\n\
         - {{name: rest, cluster: a}}\nclusters: [{{name: a, endpoints: ['{}']}}]\n",
        upstream.address
    ));
    let proxy = Proxy::start(&text).await;
    let mut client = Client::connect(proxy.address()).await;
    let spellings = spellings();
    assert!(spellings.len() >= 500);
    for path in &spellings {
        client
            .send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.reason()), (403, "denied"), "{path}");
    }
    assert_eq!(upstream.text(), "", "not one of them got through");
    for (path, status) in [
        ("/administrator", 200),
        ("/admin%2Fkeys", 400),
        ("/..%2fadmin/keys", 400),
        ("/x/../../admin/keys", 400),
    ] {
        assert_eq!(
            Client::get(proxy.address(), path).await.status,
            status,
            "{path}"
        );
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_file_is_followed_and_a_bad_one_changes_nothing() {
    let upstream = Upstream::fixed("ok").await;
    let dir = tempfile::tempdir().unwrap();
    let (file, list) = (dir.path().join("forebay.yaml"), dir.path().join("deny.txt"));
    put(&list, "# nobody yet\n192.0.2.0/24\n");
    put(
        &file,
        &guarded(upstream.address, "access: {deny: [{file: deny.txt}]}", ""),
    );
    let proxy = Proxy::start_on(&file).await;
    let status = async || Client::get(proxy.address(), "/").await.status;
    assert_eq!(status().await, 200);
    put(&list, "127.0.0.0/8 # everybody here\n");
    until("the new list holds", async || status().await == 403).await;
    let failures = || proxy.metric("forebay_config_reloads_total", &["result=\"failure\""]);
    put(&list, "192.0.2.0/24\n127.0.0.0/33\n");
    until("the bad list is refused", async || failures() >= 1.0).await;
    let error = proxy.control().status().last_error.unwrap();
    assert!(
        error.message.contains("deny.txt:2: `127.0.0.0/33`"),
        "{error:?}"
    );
    assert_eq!(error.line, Some(6), "{error:?}");
    assert_eq!(status().await, 403, "the last good list holds");
    let before = failures();
    std::fs::remove_file(&list).unwrap();
    until("the missing list is refused", async || failures() > before).await;
    assert_eq!(status().await, 403, "the last good list holds");
    put(&list, "");
    until("an empty list denies nobody", async || {
        status().await == 200
    })
    .await;
    assert!(denied(&proxy) >= 3.0, "counters outlive reloads");
    proxy.stop().await;
}
