//! The small things that are read whole: `pg_control`, histories, manifests, names.

use bygone::pg::control::ControlFile;
use bygone::pg::wal::TimelinePath;
use bygone::pg::{Major, Timeline, pglz};
use bygone::repo::manifest::{Header, Manifest};
use bygone::repo::moment::Moment;
use bygone::view::file_class::classify;
use bygone::view::synth::read_replication_origins;

use super::{Choices, put};

/// The choice says what the rest is.
pub fn files(data: &[u8]) {
    let Some(choices) = Choices::of(data) else { return };
    let rest = choices.rest;
    let text = String::from_utf8_lossy(rest);
    match choices.choice % 7 {
        0 => control(rest, choices.mend),
        1 => drop(TimelinePath::parse(Timeline(9), &text)),
        2 => drop((Manifest::decode(rest), Header::decode(rest))),
        3 => drop(read_replication_origins(rest)),
        4 => {
            let mut page = [0; 8192];
            let _outcome = pglz::decompress(rest, &mut page);
        }
        5 => drop(classify(&text)),
        _ => drop(Moment::parse(&text, jiff::Timestamp::UNIX_EPOCH)),
    }
}

/// `pg_control` ends with a CRC, at a place that depends on the version.
fn control(bytes: &[u8], mend: bool) {
    if !mend {
        drop(ControlFile::decode(bytes));
        return;
    }
    for major in Major::ALL {
        let crc_at = major.facts().control_crc_offset;
        let mut bytes = bytes.to_vec();
        if let Some(covered) = bytes.get(..crc_at) {
            let crc = crc32c::crc32c(covered);
            put(&mut bytes, crc_at, &crc.to_le_bytes());
        }
        drop(ControlFile::decode(&bytes));
    }
}
