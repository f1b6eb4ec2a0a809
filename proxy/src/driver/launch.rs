//! Starts one server below its supervisor and says what becomes of it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use super::log::{Log, Splitter};
use super::supervise::{Ending, Said, executable};

/// How long the last lines of a server may be on their way when everything of it is gone.
const LAST_LINES: Duration = Duration::from_millis(200);

/// A server to start: nothing is left to replace in it but `${PID}` in the ending.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Names the start in the log.
    pub(super) replica: u64,
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    /// The latest one counts.
    pub(super) ending: watch::Receiver<Ending>,
}

/// A server that was started. Dropping `stop` stops it.
pub(super) struct Running {
    /// Why it is no longer there, once, as soon as it is not; the channel closes when all its descendants are gone too
    /// and everything they printed is in the log.
    pub(super) exited: mpsc::Receiver<String>,
    pub(super) stop: Stop,
}

/// Stops a server when it is dropped.
pub(super) struct Stop {
    _held: mpsc::Sender<()>,
}

impl Stop {
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (held, dropped) = mpsc::channel(1);
        (Self { _held: held }, dropped)
    }
}

/// Starts servers. Failures are told as an exit.
pub(super) trait Launch: Send + Sync {
    fn launch(&self, order: Order, log: Log) -> Running;
}

/// Starts real ones.
pub(super) struct Supervised {
    /// The executable that knows `supervise`; `None`: the running one.
    pub(super) program: Option<PathBuf>,
}

impl Launch for Supervised {
    fn launch(&self, order: Order, log: Log) -> Running {
        let (to, exited) = mpsc::channel(1);
        let (stop, stopped) = Stop::new();
        let program = self.program.clone();
        tokio::spawn(async move {
            if let Err(error) = follow(program, order, log, stopped, &to).await {
                let _ = to.try_send(format!("cannot start: {error}"));
            }
        });
        Running { exited, stop }
    }
}

fn spawn(program: Option<PathBuf>, order: &Order) -> io::Result<Child> {
    let program = program.map_or_else(executable, Ok)?;
    let ending = order.ending.borrow().clone();
    let mut command = Command::new(program);
    command
        .arg0("forebay")
        .arg("supervise")
        .arg(format!("--stop-timeout={}", ending.timeout.as_millis()))
        .arg("--directory")
        .arg(&order.directory);
    for word in ending.stop.iter().flatten() {
        command.arg(format!("--stop={word}"));
    }
    command
        .arg("--")
        .args(&order.command)
        .envs(&order.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Control-C at a terminal is for the proxy, which drains first.
        .process_group(0)
        .spawn()
}

/// One server, from its start until nothing of it is left.
async fn follow(
    program: Option<PathBuf>,
    order: Order,
    log: Log,
    mut stopped: mpsc::Receiver<()>,
    exited: &mpsc::Sender<String>,
) -> io::Result<()> {
    let mut ending = order.ending.clone();
    let replica = order.replica;
    let spawned = tokio::task::spawn_blocking(move || spawn(program, &order));
    let mut child = spawned.await.map_err(io::Error::other)??;
    let unpiped = || io::Error::other("no pipe");
    let control: OwnedFd = child.stdin.take().ok_or_else(unpiped)?.into();
    let said: OwnedFd = child.stdout.take().ok_or_else(unpiped)?.into();
    let printed: OwnedFd = child.stderr.take().ok_or_else(unpiped)?.into();
    let mut control = Some(pipe::Sender::from_owned_fd(control)?);
    let mut said = BufReader::new(pipe::Receiver::from_owned_fd(said)?).take(64 << 10);
    let printing = tokio::spawn(keep(
        pipe::Receiver::from_owned_fd(printed)?,
        replica,
        log.clone(),
    ));

    let (mut group, mut told, mut line) = (None, false, String::new());
    loop {
        tokio::select! {
            read = said.read_line(&mut line) => {
                if read? == 0 {
                    break;
                }
                match Said::parse(&line) {
                    Some(Said::Pid(pid)) => group = Pid::from_raw(pid),
                    Some(end) => {
                        told = true;
                        let _ = exited.try_send(describe(end));
                    }
                    None => {}
                }
                line.clear();
            }
            _ = stopped.recv(), if control.is_some() => control = None,
            Ok(()) = ending.changed(), if control.is_some() => {
                let line = ending.borrow_and_update().line();
                if let Some(pipe) = &control {
                    // Far smaller than a pipe; a supervisor that does not read has gone.
                    let _ = pipe.try_write(line.as_bytes());
                }
            }
        }
    }
    let status = tokio::task::spawn_blocking(move || child.wait()).await;
    if !told {
        // Killed before its server: what the kernel did not kill with it, we do.
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = status.map_err(io::Error::other)??;
        let _ = exited.try_send(format!("its supervisor ended: {}", ended(status)));
    }
    let abort = printing.abort_handle();
    if tokio::time::timeout(LAST_LINES, printing).await.is_err() {
        abort.abort();
    }
    Ok(())
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(125), _) => "it cannot work here, see the log".into(),
        (Some(code), _) => describe(Said::Code(code)),
        (None, signal) => describe(Said::Signal(signal.unwrap_or_default())),
    }
}

fn describe(end: Said) -> String {
    match end {
        Said::Code(127) => "exited with code 127: no such program".into(),
        Said::Code(126) => "exited with code 126: not executable".into(),
        Said::Code(code) => format!("exited with code {code}"),
        Said::Signal(9) => "killed by signal 9; if nobody did, memory ran out".into(),
        Said::Signal(signal) => format!("ended by signal {signal}"),
        Said::Pid(_) => "runs".into(),
    }
}

/// Moves what a server prints into the log, to the end.
async fn keep(mut printed: pipe::Receiver, replica: u64, log: Log) {
    let mut splitter = Splitter::default();
    let mut block = vec![0; 16 << 10];
    while let Ok(read @ 1..) = printed.read(&mut block).await {
        splitter.feed(&block[..read], |line| log.push(replica, line));
    }
    splitter.finish(|line| log.push(replica, line));
}
