//! The entry of a lock, a plain document.

use serde::{Deserialize, Serialize};

use super::document::Document;

/// Who holds it. All of it is for people and for [`crate::repo::lock`], nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDiskLock {
    pub host: String,
    /// Of this boot of the host: a process id means nothing after another.
    pub boot: String,
    /// In which process ids are counted: containers of one host have their own (`pid:[4026531836]`).
    pub pid_namespace: String,
    pub pid: u32,
    /// When the process started, as `/proc/<pid>/stat` counts it: process ids are used again.
    pub process_start: u64,
    /// What it is doing: `backup`.
    pub doing: String,
    /// RFC 3339.
    pub since: String,
}

impl Document for OnDiskLock {
    const WHAT: &'static str = "lock";
}
