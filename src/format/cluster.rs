//! `identity.json` of a cluster's folder: who the cluster is, in plain JSON.
//!
//! From: `repo::cluster`, which converts to and from it.  To: `format::document`, which adds version and checksum.

use serde::{Deserialize, Serialize};

use super::document::Document;

/// The members of the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDiskCluster {
    pub cluster: String,
    /// Decimal digits in a string: many JSON readers would round so large a number.
    pub system_id: String,
    /// 14 to 18.
    pub major: u32,
    pub catalog_version: u32,
    /// Bytes.
    pub wal_segment_size: u32,
    /// Did pages have checksums when the cluster was registered? They may be switched later.
    pub checksums: bool,
}

impl Document for OnDiskCluster {
    const WHAT: &'static str = "cluster";
}
