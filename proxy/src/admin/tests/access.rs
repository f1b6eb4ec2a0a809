//! Who is let in.

use http::{Method, StatusCode};

use super::{JSON, PLAIN, TOKEN};
use crate::admin::routes;
use crate::admin::testing::{Stage, get, post, send};

#[tokio::test]
async fn only_names_that_are_ours_are_served() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    for host in [
        "127.0.0.1:9901",
        "[::1]:9901",
        "localhost",
        "LOCALHOST:1",
        "10.0.0.1",
        "admin.example.com:9901",
    ] {
        let answer = send(&api, Method::GET, "/livez", &[("host", host)], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{host}");
    }
    for path in ["/livez", "/api/config", "/nothing"] {
        let answer = send(
            &api,
            Method::GET,
            path,
            &[("host", "rebound.example:9901")],
            "",
        )
        .await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (StatusCode::MISDIRECTED_REQUEST, "misdirected")
        );
    }
    for hosts in [
        &[("host", "")][..],
        &[("host", "a b")],
        &[("host", "127.0.0.1"), ("host", "127.0.0.1")],
    ] {
        let answer = send(&api, Method::GET, "/livez", hosts, "").await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (StatusCode::BAD_REQUEST, "bad_host"),
            "{hosts:?}"
        );
    }
    let answer = get(&api, "http://rebound.example/livez").await;
    assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn every_command_is_refused_across_sites_and_without_its_content_type() {
    let stage = Stage::new(PLAIN).await;
    let api = stage.api();
    let commands = routes()
        .into_iter()
        .filter(|(_, method, _)| method == Method::POST);
    let mut seen = 0;
    for (path, ..) in commands {
        seen += 1;
        let strange = [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:8080"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ];
        for header in strange {
            let answer = send(&api, Method::POST, path, &[JSON, header], "{}").await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (StatusCode::FORBIDDEN, "cross_site"),
                "{header:?}"
            );
        }
        for headers in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/x-www-form-urlencoded")],
        ] {
            let answer = send(&api, Method::POST, path, headers, "{}").await;
            assert_eq!(
                answer.status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{headers:?}"
            );
        }
    }
    assert!(seen >= 2 && !stage.control.is_draining());
    let own = [
        ("origin", "http://127.0.0.1:9901"),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "Application/JSON; charset=utf-8"),
    ];
    let answer = send(&api, Method::POST, "/api/reload", &own, "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

#[tokio::test]
async fn a_token_is_wanted_for_everything_but_health() {
    let stage = Stage::new(TOKEN).await;
    let api = stage.api();
    for (path, method, _) in routes() {
        let answer = send(
            &api,
            method,
            path,
            &[JSON, ("authorization", "Bearer wrong")],
            "{}",
        )
        .await;
        let open = ["/livez", "/readyz"].contains(&path);
        let expected = if open {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(answer.status, expected, "{path}");
        assert_eq!(answer.header("www-authenticate").is_empty(), open, "{path}");
    }
    assert_eq!(get(&api, "/nothing").await.status, StatusCode::UNAUTHORIZED);
    let bearer = ("authorization", "bearer a-long-enough-token-for-everyone");
    assert_eq!(
        send(&api, Method::GET, "/api/config", &[bearer], "")
            .await
            .status,
        StatusCode::OK
    );
    // x:a-long-enough-token-for-everyone
    let basic = (
        "authorization",
        "Basic eDphLWxvbmctZW5vdWdoLXRva2VuLWZvci1ldmVyeW9uZQ==",
    );
    assert_eq!(
        send(&api, Method::GET, "/ui/", &[basic], "").await.status,
        StatusCode::OK
    );
    let answer = send(&api, Method::POST, "/api/drain", &[basic, JSON], "{}").await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (StatusCode::UNAUTHORIZED, "Bearer")
    );
    assert!(!stage.control.is_draining());
}

#[tokio::test]
async fn probes_serve_health_and_metrics_and_nothing_else() {
    let stage = Stage::new(TOKEN).await;
    let probes = stage.probes();
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = send(&probes, Method::GET, path, &[("host", "any.example")], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    let open = ["/livez", "/readyz", "/metrics", "/wait-for-drain"];
    for (path, method, _) in routes() {
        if !open.contains(&path) {
            assert_eq!(
                send(&probes, method, path, &[JSON], "{}").await.status,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }
    }
    for path in open {
        assert_eq!(
            post(&probes, path, "{}").await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    assert!(!stage.control.is_draining());
}
