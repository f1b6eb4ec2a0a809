//! No model server outlives its proxy, with real processes. This test binary also plays the servers and the proxy: it
//! starts itself again with a role.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::driver::process::{ProcessDriver, Surroundings};
use forebay::driver::{Endpoints, Readiness};
use forebay::scaler::Driver;
use forebay_config::{Position, Process, Scale, Targets};

const ROLE: &str = "FOREBAY_TEST_ROLE";
const FILES: &str = "FOREBAY_TEST_FILES";
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// Far more than anything here takes; a failing test ends all the same.
const PATIENCE: Duration = Duration::from_secs(30);

fn forebay() -> PathBuf {
    env!("CARGO_BIN_EXE_forebay").into()
}

/// The command that starts this binary in the role its environment names.
fn actor() -> Vec<String> {
    let itself = std::env::current_exe().unwrap();
    let words = ["--exact", "plays_its_role", "--nocapture"].map(str::to_owned);
    std::iter::once(itself.to_str().unwrap().to_owned())
        .chain(words)
        .collect()
}

fn note(name: &str, text: &str) {
    let path = PathBuf::from(std::env::var(FILES).unwrap()).join(name);
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn noted(files: &Path, name: &str) -> String {
    until(name, || std::fs::read_to_string(files.join(name)).ok())
}

fn pid(files: &Path, name: &str) -> i32 {
    noted(files, name).parse().unwrap()
}

/// Gone, or a zombie nobody collects.
fn is_gone(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z'),
        Err(_) => true,
    }
}

fn all_gone_in_time(pids: &[i32]) {
    let since = Instant::now();
    for &pid in pids {
        until(&format!("end of {pid}"), || is_gone(pid).then_some(()));
    }
    let took = since.elapsed();
    assert!(
        took < STOP_TIMEOUT + Duration::from_secs(1),
        "took {took:?}"
    );
}

fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Not a test of its own: what this binary does when it is started with a role.
#[test]
fn plays_its_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("server") => serve(),
        Ok("stubborn") => stay(),
        Ok("proxy") => proxy(),
        _ => {}
    }
}

/// A server with two descendants that ignore SIGTERM, one of them in another process group.
#[expect(
    clippy::zombie_processes,
    reason = "that nobody waits for them is the point"
)]
fn serve() {
    for (name, leaves) in [("near", false), ("far", true)] {
        let words = actor();
        let mut child = Command::new(&words[0]);
        child
            .args(&words[1..])
            .env(ROLE, "stubborn")
            .env("NAME", name);
        if leaves {
            child.process_group(0);
        }
        child.spawn().unwrap();
    }
    let listener = TcpListener::bind(("127.0.0.1", port())).unwrap();
    println!("listening");
    note("server", &std::process::id().to_string());
    for socket in listener.incoming() {
        let mut socket = socket.unwrap();
        let _ = socket.read(&mut [0; 1024]);
        let _ =
            socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    }
}

fn port() -> u16 {
    std::env::var("PORT").unwrap().parse().unwrap()
}

fn stay() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        let _deaf = tokio::signal::unix::signal(kind).unwrap();
        note(
            &std::env::var("NAME").unwrap(),
            &std::process::id().to_string(),
        );
        std::future::pending::<()>().await;
    });
}

fn proxy() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let files = PathBuf::from(std::env::var(FILES).unwrap());
        let (driver, _) = driver(&files, |_| {});
        driver.want(1);
        while driver.status().ready == 0 {
            driver.changed().changed().await.unwrap();
        }
        note("ready", "");
        std::future::pending::<()>().await;
    });
}

#[derive(Default)]
struct Side(Mutex<Vec<SocketAddr>>);

impl Endpoints for Side {
    fn serve(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn in_flight(&self, _: SocketAddr) -> u64 {
        0
    }
}

struct Connects;

impl Readiness for Connects {
    fn probe(&self, address: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(async move { tokio::net::TcpStream::connect(address).await.is_ok() })
    }
}

fn driver(files: &Path, change: impl FnOnce(&mut Process)) -> (ProcessDriver, Arc<Side>) {
    let env = [
        (ROLE, "server"),
        (FILES, files.to_str().unwrap()),
        ("PORT", "${PORT}"),
    ];
    let mut process = Process {
        command: actor(),
        env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        directory: files.to_owned(),
        stop: None,
        stop_timeout: STOP_TIMEOUT,
        address: None,
    };
    change(&mut process);
    let scale = Scale {
        min: 0,
        max: 2,
        target: Targets::default(),
        stable_window: Duration::from_secs(60),
        panic_window: Duration::from_secs(6),
        panic_threshold: 2.0,
        max_down_rate: 2.0,
        idle: None,
        start_timeout: PATIENCE,
        preload: false,
        pin: false,
        min_residency: Duration::from_secs(60),
        gpu: None,
        driver: forebay_config::Driver::Process(process),
        position: Position {
            file: "".into(),
            line: 1,
            column: 1,
        },
    };
    let side = Arc::<Side>::default();
    let around = Surroundings {
        cluster: "llm".into(),
        readiness: Arc::new(Connects),
        endpoints: side.clone(),
        budget: None,
        supervisor: Some(forebay()),
    };
    (ProcessDriver::new(&scale, around).unwrap(), side)
}

async fn becomes(driver: &ProcessDriver, mut holds: impl FnMut(&ProcessDriver) -> bool) {
    let mut changed = driver.changed();
    let wait = async {
        while !holds(driver) {
            changed.changed().await.unwrap();
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, wait).await;
    assert!(
        in_time.is_ok(),
        "{:?} {:?}",
        driver.status(),
        driver.log().last(20)
    );
}

fn family(files: &Path) -> [i32; 3] {
    ["server", "near", "far"].map(|name| pid(files, name))
}

#[test]
fn when_the_proxy_is_killed_everything_dies() {
    let files = tempfile::tempdir().unwrap();
    let words = actor();
    let mut proxy = Command::new(&words[0])
        .args(&words[1..])
        .env(ROLE, "proxy")
        .env(FILES, files.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    noted(files.path(), "ready");
    let family = family(files.path());
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    all_gone_in_time(&family);
}

#[tokio::test]
async fn a_server_is_logged_listed_and_stopped_with_all_it_started() {
    let files = tempfile::tempdir().unwrap();
    let (driver, side) = driver(files.path(), |_| {});
    driver.want(1);
    becomes(&driver, |driver| driver.status().ready == 1).await;
    let address = side.0.lock().unwrap()[0];
    TcpStream::connect(address).unwrap();
    assert!(driver.status().last_start.is_some());
    let mut log = driver.log().follow(0);
    while !log
        .next()
        .await
        .iter()
        .any(|line| line.text.contains("listening"))
    {}
    let family = family(files.path());
    driver.want(0);
    becomes(&driver, |driver| {
        driver.status().stopping == 0 && driver.status().ready == 0
    })
    .await;
    assert!(side.0.lock().unwrap().is_empty());
    assert!(family.into_iter().all(is_gone));
}

#[tokio::test]
async fn a_shutdown_leaves_nothing() {
    let files = tempfile::tempdir().unwrap();
    let (driver, _) = driver(files.path(), |_| {});
    driver.want(1);
    becomes(&driver, |driver| driver.status().ready == 1).await;
    let family = family(files.path());
    driver.shutdown().await;
    assert!(family.into_iter().all(is_gone));
}

#[tokio::test]
async fn a_server_that_is_killed_is_out_at_once_and_its_descendants_die() {
    let files = tempfile::tempdir().unwrap();
    let (driver, side) = driver(files.path(), |_| {});
    driver.want(1);
    becomes(&driver, |driver| driver.status().ready == 1).await;
    let first = family(files.path());
    std::fs::remove_file(files.path().join("server")).unwrap();
    kill(first[0], rustix::process::Signal::KILL);
    becomes(&driver, |driver| driver.status().ready == 0).await;
    assert!(side.0.lock().unwrap().is_empty());
    becomes(&driver, |driver| driver.status().ready == 1).await;
    assert!(first.into_iter().all(is_gone));
    assert_ne!(pid(files.path(), "server"), first[0]);
    driver.shutdown().await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_a_failed_start_that_says_so() {
    let files = tempfile::tempdir().unwrap();
    let (driver, _) = driver(files.path(), |process| {
        process.command = vec!["./absent".into()]
    });
    driver.want(1);
    becomes(&driver, |driver| driver.status().failed_in_a_row == 1).await;
    let reason = driver.status().last_failure.unwrap();
    assert!(
        reason.contains("no such program") && reason.contains("./absent"),
        "{reason}"
    );
    driver.shutdown().await;
}

#[tokio::test]
async fn the_stop_command_is_asked_first() {
    let files = tempfile::tempdir().unwrap();
    let (driver, _) = driver(files.path(), |process| {
        let script = "echo \"$1 $2\" > stopped; kill -INT $1";
        let words = ["sh", "-c", script, "stop", "${PID}", "${PORT}"];
        process.stop = Some(words.map(str::to_owned).into());
    });
    driver.want(1);
    becomes(&driver, |driver| driver.status().ready == 1).await;
    let family = family(files.path());
    driver.shutdown().await;
    let told = noted(files.path(), "stopped");
    assert!(told.starts_with(&format!("{} ", family[0])), "{told}");
    assert!(family.into_iter().all(is_gone));
}

fn supervise(arguments: &[&str]) -> Child {
    Command::new(forebay())
        .arg("supervise")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn the_exit_code_is_handed_on() {
    for (script, code) in [("exit 7", 7), ("kill -KILL $$", 137)] {
        let mut child = supervise(&["--", "sh", "-c", script]);
        let held = child.stdin.take();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{script}");
        drop(held);
    }
}

#[test]
fn a_line_stops_it_and_a_deaf_server_is_killed() {
    let script = "trap '' TERM; echo deaf; while :; do sleep 1; done";
    let mut child = supervise(&["--stop-timeout=100", "--", "sh", "-c", script]);
    let mut printed = [0; 4];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut printed)
        .unwrap();
    assert_eq!(&printed, b"deaf");
    let mut control = child.stdin.take().unwrap();
    control.write_all(b"stop\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn an_interrupt_at_the_terminal_is_not_for_it() {
    let mut child = supervise(&["--", "sleep", "100"]);
    let mut control = child.stdin.take().unwrap();
    let mut said = [0; 4];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    assert_eq!(&said, b"pid ");
    kill(child.id().cast_signed(), rustix::process::Signal::INT);
    assert!(child.try_wait().unwrap().is_none());
    control.write_all(b"stop\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_supervisor_that_is_killed_takes_its_server_along() {
    let files = tempfile::tempdir().unwrap();
    let (driver, side) = driver(files.path(), |_| {});
    driver.want(1);
    becomes(&driver, |driver| driver.status().ready == 1).await;
    let [server, near, far] = family(files.path());
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap();
    kill(
        parent.trim().parse().unwrap(),
        rustix::process::Signal::KILL,
    );
    becomes(&driver, |driver| driver.status().ready == 0).await;
    assert!(side.0.lock().unwrap().is_empty());
    all_gone_in_time(&[server, near]);
    kill(far, rustix::process::Signal::KILL); // out of everybody's reach
    driver.shutdown().await;
}
