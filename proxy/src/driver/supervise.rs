//! The child between the proxy and one model server: nothing the server started outlives it, or the proxy.
//!
//! Standard input is held open by the proxy: its end, or a line `stop`, stops the server. Standard output tells the
//! proxy what happens ([`Said`]); the server's own output goes, merged, to this child's standard error.
//!
//! Who dies when:
//! * the proxy, however: standard input ends here; the server's group gets SIGTERM (or the `stop` command runs), after
//!   `stop_timeout` everything left gets SIGKILL. Descendants that left the group are adopted and killed too (Linux).
//! * this child by SIGKILL: the kernel kills the server (Linux), the proxy kills the rest of its group.
//! * both at once by SIGKILL: the server dies (Linux); its own children are then out of reach.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, test_kill_process_group,
};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// How often those who must go are looked for while they are few and orphaned.
const SWEEP: Duration = Duration::from_millis(50);
/// The first word of the line that replaces the [`Ending`].
const ENDING: &str = "ending ";

/// What to run.
#[derive(Clone, Debug)]
pub struct Task {
    /// Program and arguments, at least one.
    pub command: Vec<OsString>,
    /// Where it runs; `None`: here.
    pub directory: Option<PathBuf>,
    /// How it is stopped.
    pub ending: Ending,
}

/// How a server is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// A command that runs instead of SIGTERM; `${PID}` becomes the server's process id. When it fails, SIGTERM follows.
    pub stop: Option<Vec<String>>,
    /// After this long everything left is killed.
    pub timeout: Duration,
}

impl Ending {
    /// Returns the line that makes a running supervisor use this from now on.
    pub fn line(&self) -> String {
        let json = serde_json::to_string(self).expect("strings and a duration are JSON");
        format!("{ENDING}{json}\n")
    }
}

/// What the supervisor tells the proxy, one line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The server's process id, which is also its process group.
    Pid(i32),
    /// The server exited with this code.
    Code(i32),
    /// This signal ended the server.
    Signal(i32),
}

impl Said {
    /// Reads a line; `None` when it is none of ours.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, number) = line.trim_end().split_once(' ')?;
        let number = number.parse().ok()?;
        match word {
            "pid" => Some(Self::Pid(number)),
            "code" => Some(Self::Code(number)),
            "signal" => Some(Self::Signal(number)),
            _ => None,
        }
    }

    fn say(self) {
        let (word, number) = match self {
            Self::Pid(pid) => ("pid", pid),
            Self::Code(code) => ("code", code),
            Self::Signal(signal) => ("signal", signal),
        };
        let mut out = std::io::stdout().lock();
        // A proxy that is gone needs no answer.
        let _ = writeln!(out, "{word} {number}").and_then(|()| out.flush());
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::Pid(_) => 0,
            Self::Code(code) => u8::try_from(code).unwrap_or(1),
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

/// Runs the task to its end. Returns the server's exit code, 128 + signal when one ended it.
pub fn run(task: Task) -> ExitCode {
    // Linux shows the name of the file that was executed, which is a link.
    let _ = std::fs::write("/proc/self/comm", "forebay");
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        eprintln!("forebay: processes that leave the server's group may outlive it: {error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    // On this thread, the main one: the server's death signal follows the thread that starts it.
    let code = match runtime {
        Ok(runtime) => runtime.block_on(watch(task)),
        Err(error) => Err(error),
    };
    match code {
        Ok(said) => ExitCode::from(said.exit_code()),
        Err(error) => {
            eprintln!("forebay: cannot supervise: {error}");
            ExitCode::from(125)
        }
    }
}

/// The second stage: asks the kernel to be killed with its parent, then becomes the program. Returns only on failure:
/// 127 when there is no such program, else 126.
pub fn become_program(parent: i32, command: &[OsString]) -> ExitCode {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // It may have died before it was asked.
        if rustix::process::getppid() != Pid::from_raw(parent) {
            return ExitCode::from(125);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    let Some((program, arguments)) = command.split_first() else {
        return ExitCode::from(126);
    };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("forebay: cannot start `{}`: {error}", program.display());
    ExitCode::from(match error.kind() {
        std::io::ErrorKind::NotFound => 127,
        _ => 126,
    })
}

/// Returns the running executable: through a link that stays right when the file is replaced by another version.
pub fn executable() -> std::io::Result<PathBuf> {
    let link = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && link.exists() {
        return Ok(link.to_owned());
    }
    std::env::current_exe()
}

enum Line {
    Stop,
    Ending(Ending),
}

/// Reads standard input on a thread of its own, which may be blocked for ever; its end is a `stop`.
fn listen() -> mpsc::UnboundedReceiver<Line> {
    let (to, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let line = match line.strip_prefix(ENDING) {
                Some(json) => serde_json::from_str(json).ok().map(Line::Ending),
                None => (line == "stop").then_some(Line::Stop),
            };
            if line.is_some_and(|line| to.send(line).is_err()) {
                return;
            }
        }
        let _ = to.send(Line::Stop);
    });
    lines
}

/// The server, its descendants, and what is known of them.
struct Family {
    server: Pid,
    directory: PathBuf,
    ending: Ending,
    /// Set when the server has exited.
    end: Option<Said>,
    /// The `stop` command, while it runs.
    stopper: Option<Pid>,
    /// Set when something was asked to go; then it is killed.
    kill_at: Option<Instant>,
}

async fn watch(task: Task) -> std::io::Result<Said> {
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // A terminal or a session that ends: the proxy decides what that means for its servers.
    let _interrupt = signal(SignalKind::interrupt())?;
    let _hangup = signal(SignalKind::hangup())?;
    let mut lines = listen();
    let mut family = Family::start(&task)?;
    loop {
        if family.reap()?
            && let Some(end) = family.end
        {
            return Ok(end);
        }
        let next = family.next_look();
        tokio::select! {
            _ = children.recv() => {}
            _ = terminate.recv() => family.stop(),
            Some(line) = lines.recv() => match line {
                Line::Stop => family.stop(),
                Line::Ending(ending) => family.ending = ending,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => family.sweep(),
        }
    }
}

impl Family {
    fn start(task: &Task) -> std::io::Result<Self> {
        let log = || std::io::stderr().as_fd().try_clone_to_owned();
        let mut command = Command::new(executable()?);
        command
            .arg0("forebay")
            .arg("supervise")
            .arg(format!("--child-of={}", std::process::id()))
            .arg("--")
            .args(&task.command)
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .process_group(0);
        if let Some(directory) = &task.directory {
            command.current_dir(directory);
        }
        let server = command.spawn().map_err(|error| match &task.directory {
            Some(directory) if !directory.is_dir() => {
                std::io::Error::other(format!("no directory `{}`", directory.display()))
            }
            _ => error,
        })?;
        let server = pid_of(&server);
        Said::Pid(server.as_raw_pid()).say();
        Ok(Self {
            server,
            directory: task.directory.clone().unwrap_or_else(|| ".".into()),
            ending: task.ending.clone(),
            end: None,
            stopper: None,
            kill_at: None,
        })
    }

    /// Collects whoever exited. Returns whether nobody is left.
    fn reap(&mut self) -> std::io::Result<bool> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.server => {
                    let end = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Said::Code(code),
                        (None, Some(signal)) => Said::Signal(signal),
                        (None, None) => continue,
                    };
                    end.say();
                    self.end = Some(end);
                    self.dismiss();
                }
                Ok(Some((pid, status))) => {
                    if self.stopper == Some(pid) {
                        self.stopper = None;
                        if status.exit_status() != Some(0) && self.end.is_none() {
                            eprintln!("forebay: the stop command failed: SIGTERM instead");
                            self.signal(Signal::TERM);
                        }
                    }
                }
                Ok(None) => return Ok(false),
                // Others of the group may have a parent elsewhere, where nobody is adopted.
                Err(rustix::io::Errno::CHILD) => {
                    return Ok(self.end.is_none() || test_kill_process_group(self.server).is_err());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The server is to go: politely, and for sure after the timeout.
    fn stop(&mut self) {
        if self.kill_at.is_some() {
            return;
        }
        self.kill_at = Some(Instant::now() + self.ending.timeout);
        let Some((program, arguments)) = self
            .ending
            .stop
            .as_deref()
            .and_then(<[String]>::split_first)
        else {
            return self.signal(Signal::TERM);
        };
        let pid = self.server.as_raw_pid().to_string();
        let filled = |word: &String| word.replace("${PID}", &pid);
        let log = std::io::stderr().as_fd().try_clone_to_owned();
        let started = Command::new(filled(program))
            .args(arguments.iter().map(filled))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.map_or_else(|_| Stdio::null(), Stdio::from))
            .process_group(0)
            .spawn();
        match started {
            Ok(stopper) => self.stopper = Some(pid_of(&stopper)),
            Err(error) => {
                eprintln!("forebay: cannot run the stop command `{program}`: {error}");
                self.signal(Signal::TERM);
            }
        }
    }

    /// The server has exited: whoever it left behind goes too.
    fn dismiss(&mut self) {
        let now = Instant::now();
        self.kill_at.get_or_insert(now + self.ending.timeout);
        self.signal(Signal::TERM);
    }

    /// Returns when to look again, without being woken by a child.
    fn next_look(&self) -> Option<Instant> {
        let kill_at = self.kill_at?;
        let soon = Instant::now() + SWEEP;
        match self.end {
            // Somebody may end without being our child, and we hear nothing of it.
            Some(_) => Some(soon),
            None if kill_at <= Instant::now() => Some(soon),
            None => Some(kill_at),
        }
    }

    /// Past the timeout, kills all that is left; again and again, because each death may leave us orphans.
    fn sweep(&mut self) {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.signal(Signal::KILL);
        }
    }

    /// Signals the group and the adopted.
    fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.server, signal);
        for child in adopted() {
            if child != self.server {
                let _ = kill_process(child, signal);
            }
        }
    }
}

/// Returns our children; empty where the kernel does not list them.
fn adopted() -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_child(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        assert_eq!(Said::parse("pid 12\n"), Some(Said::Pid(12)));
        assert_eq!(Said::parse("code 3\n"), Some(Said::Code(3)));
        assert_eq!(Said::parse("signal 9"), Some(Said::Signal(9)));
        assert_eq!(Said::parse("hello"), None);
        assert_eq!(Said::parse("pid x"), None);
    }

    #[test]
    fn a_signal_is_128_more() {
        assert_eq!(Said::Signal(15).exit_code(), 143);
        assert_eq!(Said::Code(3).exit_code(), 3);
    }

    #[test]
    fn an_ending_travels_on_one_line() {
        let ending = Ending {
            stop: Some(vec!["sh".into(), "a\nb".into()]),
            timeout: Duration::from_millis(1500),
        };
        let line = ending.line();
        assert_eq!(line.matches('\n').count(), 1);
        let json = line.strip_prefix(ENDING).unwrap();
        assert_eq!(serde_json::from_str::<Ending>(json).unwrap(), ending);
    }
}
