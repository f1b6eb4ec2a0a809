//! What watched paths lead to: every symlink hop, the file at the end, its content.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// As many as the kernel follows.
const MAX_HOPS: usize = 40;
/// A file whose inode changed less than this before it was read may change again without a visible trace, as the
/// kernel's file clock is coarse: it is read again next time.
const SETTLED: Duration = Duration::from_secs(1);

/// Says whether `name` is a configuration file of a directory: `*.yaml`, `*.yml` or `*.json`, and not hidden
/// (editors and Kubernetes keep their own files behind a leading dot).
pub fn is_config_file(name: &OsStr) -> bool {
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let known = Path::new(name)
        .extension()
        .is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|known| ext == *known));
    known && !hidden
}

/// Which entries of a directory matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Interest {
    names: HashSet<OsString>,
    config_files: bool,
}

impl Interest {
    pub(super) fn wants(&self, name: &OsStr) -> bool {
        self.names.contains(name) || (self.config_files && is_config_file(name))
    }
}

/// Tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            inode: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    fn settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (Ok(seconds), Ok(nanos)) = (self.changed.0.try_into(), self.changed.1.try_into())
        else {
            return false;
        };
        Duration::new(seconds, nanos) + SETTLED < now
    }
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    File {
        real: PathBuf,
        stamp: Stamp,
    },
    Directory,
    /// Neither file nor directory, nothing at all, or out of reach; never opened.
    Nothing(ErrorKind),
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Hash(u64),
    Directory,
    Nothing(ErrorKind),
}

/// One file as it was last read.
#[derive(Debug)]
pub(super) struct Entry {
    found: Found,
    settled: bool,
    pub(super) content: Content,
}

/// The files under each watched path, as last read.
pub(super) type Contents = BTreeMap<PathBuf, BTreeMap<PathBuf, Entry>>;

/// One walk along all watched paths. Nothing is opened but directories.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Real directories to watch, and for what.
    pub(super) dirs: HashMap<PathBuf, Interest>,
    files: BTreeMap<PathBuf, BTreeMap<PathBuf, Found>>,
}

impl View {
    /// Follows every path.
    ///
    /// * `roots`: absolute
    pub(super) fn walk(roots: &BTreeSet<PathBuf>) -> Self {
        let mut view = Self::default();
        for root in roots {
            let files = view.root(root);
            view.files.insert(root.clone(), files);
        }
        view
    }

    /// Says whether nothing looks different from when it was read.
    pub(super) fn matches(&self, read: &Contents) -> bool {
        let same = |(path, found): (&PathBuf, &Found), (read, entry): (&PathBuf, &Entry)| {
            path == read && *found == entry.found
        };
        self.files.len() == read.len()
            && self
                .files
                .iter()
                .zip(read)
                .all(|((root, files), (read, entries))| {
                    root == read
                        && files.len() == entries.len()
                        && files
                            .iter()
                            .zip(entries)
                            .all(|(file, entry)| same(file, entry))
                })
    }

    /// Reads every file that may have changed since `known`.
    pub(super) fn read(self, known: &Contents, hashing: &RandomState) -> Contents {
        let mut contents = Contents::new();
        for (root, files) in self.files {
            let known = known.get(&root);
            let read = |(path, found): (PathBuf, Found)| {
                let settled = match &found {
                    Found::File { stamp, .. } => stamp.settled(SystemTime::now()),
                    Found::Directory | Found::Nothing(_) => true,
                };
                let content = match known.and_then(|known| known.get(&path)) {
                    Some(entry) if entry.settled && entry.found == found => entry.content.clone(),
                    _ => content(&found, hashing),
                };
                (
                    path,
                    Entry {
                        found,
                        settled,
                        content,
                    },
                )
            };
            let entries = files.into_iter().map(read).collect();
            contents.insert(root, entries);
        }
        contents
    }

    fn root(&mut self, root: &Path) -> BTreeMap<PathBuf, Found> {
        let mut files = BTreeMap::new();
        let real = match self.follow(root) {
            Ok((real, metadata)) if metadata.is_dir() => real,
            reached => {
                files.insert(root.to_owned(), found(reached));
                return files;
            }
        };
        self.dirs.entry(real.clone()).or_default().config_files = true;
        let names = match config_files(&real) {
            Ok(names) => names,
            Err(error) => {
                files.insert(root.to_owned(), Found::Nothing(error.kind()));
                return files;
            }
        };
        files.insert(root.to_owned(), Found::Directory);
        for name in names {
            let reached = self.follow(&real.join(&name));
            files.insert(root.join(&name), found(reached));
        }
        files
    }

    /// Resolves `path` as the kernel would, noting every entry on the way whose change would lead elsewhere.
    fn follow(&mut self, path: &Path) -> io::Result<(PathBuf, Metadata)> {
        let mut at = PathBuf::from("/");
        let mut rest = steps(path);
        let mut hops = 0;
        while let Some(step) = rest.pop() {
            if step == ".." {
                at.pop(); // `at` has no symlinks left
                continue;
            }
            let next = at.join(&step);
            let metadata = match fs::symlink_metadata(&next) {
                Ok(metadata) => metadata,
                Err(error) => {
                    self.note(&at, step);
                    return Err(error);
                }
            };
            if metadata.is_symlink() {
                self.note(&at, step);
                hops += 1;
                if hops > MAX_HOPS {
                    return Err(ErrorKind::NotFound.into());
                }
                let target = fs::read_link(&next)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(steps(&target));
            } else if metadata.is_dir() {
                at = next;
            } else {
                self.note(&at, step);
                return match rest.is_empty() {
                    true => Ok((next, metadata)),
                    false => Err(ErrorKind::NotFound.into()), // a file where a directory has to be
                };
            }
        }
        match fs::metadata(&at) {
            Ok(metadata) => Ok((at, metadata)),
            Err(error) => {
                if let (Some(parent), Some(name)) = (at.parent(), at.file_name()) {
                    self.note(parent, name.to_owned());
                }
                Err(error)
            }
        }
    }

    fn note(&mut self, dir: &Path, name: OsString) {
        self.dirs
            .entry(dir.to_owned())
            .or_default()
            .names
            .insert(name);
    }
}

/// The steps of a path, last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let step = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
}

fn config_files(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if is_config_file(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn found(reached: io::Result<(PathBuf, Metadata)>) -> Found {
    match reached {
        Ok((real, metadata)) if metadata.is_file() => Found::File {
            real,
            stamp: Stamp::of(&metadata),
        },
        Ok(_) => Found::Nothing(ErrorKind::InvalidInput), // a pipe or device: reading might never end
        Err(error) => Found::Nothing(error.kind()),
    }
}

fn content(found: &Found, hashing: &RandomState) -> Content {
    match found {
        Found::File { real, .. } => match hash(real, hashing) {
            Ok(hash) => Content::Hash(hash),
            Err(error) => Content::Nothing(error.kind()),
        },
        Found::Directory => Content::Directory,
        Found::Nothing(kind) => Content::Nothing(*kind),
    }
}

fn hash(path: &Path, hashing: &RandomState) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut hasher = hashing.build_hasher(); // SipHash: how the bytes are split into writes makes no difference
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.write(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
