//! `global/pg_control`: who the cluster is, where recovery starts, and the settings that recovery insists on.
//!
//! In: the file's 8192 bytes.  Out: [`ControlFile`], and the bytes again.
//! Source: pg_control.h `ControlFileData` (14 to 18), controldata_utils.c. 14 to 17 share every offset; 18 adds one byte before the nonce.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use thiserror::Error;

use crate::advice::Advice;
use crate::pg::bytes::{get, put};
use crate::pg::checkpoint::{CHECKPOINT_BYTES, Checkpoint};
use crate::pg::{Lsn, Major, SegmentSize, Timeline};

/// Bytes of the file.
pub const CONTROL_FILE_BYTES: usize = 8192;

/// `DBState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    StartingUp = 0,
    ShutDown = 1,
    ShutDownInRecovery = 2,
    ShuttingDown = 3,
    InCrashRecovery = 4,
    InArchiveRecovery = 5,
    InProduction = 6,
}

/// Settings that recovery compares with the server's own, and `wal_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlSettings {
    /// `wal_level` as a number: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    pub wal_log_hints: bool,
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_transactions: i32,
    pub max_locks_per_transaction: i32,
    pub track_commit_timestamp: bool,
}

/// A `pg_control`. What is not a field here is kept from the bytes it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    pub major: Major,
    pub system_id: u64,
    pub catalog_version: u32,
    pub state: ClusterState,
    /// Seconds since 1970.
    pub time: i64,
    /// Where the newest checkpoint record lies.
    pub checkpoint_lsn: Lsn,
    pub checkpoint: Checkpoint,
    pub unlogged_lsn: Lsn,
    /// Recovery must come this far before the cluster is consistent.
    pub min_recovery_point: Lsn,
    /// 0 if there is no such point.
    pub min_recovery_timeline: u32,
    pub backup_start: Lsn,
    pub backup_end: Lsn,
    pub backup_end_required: bool,
    pub settings: ControlSettings,
    pub wal_segment_size: SegmentSize,
    /// `data_checksum_version`: 0 without checksums.
    pub checksum_version: u32,
    raw: Box<[u8; CONTROL_FILE_BYTES]>,
}

/// Why bytes are no `pg_control` that we can use.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ControlError {
    #[error("pg_control has {found} bytes")]
    Length { found: usize },
    #[error("pg_control is of an unknown Postgres (control version {control_version}, catalog version {catalog_version})")]
    Version { control_version: u32, catalog_version: u32 },
    #[error("pg_control is damaged")]
    Checksum { stored: u32, computed: u32 },
    #[error("pg_control has an impossible {field}: {value}")]
    Field { field: &'static str, value: i64 },
}

impl Advice for ControlError {
    fn detail(&self) -> Option<String> {
        match self {
            ControlError::Length { .. } => Some(format!("it should have {CONTROL_FILE_BYTES}")),
            ControlError::Checksum { stored, computed } => Some(format!("CRC says {stored:08x}, contents give {computed:08x}")),
            ControlError::Version { .. } | ControlError::Field { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ControlError::Version { .. } => Some("Bygone reads Postgres 14 to 18, with 8 kB blocks.".to_owned()),
            ControlError::Checksum { .. } => Some("A running server may have been writing it: read it again.".to_owned()),
            ControlError::Length { .. } | ControlError::Field { .. } => None,
        }
    }
}

// Offsets of ControlFileData.
const SYSTEM_ID: usize = 0;
const CONTROL_VERSION: usize = 8;
const CATALOG_VERSION: usize = 12;
const STATE: usize = 16;
const TIME: usize = 24;
const CHECKPOINT_LSN: usize = 32;
const CHECKPOINT: usize = 40;
const UNLOGGED_LSN: usize = 128;
const MIN_RECOVERY_POINT: usize = 136;
const MIN_RECOVERY_TIMELINE: usize = 144;
const BACKUP_START: usize = 152;
const BACKUP_END: usize = 160;
const BACKUP_END_REQUIRED: usize = 168;
const WAL_LEVEL: usize = 172;
const WAL_LOG_HINTS: usize = 176;
const MAX_CONNECTIONS: usize = 180;
const MAX_WORKER_PROCESSES: usize = 184;
const MAX_WAL_SENDERS: usize = 188;
const MAX_PREPARED: usize = 192;
const MAX_LOCKS: usize = 196;
const TRACK_COMMIT_TIMESTAMP: usize = 200;
const BLOCK_SIZE: usize = 216;
const WAL_BLOCK_SIZE: usize = 224;
const WAL_SEGMENT_SIZE: usize = 228;
const CHECKSUM_VERSION: usize = 252;

impl ControlFile {
    /// Reads the file's bytes, its checksum first verified.
    ///
    /// # Errors
    /// [`ControlError`]: a version that we do not know is told from damage only if the checksum of no known layout fits.
    pub fn decode(bytes: &[u8]) -> Result<ControlFile, ControlError> {
        let short = || ControlError::Length { found: bytes.len() };
        let raw: Box<[u8; CONTROL_FILE_BYTES]> = bytes.to_vec().try_into().map_err(|_| short())?;
        let field = |at| get::<u32>(bytes, at).ok_or_else(short);
        let (control_version, catalog_version) = (field(CONTROL_VERSION)?, field(CATALOG_VERSION)?);
        let major =
            Major::from_control(control_version, catalog_version).ok_or(ControlError::Version { control_version, catalog_version })?;
        let crc_at = major.facts().control_crc_offset;
        let (stored, computed) = (field(crc_at)?, crc32c::crc32c(bytes.get(..crc_at).unwrap_or_default()));
        if stored != computed {
            return Err(ControlError::Checksum { stored, computed });
        }
        Self::fields(bytes, raw, major).ok_or_else(short)?
    }

    fn fields(bytes: &[u8], raw: Box<[u8; CONTROL_FILE_BYTES]>, major: Major) -> Option<Result<ControlFile, ControlError>> {
        let impossible = |field, value| Some(Err(ControlError::Field { field, value: i64::from(value) }));
        let segment_bytes: u32 = get(bytes, WAL_SEGMENT_SIZE)?;
        let Some(wal_segment_size) = SegmentSize::new(segment_bytes) else {
            return impossible("WAL segment size", segment_bytes);
        };
        for (field, at) in [("block size", BLOCK_SIZE), ("WAL block size", WAL_BLOCK_SIZE)] {
            let value: u32 = get(bytes, at)?;
            if value != 8192 {
                return impossible(field, value);
            }
        }
        let state: u32 = get(bytes, STATE)?;
        let Some(state) = cluster_state(state) else {
            return impossible("state", state);
        };
        Some(Ok(ControlFile {
            major,
            system_id: get(bytes, SYSTEM_ID)?,
            catalog_version: get(bytes, CATALOG_VERSION)?,
            state,
            time: get(bytes, TIME)?,
            checkpoint_lsn: Lsn(get(bytes, CHECKPOINT_LSN)?),
            checkpoint: Checkpoint::decode(bytes.get(CHECKPOINT..)?, major)?,
            unlogged_lsn: Lsn(get(bytes, UNLOGGED_LSN)?),
            min_recovery_point: Lsn(get(bytes, MIN_RECOVERY_POINT)?),
            min_recovery_timeline: get(bytes, MIN_RECOVERY_TIMELINE)?,
            backup_start: Lsn(get(bytes, BACKUP_START)?),
            backup_end: Lsn(get(bytes, BACKUP_END)?),
            backup_end_required: get::<u8>(bytes, BACKUP_END_REQUIRED)? != 0,
            settings: ControlSettings {
                wal_level: get(bytes, WAL_LEVEL)?,
                wal_log_hints: get::<u8>(bytes, WAL_LOG_HINTS)? != 0,
                max_connections: get(bytes, MAX_CONNECTIONS)?,
                max_worker_processes: get(bytes, MAX_WORKER_PROCESSES)?,
                max_wal_senders: get(bytes, MAX_WAL_SENDERS)?,
                max_prepared_transactions: get(bytes, MAX_PREPARED)?,
                max_locks_per_transaction: get(bytes, MAX_LOCKS)?,
                track_commit_timestamp: get::<u8>(bytes, TRACK_COMMIT_TIMESTAMP)? != 0,
            },
            wal_segment_size,
            checksum_version: get(bytes, CHECKSUM_VERSION)?,
            raw,
        }))
    }

    /// The file's bytes, its checksum made anew.
    #[must_use]
    pub fn encode(&self) -> Box<[u8; CONTROL_FILE_BYTES]> {
        let mut raw = self.raw.clone();
        let bytes = &mut raw[..];
        put(bytes, STATE, self.state as u32);
        put(bytes, TIME, self.time);
        put(bytes, CHECKPOINT_LSN, self.checkpoint_lsn.0);
        if let Some(place) = bytes.get_mut(CHECKPOINT..CHECKPOINT.saturating_add(CHECKPOINT_BYTES)) {
            place.copy_from_slice(&self.checkpoint.encode());
        }
        put(bytes, UNLOGGED_LSN, self.unlogged_lsn.0);
        put(bytes, MIN_RECOVERY_POINT, self.min_recovery_point.0);
        put(bytes, MIN_RECOVERY_TIMELINE, self.min_recovery_timeline);
        put(bytes, BACKUP_START, self.backup_start.0);
        put(bytes, BACKUP_END, self.backup_end.0);
        put(bytes, BACKUP_END_REQUIRED, u8::from(self.backup_end_required));
        put(bytes, WAL_LEVEL, self.settings.wal_level);
        put(bytes, WAL_LOG_HINTS, u8::from(self.settings.wal_log_hints));
        put(bytes, MAX_CONNECTIONS, self.settings.max_connections);
        put(bytes, MAX_WORKER_PROCESSES, self.settings.max_worker_processes);
        put(bytes, MAX_WAL_SENDERS, self.settings.max_wal_senders);
        put(bytes, MAX_PREPARED, self.settings.max_prepared_transactions);
        put(bytes, MAX_LOCKS, self.settings.max_locks_per_transaction);
        put(bytes, TRACK_COMMIT_TIMESTAMP, u8::from(self.settings.track_commit_timestamp));
        let crc_at = self.major.facts().control_crc_offset;
        let crc = crc32c::crc32c(bytes.get(..crc_at).unwrap_or_default());
        put(bytes, crc_at, crc);
        raw
    }

    /// Does the cluster log hint bits as page images? (checksums or `wal_log_hints`)
    #[must_use]
    pub fn hint_bits_logged(&self) -> bool {
        self.checksum_version != 0 || self.settings.wal_log_hints
    }

    /// The timeline of the newest checkpoint.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.checkpoint.timeline
    }
}

fn cluster_state(number: u32) -> Option<ClusterState> {
    use ClusterState::{InArchiveRecovery, InCrashRecovery, InProduction, ShutDown, ShutDownInRecovery, ShuttingDown, StartingUp};
    [StartingUp, ShutDown, ShutDownInRecovery, ShuttingDown, InCrashRecovery, InArchiveRecovery, InProduction]
        .into_iter()
        .find(|state| *state as u32 == number)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A control file of `major` whose checksum is right.
    pub(crate) fn sample(major: Major) -> Vec<u8> {
        let mut bytes = vec![0; CONTROL_FILE_BYTES];
        put(&mut bytes, SYSTEM_ID, 7_711_940_346_348_827_306u64);
        put(&mut bytes, CONTROL_VERSION, major.facts().control_version);
        put(&mut bytes, CATALOG_VERSION, major.facts().catalog_version);
        put(&mut bytes, STATE, 6u32);
        put(&mut bytes, CHECKPOINT + 32, 24_576u32);
        for at in [BLOCK_SIZE, WAL_BLOCK_SIZE] {
            put(&mut bytes, at, 8192u32);
        }
        put(&mut bytes, WAL_SEGMENT_SIZE, 16u32 << 20);
        put(&mut bytes, 256, 1u8);
        let crc_at = major.facts().control_crc_offset;
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        put(&mut bytes, crc_at, crc);
        bytes
    }

    #[test]
    fn every_version_goes_both_ways() {
        for major in Major::ALL {
            let bytes = sample(major);
            let control = ControlFile::decode(&bytes).unwrap();
            assert_eq!((control.major, control.state, control.checkpoint.next_oid), (major, ClusterState::InProduction, 24_576));
            assert_eq!(control.encode()[..], bytes[..], "{major}");
        }
    }

    #[test]
    fn a_change_is_encoded_with_a_fresh_checksum() {
        let mut control = ControlFile::decode(&sample(Major::V18)).unwrap();
        control.state = ClusterState::ShutDown;
        control.settings.max_connections = 10;
        let again = ControlFile::decode(&control.encode()[..]).unwrap();
        assert_eq!((again.state, again.settings.max_connections), (ClusterState::ShutDown, 10));
    }

    #[test]
    fn damage_a_foreign_version_and_a_wrong_length_are_told_apart() {
        let mut bytes = sample(Major::V15);
        bytes[40] ^= 1;
        assert!(matches!(ControlFile::decode(&bytes), Err(ControlError::Checksum { .. })));
        bytes[8] ^= 1;
        assert!(matches!(ControlFile::decode(&bytes), Err(ControlError::Version { .. })));
        assert!(matches!(ControlFile::decode(&bytes[1..]), Err(ControlError::Length { found: 8191 })));
    }
}
