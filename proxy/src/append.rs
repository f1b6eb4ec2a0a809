//! Files that lines are appended to, opened without ever waiting for somebody at the other end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens or creates what is at `path`; a pipe only while somebody reads it.
///
/// * `mode`: of a file that is created, before the umask
///
/// # Errors
///
/// What opening says; that nobody reads the pipe.
pub fn open(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path);
    let file = file.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => {
            io::Error::new(error.kind(), "it is a pipe that nobody reads, or a socket")
        }
        _ => error,
    })?;
    // Only opening must not wait: a terminal that is slow is waited for.
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_pipe_is_opened_only_while_somebody_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let error = open(&path, 0o600).unwrap_err();
        assert!(error.to_string().contains("nobody reads"), "{error}");
        let mut options = OpenOptions::new();
        options.custom_flags(OFlags::NONBLOCK.bits() as i32);
        let mut reader = options.read(true).open(&path).unwrap();
        open(&path, 0o600).unwrap().write_all(b"line\n").unwrap();
        let mut read = [0; 5];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"line\n");
    }
}
