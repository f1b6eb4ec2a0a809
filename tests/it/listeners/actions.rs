//! Paths, redirects, fixed answers, rewrites, header edits and split shares.

use super::{forward, head_with, with};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, respond};

/// Asks and returns the head that the upstream got.
async fn forwarded(proxy: &Proxy, upstream: &Upstream, request: &str) -> String {
    let mark = format!("x-mark: {}\r\n\r\n", request.len() + upstream.text().len());
    let marked = request.strip_suffix("\r\n").unwrap().to_owned() + &mark;
    let answer = Client::once(proxy.address(), marked).await;
    assert_eq!(answer.status, 200, "{request:?}: {answer:?}");
    head_with(upstream, mark.trim_end())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_escaped_slash_is_refused_or_stays_what_it_is() {
    let upstream = Upstream::fixed("ok").await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n");
    let proxy = Proxy::start(&with("", &forward(upstream.address))).await;
    for path in ["/a%2Fb", "/a%2fb", "/a%5Cb", "/%00", "/%zz", "/a/../../b"] {
        let answer = Client::once(proxy.address(), get(path)).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (400, "bad_path"),
            "{path}"
        );
    }
    for (sent, seen) in [
        ("/a//b", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("/%61%7E%3b", "/a~%3B"),
        ("/a?x=%2F//", "/a?x=%2F//"),
    ] {
        let head = forwarded(&proxy, &upstream, &get(sent)).await;
        assert!(head.starts_with(&format!("GET {seen} ")), "{sent}: {head}");
    }
    proxy.stop().await;

    let rest = format!(
        "routes:\n- {{name: inner, match: {{path: {{prefix: /a/b}}}}, respond: {{status: 418}}}}\n\
         - {{name: r, match: {{path: {{prefix: '/a%2Fb'}}}}, cluster: a}}\n\
         - {{name: rest, cluster: a, response_headers: {{set: {{x-route: rest}}}}}}\n\
         clusters: [{{name: a, endpoints: ['{}']}}]\n",
        upstream.address
    );
    let proxy = Proxy::start(&with(
        "path: {encoded_slash: keep, merge_slashes: false}",
        &rest,
    ))
    .await;
    for (sent, seen) in [
        ("/a%2fb/c", "/a%2Fb/c"),
        ("/x%5cy", "/x%5Cy"),
        ("/x//y", "/x//y"),
        ("/x%2F../y", "/x%2F../y"),
    ] {
        let head = forwarded(&proxy, &upstream, &get(sent)).await;
        assert!(head.starts_with(&format!("GET {seen} ")), "{sent}: {head}");
    }
    assert_eq!(Client::get(proxy.address(), "/a/b").await.status, 418);
    assert_eq!(
        Client::get(proxy.address(), "/a%2Fb")
            .await
            .header("x-route"),
        None
    );
    assert_eq!(
        Client::get(proxy.address(), "/a%2Fbc")
            .await
            .header("x-route"),
        Some("rest")
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_keep_what_they_do_not_name() {
    let proxy = Proxy::start(&config(
        "routes:\n\
         - {name: all, match: {path: {exact: /all}}, redirect: {scheme: https, host: h.example, path: /new, status: 308}}\n\
         - {name: https, match: {path: {prefix: /https}}, redirect: {scheme: https, status: 301}}\n\
         - {name: host, match: {path: {prefix: /host}}, redirect: {host: h.example}}\n\
         - {name: path, match: {path: {prefix: /path}}, redirect: {path: /new, status: 307}}\nclusters: []\n",
    ))
    .await;
    let port = proxy.address().port();
    for (target, status, location) in [
        ("/all?q=1", 308, "https://h.example/new?q=1".to_owned()),
        (
            "/https/a%20b?q=%2F",
            301,
            "https://t.example/https/a%20b?q=%2F".to_owned(),
        ),
        ("/host/x", 302, format!("http://h.example:{port}/host/x")),
        ("/path?q", 307, format!("http://t.example:{port}/new?q")),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nhost: T.example:{port}\r\n\r\n");
        let answer = Client::once(proxy.address(), request).await;
        assert_eq!(
            (answer.status, answer.header("location").unwrap()),
            (status, &*location),
            "{target}"
        );
        assert_eq!(answer.header("x-forebay-reason"), None);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_answers_are_what_the_file_says() {
    let proxy = Proxy::start(&config(
        "routes:\n\
         - {name: ping, match: {path: {exact: /ping}}, respond: {body: ok, headers: {content-type: text/plain, x-a: b}}}\n\
         - {name: gone, match: {path: {exact: /gone}}, respond: {status: 410}}\n\
         - {name: none, match: {path: {exact: /none}}, respond: {status: 204}}\nclusters: []\n",
    ))
    .await;
    let mut client = Client::connect(proxy.address()).await;
    for (path, status, body) in [
        ("/ping", 200, "ok"),
        ("/gone", 410, ""),
        ("/none", 204, ""),
        ("/ping", 200, "ok"),
    ] {
        client
            .send(format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body));
        if path == "/ping" {
            assert_eq!(
                (answer.header("x-a"), answer.header("content-type")),
                (Some("b"), Some("text/plain"))
            );
        }
    }
    client.send("HEAD /ping HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let head = client.try_head().await.unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 2"),
        "{head}"
    );
    client.send("GET /none HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(
        client.answer().await.status,
        204,
        "no body of the HEAD is left over"
    );
    assert_eq!(
        proxy.metric(
            "forebay_requests_total",
            &["route=\"ping\"", "code=\"200\""]
        ),
        3.0
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrites_change_path_and_host_and_keep_the_query() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&config(&format!(
        "routes:\n\
         - {{name: prefix, match: {{path: {{prefix: /api}}}}, cluster: a, rewrite: {{prefix: /, host: inner.example}}}}\n\
         - {{name: deep, match: {{path: {{prefix: /deep}}}}, cluster: a, rewrite: {{prefix: /v2/models}}}}\n\
         - {{name: path, match: {{path: {{prefix: /path}}}}, cluster: a, rewrite: {{path: /fixed}}}}\n\
         - {{name: regex, match: {{path: {{prefix: /m}}}}, cluster: a, rewrite: {{regex: {{find: '^/m/([^/]+)', with: '/models/$1/infer'}}}}}}\n\
         clusters: [{{name: a, endpoints: ['{}']}}]\n",
        upstream.address
    )))
    .await;
    for (sent, seen) in [
        ("/api/x?q=1", "/x?q=1"),
        ("/api", "/"),
        ("/deep/a%20b", "/v2/models/a%20b"),
        ("/deep", "/v2/models"),
        ("/path/anything?q", "/fixed?q"),
        ("/m/resnet/now", "/models/resnet/infer/now"),
    ] {
        let head = forwarded(
            &proxy,
            &upstream,
            &format!("GET {sent} HTTP/1.1\r\nhost: t\r\n\r\n"),
        )
        .await;
        assert!(
            head.starts_with(&format!("GET {seen} HTTP/1.1\r\n")),
            "{sent}: {head}"
        );
        let host = if sent.starts_with("/api") {
            "host: inner.example\r\n"
        } else {
            "host: t\r\n"
        };
        assert!(
            head.contains(host) && head.contains("x-forwarded-host: t\r\n"),
            "{head}"
        );
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_edits_remove_then_set_then_add_the_member_s_after_the_route_s() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write("HTTP/1.1 200 OK\r\nserver: secret\r\nx-keep: up\r\nx-set: up\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let proxy = Proxy::start(&config(&format!(
        "routes:\n- name: r\n  \
         request_headers: {{set: {{x-set: ours, x-team: route}}, add: {{x-add: ours}}, remove: [x-gone]}}\n  \
         response_headers: {{set: {{x-set: ours, x-team: route}}, add: {{x-keep: ours}}, remove: [server]}}\n  \
         split:\n  - cluster: a\n    weight: 1\n    request_headers: {{set: {{x-team: member}}}}\n    \
         response_headers: {{set: {{x-team: member}}}}\n\
         clusters: [{{name: a, endpoints: ['{}']}}]\n",
        upstream.address
    )))
    .await;
    let request = "GET / HTTP/1.1\r\nhost: t\r\nx-set: theirs\r\nx-add: theirs\r\nx-gone: 1\r\nx-team: theirs\r\n\r\n";
    let answer = Client::once(proxy.address(), request).await;
    let head = upstream.text();
    for field in [
        "x-set: ours\r\n",
        "x-add: theirs\r\n",
        "x-add: ours\r\n",
        "x-team: member\r\n",
    ] {
        assert!(head.contains(field), "{field:?} in {head}");
    }
    for gone in ["x-gone", "x-set: theirs", "x-team: theirs", "x-team: route"] {
        assert!(!head.contains(gone), "{gone:?} in {head}");
    }
    let head = &answer.head;
    for field in [
        "x-set: ours\r\n",
        "x-keep: up\r\n",
        "x-keep: ours\r\n",
        "x-team: member\r\n",
    ] {
        assert!(head.contains(field), "{field:?} in {head}");
    }
    assert!(
        !head.contains("secret") && !head.contains("x-team: route"),
        "{head}"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_the_weights_within_five_sigma() {
    async fn naming(name: &'static str) -> Upstream {
        Upstream::start(move |mut peer| async move {
            while peer.request().await.is_some() {
                peer.write(respond(200, name)).await;
            }
        })
        .await
    }
    const REQUESTS: usize = 2000;
    let weights = [("a", 10u32), ("b", 20), ("c", 70), ("d", 0)];
    let mut text = String::from("routes:\n- name: r\n  split:\n");
    let mut clusters = String::from("clusters:\n");
    let mut upstreams = Vec::new();
    for (name, weight) in weights {
        let upstream = naming(name).await;
        text += &format!(
            "  - {{cluster: {name}, weight: {weight}, response_headers: {{set: {{x-member: {name}}}}}}}\n"
        );
        clusters += &format!("- {{name: {name}, endpoints: ['{}']}}\n", upstream.address);
        upstreams.push(upstream);
    }
    let proxy = Proxy::start(&config(&(text + &clusters))).await;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let at = proxy.address();
            tokio::spawn(async move {
                let mut client = Client::connect(at).await;
                let mut served = std::collections::HashMap::new();
                for _ in 0..REQUESTS / 4 {
                    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
                    let answer = client.answer().await;
                    assert_eq!(answer.header("x-member"), Some(answer.text().as_str()));
                    *served.entry(answer.text()).or_insert(0usize) += 1;
                }
                served
            })
        })
        .collect();
    let mut served = std::collections::HashMap::new();
    for client in clients {
        for (name, count) in client.await.unwrap() {
            *served.entry(name).or_insert(0) += count;
        }
    }
    for (name, weight) in weights {
        let (n, p) = (REQUESTS as f64, f64::from(weight) / 100.0);
        let got = served.get(name).copied().unwrap_or(0) as f64;
        let sigma = (n * p * (1.0 - p)).sqrt();
        assert!(
            (got - n * p).abs() <= 5.0 * sigma,
            "{name}: {got} of {n}, expected {} ± {sigma}",
            n * p
        );
        let counted = proxy.metric(
            "forebay_requests_total",
            &[&format!("cluster=\"{name}\""), "code=\"200\""],
        );
        assert_eq!(counted, got, "{name}");
    }
    proxy.stop().await;
}
