//! The tail frame: chunk table and footer. Found from the end of an object, knowing nothing else.

use sha2::{Digest, Sha256};

use super::codec::{Opener, Sealed, Sealer};
use super::header::{HEADER_BYTES, Header};
use super::{Expected, Place, SEALED_VERSION, SealError, Stream, chunk_count, damaged};
use crate::format::{Cipher, bytes_at, u32_at, u64_at};

/// Bytes of the footer, the last ones of every object.
pub const FOOTER_BYTES: usize = 224;
const FOOTER: u16 = 224;
const TAIL_FRAME: u32 = 0x184D_2A5D;
const FRAME_HEADER: usize = 8;
const MAGIC: &[u8; 8] = b"BYGONEFT";
/// Bytes of the tail frame beside the table.
const AROUND_TABLE: u64 = 232;
/// `main_len`, `aux_len` and the digest, which the tag covers.
const LENGTHS: std::ops::Range<usize> = HEADER_BYTES..168;
/// Offsets between two entries of [`Table::marks`].
const STRIDE: usize = 128;

/// What the footer says of an object's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Plain bytes of the main stream.
    pub main_len: u64,
    /// Plain bytes of the aux stream.
    pub aux_len: u64,
    /// Keyed digest of the main stream; zero where the kind has none.
    pub digest: [u8; 32],
}

/// Where each chunk lies: main chunks first, then aux chunks, back to back behind the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    lens: Vec<u32>,
    /// Empty if encrypted: then each chunk has its MAC.
    crcs: Vec<u32>,
    /// The place of every 128th chunk, so that a lookup adds up at most 127 lengths.
    marks: Vec<u64>,
    end: u64,
}

impl Table {
    fn new() -> Table {
        Table { end: HEADER_BYTES as u64, ..Table::default() }
    }

    fn push(&mut self, len: u32, crc: Option<u32>) -> Option<()> {
        if self.lens.len().is_multiple_of(STRIDE) {
            self.marks.push(self.end);
        }
        self.end = self.end.checked_add(u64::from(len))?;
        self.lens.push(len);
        self.crcs.extend(crc);
        Some(())
    }

    /// Where entry `index` lies in the object (half-open), and its CRC.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<(std::ops::Range<u64>, u32)> {
        let index = usize::try_from(index).ok()?;
        let len = *self.lens.get(index)?;
        let mark = index.checked_div(STRIDE)?;
        let before = self.lens.get(mark.checked_mul(STRIDE)?..index)?;
        let from = before.iter().try_fold(*self.marks.get(mark)?, |at, len| at.checked_add(u64::from(*len)))?;
        Some((from..from.checked_add(u64::from(len))?, self.crcs.get(index).copied().unwrap_or_default()))
    }

    /// Memory that it takes, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.lens.len().saturating_add(self.crcs.len()).saturating_mul(4).saturating_add(self.marks.len().saturating_mul(8))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.lens.len().saturating_mul(8));
        for (index, len) in self.lens.iter().enumerate() {
            out.extend_from_slice(&len.to_le_bytes());
            if let Some(crc) = self.crcs.get(index) {
                out.extend_from_slice(&crc.to_le_bytes());
            }
        }
        out
    }

    fn decode(bytes: &[u8], with_crc: bool) -> Option<Table> {
        let mut table = Table::new();
        for entry in bytes.chunks_exact(entry_bytes(with_crc)) {
            table.push(u32_at(entry, 0)?, if with_crc { Some(u32_at(entry, 4)?) } else { None })?;
        }
        Some(table)
    }
}

fn entry_bytes(with_crc: bool) -> usize {
    if with_crc { 8 } else { 4 }
}

/// Collects sealed chunks in the order they are written and makes the tail frame.
#[derive(Debug)]
pub struct TailBuilder {
    table: Table,
    digests: Sha256,
    lens: [u64; 2],
}

impl Default for TailBuilder {
    fn default() -> Self {
        TailBuilder { table: Table::new(), digests: Sha256::new(), lens: [0; 2] }
    }
}

impl TailBuilder {
    /// Takes note of the next chunk: all of main first, then all of aux.
    ///
    /// # Errors
    /// [`SealError::Cannot`] if the chunk or the object grows past what the format can say.
    pub fn push(&mut self, sealer: &Sealer, stream: Stream, sealed: &Sealed) -> Result<(), SealError> {
        let too_large = || SealError::Cannot("the object grows too large".to_owned());
        let len = u32::try_from(sealed.bytes.len()).map_err(|_| too_large())?;
        let crc = (sealer.header().cipher == Cipher::None).then_some(sealed.crc);
        self.table.push(len, crc).ok_or_else(too_large)?;
        let [main, aux] = &mut self.lens;
        let total = match stream {
            Stream::Main => {
                self.digests.update(sealed.digest);
                main
            }
            Stream::Aux => aux,
        };
        *total = total.checked_add(u64::from(sealed.plain_len)).ok_or_else(too_large)?;
        Ok(())
    }

    /// The tail frame's bytes, and what the footer says.
    ///
    /// # Errors
    /// [`SealError::Cannot`] for more chunks than a frame can list (2^29).
    pub fn finish(self, sealer: &Sealer) -> Result<(Vec<u8>, Footer), SealError> {
        let [main_len, aux_len] = self.lens;
        let digest = sealer.digest(self.digests);
        let table = self.table.encode();
        let lengths = [main_len.to_le_bytes().as_slice(), &aux_len.to_le_bytes(), &digest].concat();
        let tag = sealer.tag(&table, &lengths);
        let payload = table.len().checked_add(FOOTER_BYTES).and_then(|len| u32::try_from(len).ok());
        let payload = payload.ok_or_else(|| SealError::Cannot("the object has too many chunks".to_owned()))?;
        let covered = [table.as_slice(), sealer.header_bytes(), &lengths, &tag].concat();
        let crc = crc32c::crc32c(&covered);
        let frame = [TAIL_FRAME.to_le_bytes(), payload.to_le_bytes()].concat();
        let trailer = [SEALED_VERSION.to_le_bytes(), FOOTER.to_le_bytes(), [0; 2], [0; 2]].concat();
        let bytes = [frame.as_slice(), &covered, &crc.to_le_bytes(), &[0; 4], &trailer, MAGIC].concat();
        Ok((bytes, Footer { main_len, aux_len, digest }))
    }
}

/// What the tail of an object told.
#[derive(Debug)]
pub enum Parsed {
    /// The table is longer than what was read: read the last `u64` bytes and ask again.
    NeedTail(u64),
    /// All of it.
    Whole { opener: Box<Opener>, footer: Footer, table: Table },
}

/// Reads the tail of an object of `size` bytes: `tail` is its last bytes, at least [`FOOTER_BYTES`] of them unless the object is shorter.
///
/// # Errors
/// Every [`SealError`] but `Cannot`. The order of the checks: version, damage, identity, key.
pub fn parse_tail(tail: &[u8], size: u64, expected: &Expected<'_>) -> Result<Parsed, SealError> {
    let bad = |what: &str| damaged(Place::Footer, what);
    let at = tail.len().checked_sub(FOOTER_BYTES).ok_or_else(|| bad("the object is shorter than a footer"))?;
    let footer: &[u8; FOOTER_BYTES] = tail.get(at..).and_then(|f| f.first_chunk()).ok_or_else(|| bad("it is cut short"))?;
    check_trailer(footer)?;
    let header = Header::decode(footer, Place::Footer)?;
    let (main_len, aux_len) = (u64_at(footer, 120).unwrap_or_default(), u64_at(footer, 128).unwrap_or_default());
    let with_crc = header.cipher == Cipher::None;
    let chunks = chunk_count(main_len, header.main_chunk).checked_add(chunk_count(aux_len, header.aux_chunk));
    let table_len = chunks.and_then(|n| n.checked_mul(entry_bytes(with_crc) as u64));
    let tail_len = table_len.and_then(|n| n.checked_add(AROUND_TABLE));
    let data_len = tail_len.and_then(|n| size.checked_sub(n)).and_then(|n| n.checked_sub(HEADER_BYTES as u64));
    let (Some(table_len), Some(tail_len), Some(data_len)) = (table_len, tail_len, data_len) else {
        return Err(bad(&format!("it tells of {main_len} + {aux_len} bytes, which an object of {size} bytes cannot list")));
    };
    if tail_len > tail.len() as u64 {
        return Ok(Parsed::NeedTail(tail_len));
    }
    let frame =
        usize::try_from(tail_len).ok().and_then(|n| tail.len().checked_sub(n)).and_then(|from| tail.get(from..)).unwrap_or_default();
    let table = frame.get(FRAME_HEADER..frame.len().saturating_sub(FOOTER_BYTES)).unwrap_or_default();
    let payload = u32_at(frame, 4).map(u64::from);
    if u32_at(frame, 0) != Some(TAIL_FRAME) || payload != table_len.checked_add(FOOTER_BYTES as u64) {
        return Err(damaged(Place::Table, "its frame header is not what is written"));
    }
    check_crc(table, footer)?;
    check_identity(&header, expected)?;
    let opener = Box::new(opener(header, expected)?);
    let tag: [u8; 32] = bytes_at(footer, LENGTHS.end).unwrap_or_default();
    if !opener.fits(table, footer.get(LENGTHS).unwrap_or_default(), &tag) {
        return Err(match opener.header().generation {
            0 => damaged(Place::Table, "its digest does not fit"),
            generation => SealError::WrongKey { generation },
        });
    }
    let table = Table::decode(table, with_crc).filter(|table| table.end.checked_sub(HEADER_BYTES as u64) == Some(data_len));
    let table = table.ok_or_else(|| damaged(Place::Table, format!("its lengths do not add up to the {data_len} bytes of chunks")))?;
    let digest = bytes_at(footer, 136).unwrap_or_default();
    Ok(Parsed::Whole { opener, footer: Footer { main_len, aux_len, digest }, table })
}

fn check_trailer(footer: &[u8; FOOTER_BYTES]) -> Result<(), SealError> {
    if bytes_at(footer, 216) != Some(*MAGIC) {
        return Err(damaged(Place::Footer, "the object does not end as a sealed object does; it may be cut short"));
    }
    let version = u16::from_le_bytes(bytes_at(footer, 208).unwrap_or_default());
    if version > SEALED_VERSION {
        return Err(SealError::Future { found: version, known: SEALED_VERSION });
    }
    let fixed = [SEALED_VERSION.to_le_bytes(), FOOTER.to_le_bytes(), [0; 2], [0; 2]].concat();
    if footer.get(208..216) != Some(&fixed) || u32_at(footer, 204) != Some(0) {
        return Err(damaged(Place::Footer, "a field has a value that is never written"));
    }
    Ok(())
}

fn check_crc(table: &[u8], footer: &[u8; FOOTER_BYTES]) -> Result<(), SealError> {
    let computed = crc32c::crc32c_append(crc32c::crc32c(table), footer.get(..200).unwrap_or_default());
    match u32_at(footer, 200) {
        Some(stored) if stored == computed => Ok(()),
        stored => Err(damaged(Place::Table, format!("CRC says {:08x}, contents give {computed:08x}", stored.unwrap_or_default()))),
    }
}

fn check_identity(header: &Header, expected: &Expected<'_>) -> Result<(), SealError> {
    let other = |what, found: String, asked: String| Err(SealError::OtherObject { what, found, asked });
    if header.repository != expected.repository {
        return other("repository", header.repository.to_string(), expected.repository.to_string());
    }
    if header.kind != expected.kind {
        return other("kind", header.kind.to_string(), expected.kind.to_string());
    }
    let asked = Header::digest_of_key(expected.key);
    if header.key_digest != asked {
        return other("key digest", hex::encode(header.key_digest), format!("{} (of {})", hex::encode(asked), expected.key));
    }
    match (header.cipher, expected.encrypted) {
        (Cipher::None, true) => other("cipher", Cipher::None.to_string(), Cipher::Aes256CbcHmacSha256.to_string()),
        (Cipher::Aes256CbcHmacSha256, false) => other("cipher", Cipher::Aes256CbcHmacSha256.to_string(), Cipher::None.to_string()),
        _ => Ok(()),
    }
}

fn opener(header: Header, expected: &Expected<'_>) -> Result<Opener, SealError> {
    let bytes = header.encode(); // `decode` has made sure that these are the footer's bytes.
    if header.cipher == Cipher::None {
        return Ok(Opener::new(header, bytes, None));
    }
    let generation = header.generation;
    let key = expected.keys.iter().find(|key| key.generation == generation).ok_or(SealError::NoKey { generation })?;
    Ok(Opener::new(header, bytes, Some(key)))
}
