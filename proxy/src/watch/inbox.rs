//! What the watching thread waits for: events, new paths, the end.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind};
use tokio::sync::oneshot;

use super::WatchOptions;
use super::view::Interest;

/// Shared by the [`Watcher`](super::Watcher), its thread and the event handler. Bounded: events are merged as they come.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    paths: VecDeque<(BTreeSet<PathBuf>, oneshot::Sender<()>)>,
    /// First and last event since the last scan.
    events: Option<(Instant, Instant)>,
    /// Some event said more than that attributes changed.
    data: bool,
    dirs: HashMap<PathBuf, Interest>,
    lost: Lost,
    fallback: Option<String>,
}

/// Directories whose watch died with them, since the last time somebody asked.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Events were dropped: any of them.
    pub(super) any: bool,
    /// Removed, or moved away.
    pub(super) dirs: HashSet<PathBuf>,
}

/// Why the thread woke up.
pub(super) enum Wake {
    Stop,
    SetPaths(BTreeSet<PathBuf>, oneshot::Sender<()>),
    Events { data: bool },
    Time,
}

impl Inbox {
    /// Asks for other paths; the answer comes when their content is known.
    pub(super) fn set_paths(&self, paths: BTreeSet<PathBuf>) -> oneshot::Receiver<()> {
        let (known, answer) = oneshot::channel();
        let mut state = self.lock();
        state.paths.retain(|(_, waiting)| !waiting.is_closed()); // bounded by the callers that still wait
        state.paths.push_back((paths, known));
        self.wake.notify_one();
        answer
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Asks for a scan after the debounce, as an event that may mean nothing.
    pub(super) fn suspect(&self) {
        self.lock().note(false);
        self.wake.notify_one();
    }

    /// Sets which events count from now on and returns the directories to watch anew.
    pub(super) fn listen_to(&self, dirs: HashMap<PathBuf, Interest>) -> Lost {
        let mut state = self.lock();
        state.dirs = dirs;
        std::mem::take(&mut state.lost)
    }

    /// Returns why files are polled often.
    pub(super) fn fallback(&self) -> Option<String> {
        self.lock().fallback.clone()
    }

    /// Sets why files are polled often.
    pub(super) fn set_fallback(&self, why: Option<&str>) {
        let mut state = self.lock();
        if state.fallback.as_deref() == why {
            return;
        }
        match why {
            Some(why) => tracing::warn!(why, "files are polled: inotify does not cover them"),
            None => tracing::info!("inotify covers all watched files"),
        }
        state.fallback = why.map(str::to_owned);
    }

    /// Takes an event from inotify.
    pub(super) fn hear(&self, event: notify::Result<Event>) {
        let mut state = self.lock();
        let relevant = match event {
            Ok(event) if !event.need_rescan() => state.hear(&event),
            Ok(_) | Err(_) => {
                state.lost.any = true; // whatever was dropped may have been the end of a watch
                Some(true)
            }
        };
        if let Some(data) = relevant {
            state.note(data);
            self.wake.notify_one();
        }
    }

    /// Waits for something to do, at most `until` then.
    pub(super) fn wait(&self, until: Instant, options: &WatchOptions) -> Wake {
        let mut state = self.lock();
        loop {
            if state.stop {
                return Wake::Stop;
            }
            if let Some((paths, known)) = state.paths.pop_front() {
                return Wake::SetPaths(paths, known);
            }
            let now = Instant::now();
            let quiet = state
                .events
                .map(|(first, last)| (first + options.max_delay).min(last + options.debounce));
            if quiet.is_some_and(|quiet| now >= quiet) {
                state.events = None;
                return Wake::Events {
                    data: std::mem::take(&mut state.data),
                };
            }
            let due = match quiet {
                Some(quiet) => quiet.min(until),
                None => until,
            };
            if now >= due {
                return Wake::Time;
            }
            state = match self.wake.wait_timeout(state, due - now) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, data: bool) {
        let now = Instant::now();
        let first = self.events.map_or(now, |(first, _)| first);
        self.events = Some((first, now));
        self.data |= data;
    }

    /// Says whether the event concerns a watched file, and then whether it may have changed its content.
    fn hear(&mut self, event: &Event) -> Option<bool> {
        let data = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => return None, // our own reading
            EventKind::Modify(ModifyKind::Metadata(_)) => false,
            _ => true,
        };
        let gone = matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From))
        );
        let mut relevant = false;
        for path in &event.paths {
            relevant |= self.wants(path);
            if gone {
                let below = self.dirs.keys().filter(|dir| dir.starts_with(path));
                for dir in below {
                    self.lost.dirs.insert(dir.clone());
                    relevant = true;
                }
            }
        }
        relevant.then_some(data)
    }

    fn wants(&self, path: &Path) -> bool {
        let of = |dir: &Path| self.dirs.get(dir);
        of(path).is_some()
            || match (path.parent().and_then(of), path.file_name()) {
                (Some(interest), Some(name)) => interest.wants(name),
                _ => false,
            }
    }
}
