//! Block indexes.

use bygone::format::index::{self, Index, WalChunk, blocks};
use bygone::pg::{Lsn, Major};

use super::{Choices, put, u32_at};

const HEADER: usize = 64;

/// The choice says what follows: a whole index, a block of entries, of the log, or of statuses.
pub fn index(data: &[u8]) {
    let Some(choices) = Choices::of(data) else { return };
    const BASE: Lsn = Lsn(0x300_0000);
    match choices.choice % 4 {
        0 => whole(choices.rest, choices.mend),
        1 => drop(blocks::read_entries(choices.rest, WalChunk::of(BASE), &mut |entry| entry.tag.block != u32::MAX)),
        2 => drop(blocks::read_statuses(choices.rest, &mut |_, _| {})),
        _ => drop(blocks::read_log(choices.rest, BASE, &mut |item| {
            drop(format!("{:?} {}", item.effect(Major::V18), item.xid));
            true
        })),
    }
}

fn whole(bytes: &[u8], mend: bool) {
    let mut bytes = bytes.to_vec();
    if mend {
        mend_front(&mut bytes);
    }
    let Ok(opened) = Index::open(bytes.clone()) else { return };
    let major = opened.about().major;
    let mut some = None;
    let _entries = opened.entries(&mut |entry| {
        some = some.or(Some(entry));
        true
    });
    let _statuses = opened.statuses(&mut |_, _| {});
    let _log = opened.log(Lsn(0), &mut |item| item.effect(major).is_ok());
    if let Some(entry) = some {
        let _found = opened.lookup(entry.tag, WalChunk(0)..WalChunk(u64::MAX));
        let _forks = (opened.extent(entry.tag.rel, entry.tag.fork), opened.fork(entry.tag.rel, entry.tag.fork, &mut |_| true));
    }
    if let Ok(merged) = index::merge_in_memory(&[opened]) {
        Index::open(merged).expect("what was merged can be opened");
    }
}

/// CRCs of the front and of the header.
fn mend_front(bytes: &mut [u8]) {
    let front_len = u32_at(bytes, 48).map_or(0, |len| len as usize);
    if let Some(front) = front_len.checked_add(HEADER).and_then(|end| bytes.get(HEADER..end)) {
        let crc = crc32c::crc32c(front);
        put(bytes, 52, &crc.to_le_bytes());
    }
    if let Some(header) = bytes.get(..60) {
        let crc = crc32c::crc32c(header);
        put(bytes, 60, &crc.to_le_bytes());
    }
}
