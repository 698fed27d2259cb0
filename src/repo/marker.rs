//! The file that makes a data directory known as a clone's.

use std::path::Path;

/// Lies in the data directory of every clone. Nothing is archived or backed up from there until the clone is promoted to a cluster of its own.
pub const CLONE_MARKER: &str = "bygone.clone";

/// Does this data directory belong to a clone?
#[must_use]
pub fn is_clone(data_directory: &Path) -> bool {
    data_directory.join(CLONE_MARKER).symlink_metadata().is_ok()
}
