//! Sealed objects.

use bygone::format::RepositoryId;
use bygone::format::keys::DataKey;
use bygone::format::sealed::{Expected, FOOTER_BYTES, HEADER_BYTES, Header, ObjectKind, Parsed, Stream, parse_tail};
use sha2::{Digest as _, Sha256};

use super::{Choices, put, u32_at};

const KEY: &str = "cluster/main/18-7/wal/00000001/00000000/000000010000000000000003";
const REPOSITORY: RepositoryId = RepositoryId([0xB7; 16]);
/// Bytes around the chunk table in the tail frame: its header and the footer.
const FRAME_HEADER: usize = 8;
/// At most this much is opened of an object: a footer may tell of any length.
const CHUNKS: u64 = 8;

/// The choice's lowest bit: is it encrypted? Then an object.
pub fn sealed(data: &[u8]) {
    let Some(choices) = Choices::of(data) else { return };
    let encrypted = choices.choice & 1 != 0;
    let mut object = choices.rest.to_vec();
    if choices.mend && !encrypted {
        mend(&mut object);
    }
    let keys = [DataKey::from_bytes(1, [0x42; 32])];
    let keys = if encrypted { &keys[..] } else { &[] };
    let expected = Expected { repository: REPOSITORY, key: KEY, kind: ObjectKind::WalSegment, keys, encrypted };
    let size = object.len() as u64;
    let Ok(Parsed::Whole { opener, footer, table }) = parse_tail(&object, size, &expected) else { return };
    let header = opener.header();
    let main_chunks = footer.main_len.div_ceil(header.main_chunk.into());
    for (stream, len, chunk, first) in
        [(Stream::Main, footer.main_len, header.main_chunk, 0), (Stream::Aux, footer.aux_len, header.aux_chunk, main_chunks)]
    {
        let mut room = vec![0; chunk as usize];
        for number in 0..CHUNKS {
            let Some((place, crc)) = first.checked_add(number).and_then(|entry| table.entry(entry)) else { break };
            let place = usize::try_from(place.start).unwrap_or(usize::MAX)..usize::try_from(place.end).unwrap_or(usize::MAX);
            let _opened = opener.open((stream, number), len, object.get(place).unwrap_or_default(), crc, &mut room);
        }
    }
}

/// Puts identity, CRCs and digest of an unencrypted object right; offsets are those of docs/format.md.
fn mend(object: &mut [u8]) {
    let Some(at) = object.len().checked_sub(FOOTER_BYTES) else { return };
    put(object, at + 32, &REPOSITORY.0);
    put(object, at + 80, &Header::digest_of_key(KEY));
    let crc = crc32c::crc32c(object.get(at..at + 116).unwrap_or_default());
    put(object, at + 116, &crc.to_le_bytes());
    let header: Vec<u8> = object.get(at..at + HEADER_BYTES).unwrap_or_default().to_vec();
    put(object, 0, &header);
    let Some(table) = table_of(object, at) else { return };
    mend_chunks(object, table.clone());
    put(object, table.start - FRAME_HEADER + 4, &u32::try_from(object.len() - table.start).unwrap_or(0).to_le_bytes());
    let digest: [u8; 32] = Sha256::new()
        .chain_update(&header)
        .chain_update(b"F")
        .chain_update(&object[table.clone()])
        .chain_update(&object[at + HEADER_BYTES..at + 168])
        .finalize()
        .into();
    put(object, at + 168, &digest);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&object[table]), &object[at..at + 200]);
    put(object, at + 200, &crc.to_le_bytes());
}

/// Where the table is, by the lengths that the footer at `at` states.
fn table_of(object: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let number = |offset: usize| object.get(at + offset..)?.first_chunk().map(|eight| u64::from_le_bytes(*eight));
    let chunks = |len: u64, chunk: Option<u32>| len.div_ceil(u64::from(chunk?).max(1)).into();
    let main: Option<u64> = chunks(number(120)?, u32_at(object, at + 20));
    let aux: Option<u64> = chunks(number(128)?, u32_at(object, at + 24));
    let entries = main?.checked_add(aux?)?.checked_mul(8)?;
    let start = at.checked_sub(usize::try_from(entries).ok()?)?;
    (start >= FRAME_HEADER).then_some(start..at)
}

/// Gives every chunk that lies in the object the CRC of its bytes.
fn mend_chunks(object: &mut [u8], table: std::ops::Range<usize>) {
    let mut from = HEADER_BYTES;
    for entry in table.step_by(8) {
        let Some(len) = u32_at(object, entry).map(|len| len as usize) else { return };
        let Some(chunk) = from.checked_add(len).and_then(|end| object.get(from..end)) else { return };
        let crc = crc32c::crc32c(chunk);
        put(object, entry + 4, &crc.to_le_bytes());
        from += len;
    }
}
