//! Reads configuration files and hands them to [`forebay_config::load`].

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_config::diagnostic::Diagnostics;
use forebay_config::load::{Loaded, SIZE_MAX, SourceFile};

/// The file that is read when none is named, if it is there.
const LOCAL: &str = "./forebay.yaml";
/// The directory that is read when no file is named and [`LOCAL`] is not there.
const SYSTEM: &str = "/etc/forebay";
/// What a file of a configuration directory ends with.
const EXTENSIONS: &[&str] = &["yaml", "yml", "json"];
/// What standard input is called.
const STDIN: &str = "-";

/// Why configuration files could not be read. The exit code is 2.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or directory could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not text.
    #[error("cannot read {}: it is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// A directory without configuration files.
    #[error("cannot read {}: no file in it ends with .yaml, .yml or .json", .0.display())]
    Empty(PathBuf),
    /// More than 64 MiB.
    #[error("cannot read {}: the configuration is larger than {} MiB", .0.display(), SIZE_MAX >> 20)]
    TooLarge(PathBuf),
    /// No path was given, and no default is there.
    #[error("no configuration: name one with -c, or put it at {LOCAL} or into {SYSTEM}/")]
    Missing,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// A file could not be read: exit code 2.
    Read(ReadError),
    /// The files were read and are not legal: exit code 1.
    Invalid {
        /// Every problem.
        diagnostics: Diagnostics,
        /// The files, to show the lines at fault.
        sources: Vec<SourceFile>,
    },
}

impl LoadError {
    /// Returns the exit code of commands that fail this way.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Read(_) => 2,
            Self::Invalid { .. } => 1,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Invalid {
                diagnostics,
                sources,
            } => f.write_str(&diagnostics.render(sources)),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Reads and loads a configuration; environment variables are those of the process.
///
/// * `paths`: files, directories, or `-` for standard input; none: the default places
///
/// # Errors
///
/// When a file cannot be read, or the configuration is not legal.
pub fn load(paths: &[PathBuf]) -> Result<(Loaded, Vec<SourceFile>), LoadError> {
    let sources = read(paths)?;
    match forebay_config::load::load(&sources, &|name| std::env::var(name).ok()) {
        Ok(loaded) => Ok((loaded, sources)),
        Err(diagnostics) => Err(LoadError::Invalid {
            diagnostics,
            sources,
        }),
    }
}

/// Reads configuration files. A directory stands for its `*.yaml`, `*.yml` and `*.json`, sorted by name, without those
/// that start with a dot; other directories inside it are left alone.
///
/// # Errors
///
/// When one cannot be read, or all together are larger than 64 MiB.
pub fn read(paths: &[PathBuf]) -> Result<Vec<SourceFile>, ReadError> {
    let mut files = Vec::new();
    for path in resolve(paths)? {
        match path.is_dir() {
            true => files.extend(in_directory(&path)?),
            false => files.push(path),
        }
    }
    let mut sources = Vec::new();
    let mut left = SIZE_MAX;
    for path in files {
        let source = read_file(&path, left)?;
        left -= source.text.len();
        sources.push(source);
    }
    Ok(sources)
}

/// Returns the paths that are read when `paths` were asked for: themselves, or the default place.
///
/// # Errors
///
/// When there are none and no default is there.
pub fn resolve(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ReadError> {
    if !paths.is_empty() {
        return Ok(paths.to_vec());
    }
    let default = [LOCAL, SYSTEM]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    default.map(|path| vec![path]).ok_or(ReadError::Missing)
}

fn in_directory(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError::Io {
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|extension| extension.to_str());
        // A link that leads nowhere is no directory: reading it says why.
        if !hidden
            && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
            && !path.is_dir()
        {
            files.push(path);
        }
    }
    files.sort_unstable();
    match files.is_empty() {
        true => Err(ReadError::Empty(directory.to_owned())),
        false => Ok(files),
    }
}

fn read_file(path: &Path, left: usize) -> Result<SourceFile, ReadError> {
    let failed = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let limit = left as u64 + 1;
    if path == Path::new(STDIN) {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    } else {
        std::fs::File::open(path)
            .map_err(failed)?
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    }
    if bytes.len() > left {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| ReadError::NotText(path.to_owned()))?;
    let directory = path.parent().map(Path::to_owned).unwrap_or_default();
    Ok(SourceFile {
        name: Arc::from(path.to_string_lossy().as_ref()),
        directory,
        text,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory that is gone when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("forebay-load-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_directory_is_read_in_the_order_of_names() {
        let scratch = Scratch::new("order");
        scratch.write("b.yml", "clusters: [{name: c, endpoints: ['127.0.0.1:1']}]");
        scratch.write("a.yaml", "routes: [{name: r, cluster: c}]");
        scratch.write("c.json", "{}");
        scratch.write(".hidden.yaml", "nonsense: true");
        scratch.write("notes.txt", "nonsense: true");
        fs::create_dir(scratch.0.join("sub.yaml")).unwrap();
        let (loaded, sources) = load(std::slice::from_ref(&scratch.0)).unwrap();
        let names: Vec<&str> = sources
            .iter()
            .filter_map(|source| source.name.rsplit('/').next())
            .collect();
        assert_eq!(names, ["a.yaml", "b.yml", "c.json"]);
        assert_eq!(loaded.config.routes.len(), 1);
    }

    #[test]
    fn unreadable_is_2_and_invalid_is_1() {
        let scratch = Scratch::new("codes");
        let code = |path: PathBuf| load(&[path]).unwrap_err().exit_code();
        assert_eq!(code(scratch.0.join("absent.yaml")), 2);
        assert_eq!(code(scratch.0.clone()), 2);
        let path = scratch.0.join("latin1.yaml");
        fs::write(&path, b"routes: \xe9").unwrap();
        assert_eq!(code(path), 2);
        let invalid = scratch.write("a.yaml", "ruotes: []\n");
        let error = load(std::slice::from_ref(&invalid)).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(
            error.to_string().contains("did you mean `routes`?"),
            "{error}"
        );
    }

    #[test]
    fn files_are_relative_to_their_own_directory() {
        let scratch = Scratch::new("relative");
        let path = scratch.write(
            "a.yaml",
            "listeners: [{name: l, address: '127.0.0.1:0', tls: {certificate: a.crt, key: /b.key}}]",
        );
        let (loaded, _) = load(&[path]).unwrap();
        let tls = loaded.config.listeners[0].tls.as_ref().unwrap();
        assert_eq!(tls.certificates[0].certificate, scratch.0.join("a.crt"));
        assert_eq!(tls.certificates[0].key, Path::new("/b.key"));
    }
}
