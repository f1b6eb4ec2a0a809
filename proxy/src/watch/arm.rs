//! The inotify watches themselves.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::inbox::{Inbox, Lost};
use super::view::Interest;

/// Keeps one watch per directory; only real paths, since two names of one inode share a watch.
pub(super) struct Arms {
    wanted: bool,
    watcher: Option<RecommendedWatcher>,
    /// Device and inode tell a directory from the one that took its place.
    armed: HashMap<PathBuf, (u64, u64)>,
    fallback: Option<String>,
}

impl Arms {
    pub(super) fn new(wanted: bool) -> Self {
        let fallback = (!wanted).then(|| "inotify is switched off".to_owned());
        Self {
            wanted,
            watcher: None,
            armed: HashMap::new(),
            fallback,
        }
    }

    /// Returns why polling has to make up for missing watches, or `None` when there are none missing.
    pub(super) fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Watches exactly `dirs` and says whether a watch was added, so that what was seen before it may be outdated.
    ///
    /// * `lost`: whose watch is gone although the directory may be back under the same inode
    pub(super) fn update(
        &mut self,
        dirs: &HashMap<PathBuf, Interest>,
        lost: &Lost,
        inbox: &Arc<Inbox>,
    ) -> bool {
        if !self.wanted {
            return false;
        }
        let watcher = match self.watcher.take() {
            Some(watcher) => self.watcher.insert(watcher),
            None => {
                let inbox = Arc::clone(inbox);
                let hear = move |event| inbox.hear(event);
                match notify::recommended_watcher(hear) {
                    Ok(watcher) => self.watcher.insert(watcher),
                    Err(error) => {
                        self.fallback = Some(error.to_string());
                        return false;
                    }
                }
            }
        };
        self.armed.retain(|dir, inode| {
            let stale = lost.any || lost.dirs.contains(dir) || identity(dir).ok() != Some(*inode);
            let keep = dirs.contains_key(dir) && !stale;
            if !keep {
                // The kernel may have removed it already, with the directory.
                let _: notify::Result<()> = watcher.unwatch(dir);
            }
            keep
        });
        let mut moved = false;
        self.fallback = None;
        for dir in dirs
            .keys()
            .filter(|dir| !self.armed.contains_key(*dir))
            .cloned()
            .collect::<Vec<_>>()
        {
            match arm(watcher, &dir) {
                Ok(inode) => {
                    self.armed.insert(dir, inode);
                    moved = true;
                }
                Err(error) if is_missing(&error) => moved = true, // the walk is outdated
                Err(error) => self.fallback = Some(error.to_string()),
            }
        }
        moved
    }
}

fn arm(watcher: &mut RecommendedWatcher, dir: &Path) -> notify::Result<(u64, u64)> {
    let inode = identity(dir).map_err(notify::Error::io)?; // before the watch: if it is replaced now, the next look sees it
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(inode)
}

fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(dir).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        }
        _ => false,
    }
}
