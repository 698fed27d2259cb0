//! Bytes that were never archived: what makes stock Postgres start on a view without recovery.
//!
//! The view's `pg_control` says "shut down" at a checkpoint whose record this module places into one WAL segment at the moment's Lsn. Layout and
//! values follow what was tried on 14 to 18: a record of 114 bytes, its redo pointing at itself.

pub mod segment;

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::pg::{Lsn, Timeline};

/// Text of `<timeline>.history` for a timeline that branches off `parent` at `at`.
///
/// `parent_history` is the parent's own file, empty for timeline 1. Source: timeline.c `writeTimeLineHistory`.
#[must_use]
pub fn history_file(parent_history: &str, parent: Timeline, at: Lsn) -> String {
    let mut text = parent_history.trim_end().to_owned();
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    let _infallible = writeln!(text, "{parent}\t{:X}/{:X}\tmounted by Bygone", at.0 >> 32, at.0 & 0xFFFF_FFFF);
    text
}

/// A file of `pg_twophase`: the prepared transaction's state as logged, and its CRC-32C (`RecreateTwoPhaseFile`, twophase.c).
#[must_use]
pub fn twophase_file(state: &[u8]) -> Vec<u8> {
    let mut bytes = state.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(state).to_le_bytes());
    bytes
}

/// Where a server keeps how far each replication origin has come.
pub const ORIGINS: &str = "pg_logical/replorigin_checkpoint";
const ORIGINS_MAGIC: u32 = 0x1257_DADE;

/// The file [`ORIGINS`]: a magic number, 16 bytes for each origin, CRC-32C (`CheckPointReplicationOrigin`, origin.c).
#[must_use]
pub fn replication_origins(origins: &BTreeMap<u16, Lsn>) -> Vec<u8> {
    let mut bytes = ORIGINS_MAGIC.to_le_bytes().to_vec();
    for (id, remote) in origins {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&remote.0.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// What the file [`ORIGINS`] says; `None` if it is damaged.
#[must_use]
pub fn read_replication_origins(bytes: &[u8]) -> Option<BTreeMap<u16, Lsn>> {
    let (contents, crc) = bytes.split_last_chunk::<4>()?;
    let (magic, items) = contents.split_first_chunk::<4>()?;
    let is_sound = u32::from_le_bytes(*magic) == ORIGINS_MAGIC && u32::from_le_bytes(*crc) == crc32c::crc32c(contents);
    let (items, rest) = items.as_chunks::<16>();
    let item = |&[id @ .., _, _, _, _, _, _, a, b, c, d, e, f, g, h]: &[u8; 16]| {
        (u16::from_le_bytes(id), Lsn(u64::from_le_bytes([a, b, c, d, e, f, g, h])))
    };
    (is_sound && rest.is_empty()).then(|| items.iter().map(item).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_origins_is_read_again_unless_it_is_damaged() {
        let origins = BTreeMap::from([(1, Lsn(0x1_0000_0077)), (300, Lsn(5))]);
        let bytes = replication_origins(&origins);
        assert_eq!(read_replication_origins(&bytes), Some(origins));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(read_replication_origins(&damaged), None);
            assert_eq!(read_replication_origins(&bytes[..at]), None);
        }
    }

    #[test]
    fn a_history_adds_one_line_to_its_parents() {
        let first = history_file("", Timeline(1), Lsn(0x1_0000_00F8));
        assert_eq!(first, "1\t1/F8\tmounted by Bygone\n");
        assert_eq!(history_file(&first, Timeline(2), Lsn(0x2_0000_0000)), "1\t1/F8\tmounted by Bygone\n\n2\t2/0\tmounted by Bygone\n");
    }
}
