//! The header frame: who an object is and how it is sealed. The footer repeats it byte for byte.

use sha2::{Digest, Sha256};

use super::{ObjectKind, Place, SEALED_VERSION, SealError, damaged};
use crate::format::{Cipher, RepositoryId, bytes_at, u32_at};

/// Bytes of the header frame, its eight bytes of frame header included.
pub const HEADER_BYTES: usize = 120;

/// First bytes of every object: a zstd skippable frame, so that the `zstd` tool passes over it.
pub(super) const HEADER_FRAME: u32 = 0x184D_2A5B;
const MAGIC: &[u8; 8] = b"BYGONE\x1A\n";
const DIGEST_NONE: u8 = 0;
const DIGEST_SHA256_CHUNKS: u8 = 1;

/// Chunk sizes that we believe: powers of two from 1 KiB to 16 MiB. A reader needs one chunk of memory.
const CHUNK_SIZES: std::ops::RangeInclusive<u32> = 1 << 10..=1 << 24;

/// Who an object is. Decoded from `HEADER_BYTES` bytes; integers are little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub cipher: Cipher,
    pub kind: ObjectKind,
    /// Plain bytes per chunk of the main stream.
    pub main_chunk: u32,
    /// Plain bytes per chunk of the aux stream.
    pub aux_chunk: u32,
    /// Of the data key; 0 if not encrypted.
    pub generation: u32,
    pub repository: RepositoryId,
    /// Random, so that no two objects share keys; zero if not encrypted.
    pub salt: [u8; 32],
    /// SHA-256 of the key that the object is stored under.
    pub key_digest: [u8; 32],
    /// The footer carries a digest of the main stream.
    pub has_digest: bool,
}

impl Header {
    /// SHA-256 of an object's key.
    #[must_use]
    pub fn digest_of_key(key: &str) -> [u8; 32] {
        Sha256::digest(key.as_bytes()).into()
    }

    /// The header frame's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let parts: [&[u8]; 14] = [
            &HEADER_FRAME.to_le_bytes(),
            &112u32.to_le_bytes(),
            MAGIC,
            &SEALED_VERSION.to_le_bytes(),
            &[self.cipher.code()],
            &[self.kind.code()],
            &self.main_chunk.to_le_bytes(),
            &self.aux_chunk.to_le_bytes(),
            &self.generation.to_le_bytes(),
            &self.repository.0,
            &self.salt,
            &self.key_digest,
            &[if self.has_digest { DIGEST_SHA256_CHUNKS } else { DIGEST_NONE }],
            &[0; 3],
        ];
        for (byte, value) in out.iter_mut().zip(parts.concat()) {
            *byte = value;
        }
        let (covered, sum) = out.split_at_mut(HEADER_BYTES.saturating_sub(4));
        sum.copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
        out
    }

    /// Reads a header frame that stands at `place` (the header itself or the footer's copy).
    ///
    /// # Errors
    /// [`SealError::Future`] for a later version; [`SealError::Damaged`] for anything that this version never writes.
    pub fn decode(bytes: &[u8], place: Place) -> Result<Header, SealError> {
        let bad = |what: &str| damaged(place, what);
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| bad("it is cut short"))?;
        if u32_at(bytes, 0) != Some(HEADER_FRAME) || bytes_at(bytes, 8) != Some(*MAGIC) {
            return Err(bad("it does not begin as a sealed object does"));
        }
        let version = u16::from_le_bytes(bytes_at(bytes, 16).unwrap_or_default());
        if version > SEALED_VERSION {
            return Err(SealError::Future { found: version, known: SEALED_VERSION });
        }
        let header = Self::fields(bytes).ok_or_else(|| bad("a field has a value that is never written"))?;
        let (stored, computed) = (u32_at(bytes, 116), crc32c::crc32c(bytes.get(..116).unwrap_or_default()));
        if stored != Some(computed) {
            return Err(bad(&format!("CRC says {:08x}, contents give {computed:08x}", stored.unwrap_or_default())));
        }
        // Reserved bytes, lengths and whatever else has one legal value.
        if header.encode() != *bytes {
            return Err(bad("a reserved byte is not zero"));
        }
        Ok(header)
    }

    fn fields(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let [cipher, kind] = bytes_at(bytes, 18)?;
        let chunk = |at| u32_at(bytes, at).filter(|size| size.is_power_of_two() && CHUNK_SIZES.contains(size));
        let has_digest = match bytes_at(bytes, 112)? {
            [DIGEST_NONE] => false,
            [DIGEST_SHA256_CHUNKS] => true,
            _ => return None,
        };
        Some(Header {
            cipher: Cipher::from_code(cipher)?,
            kind: ObjectKind::from_code(kind)?,
            main_chunk: chunk(20)?,
            aux_chunk: chunk(24)?,
            generation: u32_at(bytes, 28)?,
            repository: RepositoryId(bytes_at(bytes, 32)?),
            salt: bytes_at(bytes, 48)?,
            key_digest: bytes_at(bytes, 80)?,
            has_digest,
        })
    }
}
