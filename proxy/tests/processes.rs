//! The binary as it is run, with model servers as processes: from zero and back, crashes, reloads, its own end.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Far more than anything here takes; a failing test ends all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// A model server: loads for `LOAD` seconds, notes what it does in `$FILES/served`, `early` and `pids`.
const SERVER: &str = r#"
import http.server, os, subprocess, sys, threading, time
files, port = os.environ["FILES"], int(sys.argv[1])
began, load = time.monotonic(), float(os.environ.get("LOAD", "0"))
dying = threading.Event()
def go():
    while not os.path.exists(os.path.join(files, "go")):
        time.sleep(0.02)
noting = threading.Lock()
def note(name, text):
    with noting, open(os.path.join(files, name), "a") as file:
        file.write(f"{text}\n")
note("pids", os.getpid())
if "CHILD" in os.environ:
    note("pids", subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
print("loading", flush=True)
if "FAIL" in os.environ:
    print("no weights at /models/absent", file=sys.stderr, flush=True)
    sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words):
        pass
    def say(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        length = int(self.headers.get("content-length", 0))
        self.rfile.read(length)
        if dying.is_set():
            self.close_connection = True
            return
        loading = time.monotonic() - began < load
        if self.path == "/health":
            return self.say(503 if loading else 200, "{}")
        if loading:
            note("early", self.path)
            return self.say(503, "loading")
        note("served", f"{os.getpid()} {self.path}")
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            while True:
                self.wfile.write(b"5\r\ntoken\r\n")
                self.wfile.flush()
                time.sleep(0.02)
        if self.path in ("/breaks", "/dies"):
            self.close_connection = True
            if self.path == "/dies":
                dying.set()
                threading.Thread(target=lambda: (go(), os._exit(1))).start()
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            self.wfile.write(b"some")
            return
        if self.path == "/slow":
            go()
        self.say(200, f"{os.getpid()} {os.environ.get('NAME', '')}")
    do_POST = do_GET
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
Server(("127.0.0.1", port), Handler).serve_forever()
"#;

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Gone, or a zombie nobody collects.
fn is_gone(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat.rsplit(')').next().unwrap_or_default();
    state.trim_start().starts_with('Z')
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A running proxy and the directory of its file and its servers.
struct Forebay {
    child: Child,
    dir: TempDir,
    port: u16,
    /// Of a tcp listener that leads to the same cluster.
    bare: u16,
    admin: u16,
    /// What it logged.
    log: Arc<Mutex<String>>,
}

/// A file with one cluster; `scale` and `env` are keys beside those every test wants.
fn text(cluster: &str, scale: &str, env: &str, files: &Path) -> String {
    let (python, files) = (python(), files.display());
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0'}}, {{name: bare, address: '127.0.0.1:0', protocol: tcp}}]\n\
         routes: [{{name: r, cluster: m}}, {{name: b, listeners: [bare], cluster: m}}]\n\
         clusters:\n- name: m\n  server: llama.cpp\n{cluster}  scale:\n    stable_window: 5s\n    panic_window: 1s\n{scale}    \
         process:\n      command: '{python} server.py ${{PORT}}'\n      directory: .\n      \
         stop_timeout: 2s\n      env: {{FILES: '{files}'{env}}}\n"
    )
}

/// Where the interpreter itself is: a wrapper in front of it would only take longer to start.
fn python() -> String {
    let script = "import sys; print(sys.executable)";
    let found = Command::new("python3")
        .args(["-c", script])
        .output()
        .unwrap();
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}

impl Forebay {
    fn start(cluster: &str, scale: &str, env: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.py"), SERVER).unwrap();
        let file = dir.path().join("forebay.yaml");
        std::fs::write(&file, text(cluster, scale, env, dir.path())).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["run", "-c"])
            .arg(&file)
            .env("FOREBAY_LOG", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::<Mutex<String>>::default();
        let (printed, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(printed).lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let port_after = |word: &str| {
            until(word, || {
                let log = log.lock().unwrap();
                let line = log.lines().find(|line| line.contains(word))?.to_owned();
                let digits = line.split("127.0.0.1:").nth(1)?;
                let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
                digits.parse().ok()
            })
        };
        let of = |listener: &str| port_after(&format!("listener=\"{listener}\""));
        let (port, bare, admin) = (of("main"), of("bare"), port_after(" admin "));
        Self {
            child,
            dir,
            port,
            bare,
            admin,
            log,
        }
    }

    fn rewrite(&self, cluster: &str, scale: &str, env: &str) {
        let before = self.generation();
        let file = self.dir.path().join("forebay.yaml");
        let beside = self.dir.path().join("forebay.new");
        std::fs::write(&beside, text(cluster, scale, env, self.dir.path())).unwrap();
        std::fs::rename(beside, file).unwrap();
        until("the reload", || (self.generation() > before).then_some(()));
    }

    fn generation(&self) -> u64 {
        self.metric("forebay_config_generation") as u64
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Every process that a server noted, itself included.
    fn pids(&self) -> Vec<i32> {
        self.lines("pids")
            .iter()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }

    fn get(&self, path: &str) -> Answer {
        exchange(self.port, path)
    }

    fn metric(&self, start: &str) -> f64 {
        let page = exchange(self.admin, "/metrics").body;
        let series = page.lines().filter(|line| line.starts_with(start));
        series
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    fn ready(&self) -> f64 {
        self.metric("forebay_replicas{cluster=\"m\",state=\"ready\"}")
    }
}

impl Drop for Forebay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log.lock().unwrap());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
    /// It ended as an answer ends.
    whole: bool,
}

impl Answer {
    fn served(self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(self.whole, "{self:?}");
        self.body
    }
}

fn ask(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody"
    );
    let request = match path.starts_with("/metrics") || path.starts_with("/api") {
        true => format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"),
        false => request,
    };
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn exchange(port: u16, path: &str) -> Answer {
    read(&mut ask(port, path))
}

/// Everything until the connection ends.
fn read(stream: &mut TcpStream) -> Answer {
    let mut got = Vec::new();
    let ended = stream.read_to_end(&mut got).is_ok();
    let text = String::from_utf8_lossy(&got).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok());
    let whole = match length {
        Some(length) => body.len() == length,
        None => body.ends_with("0\r\n\r\n"),
    };
    Answer {
        status,
        head: lower.clone(),
        body: body.to_owned(),
        whole: whole && ended,
    }
}

#[test]
fn from_zero_every_request_is_served_once_and_idle_ends_it() {
    let forebay = Forebay::start("", "    idle: 1s\n", ", LOAD: '0.7'");
    assert_eq!(forebay.ready(), 0.0);
    assert!(forebay.pids().is_empty());
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..40).map(|n| (n, &forebay)).collect();
        let asked = asked
            .into_iter()
            .map(|(n, forebay)| scope.spawn(move || forebay.get(&format!("/{n}"))));
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for answer in answers {
        assert!(answer.head.contains("x-forebay-cold-start: "), "{answer:?}");
        answer.served();
    }
    assert!(
        forebay.lines("early").is_empty(),
        "the loading phase was seen"
    );
    let mut served = forebay.lines("served");
    served.sort();
    served.dedup();
    assert_eq!((served.len(), forebay.lines("served").len()), (40, 40));
    let pids = forebay.pids();
    assert_eq!(pids.len(), 1, "{pids:?}");
    until("the idle server is gone", || is_gone(pids[0]).then_some(()));
    until("nothing is ready", || {
        (forebay.ready() == 0.0).then_some(())
    });
    // And again.
    let again = forebay.get("/again").served();
    assert_ne!(again.trim(), pids[0].to_string());
    let starts = |what: &str, phase: &str| {
        forebay.metric(&format!(
            "forebay_start_seconds_{what}{{cluster=\"m\",phase=\"{phase}\""
        ))
    };
    until("both starts are told", || {
        (starts("count", "total") == 2.0).then_some(())
    });
    assert_eq!(starts("count", "process"), 2.0);
    assert_eq!(
        (starts("count", "place"), starts("sum", "place")),
        (2.0, 0.0)
    );
    assert!(starts("sum", "process") >= 1.4, "each loads for 0.7 s");
    assert!(starts("sum", "total") >= starts("sum", "process"));
    let info = "forebay_cluster_info{cluster=\"m\",namespace=\"\",kind=\"process\",name=\"\"}";
    assert_eq!(forebay.metric(info), 1.0);
}

#[test]
fn a_bare_connection_starts_a_server_and_keeps_it() {
    let forebay = Forebay::start("  concurrency: 1\n", "    idle: 1s\n", ", LOAD: '0.3'");
    let mut first = TcpStream::connect(("127.0.0.1", forebay.bare)).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /first HTTP/1.1\r\nhost: t\r\n\r\n";
    first.write_all(request.as_bytes()).unwrap();
    let mut head = [0; 15];
    first.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    // It has the only slot, and is demand for as long as it is open.
    let mut second = ask(forebay.port, "/second");
    until("the second one waits", || {
        (forebay.metric("forebay_waiting{") == 1.0).then_some(())
    });
    std::thread::sleep(Duration::from_millis(2500)); // longer than `idle`
    assert_eq!((forebay.ready(), forebay.lines("served").len()), (1.0, 1));
    drop(first);
    read(&mut second).served();
    until("the idle server is gone", || {
        (forebay.ready() == 0.0).then_some(())
    });
}

#[test]
fn a_crash_cuts_the_stream_and_the_next_request_starts_it_again() {
    let forebay = Forebay::start("", "    idle: none\n", "");
    let mut stream = ask(forebay.port, "/stream");
    let mut some = [0; 256];
    let _ = stream.read(&mut some).unwrap();
    let first = forebay.pids()[0];
    kill(first);
    let rest = read(&mut stream);
    assert!(!rest.whole, "a cut answer looks complete");
    until("it is gone", || is_gone(first).then_some(()));
    let next = forebay.get("/next").served();
    assert_ne!(next.trim(), first.to_string());
}

#[test]
fn a_server_that_ends_and_still_takes_connections_gets_no_request() {
    let forebay = Forebay::start("", "    idle: none\n", "");
    let cut = forebay.get("/dies");
    assert!(cut.status == 200 && !cut.whole, "{cut:?}");
    let next = std::thread::scope(|scope| {
        let next = scope.spawn(|| forebay.get("/next"));
        until("it waits", || {
            let waits = forebay.metric("forebay_waiting{") == 1.0;
            (waits || next.is_finished()).then_some(())
        });
        std::fs::write(forebay.file("go"), "").unwrap();
        next.join().unwrap()
    });
    let pids = forebay.pids();
    assert_eq!(next.served().trim(), pids[1].to_string());
    assert_eq!(forebay.lines("served").len(), 2);
}

#[test]
fn a_server_that_only_breaks_an_answer_serves_on() {
    let forebay = Forebay::start("", "    idle: none\n", "");
    let before = forebay.get("/x").served();
    for _ in 0..5 {
        let cut = forebay.get("/breaks");
        assert!(cut.status == 200 && !cut.whole, "{cut:?}");
        assert_eq!(forebay.get("/x").served(), before);
    }
    assert_eq!(forebay.pids().len(), 1);
}

#[test]
fn after_three_failed_starts_everybody_is_told_and_can_see_why() {
    let forebay = Forebay::start("", "", ", FAIL: '1'");
    let answer = forebay.get("/x");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.head.contains("x-forebay-reason: start_failed"),
        "{answer:?}"
    );
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
    assert_eq!(forebay.pids().len(), 3);
    let since = Instant::now();
    let next = forebay.get("/x");
    assert!(
        next.head.contains("x-forebay-reason: start_failed"),
        "{next:?}"
    );
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "it is told at once"
    );
    let lines = exchange(forebay.admin, "/api/logs/m?follow=false").body;
    assert!(lines.contains("no weights at /models/absent"), "{lines}");
    let clusters = exchange(forebay.admin, "/api/clusters").body;
    assert!(clusters.contains("last_failure"), "{clusters}");
}

#[test]
fn nothing_outlives_a_proxy_that_is_killed() {
    let mut forebay = Forebay::start("", "    idle: none\n", ", CHILD: '1'");
    forebay.get("/x").served();
    let pids = forebay.pids();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|&pid| !is_gone(pid)));
    forebay.child.kill().unwrap();
    forebay.child.wait().unwrap();
    until("every process is gone", || {
        pids.iter().all(|&pid| is_gone(pid)).then_some(())
    });
}

#[test]
fn nothing_outlives_a_proxy_that_stops() {
    let mut forebay = Forebay::start("", "    idle: none\n", ", CHILD: '1'");
    forebay.get("/x").served();
    let pids = forebay.pids();
    let own = rustix::process::Pid::from_raw(forebay.child.id().cast_signed()).unwrap();
    rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
    assert!(forebay.child.wait().unwrap().success());
    until("every process is gone", || {
        pids.iter().all(|&pid| is_gone(pid)).then_some(())
    });
}

#[test]
fn a_reload_keeps_the_process_and_a_changed_command_replaces_it_after_its_work() {
    let forebay = Forebay::start("", "    idle: none\n", ", NAME: old");
    let first = forebay.get("/x").served();
    forebay.rewrite(
        "  connect_timeout: 3s\n  concurrency: 64\n",
        "    idle: none\n",
        ", NAME: old",
    );
    assert_eq!(forebay.get("/x").served(), first);
    assert_eq!(forebay.pids().len(), 1);
    // Something else runs from now on; what the old one is doing is finished by it, and who comes meanwhile waits.
    let (slow, next) = std::thread::scope(|scope| {
        let slow = scope.spawn(|| forebay.get("/slow"));
        until("the request is there", || {
            let served = forebay.lines("served");
            served
                .iter()
                .any(|line| line.ends_with("/slow"))
                .then_some(())
        });
        forebay.rewrite("", "    idle: none\n", ", NAME: new");
        let next = scope.spawn(|| forebay.get("/x"));
        until("it waits", || {
            (forebay.metric("forebay_waiting{") == 1.0).then_some(())
        });
        std::fs::write(forebay.file("go"), "").unwrap();
        (slow.join().unwrap(), next.join().unwrap())
    });
    let next = next.served();
    assert!(next.ends_with("new"), "{next}");
    assert_eq!(slow.served(), first);
    let old = forebay.pids()[0];
    until("the old one is gone", || is_gone(old).then_some(()));
    assert_eq!(forebay.pids().len(), 2);
}

#[test]
fn two_replicas_come_by_demand_and_both_go() {
    let forebay = Forebay::start("  concurrency: 1\n", "    max: 2\n    idle: 1s\n", "");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| forebay.get("/slow")))
            .collect();
        until("two replicas serve", || {
            (forebay.ready() == 2.0).then_some(())
        });
        until("each has one", || {
            (forebay.lines("served").len() == 2).then_some(())
        });
        std::fs::write(forebay.file("go"), "").unwrap();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut by: Vec<String> = answers.into_iter().map(Answer::served).collect();
    by.sort();
    by.dedup();
    assert_eq!(by.len(), 2, "{by:?}");
    let pids = forebay.pids();
    assert_eq!(pids.len(), 2);
    until("both are gone", || {
        pids.iter().all(|&pid| is_gone(pid)).then_some(())
    });
}

#[test]
fn a_cluster_that_is_removed_finishes_its_streams() {
    let forebay = Forebay::start("", "    idle: none\n", "");
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| forebay.get("/slow"));
        until("the request is there", || {
            (forebay.lines("served").len() == 1).then_some(())
        });
        let before = forebay.generation();
        let gone = "admin: {address: '127.0.0.1:0'}\nworkers: 2\n\
                    listeners: [{name: main, address: '127.0.0.1:0'}]\n\
                    routes: [{name: r, respond: {body: gone}}]\nclusters: []\n";
        std::fs::write(forebay.file("forebay.yaml"), gone).unwrap();
        until("the reload", || {
            (forebay.generation() > before).then_some(())
        });
        assert_eq!(forebay.get("/x").served(), "gone");
        std::fs::write(forebay.file("go"), "").unwrap();
        slow.join().unwrap()
    });
    let pid = forebay.pids()[0];
    assert_eq!(slow.served().trim(), pid.to_string());
    until("its process is gone", || is_gone(pid).then_some(()));
}
