//! One chunk: compress and seal, or check and open. Pure functions that any number of threads may call at once.

use std::cell::RefCell;

use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use hmac::Mac;
use sha2::{Digest, Sha256};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::header::{HEADER_BYTES, Header};
use super::{Place, SealError, Stream, chunk_len, damaged};
use crate::format::Cipher;
use crate::format::keys::{CbcDecrypt, CbcEncrypt, DataKey, HmacSha256, ObjectKeys, hmac, random};
use crate::format::u32_at;

/// Frame header of a hidden chunk: zstd passes over it.
const AUX_FRAME: u32 = 0x184D_2A5C;
const FRAME_HEADER: usize = 8;
/// Bytes of an HMAC-SHA-256.
const TAG_BYTES: usize = 32;

thread_local! {
    // A context costs more than a small chunk; it keeps its level, so one per level used.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    // Room for any chunk. A fresh one each time would be zeroed, and above 128 KiB mapped and unmapped by the allocator: a tenth of the time to seal.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that sealing adds to a compressed chunk at most: frame header, padding, tag.
const SEAL_ROOM: usize = FRAME_HEADER + 16 + TAG_BYTES;

/// Seals the chunks of one object. Cheap to share between threads.
pub struct Sealer {
    header: Header,
    bytes: [u8; HEADER_BYTES],
    keys: Option<SealKeys>,
    level: i32,
}

#[derive(Clone)]
struct SealKeys {
    keys: ObjectKeys,
    /// Has taken the header already.
    mac: HmacSha256,
}

/// One chunk as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub bytes: Vec<u8>,
    /// CRC-32C of `bytes`, which goes into the table of an unencrypted object.
    pub crc: u32,
    /// SHA-256 of the plain chunk; zero for an aux chunk and where the kind has no digest.
    pub digest: [u8; 32],
    /// Plain bytes in it.
    pub plain_len: u32,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("header", &self.header).field("level", &self.level).finish_non_exhaustive()
    }
}

impl SealKeys {
    fn derive(key: &DataKey, salt: &[u8; 32], header: &[u8; HEADER_BYTES]) -> SealKeys {
        let keys = key.object_keys(salt, header);
        let mut mac = hmac(&keys.mac);
        mac.update(header);
        SealKeys { keys, mac }
    }

    /// Unpredictable without the key, and never the same for two chunks of an object; objects differ in their salt.
    fn iv(&self, stream: Stream, number: u64) -> [u8; 16] {
        let mut mac = hmac(&self.keys.iv);
        mac.update(&[stream.code()]);
        mac.update(&number.to_le_bytes());
        mac.finalize().into_bytes().first_chunk().copied().unwrap_or_default()
    }

    fn chunk_mac(&self, id: ChunkId, ciphertext: &[u8]) -> HmacSha256 {
        let mut mac = self.mac.clone();
        mac.update(b"C");
        mac.update(&[id.stream.code()]);
        mac.update(&id.number.to_le_bytes());
        mac.update(&id.plain_len.to_le_bytes());
        mac.update(&[u8::from(id.last)]);
        mac.update(ciphertext);
        mac
    }
}

/// What the MAC of a chunk covers beside its bytes.
#[derive(Clone, Copy)]
struct ChunkId {
    stream: Stream,
    number: u64,
    plain_len: u32,
    last: bool,
}

impl Sealer {
    /// A sealer for the object that `header` describes; takes a fresh salt if there is a key.
    ///
    /// # Errors
    /// [`SealError::Cannot`] without random bytes from the operating system.
    pub fn new(mut header: Header, key: Option<&DataKey>, level: i32) -> Result<Sealer, SealError> {
        if key.is_some() {
            header.salt = random().map_err(|e| SealError::Cannot(e.to_string()))?;
        }
        Ok(Self::with_salt(header, key, level))
    }

    /// The same with the salt that is in `header`: for test vectors. A salt must never be used for two objects.
    #[must_use]
    pub fn with_salt(mut header: Header, key: Option<&DataKey>, level: i32) -> Sealer {
        header.cipher = if key.is_some() { Cipher::Aes256CbcHmacSha256 } else { Cipher::None };
        header.generation = key.map_or(0, |key| key.generation);
        let bytes = header.encode();
        let keys = key.map(|key| SealKeys::derive(key, &header.salt, &bytes));
        Sealer { header, bytes, keys, level }
    }

    /// The header that stands first in the object.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header's bytes.
    #[must_use]
    pub fn header_bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.bytes
    }

    /// Seals chunk `number` of a stream. `plain` is a whole chunk unless it is the `last` of the stream.
    ///
    /// # Errors
    /// [`SealError::Cannot`] if the compressor refuses (no memory, or a level that it does not know).
    pub fn seal(&self, stream: Stream, number: u64, last: bool, plain: &[u8]) -> Result<Sealed, SealError> {
        let plain_len = u32::try_from(plain.len()).map_err(|_| SealError::Cannot(format!("a chunk of {} bytes", plain.len())))?;
        let digest = match stream {
            Stream::Main if self.header.has_digest => Sha256::digest(plain).into(),
            _ => [0; 32],
        };
        let hidden = stream == Stream::Aux && self.keys.is_none();
        let mut bytes = compressed(plain, self.level, |frame| {
            let mut bytes = Vec::with_capacity(frame.len().saturating_add(SEAL_ROOM));
            if hidden {
                let len = u32::try_from(frame.len()).map_err(|e| SealError::Cannot(e.to_string()))?;
                bytes.extend_from_slice(&AUX_FRAME.to_le_bytes());
                bytes.extend_from_slice(&len.to_le_bytes());
            }
            bytes.extend_from_slice(frame);
            Ok(bytes)
        })?;
        if let Some(keys) = &self.keys {
            encrypt(keys, ChunkId { stream, number, plain_len, last }, &mut bytes);
        }
        let crc = crc32c::crc32c(&bytes);
        Ok(Sealed { bytes, crc, digest, plain_len })
    }

    /// The footer's digest, from the digests of the main chunks in order.
    pub(super) fn digest(&self, chunks: Sha256) -> [u8; 32] {
        if !self.header.has_digest {
            return [0; 32];
        }
        keyed(self.keys.as_ref(), &chunks.finalize().into())
    }

    pub(super) fn tag(&self, table: &[u8], lengths: &[u8]) -> [u8; 32] {
        tail_tag(self.keys.as_ref(), &self.bytes, table, lengths)
    }
}

fn keyed(keys: Option<&SealKeys>, digest: &[u8; 32]) -> [u8; 32] {
    match keys {
        None => *digest,
        Some(keys) => {
            let mut mac = hmac(&keys.keys.digest);
            mac.update(digest);
            mac.finalize().into_bytes().into()
        }
    }
}

fn tail_tag(keys: Option<&SealKeys>, header: &[u8; HEADER_BYTES], table: &[u8], lengths: &[u8]) -> [u8; 32] {
    match keys {
        None => Sha256::new().chain_update(header).chain_update(b"F").chain_update(table).chain_update(lengths).finalize().into(),
        Some(keys) => {
            let mac = keys.mac.clone().chain_update(b"F").chain_update(table).chain_update(lengths);
            mac.finalize().into_bytes().into()
        }
    }
}

/// The digest that a footer carries for these bytes, before it is keyed: SHA-256 over the SHA-256 of each chunk.
#[must_use]
pub fn content_digest(main: &[u8], chunk: u32) -> [u8; 32] {
    let chunk = usize::try_from(chunk).unwrap_or(usize::MAX).max(1);
    let mut all = Sha256::new();
    for part in main.chunks(chunk) {
        all.update(Sha256::digest(part));
    }
    all.finalize().into()
}

/// Compresses `plain` and hands the frame to `take`.
fn compressed<T>(plain: &[u8], level: i32, take: impl FnOnce(&[u8]) -> Result<T, SealError>) -> Result<T, SealError> {
    let cannot = |e: std::io::Error| SealError::Cannot(format!("zstd: {e}"));
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(have, _)| *have != level) {
            let mut fresh = Compressor::new(level).map_err(cannot)?;
            fresh.set_parameter(CParameter::ChecksumFlag(true)).map_err(cannot)?;
            *slot = Some((level, fresh));
        }
        let (_, compressor) = slot.as_mut().ok_or_else(|| SealError::Cannot("zstd: no context".to_owned()))?;
        SCRATCH.with_borrow_mut(|room| {
            let bound = zstd::zstd_safe::compress_bound(plain.len());
            if room.len() < bound {
                room.resize(bound, 0);
            }
            let written = compressor.compress_to_buffer(plain, &mut room[..]).map_err(cannot)?;
            take(room.get(..written).unwrap_or_default())
        })
    })
}

/// Turns the compressed chunk in `bytes` into ciphertext and tag.
fn encrypt(keys: &SealKeys, id: ChunkId, bytes: &mut Vec<u8>) {
    let len = bytes.len();
    bytes.resize(len.saturating_add(16), 0);
    let cipher = CbcEncrypt::new((&*keys.keys.cipher).into(), (&keys.iv(id.stream, id.number)).into());
    let sealed = cipher.encrypt_padded::<Pkcs7>(bytes, len).expect("sixteen bytes more hold any padding").len();
    bytes.truncate(sealed);
    let tag = keys.chunk_mac(id, bytes).finalize().into_bytes();
    bytes.extend_from_slice(&tag);
}

/// Checks and opens chunks of one object.
pub struct Opener {
    header: Header,
    bytes: [u8; HEADER_BYTES],
    keys: Option<SealKeys>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Opener {
    pub(super) fn new(header: Header, bytes: [u8; HEADER_BYTES], key: Option<&DataKey>) -> Opener {
        let keys = key.map(|key| SealKeys::derive(key, &header.salt, &bytes));
        Opener { header, bytes, keys }
    }

    /// The object's header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header's bytes: those at the start of the object must be the same.
    #[must_use]
    pub fn header_bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.bytes
    }

    /// Is `tag` the one of this table and these lengths?
    pub(super) fn fits(&self, table: &[u8], lengths: &[u8], tag: &[u8; 32]) -> bool {
        match &self.keys {
            None => tail_tag(None, &self.bytes, table, lengths) == *tag,
            Some(keys) => keys.mac.clone().chain_update(b"F").chain_update(table).chain_update(lengths).verify_slice(tag).is_ok(),
        }
    }

    /// What the footer's digest is if [`content_digest`] gave `digest`.
    #[must_use]
    pub fn keyed_digest(&self, digest: &[u8; 32]) -> [u8; 32] {
        keyed(self.keys.as_ref(), digest)
    }

    /// Checks `stored`, chunk `number` of a stream of `len` bytes, and writes its plain bytes to the start of `out`.
    ///
    /// `crc` is the table's (unencrypted objects). Returns how many bytes were written: all of the chunk.
    ///
    /// # Errors
    /// [`SealError::Damaged`] naming the chunk, if a byte of it differs, it stands in another place, or `out` is too short.
    pub fn open(&self, id: (Stream, u64), len: u64, stored: &[u8], crc: u32, out: &mut [u8]) -> Result<usize, SealError> {
        let (stream, number) = id;
        let chunk = match stream {
            Stream::Main => self.header.main_chunk,
            Stream::Aux => self.header.aux_chunk,
        };
        let place = Place::Chunk { stream, number, from: number.saturating_mul(u64::from(chunk)) };
        let plain_len = chunk_len(len, chunk, number).ok_or_else(|| damaged(place, format!("the stream has only {len} bytes")))?;
        let last = chunk_len(len, chunk, number.saturating_add(1)).is_none();
        let room = usize::try_from(plain_len).ok().and_then(|n| out.get_mut(..n));
        let room = room.ok_or_else(|| damaged(place, format!("it holds {plain_len} bytes, room was made for fewer")))?;
        let written = SCRATCH.with_borrow_mut(|buffer| {
            let frame = match &self.keys {
                Some(keys) => decrypt(keys, ChunkId { stream, number, plain_len, last }, stored, buffer, place)?,
                None => unhide(stream, stored, crc, place)?,
            };
            decompress(frame, room).map_err(|e| damaged(place, format!("zstd: {e}")))
        })?;
        if written != room.len() {
            return Err(damaged(place, format!("it holds {written} bytes, the footer says {plain_len}")));
        }
        Ok(written)
    }
}

fn unhide(stream: Stream, stored: &[u8], crc: u32, place: Place) -> Result<&[u8], SealError> {
    let computed = crc32c::crc32c(stored);
    if computed != crc {
        return Err(damaged(place, format!("CRC says {crc:08x}, contents give {computed:08x}")));
    }
    if stream == Stream::Main {
        return Ok(stored);
    }
    let frame = stored.get(FRAME_HEADER..).unwrap_or_default();
    let told = u32_at(stored, 4).and_then(|len| usize::try_from(len).ok());
    if u32_at(stored, 0) != Some(AUX_FRAME) || told != Some(frame.len()) {
        return Err(damaged(place, "its frame header is not what is written"));
    }
    Ok(frame)
}

fn decrypt<'a>(keys: &SealKeys, id: ChunkId, stored: &[u8], buffer: &'a mut Vec<u8>, place: Place) -> Result<&'a [u8], SealError> {
    let split = stored.len().checked_sub(TAG_BYTES).and_then(|at| stored.split_at_checked(at));
    let (ciphertext, tag) = split.ok_or_else(|| damaged(place, "it is shorter than a MAC"))?;
    keys.chunk_mac(id, ciphertext).verify_slice(tag).map_err(|_| damaged(place, "its MAC does not fit"))?;
    buffer.clear();
    buffer.extend_from_slice(ciphertext);
    let cipher = CbcDecrypt::new((&*keys.keys.cipher).into(), (&keys.iv(id.stream, id.number)).into());
    cipher.decrypt_padded::<Pkcs7>(buffer).map_err(|_| damaged(place, "its padding is wrong"))
}

fn decompress(frame: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::new()?);
        }
        slot.as_mut().map_or(Ok(0), |decompressor| decompressor.decompress_to_buffer(frame, out))
    })
}
