//! The bytes of an overlay directory: its identity and its journal.
//!
//! ```text
//! DIR/format    who this is: written once
//! DIR/lock      held (flock) by the daemon that uses the overlay
//! DIR/journal   header, then frames
//! DIR/data/N    local bytes of inode N (hexadecimal), at the offsets of the file itself
//! ```
//! A frame is applied whole or not at all; it holds the records of one change. All numbers are little-endian. `docs/format.md` has the tables.
//!
//! ```text
//! format:   magic 8 | version u32 | crc32c of the rest u32 | overlay id u64 | length u32 | identity
//! journal:  magic 8 | version u32 | crc32c of the rest u32 | overlay id u64 | reserved u64, zero
//! frame:    length of records u32 | crc32c of the rest u32 | position u64 | durable u64 | records, zero-padded to 8 bytes
//! ```
//! `position` is where the frame stands in the file, so that a moved or stale one cannot pass. `durable` says up to where the journal had been
//! synced when the frame was written: a damaged frame below the `durable` of a later good one was lost after it had been kept, and is no torn tail.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, SystemTime};

use super::blockmap::Runs;

/// Version of everything here.
pub(crate) const VERSION: u32 = 1;
const FORMAT_MAGIC: [u8; 8] = *b"BYGOVFMT";
const JOURNAL_MAGIC: [u8; 8] = *b"BYGOVJNL";
/// Length of the journal's header, and so the position of its first frame.
pub(crate) const JOURNAL_HEADER: u64 = 32;
/// Length of a frame without its records.
pub(crate) const FRAME_HEADER: usize = 24;
/// No frame is longer, so that damage in a length cannot make us take gigabytes.
const MAX_FRAME: usize = 64 << 20;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    NotOurs,
    Version(u32),
    Checksum { stored: u32, computed: u32 },
    Content(&'static str),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotOurs => write!(f, "it does not start like an overlay file"),
            Self::Version(version) => write!(f, "it is of version {version}, this program knows {VERSION}"),
            Self::Checksum { stored, computed } => write!(f, "checksum says {stored:08x}, contents give {computed:08x}"),
            Self::Content(what) => write!(f, "{what}"),
        }
    }
}

/// What sort of file an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind {
    File,
    Directory,
    Symlink,
    Socket,
    Fifo,
}

/// What a record remembers of an inode besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) modified: SystemTime,
}

/// One primitive change of the overlay's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OnDiskRecord {
    /// An inode: one of the source's (by its path there) or a new one.
    Node { ino: u64, kind: NodeKind, meta: Meta, base: Option<Vec<u8>>, target: Option<OsString> },
    /// `name` in `dir` leads to `ino`; `hides` if the source has this name too.
    Name { dir: u64, name: OsString, ino: u64, hides: bool },
    /// The source's `name` in `dir` is hidden.
    Gone { dir: u64, name: OsString },
    /// `name` in `dir`, which the source does not have, is no more.
    Drop { dir: u64, name: OsString },
    /// New attributes of `ino`; no links mean that it is gone.
    Attr { ino: u64, meta: Meta },
    /// All bytes of `ino` are in its data file, which is durable.
    Whole { ino: u64 },
    /// These granules of `ino` are in its data file and durable; what is not there comes from the source below `base_valid` and is zero above.
    Blocks { ino: u64, size: u64, base_valid: u64, runs: Runs },
    /// `ino` was cut or grown to `size`: nothing from there on is kept, neither local nor of the source.
    Truncate { ino: u64, size: u64 },
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).expect("names, paths and links are shorter than 4 GiB"));
        self.0.extend(bytes);
        self
    }

    fn meta(&mut self, meta: &Meta) -> &mut Self {
        let (seconds, nanos) = match meta.modified.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => (since.as_secs(), since.subsec_nanos()),
            Err(_) => (0, 0),
        };
        self.u32(meta.mode).u32(meta.uid).u32(meta.gid).u32(meta.nlink).u64(seconds).u32(nanos)
    }
}

/// Reads fields one after the other; `None` once the bytes run out.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(usize::try_from(len).ok()?)
    }

    fn name(&mut self) -> Option<OsString> {
        self.bytes().map(|bytes| OsStr::from_bytes(bytes).to_owned())
    }

    fn meta(&mut self) -> Option<Meta> {
        let (mode, uid, gid, nlink) = (self.u32()?, self.u32()?, self.u32()?, self.u32()?);
        let since = Duration::new(self.u64()?, self.u32()?);
        Some(Meta { mode, uid, gid, nlink, modified: SystemTime::UNIX_EPOCH.checked_add(since)? })
    }
}

impl NodeKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::File, Self::Directory, Self::Symlink, Self::Socket, Self::Fifo].into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl OnDiskRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut out = Writer(out);
        match self {
            Self::Node { ino, kind, meta, base, target } => {
                out.u8(1).u64(*ino).u8(*kind as u8).meta(meta);
                out.u8(base.is_some().into()).bytes(base.as_deref().unwrap_or_default());
                out.u8(target.is_some().into()).bytes(target.as_deref().unwrap_or_default().as_bytes());
            }
            Self::Name { dir, name, ino, hides } => {
                out.u8(2).u64(*dir).bytes(name.as_bytes()).u64(*ino).u8((*hides).into());
            }
            Self::Gone { dir, name } => {
                out.u8(3).u64(*dir).bytes(name.as_bytes());
            }
            Self::Drop { dir, name } => {
                out.u8(4).u64(*dir).bytes(name.as_bytes());
            }
            Self::Attr { ino, meta } => {
                out.u8(5).u64(*ino).meta(meta);
            }
            Self::Whole { ino } => {
                out.u8(6).u64(*ino);
            }
            Self::Blocks { ino, size, base_valid, runs } => {
                out.u8(7).u64(*ino).u64(*size).u64(*base_valid);
                out.u32(u32::try_from(runs.0.len()).expect("a file has fewer than 4 billion runs"));
                for run in &runs.0 {
                    out.u64(run.start).u64(run.end);
                }
            }
            Self::Truncate { ino, size } => {
                out.u8(8).u64(*ino).u64(*size);
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Option<Self> {
        Some(match input.u8()? {
            1 => {
                let (ino, kind, meta) = (input.u64()?, NodeKind::from_byte(input.u8()?)?, input.meta()?);
                let (has_base, base) = (input.flag()?, input.bytes()?);
                let (has_target, target) = (input.flag()?, input.bytes()?);
                let base = has_base.then(|| base.to_vec());
                Self::Node { ino, kind, meta, base, target: has_target.then(|| OsString::from_vec(target.to_vec())) }
            }
            2 => Self::Name { dir: input.u64()?, name: input.name()?, ino: input.u64()?, hides: input.flag()? },
            3 => Self::Gone { dir: input.u64()?, name: input.name()? },
            4 => Self::Drop { dir: input.u64()?, name: input.name()? },
            5 => Self::Attr { ino: input.u64()?, meta: input.meta()? },
            6 => Self::Whole { ino: input.u64()? },
            7 => {
                let (ino, size, base_valid, count) = (input.u64()?, input.u64()?, input.u64()?, input.u32()?);
                let mut runs = Runs::default();
                for _ in 0..count {
                    let run = input.u64()?..input.u64()?;
                    if run.is_empty() || run.end > (1 << 40) {
                        return None;
                    }
                    runs.0.push(run);
                }
                Self::Blocks { ino, size, base_valid, runs }
            }
            8 => Self::Truncate { ino: input.u64()?, size: input.u64()? },
            _ => return None,
        })
    }
}

/// One change as it stands in the journal at `position`.
pub(crate) fn encode_frame(records: &[OnDiskRecord], position: u64, durable: u64) -> Vec<u8> {
    let mut frame = vec![0; 8];
    frame.extend(position.to_le_bytes());
    frame.extend(durable.to_le_bytes());
    for record in records {
        record.encode(&mut frame);
    }
    let len = u32::try_from(frame.len() - FRAME_HEADER).expect("a change is shorter than 4 GiB");
    frame.resize(frame.len().next_multiple_of(8), 0);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), &frame[8..]);
    frame[..4].copy_from_slice(&len.to_le_bytes());
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// A frame read back.
pub(crate) struct Frame {
    pub(crate) records: Vec<OnDiskRecord>,
    /// Length in the file, padding and header included.
    pub(crate) len: usize,
    pub(crate) durable: u64,
}

/// Reads the frame that `bytes`, which stand at `position`, start with; `None` if there is no whole, sound one.
pub(crate) fn decode_frame(bytes: &[u8], position: u64) -> Option<Frame> {
    let mut header = Reader(bytes);
    let (len, crc, at, durable) = (header.u32()?, header.u32()?, header.u64()?, header.u64()?);
    let len_padded = usize::try_from(len).ok().filter(|len| (1..=MAX_FRAME).contains(len))?.next_multiple_of(8) + FRAME_HEADER;
    let frame = bytes.get(..len_padded)?;
    let computed = crc32c::crc32c_append(crc32c::crc32c(frame.get(..4)?), frame.get(8..)?);
    if at != position || crc != computed {
        return None;
    }
    let mut input = Reader(frame.get(FRAME_HEADER..FRAME_HEADER + usize::try_from(len).ok()?)?);
    let mut records = Vec::new();
    while !input.0.is_empty() {
        records.push(OnDiskRecord::decode(&mut input)?);
    }
    Some(Frame { records, len: len_padded, durable })
}

fn seal(magic: [u8; 8], body: &[u8]) -> Vec<u8> {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&VERSION.to_le_bytes()), body);
    [magic.as_slice(), &VERSION.to_le_bytes(), &crc.to_le_bytes(), body].concat()
}

fn unseal(magic: [u8; 8], bytes: &[u8]) -> Result<&[u8], Damage> {
    let mut input = Reader(bytes);
    if input.take(8) != Some(&magic) {
        return Err(Damage::NotOurs);
    }
    let (version, stored) = input.u32().zip(input.u32()).ok_or(Damage::NotOurs)?;
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    let computed = crc32c::crc32c_append(crc32c::crc32c(&version.to_le_bytes()), input.0);
    if stored != computed {
        return Err(Damage::Checksum { stored, computed });
    }
    Ok(input.0)
}

/// The contents of `format`.
pub(crate) fn encode_identity(id: u64, identity: &str) -> Vec<u8> {
    let mut body = Vec::new();
    Writer(&mut body).u64(id).bytes(identity.as_bytes());
    seal(FORMAT_MAGIC, &body)
}

/// The overlay's id, and of which source it is.
pub(crate) fn decode_identity(bytes: &[u8]) -> Result<(u64, String), Damage> {
    let mut input = Reader(unseal(FORMAT_MAGIC, bytes)?);
    let (id, identity) = input.u64().zip(input.bytes()).ok_or(Damage::Content("it is too short"))?;
    Ok((id, String::from_utf8_lossy(identity).into_owned()))
}

/// The journal's first [`JOURNAL_HEADER`] bytes.
pub(crate) fn encode_journal_header(id: u64) -> Vec<u8> {
    let mut body = Vec::new();
    Writer(&mut body).u64(id).u64(0);
    seal(JOURNAL_MAGIC, &body)
}

/// The id of the overlay that a journal belongs to.
pub(crate) fn decode_journal_header(bytes: &[u8]) -> Result<u64, Damage> {
    let mut input = Reader(unseal(JOURNAL_MAGIC, bytes)?);
    match input.u64().zip(input.u64()) {
        Some((id, 0)) => Ok(id),
        Some(_) => Err(Damage::Content("reserved bytes are not zero")),
        None => Err(Damage::Content("it is too short")),
    }
}

#[cfg(test)]
mod tests;
