//! Copies are told the names that their own clusters know.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_gets_its_own_name_in_the_body_and_in_the_path() {
    let filler = "x".repeat(100_000);
    for (server, target, body) in [
        (
            "vllm",
            "/v1/completions",
            format!(r#"{{"p":1,"model":"MODEL","x":"{filler}"}}"#),
        ),
        ("triton", "/v2/models/MODEL/infer", "{}".to_owned()),
    ] {
        let (a, b, c, d) = (
            Upstream::fixed("a").await,
            Upstream::fixed("b").await,
            Upstream::fixed("c").await,
            Upstream::fixed("d").await,
        );
        let routes =
            "routes: [{name: r, cluster: a, mirrors: [{cluster: b}, {cluster: c}, {cluster: d}]}]";
        let clusters = [
            (
                "a",
                a.address,
                format!("server: {server}, models: [one, m]"),
            ),
            (
                "b",
                b.address,
                format!("server: {server}, models: ['the-second', m]"),
            ),
            ("c", c.address, format!("server: {server}")),
            ("d", d.address, format!("server: {server}, models: [m]")),
        ];
        let clusters = clusters
            .each_ref()
            .map(|(name, address, keys)| (*name, *address, keys.as_str()));
        let proxy = Proxy::start(&routed(routes, &clusters)).await;
        for (model, told) in [
            ("m", ["one", "the-second", "one", "m"]),
            ("one", ["one", "one", "one", "one"]),
        ] {
            let request = typed(
                &target.replace("MODEL", model),
                "application/json",
                &body.replace("MODEL", model),
            );
            assert_eq!(ask(&proxy, &request).await.text(), "a");
            for (upstream, told) in [&a, &b, &c, &d].into_iter().zip(told) {
                let (target, body) = (target.replace("MODEL", told), body.replace("MODEL", told));
                crate::support::until("the copy is whole", async || {
                    upstream.text().contains(&format!("POST {target} "))
                        && bodies_so_far(upstream).contains(&body)
                })
                .await;
            }
        }
        let outcome = |result| proxy.metric("forebay_mirror_requests_total", &[result]);
        crate::support::until("all are counted", async || outcome("result=\"ok\"") == 6.0).await;
        proxy.stop().await;
    }
}

/// What came, whole or not.
fn bodies_so_far(upstream: &Upstream) -> String {
    upstream.text()
}
