//! Who stays with which member of a split.

use std::collections::BTreeMap;

use super::get;
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream};

fn split(old: &Upstream, new: &Upstream, percent: u32, sticky: &str) -> String {
    config(&format!(
        "routes: [{{name: r, sticky: {sticky}, split: [{{cluster: old, weight: {}}}, {{cluster: new, weight: {percent}}}]}}]\n\
         clusters: [{{name: old, endpoints: ['{}']}}, {{name: new, endpoints: ['{}']}}]\n",
        100 - percent,
        old.address,
        new.address
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_moves_one_way_while_the_share_grows() {
    let (old, new) = (Upstream::fixed("old").await, Upstream::fixed("new").await);
    let mut before: BTreeMap<u32, String> = BTreeMap::new();
    for percent in [1, 5, 20, 50, 100] {
        let text = split(&old, &new, percent, "{header: x-user-id}");
        let (one, two) = (Proxy::start(&text).await, Proxy::start(&text).await);
        let mut moved = 0;
        for user in 0..200 {
            let lines = format!("x-user-id: user-{user}\r\n");
            let answer = get(one.address(), "/", &lines).await.text();
            assert_eq!(
                answer,
                get(two.address(), "/", &lines).await.text(),
                "two replicas agree"
            );
            if before.get(&user).is_some_and(|before| before == "new") {
                assert_eq!(answer, "new", "user {user} at {percent} %");
            }
            moved += u32::from(answer == "new");
            before.insert(user, answer);
        }
        let wanted = 2.0 * f64::from(percent);
        assert!(
            (f64::from(moved) - wanted).abs() < 30.0,
            "{moved} at {percent} %"
        );
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_issued_and_keeps_its_holder() {
    let (old, new) = (Upstream::fixed("old").await, Upstream::fixed("new").await);
    let proxy = Proxy::start(&split(&old, &new, 50, "{cookie: {name: fb, ttl: 1h}}")).await;
    let mut seen = BTreeMap::new();
    for _ in 0..40 {
        let first = Client::get(proxy.address(), "/").await;
        let line = first.header("set-cookie").unwrap();
        assert!(
            line.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
            "{line}"
        );
        let pair = line.split(';').next().unwrap().to_owned();
        assert!(pair.starts_with("fb=") && !pair.contains("old") && !pair.contains("new"));
        for _ in 0..3 {
            let again = get(proxy.address(), "/", &format!("cookie: a=b; {pair}\r\n")).await;
            assert_eq!(again.text(), first.text());
            assert_eq!(again.header("set-cookie"), None);
        }
        *seen.entry(first.text()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "both serve: {seen:?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_a_key_and_no_key_is_chance() {
    let (old, new) = (Upstream::fixed("old").await, Upstream::fixed("new").await);
    let answers = async |sticky: &str, lines: &str| {
        let proxy = Proxy::start(&split(&old, &new, 50, sticky)).await;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            seen.insert(get(proxy.address(), "/", lines).await.text());
        }
        proxy.stop().await;
        seen.len()
    };
    assert_eq!(
        answers("{client_ip: true}", "x-forwarded-for: 192.0.2.1\r\n").await,
        1
    );
    assert_eq!(answers("{header: x-user-id}", "").await, 2);
    assert_eq!(answers("{header: x-user-id}", "x-user-id: u\r\n").await, 1);
}
