//! Bodies encoded as gzip (RFC 1952) or deflate (RFC 1950), decoded a bounded step at a time.

use bytes::{Buf, Bytes};
use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::STEP;
use super::search::joined;

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It is not what its `content-encoding` says, or a checksum is wrong.
    #[error("the body is not encoded as it says")]
    Corrupt,
    /// It ended before its encoding did.
    #[error("the encoded body ended too early")]
    Truncated,
}

/// Decodes one body.
#[derive(Debug)]
pub(super) struct Decoder {
    gzip: bool,
    part: Part,
    flags: u8, // of the gzip header
    inflate: Decompress,
    crc: Crc,
    input: Bytes,
    more: bool,
}

/// What comes next; a number says how many of its bytes were read or, of `Extra` and `HeaderCrc`, are left.
#[derive(Clone, Copy, Debug)]
enum Part {
    Format,                  // zlib or raw deflate
    Member,                  // a gzip member, or the end
    Fixed(usize),            // a gzip header's ten bytes
    ExtraLength(usize, u16), // two bytes, little-endian
    Extra(u16),
    Name,
    Comment,
    HeaderCrc(usize),
    Body,
    Trailer(usize, u64), // eight bytes, little-endian
    Ended,
}

const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

impl Decoder {
    /// Decodes gzip, whose members may follow one another.
    pub(super) fn gzip() -> Self {
        Self::new(true, Part::Member)
    }

    /// Decodes zlib, or deflate without it, which some servers send by the same name.
    pub(super) fn deflate() -> Self {
        Self::new(false, Part::Format)
    }

    fn new(gzip: bool, part: Part) -> Self {
        Self {
            gzip,
            part,
            flags: 0,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            input: Bytes::new(),
            more: false,
        }
    }

    /// Adds bytes to be decoded.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.more |= !bytes.is_empty();
        self.input = joined(std::mem::take(&mut self.input), bytes);
    }

    /// True when another step may produce something.
    pub(super) fn pending(&self) -> bool {
        self.more
    }

    /// Decodes what was pushed, up to [`STEP`] bytes.
    pub(super) fn step(&mut self) -> Result<Bytes, Broken> {
        let mut out = Vec::new();
        self.more = false;
        while !self.more {
            let goes_on = match self.part {
                Part::Format => self.format(),
                Part::Body => self.body(&mut out)?,
                Part::Ended => {
                    self.input.clear(); // as gzip(1) does with what follows
                    false
                }
                _ => self.frame()?,
            };
            if !goes_on {
                break;
            }
        }
        Ok(out.into())
    }

    /// Says whether the body may end here. It may be empty altogether: some endpoints say `gzip` even then.
    pub(super) fn check_end(&self) -> Result<(), Broken> {
        match self.part {
            Part::Member | Part::Ended => Ok(()),
            Part::Format if self.input.is_empty() => Ok(()),
            _ => Err(Broken::Truncated),
        }
    }

    /// Tells zlib, whose first two bytes are a multiple of 31, from raw deflate; false: too little is there.
    fn format(&mut self) -> bool {
        let [first, second, ..] = self.input[..] else {
            return false;
        };
        let zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31);
        self.inflate = Decompress::new(zlib);
        self.part = Part::Body;
        true
    }

    /// Inflates; false: more must come first.
    fn body(&mut self, out: &mut Vec<u8>) -> Result<bool, Broken> {
        if out.len() >= STEP {
            self.more = true;
            return Ok(false);
        }
        if out.len() == out.capacity() {
            let likely = (self.input.len() * 4).max(out.len()).max(1024);
            out.reserve_exact(likely.min(STEP - out.len()));
        }
        let start = out.len();
        let read = self.inflate.total_in();
        let status = self
            .inflate
            .decompress_vec(&self.input, out, FlushDecompress::None)
            .map_err(|_| Broken::Corrupt)?;
        let read = self.inflate.total_in() - read;
        let read = usize::try_from(read).expect("no more than was given");
        self.input.advance(read);
        if self.gzip {
            self.crc.update(&out[start..]);
        }
        if let Status::StreamEnd = status {
            self.part = match self.gzip {
                true => Part::Trailer(0, 0),
                false => Part::Ended,
            };
            return Ok(true);
        }
        Ok(out.len() > start || read > 0)
    }

    /// Reads a byte of a gzip member's header or trailer; false: more must come first.
    fn frame(&mut self) -> Result<bool, Broken> {
        let Some(&byte) = self.input.first() else {
            return Ok(false);
        };
        self.input.advance(1);
        self.part = match self.part {
            Part::Member if byte == 0x1f => {
                self.inflate.reset(false);
                self.crc.reset();
                Part::Fixed(1)
            }
            Part::Member if self.inflate.total_in() > 0 => Part::Ended, // padding behind the last one
            Part::Fixed(1) if byte == 0x8b => Part::Fixed(2),
            Part::Fixed(2) if byte == 8 => Part::Fixed(3),
            Part::Fixed(3) if byte & RESERVED == 0 => {
                self.flags = byte;
                Part::Fixed(4)
            }
            Part::Fixed(read @ 4..=8) => Part::Fixed(read + 1), // time, level and system
            Part::Fixed(9) => self.after(0),
            Part::ExtraLength(0, _) => Part::ExtraLength(1, u16::from(byte)),
            Part::ExtraLength(_, low) => match u16::from_le_bytes([low.to_le_bytes()[0], byte]) {
                0 => self.after(EXTRA),
                length => Part::Extra(length),
            },
            Part::Extra(1) => self.after(EXTRA),
            Part::Extra(left) => Part::Extra(left - 1),
            Part::Name if byte == 0 => self.after(NAME),
            Part::Comment if byte == 0 => self.after(COMMENT),
            Part::HeaderCrc(2) => Part::HeaderCrc(1),
            Part::HeaderCrc(_) => Part::Body,
            Part::Trailer(read, sum) => {
                let sum = sum | u64::from(byte) << (8 * read);
                let length = u64::from(self.crc.amount());
                match read {
                    7 if sum == length << 32 | u64::from(self.crc.sum()) => Part::Member,
                    7 => return Err(Broken::Corrupt),
                    _ => Part::Trailer(read + 1, sum),
                }
            }
            part @ (Part::Name | Part::Comment) => part,
            Part::Member | Part::Fixed(_) | Part::Format | Part::Body | Part::Ended => {
                return Err(Broken::Corrupt);
            }
        };
        Ok(true)
    }

    /// What follows a part of a gzip header, of which the fixed one is 0.
    fn after(&self, flag: u8) -> Part {
        let order = [
            (EXTRA, Part::ExtraLength(0, 0)),
            (NAME, Part::Name),
            (COMMENT, Part::Comment),
            (HEADER_CRC, Part::HeaderCrc(2)),
        ];
        let behind = match flag {
            0 => 0,
            flag => order
                .iter()
                .position(|&(f, _)| f == flag)
                .map_or(0, |at| at + 1),
        };
        let mut rest = order[behind..].iter();
        let next = rest.find(|&&(flag, _)| self.flags & flag != 0);
        next.map_or(Part::Body, |&(_, part)| part)
    }
}
