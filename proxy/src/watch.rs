//! Tells when watched files have new content: configuration, certificates, key and list files.
//!
//! Events come from inotify on the directory of every symlink hop, because a watch on the file itself follows the
//! symlink to an inode that the next ConfigMap swap deletes. An event is only a hint: what counts is the hash of the
//! content once the writer has been quiet for [`WatchOptions::debounce`]. A slow poll is the net under both.

mod arm;
mod inbox;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;

use arm::Arms;
use inbox::{Inbox, Wake};
pub use view::is_config_file;
use view::{Contents, View};

/// A content that flips back soon after it was reported may have been read in between, so it is reported again.
const REREAD: Duration = Duration::from_secs(1);
/// Rounds of "walk, arm what is new, walk again" before a restless directory is left to the next event.
const ROUNDS: usize = 8;
/// Time between two attempts to report while the receiver has not taken the last change.
const RESEND: Duration = Duration::from_millis(20);

/// How eagerly a [`Watcher`] looks.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Quiet time after the last event before files are read; default 100 ms.
    pub debounce: Duration,
    /// The longest a change waits while events keep coming; default 1 s.
    pub max_delay: Duration,
    /// Time between two looks when inotify works; default 5 s.
    pub poll: Duration,
    /// Time between two looks while inotify is missing or incomplete; default 500 ms, which together with the debounce
    /// and the reading stays below a second.
    pub poll_without_inotify: Duration,
    /// Whether inotify is tried at all; default true.
    pub inotify: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(100),
            max_delay: Duration::from_secs(1),
            poll: Duration::from_secs(5),
            poll_without_inotify: Duration::from_millis(500),
            inotify: true,
        }
    }
}

/// New content at watched paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The files that changed, appeared or vanished, sorted: a watched path as it was given but absolute, or
    /// `directory/name` for a file of a watched directory.
    pub paths: Vec<PathBuf>,
}

/// Why nothing is watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// A path is empty, or relative while the working directory is gone.
    #[error("cannot watch {path:?}: {cause}")]
    Path {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// No thread could be started.
    #[error("cannot start the watching thread: {0}")]
    Thread(std::io::Error),
    /// The watching thread has ended, because nobody receives its changes any more.
    #[error("the watching thread has ended")]
    Ended,
}

/// Watches paths on a thread of its own until it, or the receiver of its changes, is dropped.
#[derive(Debug)]
pub struct Watcher {
    inbox: Arc<Inbox>,
}

impl Watcher {
    /// Starts watching and returns once the present content is known: a change after that is reported.
    ///
    /// * `paths`: files or directories, which may be missing and are watched until they appear. Of a directory its
    ///   own files that [`is_config_file`] accepts count, not those of directories below.
    ///
    /// Start before the first load: a file that changes between being loaded and being watched goes unnoticed. The
    /// receiver gets one [`Change`] per burst of writes; while it does not take them, they are merged.
    pub async fn start(
        paths: Vec<PathBuf>,
        options: WatchOptions,
    ) -> Result<(Self, mpsc::Receiver<Change>), WatchError> {
        let paths = absolute(paths)?;
        let (changes, receiver) = mpsc::channel(1);
        let inbox = Arc::new(Inbox::default());
        let thread = Thread {
            arms: Arms::new(options.inotify),
            inbox: Arc::clone(&inbox),
            options,
            changes,
            hashing: RandomState::new(),
            contents: Contents::new(),
            changed_at: None,
            unsent: BTreeSet::new(),
        };
        let watcher = Self { inbox };
        let known = watcher.inbox.set_paths(paths);
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || thread.run())
            .map_err(WatchError::Thread)?;
        known.await.map_err(|_| WatchError::Ended)?;
        Ok((watcher, receiver))
    }

    /// Replaces what is watched and returns once the content of every new path is known.
    ///
    /// The new paths' present content is not reported, so name a file here before it is read. Paths that stay keep
    /// what is known of them, and a change to them that was not reported yet still is.
    pub async fn set_paths(&self, paths: Vec<PathBuf>) -> Result<(), WatchError> {
        let known = self.inbox.set_paths(absolute(paths)?);
        known.await.map_err(|_| WatchError::Ended)
    }

    /// Returns why files are polled at [`WatchOptions::poll_without_inotify`], or `None` while inotify covers them all.
    pub fn fallback(&self) -> Option<String> {
        self.inbox.fallback()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

fn absolute(paths: Vec<PathBuf>) -> Result<BTreeSet<PathBuf>, WatchError> {
    let absolute = |path: PathBuf| match std::path::absolute(&path) {
        Ok(absolute) => Ok(absolute),
        Err(cause) => Err(WatchError::Path { path, cause }),
    };
    paths.into_iter().map(absolute).collect()
}

/// The watching thread: it alone reads files and talks to inotify.
struct Thread {
    inbox: Arc<Inbox>,
    options: WatchOptions,
    changes: mpsc::Sender<Change>,
    arms: Arms,
    hashing: RandomState,
    contents: Contents,
    changed_at: Option<Instant>,
    unsent: BTreeSet<PathBuf>,
}

impl Thread {
    fn run(mut self) {
        let mut paths = BTreeSet::new();
        let mut next_poll = Instant::now();
        while !self.changes.is_closed() {
            let until = match self.unsent.is_empty() {
                true => next_poll,
                false => next_poll.min(Instant::now() + RESEND),
            };
            match self.inbox.wait(until, &self.options) {
                Wake::Stop => return,
                Wake::Time if Instant::now() < next_poll => {
                    self.send();
                    continue;
                }
                Wake::SetPaths(new, known) => {
                    self.contents.retain(|root, _| new.contains(root));
                    paths = new;
                    self.scan(&paths, false);
                    let _: Result<(), ()> = known.send(()); // whoever gave up waiting needs no answer
                }
                Wake::Events { data } => self.scan(&paths, data),
                Wake::Time => self.poll(&paths),
            }
            next_poll = Instant::now() + self.poll_interval();
        }
    }

    fn poll_interval(&self) -> Duration {
        match self.arms.fallback() {
            None => self.options.poll,
            Some(_) => self.options.poll_without_inotify,
        }
    }

    /// Looks without an event. What differs is read after the debounce, in case its writer is not done.
    fn poll(&mut self, paths: &BTreeSet<PathBuf>) {
        let view = self.settle(paths);
        if view.matches(&self.contents) {
            self.compare(view, false);
        } else {
            self.inbox.suspect();
        }
    }

    fn scan(&mut self, paths: &BTreeSet<PathBuf>, data: bool) {
        let view = self.settle(paths);
        self.compare(view, data);
    }

    /// Walks until every directory the walk went through was watched before the walk began, so that no later write
    /// goes without an event.
    fn settle(&mut self, paths: &BTreeSet<PathBuf>) -> View {
        for _ in 0..ROUNDS {
            let view = View::walk(paths);
            let lost = self.inbox.listen_to(view.dirs.clone());
            let moved = self.arms.update(&view.dirs, &lost, &self.inbox);
            self.inbox.set_fallback(self.arms.fallback());
            if !moved {
                return view;
            }
        }
        self.inbox.suspect(); // hops move faster than they can be followed: look again soon
        View::walk(paths)
    }

    /// Reads what may have changed and reports what did.
    ///
    /// * `data`: whether events say that something was written
    fn compare(&mut self, view: View, data: bool) {
        let new = view.read(&self.contents, &self.hashing);
        let mut paths = differences(&self.contents, &new);
        self.contents = new;
        let now = Instant::now();
        if !paths.is_empty() {
            self.changed_at = Some(now);
        } else if data && self.changed_at.is_some_and(|at| now - at < REREAD) {
            // Written again to the content last reported: whoever reloads may have read what was there between.
            paths = self.contents.keys().cloned().collect();
        }
        self.unsent.extend(paths);
        self.send();
    }

    /// Never waits for the receiver, which may itself be waiting in [`Watcher::set_paths`].
    fn send(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        if let Ok(place) = self.changes.try_reserve() {
            let paths = std::mem::take(&mut self.unsent).into_iter().collect();
            place.send(Change { paths });
        }
    }
}

/// Lists the files whose content differs, of the roots known to both.
fn differences(old: &Contents, new: &Contents) -> Vec<PathBuf> {
    let mut paths = BTreeSet::new();
    for (root, new) in new {
        let Some(old) = old.get(root) else { continue };
        paths.extend(changed(old, new).cloned());
        paths.extend(changed(new, old).cloned());
    }
    paths.into_iter().collect()
}

fn changed<'a>(
    old: &'a BTreeMap<PathBuf, view::Entry>,
    new: &'a BTreeMap<PathBuf, view::Entry>,
) -> impl Iterator<Item = &'a PathBuf> {
    let content = |files: &'a BTreeMap<PathBuf, view::Entry>, path: &Path| {
        files.get(path).map(|entry| entry.content.clone())
    };
    new.keys()
        .filter(move |path| content(old, path) != content(new, path))
}
