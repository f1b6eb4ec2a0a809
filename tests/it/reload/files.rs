//! Every way a file can change, and files that must not go live.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{put, saying};
use crate::support::{Client, Proxy, until};

/// A change must be noticed by its event: well before the next poll, which comes every 5 s.
const NOTICED: Duration = Duration::from_secs(2);

async fn said(proxy: &Proxy) -> String {
    Client::get(proxy.address(), "/").await.text()
}

/// Makes a change, waits until the next generation is live and checks what it says.
async fn goes_live(proxy: &Proxy, what: &str, text: &str, change: impl FnOnce()) {
    let before = proxy.control().snapshot().generation;
    change();
    let changed = Instant::now();
    until(what, async || {
        proxy.control().snapshot().generation > before
    })
    .await;
    let took = changed.elapsed();
    until(what, async || said(proxy).await == text).await;
    assert!(took < NOTICED, "{what}: {took:?}");
    let status = proxy.control().status();
    assert!(
        status.last_error.is_none() && status.generation > before,
        "{what}: {status:?}"
    );
}

fn write(path: &Path, text: &str) {
    fs::write(path, saying(text)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_in_place_renamed_over_or_made_again_is_live() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    write(&file, "first");
    let proxy = Proxy::start_on(&file).await;
    assert_eq!(said(&proxy).await, "first");
    for round in 0..2 {
        let text = |what: &str| format!("{what} {round}");
        goes_live(&proxy, "in place", &text("in place"), || {
            write(&file, &text("in place"))
        })
        .await;
        goes_live(&proxy, "renamed over", &text("renamed"), || {
            let beside = dir.path().join(".new");
            write(&beside, &text("renamed"));
            fs::rename(&beside, &file).unwrap();
        })
        .await;
        goes_live(&proxy, "made again", &text("made again"), || {
            fs::remove_file(&file).unwrap();
            write(&file, &text("made again"));
        })
        .await;
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_for_a_while_keeps_the_last_configuration() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    write(&file, "first");
    let proxy = Proxy::start_on(&file).await;
    fs::remove_file(&file).unwrap();
    until("the loss is known", async || {
        proxy.control().status().last_error.is_some()
    })
    .await;
    assert_eq!(said(&proxy).await, "first");
    goes_live(&proxy, "back", "second", || write(&file, "second")).await;
    proxy.stop().await;
}

/// What the kubelet does for a ConfigMap: a new directory, and `..data` moved onto it.
fn publish(volume: &Path, version: u32, text: &str) {
    let name = format!("..version_{version}");
    fs::create_dir(volume.join(&name)).unwrap();
    write(&volume.join(&name).join("forebay.yaml"), text);
    let next = volume.join("..data_tmp");
    symlink(&name, &next).unwrap();
    fs::rename(&next, volume.join("..data")).unwrap();
    if version > 0 {
        let _ = fs::remove_dir_all(volume.join(format!("..version_{}", version - 1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_swapped_is_live_whether_named_by_file_or_directory() {
    for by_directory in [false, true] {
        let dir = TempDir::new().unwrap();
        publish(dir.path(), 0, "first");
        let file = dir.path().join("forebay.yaml");
        symlink("..data/forebay.yaml", &file).unwrap();
        let proxy = Proxy::start_on(if by_directory { dir.path() } else { &file }).await;
        assert_eq!(said(&proxy).await, "first");
        for version in 1..4 {
            let text = format!("version {version}");
            goes_live(&proxy, "swapped", &text, || {
                publish(dir.path(), version, &text)
            })
            .await;
        }
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_elsewhere_is_live_and_its_old_target_is_not() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let targets = [dir.path().join("a.yaml"), other.path().join("b.yaml")];
    write(&targets[0], "first");
    let file = dir.path().join("forebay.yaml");
    symlink(&targets[0], &file).unwrap();
    let proxy = Proxy::start_on(&file).await;
    write(&targets[1], "second");
    goes_live(&proxy, "retargeted", "second", || {
        fs::remove_file(&file).unwrap();
        symlink(&targets[1], &file).unwrap();
    })
    .await;
    goes_live(&proxy, "new target written", "third", || {
        write(&targets[1], "third")
    })
    .await;
    let generation = proxy.control().snapshot().generation;
    write(&targets[0], "never");
    goes_live(&proxy, "new target written again", "fourth", || {
        write(&targets[1], "fourth")
    })
    .await;
    assert_eq!(proxy.control().snapshot().generation, generation + 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_and_go_in_a_directory_are_merged() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("a.yaml"), "first");
    let proxy = Proxy::start_on(dir.path()).await;
    let more = dir.path().join("b.yaml");
    let route = "routes: [{name: s, match: {path: {exact: /more}}, respond: {body: more}}]\n";
    goes_live(&proxy, "a file more", "first", || {
        fs::write(&more, route).unwrap()
    })
    .await;
    assert_eq!(Client::get(proxy.address(), "/more").await.text(), "more");
    assert_eq!(proxy.control().status().sources.len(), 2);
    goes_live(&proxy, "a file less", "first", || {
        fs::remove_file(&more).unwrap()
    })
    .await;
    assert_eq!(Client::get(proxy.address(), "/more").await.text(), "first");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_the_status_says_where_and_what() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    write(&file, "first");
    let proxy = Proxy::start_on(&file).await;
    let reloads = |result: &str| proxy.metric("forebay_config_reloads_total", &[result]);
    let (good, hash) = (reloads("success"), proxy.control().status().hash);
    assert_eq!(proxy.metric("forebay_config_last_reload_success", &[]), 1.0);
    let cases: [(String, u32, u32, &str); 4] = [
        (saying("x").replace("respond", "repond"), 5, 20, "repond"),
        (saying("x") + "  nonsense", 7, 1, ""),
        (
            saying("x").replace("workers: 2", "workers: none"),
            2,
            10,
            "",
        ),
        (
            saying("x").replace("respond: {body: 'x'}", "cluster: absent"),
            5,
            29,
            "absent",
        ),
    ];
    for (number, (text, line, column, word)) in cases.into_iter().enumerate() {
        fs::write(&file, &text).unwrap();
        until("it is refused", async || {
            reloads("failure") == (number + 1) as f64
        })
        .await;
        let status = proxy.control().status();
        let error = status.last_error.expect("a truthful status");
        assert_eq!(error.file.as_deref(), file.to_str(), "{error:?}");
        assert_eq!(error.line, Some(line), "{error:?} in\n{text}");
        if !word.is_empty() {
            assert_eq!(error.column, Some(column), "{error:?} in\n{text}");
        }
        assert!(
            error.message.contains(word) && !error.message.is_empty(),
            "{error:?}"
        );
        assert!(error.at.ends_with('Z'), "{error:?}");
        assert_eq!((status.generation, &status.hash), (1, &hash));
        assert_eq!(proxy.metric("forebay_config_last_reload_success", &[]), 0.0);
        assert_eq!(said(&proxy).await, "first");
    }
    goes_live(&proxy, "good again", "second", || write(&file, "second")).await;
    assert_eq!(reloads("success"), good + 1.0);
    assert_eq!(proxy.metric("forebay_config_last_reload_success", &[]), 1.0);
    assert_eq!(proxy.metric("forebay_config_generation", &[]), 2.0);
    assert_ne!(proxy.control().status().hash, hash);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prefix_of_a_file_takes_the_proxy_down() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    let whole = saying("whole");
    fs::write(&file, &whole).unwrap();
    let proxy = Proxy::start_on(&file).await;
    for end in (0..whole.len()).step_by(3) {
        put(&file, &whole[..end]);
        if proxy.control().reload().await.is_err() {
            assert!(proxy.control().status().last_error.is_some());
        }
        // A prefix may be a configuration of its own: without a route the answer is 404, with one it is 200.
        let answer = Client::get(proxy.control().addresses().await[0].1, "/").await;
        assert!([200, 404].contains(&answer.status), "{end}: {answer:?}");
    }
    put(&file, &whole);
    let _ = proxy.control().reload().await.unwrap();
    assert_eq!(
        Client::get(proxy.control().addresses().await[0].1, "/")
            .await
            .text(),
        "whole"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_restart_applies_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    write(&file, "first");
    let proxy = Proxy::start_on(&file).await;
    let (admin, threads) = (proxy.control().admin, proxy.control().shared().loads.len());
    put(&file, &saying("second").replace("workers: 2", "workers: 3"));
    let status = proxy.control().reload().await.unwrap();
    assert!(
        status.warnings.iter().any(|w| w.contains("`workers`")),
        "{status:?}"
    );
    let moved = saying("third").replace(
        "admin: {address: '127.0.0.1:0'}",
        "admin: {address: '127.0.0.1:1'}",
    );
    put(&file, &moved);
    let status = proxy.control().reload().await.unwrap();
    assert!(
        status.warnings.iter().any(|w| w.contains("`admin`")),
        "{status:?}"
    );
    assert!(
        !status.warnings.iter().any(|w| w.contains("`workers`")),
        "{status:?}"
    );
    assert_eq!(said(&proxy).await, "third", "everything else is live");
    assert_eq!(
        (proxy.control().admin, proxy.control().shared().loads.len()),
        (admin, threads)
    );
    put(&file, &saying("fourth"));
    assert!(proxy.control().reload().await.unwrap().warnings.is_empty());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_empty_for_a_moment_takes_nothing_down() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    write(&file, "first");
    let proxy = Proxy::start_on(&file).await;
    for empty in ["", "\n \n"] {
        fs::write(&file, empty).unwrap();
        assert!(proxy.control().reload().await.is_err());
        assert!(
            proxy
                .control()
                .status()
                .last_error
                .unwrap()
                .message
                .contains("empty")
        );
        assert_eq!(said(&proxy).await, "first");
    }
    goes_live(&proxy, "written", "second", || write(&file, "second")).await;
    proxy.stop().await;
}
