//! List and key files: read when a snapshot is built, each once.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::auth::Digest;
use super::blocks::Blocks;

/// Largest list or key file, bytes.
const MAX_FILE: u64 = 64 << 20;

/// Why a list or key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It is larger than 64 MiB, or not text.
    #[error("cannot read {}: {why}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A line is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// The files read for one snapshot.
#[derive(Debug, Default)]
pub struct Files {
    contents: BTreeMap<PathBuf, u64>,
    blocks: HashMap<PathBuf, Arc<Blocks>>,
}

impl Files {
    /// The addresses of a list file: one address or block per line, `#` starts a comment.
    ///
    /// # Errors
    ///
    /// Unreadable, or a line is no address.
    pub fn blocks(&mut self, path: &Path) -> Result<Arc<Blocks>, FileError> {
        if let Some(known) = self.blocks.get(path) {
            return Ok(Arc::clone(known));
        }
        let text = self.text(path)?;
        let mut nets = Vec::new();
        for (line, entry) in lines(&text) {
            nets.push(net(entry).ok_or_else(|| FileError::Line {
                path: path.to_owned(),
                line,
                message: format!("`{}` is no address and no block", shown(entry)),
            })?);
        }
        let blocks = Arc::new(Blocks::new(nets));
        self.blocks.insert(path.to_owned(), Arc::clone(&blocks));
        Ok(blocks)
    }

    /// The keys of a key file: lines `NAME sha256:HEX`, `#` starts a comment.
    ///
    /// # Errors
    ///
    /// Unreadable, a line is wrong, or two lines have the same key.
    pub fn keys(&mut self, path: &Path) -> Result<HashMap<Digest, Arc<str>>, FileError> {
        let text = self.text(path)?;
        let mut keys = HashMap::new();
        for (line, entry) in lines(&text) {
            let wrong = |message: &str| FileError::Line {
                path: path.to_owned(),
                line,
                message: message.to_owned(),
            };
            let mut words = entry.split_ascii_whitespace();
            let (Some(name), Some(hash), None) = (words.next(), words.next(), words.next()) else {
                return Err(wrong("a line is `NAME sha256:HEX`")); // never shown: it may hold a key
            };
            let digest = hash
                .strip_prefix("sha256:")
                .and_then(digest)
                .ok_or_else(|| wrong("the hash of a key is `sha256:` and 64 hex digits"))?;
            if keys.insert(digest, Arc::from(name)).is_some() {
                return Err(wrong("an earlier line has the same key"));
            }
        }
        Ok(keys)
    }

    /// Every file that was read.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.contents.keys().map(PathBuf::as_path)
    }

    /// True when a file is not what was read any more; blocking.
    pub fn changed(&self) -> bool {
        self.contents
            .iter()
            .any(|(path, &hash)| read(path).map_or(true, |text| hash_of(&text) != hash))
    }

    /// Forgets everything but which files were read.
    pub(super) fn seal(&mut self) {
        self.blocks = HashMap::new();
    }

    fn text(&mut self, path: &Path) -> Result<String, FileError> {
        let text = read(path)?;
        self.contents.insert(path.to_owned(), hash_of(&text));
        Ok(text)
    }
}

fn hash_of(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

fn read(path: &Path) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| FileError::Io {
            path: path.to_owned(),
            error,
        })?;
    let form = |why| FileError::Form {
        path: path.to_owned(),
        why,
    };
    if bytes.len() as u64 > MAX_FILE {
        return Err(form("it is larger than 64 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| form("it is not UTF-8 text"))
}

/// Numbered lines without comments, blanks and empty lines.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let bare = |line: &'_ str| line.find('#').unwrap_or(line.len());
    text.lines()
        .enumerate()
        .map(move |(index, line)| (index + 1, line[..bare(line)].trim()))
        .filter(|(_, line)| !line.is_empty())
}

fn net(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(IpNet::from(ip)),
        Err(_) => text.parse().ok(),
    }
}

fn digest(hex: &str) -> Option<Digest> {
    let mut out = Digest::default();
    if hex.len() != 2 * out.len() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, index) in out.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(index..index + 2)?, 16).ok()?;
    }
    Some(out)
}

/// At most 40 characters.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_list_has_comments_and_both_forms() {
        let (_dir, path) =
            file("\u{feff}# who\n\n10.0.0.0/8 # inside\r\n 192.0.2.1\n2001:db8::/32");
        let mut files = Files::default();
        let blocks = files.blocks(&path).unwrap();
        for (ip, inside) in [
            ("10.1.1.1", true),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(blocks.contains(ip.parse().unwrap()), inside, "{ip}");
        }
        assert!(
            Arc::ptr_eq(&blocks, &files.blocks(&path).unwrap()),
            "read once"
        );
        assert!(!files.changed());
        fs::write(&path, "10.0.0.0/9").unwrap();
        assert!(files.changed());
    }

    #[test]
    fn a_bad_line_is_named() {
        let (_dir, path) = file("10.0.0.0/8\n10.0.0.0/33\n");
        let error = Files::default().blocks(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("list:2: `10.0.0.0/33` is no address and no block"),
            "{error}"
        );
        let error = Files::default().blocks(Path::new("/absent/x")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot read /absent/x: "),
            "{error}"
        );
    }

    #[test]
    fn keys_are_read_and_never_shown() {
        let hash = "ab".repeat(32);
        let (_dir, path) = file(&format!("# team\nalice sha256:{hash}\n"));
        let keys = Files::default().keys(&path).unwrap();
        assert_eq!(keys[&[0xab; 32]].as_ref(), "alice");
        for bad in [
            "alice secret-key",
            "alice sha256:zz",
            &format!("sha256:{hash}"),
            &format!("a b sha256:{hash}"),
            &format!("a sha256:{hash}\nb sha256:{hash}"),
        ] {
            let (_dir, path) = file(bad);
            let error = Files::default().keys(&path).unwrap_err().to_string();
            assert!(
                !error.contains("secret-key") && !error.contains(&hash),
                "{error}"
            );
        }
    }
}
