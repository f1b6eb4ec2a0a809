//! The binary, its file and the models it starts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything here takes; a failing test ends all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// A model server: notes its start in `$FILES/starts` and each request in `served`; `/x/stream` goes on until there is a
/// file `end`.
const SERVER: &str = r#"
import http.server, os, sys, time
files, name, port = os.environ["FILES"], os.environ["NAME"], int(sys.argv[1])
began, load = time.monotonic(), float(os.environ.get("LOAD", "0"))
def note(file, text):
    with open(os.path.join(files, file), "a") as file:
        file.write(f"{text}\n")
note("starts", f"{name} {os.getpid()}")
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
        if self.path == "/health":
            return self.say(503 if time.monotonic() - began < load else 200, "{}")
        note("served", self.path)
        if self.path.endswith("/stream"):
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            while not os.path.exists(os.path.join(files, "end")):
                self.wfile.write(b"5\r\ntoken\r\n")
                self.wfile.flush()
                time.sleep(0.02)
            return self.wfile.write(b"0\r\n\r\n")
        self.say(200, f"{name} on {os.environ.get('CUDA_VISIBLE_DEVICES')}")
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
Server(("127.0.0.1", port), Handler).serve_forever()
"#;

pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where the interpreter itself is: a wrapper in front of it would only take longer to start.
fn python() -> String {
    let script = "import sys; print(sys.executable)";
    let found = Command::new("python3").args(["-c", script]).output();
    String::from_utf8(found.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

/// A running proxy and the directory of its file and its servers.
pub(crate) struct Forebay {
    child: Child,
    dir: TempDir,
    port: u16,
    pub(crate) admin: u16,
    pub(crate) log: Arc<Mutex<String>>,
}

/// A model by its name, which is also the first segment of its paths.
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Keys of `scale`.
    pub(crate) scale: &'static str,
    /// Seconds until it is ready.
    pub(crate) load: f32,
}

/// One that takes 6 GiB and makes room whenever it is idle.
pub(crate) fn model(name: &'static str) -> Model {
    Model {
        name,
        scale: "gpu: {memory: 6GiB}, min_residency: 0s",
        load: 0.0,
    }
}

fn text(gpus: &str, models: &[Model], files: &Path) -> String {
    let (python, files) = (python(), files.display());
    let mut text = format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n{gpus}\n\
         listeners: [{{name: main, address: '127.0.0.1:0'}}]\nroutes:\n"
    );
    for Model { name, .. } in models {
        text +=
            &format!("- {{name: {name}, match: {{path: {{prefix: /{name}}}}}, cluster: {name}}}\n");
    }
    text += "clusters:\n";
    for Model { name, scale, load } in models {
        text += &format!(
            "- name: {name}\n  server: llama.cpp\n  concurrency: 1\n  scale:\n    {}\n    process:\n      \
             command: '{python} server.py ${{PORT}}'\n      directory: .\n      stop_timeout: 2s\n      \
             env: {{FILES: '{files}', NAME: {name}, LOAD: '{load}'}}\n",
            scale.replace(", ", "\n    ")
        );
    }
    text
}

pub(crate) const ONE_AT_A_TIME: &str = "gpus: [{index: 0, memory: 10GiB}]";

impl Forebay {
    pub(crate) fn start(gpus: &str, models: &[Model]) -> Self {
        Self::start_with(gpus, models, |_, _| {})
    }

    pub(crate) fn start_with(
        gpus: &str,
        models: &[Model],
        change: impl FnOnce(&Path, &mut Command),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server.py"), SERVER).unwrap();
        let file = dir.path().join("forebay.yaml");
        std::fs::write(&file, text(gpus, models, dir.path())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["run", "-c"]).arg(&file);
        change(dir.path(), &mut command);
        let mut child = command
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
        let (port, admin) = (port_after(" listening"), port_after(" admin "));
        Self {
            child,
            dir,
            port,
            admin,
            log,
        }
    }

    pub(crate) fn rewrite(&self, gpus: &str, models: &[Model]) {
        let generation = || self.api("/api/clusters")["generation"].as_u64();
        let before = generation();
        let beside = self.dir.path().join("forebay.new");
        std::fs::write(&beside, text(gpus, models, self.dir.path())).unwrap();
        std::fs::rename(beside, self.dir.path().join("forebay.yaml")).unwrap();
        until("the reload", || (generation() > before).then_some(()));
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The models that were started, in order.
    pub(crate) fn starts(&self) -> Vec<String> {
        let lines = self.lines("starts");
        let names = lines.iter().map(|line| line.split(' ').next().unwrap());
        names.map(str::to_owned).collect()
    }

    pub(crate) fn pid(&self, name: &str) -> i32 {
        let lines = self.lines("starts");
        let mut of_it = lines.iter().filter_map(|line| line.split_once(' '));
        let (_, pid) = of_it.rfind(|(of, _)| *of == name).unwrap();
        pid.parse().unwrap()
    }

    /// Asks, and does not wait for the answer.
    pub(crate) fn ask(&self, path: &str) -> JoinHandle<Answer> {
        let mut stream = ask(self.port, path);
        std::thread::spawn(move || read(&mut stream))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        read(&mut ask(self.port, path))
    }

    pub(crate) fn api(&self, path: &str) -> Value {
        let answer = read(&mut ask(self.admin, path));
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    pub(crate) fn cluster(&self, name: &str) -> Value {
        let all = self.api("/api/clusters");
        let mut all = all["clusters"].as_array().unwrap().iter();
        all.find(|cluster| cluster["name"] == name).unwrap().clone()
    }

    pub(crate) fn waits(&self, name: &str, count: u64) {
        until("so many wait", || {
            (self.cluster(name)["waiting"] == count).then_some(())
        });
    }

    /// Until a replica of it wants a place and has none.
    pub(crate) fn wants_a_place(&self, name: &str) {
        until("it wants a place", || {
            let scale = &self.cluster(name)["scale"];
            (scale["placing"] == 1 && scale["gpu"]["waiting_for"] == "gpu").then_some(())
        });
    }

    pub(crate) fn end_streams(&self) {
        std::fs::write(self.dir.path().join("end"), "").unwrap();
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
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn is_from(&self, name: &str) {
        let body = format!("{name} on 0");
        assert_eq!((self.status, &*self.body), (200, &*body), "{self:?}");
    }
}

pub(crate) fn ask(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Everything until the connection ends.
pub(crate) fn read(stream: &mut TcpStream) -> Answer {
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got); // what came counts
    let text = String::from_utf8_lossy(&got).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Answer {
        status: status.unwrap_or(0),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// Begins a stream, and returns once it flows.
pub(crate) fn stream(forebay: &Forebay, path: &str) -> TcpStream {
    let mut stream = ask(forebay.port, path);
    let mut some = [0; 512];
    let mut text = String::new();
    while !text.contains("token") {
        let read = stream.read(&mut some).unwrap();
        assert!(read > 0, "{text}");
        text += std::str::from_utf8(&some[..read]).unwrap();
    }
    stream
}

/// What is left of a stream, to its end.
pub(crate) fn rest_of(mut stream: TcpStream) -> String {
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got); // cut by a reset, or ended
    String::from_utf8(got).unwrap()
}
