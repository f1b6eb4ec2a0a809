//! The file lines are appended to: moved aside as `name.1`, `name.2`, … when it is full, opened again when it is lost.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::append;

/// Between two lines in the log about the same trouble.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Bodies are nobody else's business.
const MODE: u32 = 0o640;

/// A line goes into a file that is full when others have filled so many meanwhile.
const MAX_MOVES: u32 = 3;

/// Lets one message through per minute.
#[derive(Debug, Default)]
pub(super) struct Warned(Option<Instant>);

impl Warned {
    /// True at the first call and when the last `true` is a minute ago.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self
            .0
            .is_none_or(|last| now.duration_since(last) >= WARN_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// Appends whole lines.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    max_file: u64,
    keep: u32,
    file: Option<File>,
    mid_line: bool,
    warned: Warned,
}

impl LineFile {
    /// Opens or creates the file.
    ///
    /// * `max_file`: bytes; a line that is longer has a file of its own
    /// * `keep`: files besides this one
    ///
    /// # Errors
    ///
    /// What opening says, with the path.
    pub(super) fn open(path: &Path, max_file: u64, keep: u32) -> io::Result<Self> {
        let mut this = Self {
            path: path.to_owned(),
            max_file,
            keep,
            file: None,
            mid_line: false,
            warned: Warned::default(),
        };
        this.reopen().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        Ok(this)
    }

    /// Goes on with what is at the path now.
    ///
    /// # Errors
    ///
    /// What opening says; the file that was written before stays.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let file = append::open(&self.path, MODE)?;
        let meta = file.metadata()?;
        if !meta.is_file() && !meta.file_type().is_char_device() {
            let why = "it is neither a file nor a device";
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        self.mid_line = ends_mid_line(&self.path, &meta);
        self.file = Some(file);
        Ok(())
    }

    /// Appends one line, which ends with a line feed, to one file. False: it is lost, and the log says so once per
    /// minute; the next line tries again.
    pub(super) fn write(&mut self, line: &[u8]) -> bool {
        let result = self.try_write(line);
        if let Err(error) = &result {
            self.warn(error);
        }
        result.is_ok()
    }

    /// Says once per minute what is wrong.
    pub(super) fn warn(&mut self, error: &io::Error) {
        if self.warned.is_due(Instant::now()) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "a recording cannot be written; lines are lost until it can");
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut meta = self.usable()?;
        for _ in 0..MAX_MOVES {
            if !meta.is_file() || meta.len() == 0 || !self.is_full(&meta, line) {
                break;
            }
            if is_at(&self.path, &meta) {
                self.rotate()?;
            }
            self.reopen()?; // another recorder of this file may have moved it
            meta = self.usable()?;
        }
        let mid_line = self.mid_line;
        let file = self.file.as_mut().ok_or(ErrorKind::NotFound)?;
        let result = if mid_line {
            file.write_all(b"\n").and_then(|()| file.write_all(line))
        } else {
            file.write_all(line)
        };
        if result.is_ok() {
            self.mid_line = false;
            return Ok(());
        }
        // No half line stays behind, unless somebody else's came after it.
        let cut =
            meta.is_file() && !is_shared(file, &meta, line) && file.set_len(meta.len()).is_ok();
        self.mid_line |= !cut;
        result
    }

    fn is_full(&self, meta: &Metadata, line: &[u8]) -> bool {
        meta.len().saturating_add(line.len() as u64) > self.max_file
    }

    /// Opens the file again when it is not open, or is deleted.
    fn usable(&mut self) -> io::Result<Metadata> {
        if let Some(file) = &self.file {
            let meta = file.metadata()?;
            if !meta.is_file() || meta.nlink() > 0 {
                return Ok(meta);
            }
            self.file = None; // what is written to it is seen by nobody
        }
        self.reopen()?;
        self.file.as_ref().ok_or(ErrorKind::NotFound)?.metadata()
    }

    /// Moves the file aside, and those before it only as far as there is no gap: after a failure halfway the next try
    /// loses nothing.
    fn rotate(&self) -> io::Result<()> {
        if self.keep == 0 {
            return fs::remove_file(&self.path);
        }
        let gap = (1..self.keep).find(|&number| !self.numbered(number).exists());
        for number in (1..gap.unwrap_or(self.keep)).rev() {
            fs::rename(self.numbered(number), self.numbered(number + 1))?;
        }
        fs::rename(&self.path, self.numbered(1))?;
        let mut surplus = self.keep.saturating_add(1); // `keep` was larger before
        while fs::remove_file(self.numbered(surplus)).is_ok() {
            surplus = surplus.saturating_add(1);
        }
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

/// True when the open file `meta` is the one at `path`.
fn is_at(path: &Path, meta: &Metadata) -> bool {
    fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (meta.dev(), meta.ino()))
}

/// True when the file has grown by more than a part of `line` and the line feed before it since `meta` was read.
fn is_shared(file: &File, meta: &Metadata, line: &[u8]) -> bool {
    file.metadata()
        .map_or(true, |now| now.len() > meta.len() + 1 + line.len() as u64)
}

/// True when the last process that wrote the file was stopped within a line.
fn ends_mid_line(path: &Path, meta: &Metadata) -> bool {
    if !meta.is_file() || meta.len() == 0 {
        return false;
    }
    let last = File::open(path).and_then(|mut file| {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Ok(last[0])
    });
    last.is_ok_and(|last| last != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_moves_aside_and_only_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pairs.jsonl");
        let mut file = LineFile::open(&path, 8, 2).unwrap();
        for number in 0..9 {
            assert!(file.write(format!("{number}23\n").as_bytes()));
        }
        assert_eq!(
            names(directory.path()),
            ["pairs.jsonl", "pairs.jsonl.1", "pairs.jsonl.2"]
        );
        assert_eq!(read(&path), "823\n");
        assert_eq!(read(&file.numbered(1)), "623\n723\n");
        assert_eq!(read(&file.numbered(2)), "423\n523\n");
        assert!(file.write(b"a line longer than a file\n"));
        assert!(file.write(b"x\n"));
        assert_eq!(
            (read(&path), read(&file.numbered(1))),
            ("x\n".to_owned(), "a line longer than a file\n".to_owned())
        );

        fs::write(file.numbered(3), "from a larger `keep`").unwrap();
        fs::remove_file(file.numbered(1)).unwrap();
        assert!(file.write(b"another\n"));
        assert_eq!(read(&file.numbered(1)), "x\n");
        assert_eq!(read(&file.numbered(2)), "823\n", "the gap was filled first");
        assert!(!file.numbered(3).exists());

        let mut file = LineFile::open(&path, 8, 0).unwrap();
        assert!(file.write(b"last\n"));
        assert_eq!(read(&path), "last\n");
    }

    #[test]
    fn a_rotation_that_fails_loses_no_older_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pairs.jsonl");
        let mut file = LineFile::open(&path, 4, 3).unwrap();
        assert!(file.write(b"old\n"));
        fs::create_dir_all(file.numbered(2).join("full")).unwrap();
        fs::create_dir_all(file.numbered(3).join("full")).unwrap();
        fs::write(file.numbered(1), "older\n").unwrap();
        for _ in 0..3 {
            assert!(!file.write(b"new\n"));
        }
        assert_eq!(
            (read(&path), read(&file.numbered(1))),
            ("old\n".to_owned(), "older\n".to_owned())
        );
        fs::remove_dir_all(file.numbered(3)).unwrap();
        assert!(file.write(b"new\n"));
        assert_eq!(read(&path), "new\n");
        assert_eq!(read(&file.numbered(1)), "old\n");
        assert_eq!(read(&file.numbered(2)), "older\n");
    }

    #[test]
    fn a_directory_that_goes_costs_lines_until_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        let path = inner.join("pairs.jsonl");
        let error = LineFile::open(&path, 100, 2).unwrap_err();
        assert!(error.to_string().contains("inner/pairs.jsonl"), "{error}");
        fs::create_dir(&inner).unwrap();
        let mut file = LineFile::open(&path, 100, 2).unwrap();
        assert!(file.write(b"1\n"));
        fs::remove_dir_all(&inner).unwrap();
        assert!(!file.write(b"2\n"));
        assert!(!file.write(b"3\n"));
        fs::create_dir(&inner).unwrap();
        assert!(file.write(b"4\n"));
        assert_eq!(read(&path), "4\n");
    }

    #[test]
    fn reopening_goes_on_where_the_name_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pairs.jsonl");
        let moved = directory.path().join("moved");
        let mut file = LineFile::open(&path, 100, 2).unwrap();
        assert!(file.write(b"1\n"));
        fs::rename(&path, &moved).unwrap();
        assert!(file.write(b"2\n"));
        file.reopen().unwrap();
        assert!(file.write(b"3\n"));
        assert_eq!(
            (read(&moved), read(&path)),
            ("1\n2\n".to_owned(), "3\n".to_owned())
        );
    }

    #[test]
    fn two_recorders_of_one_file_do_not_move_each_others_lines_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pairs.jsonl");
        let mut one = LineFile::open(&path, 4, 9).unwrap();
        let mut two = LineFile::open(&path, 4, 9).unwrap();
        for _ in 0..3 {
            assert!(one.write(b"one\n") && two.write(b"two\n"));
        }
        assert_eq!(names(directory.path()).len(), 6);
    }

    #[test]
    fn a_half_line_is_ended_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pairs.jsonl");
        fs::write(&path, "{\"cut").unwrap();
        let mut file = LineFile::open(&path, 100, 2).unwrap();
        assert!(file.write(b"{}\n") && file.write(b"[]\n"));
        assert_eq!(read(&path), "{\"cut\n{}\n[]\n");
    }

    #[test]
    fn a_device_that_is_full_costs_lines_and_is_never_moved() {
        let path = Path::new("/dev/full");
        let mut file = LineFile::open(path, 1, 2).unwrap();
        assert!(!file.write(b"1\n") && !file.write(b"2\n"));
        assert!(path.exists() && !file.numbered(1).exists());
    }

    #[test]
    fn a_pipe_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let refused = || LineFile::open(&path, 100, 2).unwrap_err().to_string();
        assert!(refused().contains("pipe that nobody reads"));
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::RDONLY;
        let _reader = rustix::fs::open(&path, flags, mode).unwrap();
        assert!(refused().contains("neither a file nor a device"));
    }

    #[test]
    fn one_warning_a_minute_is_enough() {
        let now = Instant::now();
        let mut warned = Warned::default();
        assert!(warned.is_due(now));
        assert!(!warned.is_due(now + WARN_EVERY / 2));
        assert!(warned.is_due(now + WARN_EVERY));
    }
}
