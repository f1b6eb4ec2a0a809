//! Models that are started by the first request, with the real binary: `proxy --run`, `demo` and the example. This test
//! binary also plays the model server: it starts itself again with a role.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

const ROLE: &str = "FOREBAY_TEST_ROLE";
/// How long the played model loads.
const LOAD: Duration = Duration::from_millis(300);
/// Far more than anything here takes; a failing test ends all the same.
const PATIENCE: Duration = Duration::from_secs(30);

fn forebay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Not a test of its own: a llama.cpp server, whose port is its last argument.
#[test]
fn plays_its_role() {
    if std::env::var(ROLE).as_deref() != Ok("server") {
        return;
    }
    let port: u16 = std::env::args().next_back().unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let loaded = Instant::now() + LOAD;
    println!("loading the model");
    for socket in listener.incoming() {
        std::thread::spawn(move || answer_all(socket.unwrap(), loaded));
    }
}

fn answer_all(mut socket: TcpStream, loaded: Instant) {
    let mut text = String::new();
    let mut block = [0; 4 << 10];
    while let Ok(read @ 1..) = socket.read(&mut block) {
        text.push_str(std::str::from_utf8(&block[..read]).unwrap());
        while let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let status = match Instant::now() < loaded {
                true => "503 Service Unavailable",
                false => "200 OK",
            };
            let path = head.split(' ').nth(1).unwrap();
            let length = path.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{path}");
            if socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
            text = rest.to_owned();
        }
    }
}

/// A running `forebay`, killed with the test.
struct Running {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What follows `before` in a line that the process writes, up to a slash or the end, as an address.
fn address(line: &str, before: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(before)?;
    rest.split(['/', ' ']).next()?.parse().ok()
}

impl Running {
    /// * `proxy`, `admin`: what stands before the two addresses in what it prints
    fn start(mut command: Command, to_stderr: bool, proxy: &str, admin: &str) -> Self {
        let (out, log) = match to_stderr {
            true => (Stdio::null(), Stdio::piped()),
            false => (Stdio::piped(), Stdio::null()),
        };
        let mut child = command.stdout(out).stderr(log).spawn().unwrap();
        let printed: Box<dyn Read + Send> = match to_stderr {
            true => Box::new(child.stderr.take().unwrap()),
            false => Box::new(child.stdout.take().unwrap()),
        };
        let (to, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(printed).lines().map_while(Result::ok) {
                let _ = to.send(line); // read to the end, whoever listens
            }
        });
        let mut found = (None, None);
        let mut seen = String::new();
        while found.0.is_none() || found.1.is_none() {
            let line = lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("{error} after:\n{seen}"));
            found.0 = found.0.or_else(|| address(&line, proxy));
            found.1 = found.1.or_else(|| address(&line, admin));
            seen += &format!("{line}\n");
        }
        Self {
            child,
            proxy: found.0.unwrap(),
            admin: found.1.unwrap(),
        }
    }

    fn ask(&self, method: &str, path: &str, lines: &str, body: &str) -> Answer {
        Answer::of(self.proxy, method, path, lines, body)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    fn api(&self, path: &str) -> Value {
        let answer = Answer::of(self.admin, "GET", path, "", "");
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// Where the model servers are that run now.
    fn models(&self) -> Vec<SocketAddr> {
        let clusters = self.api("/api/clusters");
        let clusters = clusters["clusters"].as_array().unwrap().iter();
        let endpoints = clusters.flat_map(|cluster| cluster["endpoints"].as_array().unwrap());
        let addresses = endpoints.map(|endpoint| endpoint["address"].as_str().unwrap());
        addresses.map(|text| text.parse().unwrap()).collect()
    }

    /// Kills the proxy, as nothing can be caught, and waits for its models to be gone.
    fn kill(mut self, models: &[SocketAddr]) {
        for &model in models {
            TcpStream::connect(model).unwrap();
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for &model in models {
            until("a model is gone", || TcpStream::connect(model).is_err());
        }
    }
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn of(at: SocketAddr, method: &str, path: &str, lines: &str, body: &str) -> Self {
        let mut socket = TcpStream::connect(at).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n{lines}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Self {
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).unwrap();
        status.parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(at, _)| at.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value)
    }

    /// How long it says that its request waited, in milliseconds.
    fn waited(&self) -> Option<u64> {
        let waited = self.header("x-forebay-cold-start")?;
        Some(waited.parse().unwrap())
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The command that plays the model server, given `ROLE`.
fn played() -> String {
    let itself = std::env::current_exe().unwrap();
    let itself = itself.to_str().unwrap();
    format!("'{itself}' --exact plays_its_role --nocapture ${{PORT}}")
}

fn proxied(run: &str, more: &[&str]) -> Running {
    let any = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut command = forebay(&["proxy", "--run", run, "--server", "llama.cpp"]);
    command.args(any).args(more).env(ROLE, "server");
    Running::start(command, false, "proxy  http://", "admin  http://")
}

#[test]
fn a_server_is_started_by_the_first_request_and_dies_with_the_proxy() {
    let running = proxied(&played(), &[]);
    assert_eq!(running.models(), []);
    let first = running.get("/first");
    assert_eq!((first.status(), &*first.body), (200, "/first"));
    assert!(first.waited() >= Some(LOAD.as_millis() as u64), "{first:?}");
    let second = running.get("/second");
    assert_eq!((second.status(), second.waited()), (200, None));
    let models = running.models();
    assert_eq!(models.len(), 1);
    running.kill(&models);
}

#[test]
fn a_server_that_nobody_uses_is_stopped_and_started_again() {
    let running = proxied(&played(), &["--idle", "1s"]);
    for _ in 0..2 {
        let answer = running.get("/");
        assert_eq!(answer.status(), 200);
        assert!(answer.waited().is_some(), "{answer:?}");
        until("nothing runs", || running.models().is_empty());
    }
}

fn refused(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = forebay(arguments).output().unwrap();
    assert_eq!(status.code(), Some(2), "{arguments:?}");
    String::from_utf8(stderr).unwrap()
}

#[test]
fn flags_that_do_not_say_where_requests_go_are_refused() {
    let said = refused(&["proxy", "--run", "llama-server -m m.gguf"]);
    assert!(said.contains("${PORT} is missing"), "{said}");
    let said = refused(&["proxy"]);
    assert!(said.contains("<--to <URL>|--run <CMD>>"), "{said}");
    for flags in [
        ["--run", "a ${PORT}"],
        ["--idle", "5m"],
        ["--server", "vllm"],
    ] {
        let said = refused(&["proxy", "--to", "http://a", flags[0], flags[1]]);
        assert!(said.contains("cannot be used with"), "{said}");
    }
    let said = refused(&["proxy", "--run", "a ${PORT}", "--idle", "soon"]);
    assert!(said.contains("`soon` is no time"), "{said}");
    let said = refused(&["proxy", "--run", "a ${PORT}", "--server", "llamacpp"]);
    assert!(said.contains("'llama.cpp'"), "{said}");
}

/// Serves this configuration, given `ROLE`.
fn configured(directory: &Path, rest: &str) -> Running {
    let here = "{address: '127.0.0.1:0'}";
    let path = directory.join("forebay.yaml");
    let listeners = "[{name: main, address: '127.0.0.1:0'}]";
    std::fs::write(
        &path,
        format!("admin: {here}\nlisteners: {listeners}\n{rest}"),
    )
    .unwrap();
    let mut command = forebay(&["run", "-c", path.to_str().unwrap()]);
    command.env(ROLE, "server").env("NO_COLOR", "1");
    Running::start(
        command,
        true,
        "listening listener=\"main\" address=",
        "admin address=",
    )
}

const BROWSER: &str = "accept: text/html,*/*;q=0.8\r\nsec-fetch-mode: navigate\r\n";

#[test]
fn a_page_in_a_browser_starts_the_server_and_its_reload_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let played = serde_json::to_string(&played()).unwrap();
    let running = configured(
        directory.path(),
        &format!(
            "routes: [{{name: r, cluster: chat}}]\n\
             clusters: [{{name: chat, server: llama.cpp, queue: {{waiting_page: true}}, \
             scale: {{idle: 2s, process: {{command: {played}}}}}}}]\n"
        ),
    );
    for _ in 0..2 {
        assert_eq!(running.models(), []);
        let page = running.ask("GET", "/ui", BROWSER, "");
        assert_eq!(page.status(), 503);
        assert_eq!(page.header("x-forebay-reason"), Some("asleep"), "{page:?}");
        assert!(page.body.contains("<h1>chat is starting</h1>"), "{page:?}");
        until("a reload is served", || {
            let answer = running.ask("GET", "/ui", BROWSER, "");
            assert_eq!(answer.waited(), None, "a browser waits for nobody");
            answer.status() == 200 && answer.body == "/ui"
        });
        assert_eq!(running.models().len(), 1);
        until("nothing runs", || running.models().is_empty());
    }
}

#[test]
fn a_page_tells_why_the_server_cannot_be_started() {
    let directory = tempfile::tempdir().unwrap();
    let running = configured(
        directory.path(),
        "routes: [{name: r, cluster: chat}]\n\
         clusters: [{name: chat, server: llama.cpp, queue: {waiting_page: true}, \
         scale: {process: {command: [sh, -c, 'echo no model >&2; exit 3', '${PORT}']}}}]\n",
    );
    until("starts are given up", || {
        let page = running.ask("GET", "/", BROWSER, "");
        assert_eq!(page.status(), 503, "{page:?}");
        page.header("x-forebay-reason") == Some("start_failed")
    });
    let page = running.ask("GET", "/", BROWSER, "");
    for words in [
        "chat could not be started",
        "The last start failed:",
        "http-equiv=refresh",
    ] {
        assert!(page.body.contains(words), "{page:?}");
    }
    assert!(!page.body.contains("no reason is known"), "{page:?}");
}

const FLOWER: &str = r#"{"instances": [[6.0, 2.2, 5.0, 1.5]]}"#;

#[test]
fn the_demo_starts_its_models_from_zero_and_leaves_none() {
    let command = forebay(&["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let running = Running::start(command, false, "proxy      http://", "dashboard  http://");
    assert_eq!(running.models(), []);
    let predict = "/v1/models/iris:predict";
    let first = running.ask("POST", predict, "x-version: v1\r\n", FLOWER);
    assert_eq!(first.status(), 200, "{first:?}");
    assert!(first.waited() >= Some(1900), "{first:?}");
    assert_eq!(first.header("x-model-version"), Some("v1"));
    let second = running.ask("POST", predict, "x-version: v1\r\n", FLOWER);
    assert_eq!((second.status(), second.waited()), (200, None));

    // The copies have started v2, and the two disagree.
    let verdicts = || running.api("/api/mirrors")["mirrors"][0]["compare"]["verdicts"].clone();
    until("both pairs are compared", || verdicts()["different"] == 2);
    let compared = running.api("/api/mirrors")["mirrors"][0]["compare"].clone();
    assert_eq!(compared["fields"][0]["field"], "/predictions/*");
    let mean = compared["latency"]["mirror"]["mean"].as_f64().unwrap();
    assert!(mean < 1.0, "the start of v2 is counted: {compared}");
    let third = running.ask("POST", predict, "x-version: v2\r\n", FLOWER);
    assert_eq!((third.status(), third.waited()), (200, None));

    let codes = (0..8).map(|_| {
        running
            .ask("GET", "/v1/models/iris", "x-user: ada\r\n", "")
            .status()
    });
    let limited = codes.filter(|&code| code == 429).count();
    assert!((1..=3).contains(&limited), "{limited}");
    let models = running.models();
    assert_eq!(models.len(), 2);
    running.kill(&models);
}

/// Serves `examples/scale-from-zero.yaml` as it is shipped, but for the program and the addresses.
fn example(directory: &Path) -> Running {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/scale-from-zero.yaml");
    let text = std::fs::read_to_string(shipped).unwrap();
    let chat = r#""llama-server --port ${PORT} -m models/chat.gguf -np 4""#;
    let embeddings = r#""llama-server --port ${PORT} -m models/embeddings.gguf --embedding""#;
    for written in [chat, embeddings] {
        assert!(text.contains(written), "{written}");
    }
    let played = serde_json::to_string(&played()).unwrap();
    let text = text.replace(chat, &played).replace(embeddings, &played);
    let path = directory.join("scale-from-zero.yaml");
    let here = "{address: '127.0.0.1:0'}";
    let added = format!("admin: {here}\nlisteners: [{{name: main, address: '127.0.0.1:0'}}]\n");
    std::fs::write(&path, format!("{text}\n{added}")).unwrap();
    let mut command = forebay(&["run", "-c", path.to_str().unwrap()]);
    command.env(ROLE, "server").env("NO_COLOR", "1");
    Running::start(
        command,
        true,
        "listening listener=\"main\" address=",
        "admin address=",
    )
}

#[test]
fn the_example_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let running = example(directory.path());
    until("what is preloaded runs", || running.models().len() == 1);
    until("it is ready", || {
        running.get("/v1/embeddings").waited().is_none()
    });

    let probe = running.ask("GET", "/health", "user-agent: kube-probe/1.30\r\n", "");
    assert_eq!(
        probe.header("x-forebay-reason"),
        Some("asleep"),
        "{probe:?}"
    );
    assert_eq!(probe.status(), 200);
    let batch = running.ask("GET", "/v1/models", "x-batch: 1\r\n", "");
    assert_eq!(
        batch.header("x-forebay-reason"),
        Some("asleep"),
        "{batch:?}"
    );
    assert_eq!((batch.status(), running.models().len()), (503, 1));

    let chat = running.get("/v1/chat/completions");
    assert_eq!((chat.status(), &*chat.body), (200, "/v1/chat/completions"));
    assert!(chat.waited() >= Some(LOAD.as_millis() as u64), "{chat:?}");
    let batch = running.ask("GET", "/v1/models", "x-batch: 1\r\n", "");
    assert_eq!((batch.status(), &*batch.body), (200, "/v1/models"));
    let models = running.models();
    assert_eq!(models.len(), 2);
    running.kill(&models);
}
