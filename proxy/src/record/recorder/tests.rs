use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};

use forebay_config::Position;
use http::{Method, StatusCode};
use serde_json::Value;

use super::*;
use crate::capture::SeenAnswer;

const LONG: Duration = Duration::from_secs(20);

fn recording(path: Option<&Path>, url: Option<String>) -> Recording {
    Recording {
        path: path.map(Path::to_owned),
        max_file: 1 << 20,
        keep: 2,
        url: url.map(|url| url.parse().unwrap()),
        sample: 1_000_000,
        max_body: 1 << 20,
        redact: Vec::new(),
        position: Position {
            file: "forebay.yaml".into(),
            line: 1,
            column: 1,
        },
    }
}

fn entry(id: &str, body: usize) -> Entry {
    Entry {
        time: SystemTime::now(),
        role: Role::Primary,
        mirror: None,
        cluster: "one".into(),
        request: Arc::new(SeenRequest {
            id: id.to_owned(),
            route: "all".into(),
            method: Method::GET,
            authority: "host".to_owned(),
            target: "/".to_owned(),
            headers: HeaderMap::new(),
            body: Kept::default(),
        }),
        seen: Seen::Answer(Box::new(SeenAnswer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Kept {
                bytes: vec![b'x'; body],
                length: body as u64,
                whole: true,
            },
            trailers: None,
            seconds: 0.1,
        })),
    }
}

fn ids(lines: &str) -> Vec<String> {
    let values = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    values
        .map(|value| value["request_id"].as_str().unwrap().to_owned())
        .collect()
}

/// Quick enough for tests; lines linger until somebody flushes.
fn brisk() -> Parts {
    Parts {
        pace: Pace {
            linger: LONG,
            timeout: LONG,
            backoff: Duration::from_millis(1),
        },
        ..Parts::default()
    }
}

/// A server that gives these answers in turn, closing the connection where one is empty, and hands on what it was sent.
fn server(answers: Vec<&'static str>) -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ingest?a=b", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            let (stream, _) = listener.accept().unwrap();
            serve(stream, &mut answers, &sender);
        }
    });
    (url, receiver)
}

fn serve(
    stream: TcpStream,
    answers: &mut impl Iterator<Item = &'static str>,
    seen: &Sender<(String, String)>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let _ = seen.send((head, String::from_utf8(body).unwrap()));
        match answers.next() {
            None | Some("") => return,
            Some(answer) => (&stream).write_all(answer.as_bytes()).unwrap(),
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: 0\r\n\r\n";
const BAD: &str = "HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n";

#[test]
fn entries_are_written_in_order_and_a_moved_file_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let recorder = Recorder::start(&recording(Some(&path), None)).unwrap();
    assert!((0..100).all(|number| recorder.submit(entry(&number.to_string(), 10))));
    assert!(recorder.flush(LONG));
    let expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), expected);
    let moved = directory.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    recorder.reopen();
    assert!(recorder.submit(entry("after", 10)) && recorder.flush(LONG));
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), ["after"]);
    let counts = recorder.counts();
    assert_eq!((counts.written, counts.dropped()), (101, 0));
}

#[test]
fn a_path_that_cannot_be_opened_is_named() {
    let config = recording(Some(Path::new("/nowhere/pairs.jsonl")), None);
    let error = Recorder::start(&config).unwrap_err();
    assert!(
        error.to_string().starts_with("/nowhere/pairs.jsonl: "),
        "{error}"
    );
}

#[test]
fn lines_that_the_disk_refuses_are_counted() {
    let recorder = Recorder::start(&recording(Some(Path::new("/dev/full")), None)).unwrap();
    assert!(recorder.submit(entry("1", 0)) && recorder.flush(LONG));
    assert_eq!(
        (recorder.counts().dropped_file, recorder.counts().written),
        (1, 0)
    );
}

#[test]
fn a_batch_is_tried_again_until_it_is_taken() {
    let (url, seen) = server(vec![BUSY, "", OK, OK]);
    let recorder = Recorder::start_with(&recording(None, Some(url)), brisk()).unwrap();
    assert!(recorder.submit(entry("1", 0)) && recorder.submit(entry("2", 0)));
    assert!(recorder.flush(LONG));
    let counts = recorder.counts();
    assert_eq!((counts.posted, counts.dropped()), (2, 0));
    for _ in 0..3 {
        let (head, body) = seen.recv_timeout(LONG).unwrap();
        assert!(head.starts_with("POST /ingest?a=b HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("content-type: application/x-ndjson\r\n"),
            "{head}"
        );
        assert_eq!(ids(&body), ["1", "2"]);
    }
    assert!(recorder.submit(entry("3", 0)) && recorder.flush(LONG));
    assert_eq!(ids(&seen.recv_timeout(LONG).unwrap().1), ["3"]);
}

#[test]
fn a_batch_that_is_refused_is_lost_and_the_next_goes_on() {
    let (url, seen) = server(vec![BAD, BUSY, BUSY, BUSY, OK]);
    let recorder = Recorder::start_with(&recording(None, Some(url)), brisk()).unwrap();
    for id in ["bad", "busy", "good"] {
        assert!(recorder.submit(entry(id, 0)) && recorder.flush(LONG));
    }
    let counts = recorder.counts();
    assert_eq!((counts.posted, counts.dropped_post), (1, 2));
    let sent: Vec<_> = (0..5)
        .flat_map(|_| ids(&seen.recv_timeout(LONG).unwrap().1))
        .collect();
    assert_eq!(sent, ["bad", "busy", "busy", "busy", "good"]);
}

#[test]
fn a_server_that_is_gone_costs_lines_of_the_post_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = recording(Some(&path), Some(format!("http://{closed}")));
    let recorder = Recorder::start_with(&config, brisk()).unwrap();
    assert!(recorder.submit(entry("1", 0)) && recorder.flush(LONG));
    let counts = recorder.counts();
    assert_eq!(
        (counts.written, counts.posted, counts.dropped_post),
        (1, 0, 1)
    );
}

#[test]
fn a_server_that_hangs_holds_up_neither_the_file_nor_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap(); // accepts nothing
    let url = format!("http://{}", listener.local_addr().unwrap());
    let recorder = Recorder::start_with(&recording(Some(&path), Some(url)), brisk()).unwrap();
    assert!(recorder.submit(entry("1", 0)));
    assert!(!recorder.flush(Duration::from_millis(50)));
    assert!(recorder.submit(entry("2", 0)));
    let deadline = Instant::now() + LONG;
    while recorder.counts().written < 2 {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    let (shared, tally) = (Arc::clone(&recorder.shared), Arc::clone(&recorder.tally));
    drop(recorder);
    wait_for_end(&shared);
    assert_eq!(tally.dropped_post.load(Ordering::Relaxed), 2);
}

fn wait_for_end(shared: &Shared) {
    let (inbox, timeout) = shared
        .done
        .wait_timeout_while(lock(&shared.inbox), LONG, |inbox| !inbox.finished)
        .unwrap();
    drop(inbox);
    assert!(!timeout.timed_out());
}

#[test]
fn a_dropped_recorder_writes_and_posts_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let (url, seen) = server(vec![OK]);
    let recorder = Recorder::start_with(&recording(Some(&path), Some(url)), brisk()).unwrap();
    assert!((0..50).all(|number| recorder.submit(entry(&number.to_string(), 10))));
    let shared = Arc::clone(&recorder.shared);
    drop(recorder);
    wait_for_end(&shared);
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()).len(), 50);
    assert_eq!(ids(&seen.recv_timeout(LONG).unwrap().1).len(), 50);
}

/// A recorder whose thread waits for a permit before each line.
fn held(
    max_entries: usize,
    max_bytes: usize,
    path: &Path,
) -> (Arc<Recorder>, Sender<()>, Receiver<()>) {
    let (permit, permits) = mpsc::channel::<()>();
    let (entered, entering) = mpsc::channel();
    let parts = Parts {
        max_entries,
        max_bytes,
        format: Box::new(move |out, entry, rules| {
            let _ = entered.send(());
            let _ = permits.recv(); // a dropped sender permits everything
            line::push(out, entry, rules);
        }),
        ..brisk()
    };
    let recorder = Recorder::start_with(&recording(Some(path), None), parts).unwrap();
    (recorder, permit, entering)
}

#[test]
fn a_full_queue_loses_entries_instead_of_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let (recorder, permit, entering) = held(3, 1 << 20, &path);
    assert!(recorder.submit(entry("0", 0)));
    entering.recv_timeout(LONG).unwrap(); // now the thread hangs
    let taken: Vec<_> = (1..=5)
        .map(|number| recorder.submit(entry(&number.to_string(), 0)))
        .collect();
    assert_eq!(taken, [true, true, true, false, false]);
    assert!(!recorder.flush(Duration::from_millis(1)));
    assert_eq!(recorder.counts().dropped_queue, 2);
    drop(permit);
    assert!(recorder.flush(LONG));
    assert_eq!(
        ids(&fs::read_to_string(&path).unwrap()),
        ["0", "1", "2", "3"]
    );
    assert!(recorder.submit(entry("6", 0)), "there is room again");
}

#[test]
fn held_bytes_are_bounded_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let (recorder, permit, entering) = held(1000, 100_000, &path);
    assert!(recorder.submit(entry("0", 0)));
    entering.recv_timeout(LONG).unwrap();
    assert!(!recorder.submit(entry("huge", 100_001)));
    let taken = (0..10)
        .filter(|_| recorder.submit(entry("large", 30_000)))
        .count();
    assert_eq!((taken, recorder.counts().dropped_queue), (3, 8));
    drop(permit);
    assert!(recorder.flush(LONG));
    assert_eq!(lock(&recorder.shared.inbox).bytes, 0);
}

#[test]
fn a_fault_in_one_entry_costs_that_entry() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let parts = Parts {
        format: Box::new(|out, entry, rules| {
            line::push(out, entry, rules);
            assert_ne!(entry.request.id, "bad", "a fault on purpose");
        }),
        ..brisk()
    };
    let recorder = Recorder::start_with(&recording(Some(&path), None), parts).unwrap();
    assert!(
        ["1", "bad", "2"]
            .iter()
            .all(|id| recorder.submit(entry(id, 0)))
    );
    assert!(recorder.flush(LONG));
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), ["1", "2"]);
    assert_eq!(recorder.counts().dropped_queue, 1);
}

#[test]
fn no_entry_stays_behind_while_the_thread_sleeps() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let (recorder, permit, entering) = held(10, 1 << 20, &path);
    drop(permit);
    for _ in 0..200 {
        assert!(recorder.submit(entry("alone", 0)));
        entering.recv_timeout(LONG).unwrap(); // nobody flushes
    }
}
