//! The binary with models that share a device which holds one of them at a time, as processes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod running;

use std::path::Path;
use std::process::Command;

use running::{Forebay, Model, ONE_AT_A_TIME, ask, model, read, rest_of, stream, until};

#[test]
fn models_take_turns_and_come_back_and_no_request_is_lost() {
    let forebay = Forebay::start(ONE_AT_A_TIME, &[model("a"), model("b")]);
    for name in ["a", "b", "a"] {
        forebay.get(&format!("/{name}/x")).is_from(name);
    }
    assert_eq!(forebay.starts(), ["a", "b", "a"]);
    // What made room is not wanted only because it was in use not long ago.
    until("it is given up", || {
        (forebay.cluster("b")["scale"]["desired"] == 0).then_some(())
    });
    let devices = forebay.api("/api/clusters")["gpus"].clone();
    assert_eq!(devices[0]["memory_used"], 6_u64 << 30, "{devices}");
    assert_eq!(devices[0]["clusters"], serde_json::json!(["a"]));
    assert_eq!(forebay.cluster("a")["scale"]["gpu"]["devices"][0], 0);
    assert_eq!(forebay.cluster("b")["scale"]["evictions"], 1);
    let page = read(&mut ask(forebay.admin, "/ui/")).body;
    assert!(page.contains("GPU 0: 6.0 of 10.0 GiB: a"), "{page}");
}

#[test]
fn both_stay_where_both_fit() {
    let gpus = "gpus: [{index: 0, memory: 6GiB}, {index: 4, memory: 7GiB}]";
    let forebay = Forebay::start(gpus, &[model("a"), model("b")]);
    forebay.get("/a/x").is_from("a");
    assert_eq!(forebay.get("/b/x").body, "b on 4");
    forebay.get("/a/x").is_from("a");
    assert_eq!(forebay.starts(), ["a", "b"]);
}

#[test]
fn a_stream_is_not_cut_for_another_model() {
    let forebay = Forebay::start(ONE_AT_A_TIME, &[model("a"), model("b")]);
    let stream = stream(&forebay, "/a/stream");
    let other = forebay.ask("/b/x");
    forebay.wants_a_place("b");
    assert!(!other.is_finished() && forebay.starts() == ["a"]);
    forebay.end_streams();
    let rest = rest_of(stream);
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    other.join().unwrap().is_from("b");
}

#[test]
fn what_alternates_in_the_line_is_served_one_model_after_the_other() {
    let slow = |name| Model {
        load: 1.0,
        ..model(name)
    };
    let forebay = Forebay::start(ONE_AT_A_TIME, &[slow("a"), slow("b")]);
    let mut asked = Vec::new();
    let mut counts = [0, 0];
    for (number, name) in ["a", "b", "a", "b", "a"].into_iter().enumerate() {
        asked.push((name, forebay.ask(&format!("/{name}/{number}"))));
        counts[number % 2] += 1;
        forebay.waits(name, counts[number % 2]);
    }
    for (name, answer) in asked {
        answer.join().unwrap().is_from(name);
    }
    assert_eq!(
        forebay.lines("served"),
        ["/a/0", "/a/2", "/a/4", "/b/1", "/b/3"]
    );
    assert_eq!(forebay.starts(), ["a", "b"]);
}

#[test]
fn nobody_waits_for_what_is_pinned_to_go() {
    let pinned = Model {
        scale: "gpu: {memory: 6GiB}, pin: true",
        ..model("a")
    };
    let forebay = Forebay::start(ONE_AT_A_TIME, &[pinned, model("b")]);
    let other = forebay.get("/b/x");
    other.is_from("b"); // as long as there is room
    forebay.get("/a/x").is_from("a");
    for _ in 0..2 {
        let refused = forebay.get("/b/x");
        assert_eq!(refused.status, 503, "{refused:?}");
        let head = &refused.head;
        assert!(head.contains("x-forebay-reason: no_capacity"), "{head}");
        assert!(head.contains("retry-after: "), "{head}");
    }
    let gpu = forebay.cluster("b")["scale"]["gpu"].clone();
    assert_eq!(gpu["why"], "no device has room for it, whoever else goes");
    forebay.get("/a/x").is_from("a");
    assert_eq!(forebay.starts(), ["b", "a"]);
}

#[test]
fn who_waits_is_told_when_there_will_be_no_room() {
    let forebay = Forebay::start(ONE_AT_A_TIME, &[model("a"), model("b")]);
    let _stream = stream(&forebay, "/a/stream");
    let other = forebay.ask("/b/x");
    forebay.wants_a_place("b");
    let pinned = Model {
        scale: "gpu: {memory: 6GiB}, pin: true",
        ..model("a")
    };
    forebay.rewrite(ONE_AT_A_TIME, &[pinned, model("b")]);
    let refused = other.join().unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    let head = &refused.head;
    assert!(head.contains("x-forebay-reason: no_capacity"), "{head}");
}

#[test]
fn a_reload_changes_the_budget_and_stops_nobody() {
    let forebay = Forebay::start(ONE_AT_A_TIME, &[model("a"), model("b")]);
    let _stream = stream(&forebay, "/a/stream");
    let other = forebay.ask("/b/x");
    forebay.wants_a_place("b");
    forebay.rewrite(
        "gpus: [{index: 0, memory: 12GiB}]",
        &[model("a"), model("b")],
    );
    other.join().unwrap().is_from("b");
    let three = [model("a"), model("b"), model("c")];
    forebay.rewrite("gpus: [{index: 0, memory: 6GiB}]", &three);
    forebay.get("/b/x").is_from("b");
    let third = forebay.ask("/c/x");
    forebay.wants_a_place("c");
    // Nobody goes in vain: it would not be enough.
    assert_eq!(forebay.cluster("b")["scale"]["ready"], 1);
    assert_eq!(forebay.starts(), ["a", "b"]);
    forebay.end_streams();
    third.join().unwrap().is_from("c");
}

#[test]
fn a_model_that_is_killed_leaves_its_place_to_who_waits() {
    let forebay = Forebay::start(ONE_AT_A_TIME, &[model("a"), model("b")]);
    let cut = stream(&forebay, "/a/stream");
    let other = forebay.ask("/b/x");
    forebay.wants_a_place("b");
    let pid = rustix::process::Pid::from_raw(forebay.pid("a")).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    other.join().unwrap().is_from("b");
    let rest = rest_of(cut);
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
    // And the other way round, once somebody asks.
    forebay.get("/a/x").is_from("a");
    assert_eq!(forebay.starts(), ["a", "b", "a"]);
}

#[test]
fn without_a_list_the_driver_says_what_there_is() {
    let percent = |name| Model {
        scale: "gpu: {memory: 60%}, min_residency: 0s",
        ..model(name)
    };
    let with_driver = |files: &Path, command: &mut Command| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu/tests/nvml.c");
        let free = files.join("free");
        std::fs::write(&free, "8000").unwrap();
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(files.join("libnvidia-ml.so.1"))
            .arg(format!("-DFREE=\"{}\"", free.display()))
            .arg(source)
            .status();
        assert!(compiled.unwrap().success());
        command
            .env("LD_LIBRARY_PATH", files)
            .env("CUDA_VISIBLE_DEVICES", "0,1");
    };
    let forebay = Forebay::start_with("", &[percent("a"), percent("b")], with_driver);
    for name in ["a", "b"] {
        forebay.get(&format!("/{name}/x")).is_from(name);
    }
    let devices = forebay.api("/api/clusters")["gpus"].clone();
    assert_eq!(devices.as_array().unwrap().len(), 1, "{devices}");
    assert_eq!(devices[0]["memory"], 8000_u64 << 20);
    assert_eq!(devices[0]["clusters"], serde_json::json!(["b"]));
}

#[test]
fn without_a_list_and_a_driver_nothing_is_limited() {
    let forebay = Forebay::start_with("", &[model("a"), model("b")], |files, command| {
        // No library is found there, whatever this host has.
        std::fs::write(files.join("libnvidia-ml.so.1"), "").unwrap();
        command.env("LD_LIBRARY_PATH", files);
    });
    for name in ["a", "b", "a"] {
        assert_eq!(
            forebay.get(&format!("/{name}/x")).body,
            format!("{name} on None")
        );
    }
    assert_eq!(forebay.starts(), ["a", "b"]);
    let log = forebay.log.lock().unwrap();
    assert_eq!(log.matches("no NVIDIA driver answers").count(), 1, "{log}");
}
