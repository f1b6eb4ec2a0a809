//! A running proxy, and the directory of its file and its servers.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::server::{FILES, ROLE};

/// Far more than anything here takes; a failing test ends all the same.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Forebay {
    child: Child,
    dir: TempDir,
    pub(crate) port: u16,
    admin: u16,
    log: Arc<Mutex<String>>,
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Gone, or a zombie nobody collects.
pub(crate) fn is_gone(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat.rsplit(')').next().unwrap_or_default();
    state.trim_start().starts_with('Z')
}

/// A file with one cluster whose server this binary plays.
///
/// * `cluster`, `scale`, `env`: keys beside those that every test wants
fn text(cluster: &str, scale: &str, env: &str, dir: &TempDir) -> String {
    let itself = std::env::current_exe().unwrap();
    let (itself, files) = (itself.display(), dir.path().display());
    let role = format!("{ROLE}: server, {FILES}: '{files}'");
    let env = match env {
        "" => role,
        more => format!("{role}, {more}"),
    };
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0'}}]\nroutes: [{{name: r, cluster: m}}]\n\
         clusters: [{{name: m, server: llama.cpp, {cluster}, scale: {{{scale}, process: {{stop_timeout: 2s, \
         command: ['{itself}', '--exact', 'plays_its_role', '--nocapture', '${{PORT}}'], env: {{{env}}}}}}}}}]\n"
    )
}

impl Forebay {
    pub(crate) fn start(cluster: &str, scale: &str, env: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("forebay.yaml");
        std::fs::write(&file, text(cluster, scale, env, &dir)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["run", "-c"])
            .arg(&file)
            .env("FOREBAY_LOG", "info")
            .env("NO_COLOR", "1")
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
        let mut forebay = Self {
            child,
            dir,
            port: 0,
            admin: 0,
            log,
        };
        forebay.port = forebay.printed(" listening");
        forebay.admin = forebay.printed(" admin ");
        forebay
    }

    /// The port in the line that says so.
    fn printed(&self, word: &str) -> u16 {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = self.log.lock().unwrap().clone();
            let line = log.lines().find(|line| line.contains(word));
            if let Some(rest) = line.and_then(|line| line.split("127.0.0.1:").nth(1)) {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                return digits.parse().unwrap();
            }
            assert!(Instant::now() < end, "{word} was not printed: {log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Rewrites the file and has it read.
    pub(crate) fn reload(&self, cluster: &str, scale: &str, env: &str) {
        let beside = self.dir.path().join("forebay.new");
        std::fs::write(&beside, text(cluster, scale, env, &self.dir)).unwrap();
        std::fs::rename(beside, self.dir.path().join("forebay.yaml")).unwrap();
        let answer = self.admin(
            "POST /api/reload HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 2",
            "{}",
        );
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn admin(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("{head}\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The sum of all series that begin so.
    fn metric(&self, start: &str) -> f64 {
        let page = self.admin("GET /metrics HTTP/1.1", "");
        let series = page.lines().filter(|line| line.starts_with(start));
        series
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.metric("forebay_waiting{") as usize
    }

    /// Nobody waits, nothing is held and nothing is in flight.
    pub(crate) async fn is_empty(&self) {
        let gauges = [
            "forebay_waiting{",
            "forebay_waiting_bytes{",
            "forebay_endpoint_in_flight{",
            "forebay_requests_in_flight{",
        ];
        until("the room is empty", || {
            gauges.iter().all(|gauge| self.metric(gauge) == 0.0)
        })
        .await;
    }

    /// Tells the server something.
    pub(crate) fn note(&self, name: &str) {
        std::fs::write(self.dir.path().join(name), "").unwrap();
    }

    /// What servers noted.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Every server that was ever started.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let lines = self.lines("pids");
        lines.iter().map(|pid| pid.parse().unwrap()).collect()
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
