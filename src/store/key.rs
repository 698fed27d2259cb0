//! What a key may look like, the same in every store.
//!
//! A key is a relative path of plain components. What it says is `repo::layout`'s; here only that no store can be led
//! out of its root by one, and that none collides with a store's own files.

use super::StoreError;

/// The folder in which the directory store keeps files that are still being written. No key may begin with it.
pub(super) const TEMPORARY: &str = ".bygone-tmp";

/// Checks that `key` names an object: components separated by single `/`, none of them empty, `.` or `..`, no NUL.
///
/// # Errors
/// [`StoreError::Io`] of kind `InvalidInput`: a bug above, or a damaged reference.
pub(super) fn check(store: &str, key: &str) -> Result<(), StoreError> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let allowed = key.split('/').all(plain) && !key.contains('\0') && !key.starts_with(TEMPORARY);
    if allowed { Ok(()) } else { Err(invalid(store, key)) }
}

/// Checks a prefix to list: as a key, but it may be empty or end anywhere.
///
/// # Errors
/// As [`check`].
pub(super) fn check_prefix(store: &str, prefix: &str) -> Result<(), StoreError> {
    let (folders, _) = prefix.rsplit_once('/').unwrap_or_default();
    let allowed = !prefix.starts_with('/') && !prefix.contains('\0');
    if !allowed {
        return Err(invalid(store, prefix));
    }
    if folders.is_empty() { Ok(()) } else { check(store, folders) }
}

fn invalid(store: &str, key: &str) -> StoreError {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "this is no valid key");
    StoreError::Io { store: store.to_owned(), key: key.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_relative_paths_are_keys() {
        for key in ["bygone.json", "cluster/main/18-7/wal/00000001/00000000/000000010000000000000003", "a/..b", "a/.b"] {
            assert!(check("memory", key).is_ok(), "{key}");
        }
    }

    #[test]
    fn what_leads_out_of_the_root_is_no_key() {
        for key in ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a\0b", ".bygone-tmp/1"] {
            assert!(check("memory", key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_prefix_may_end_anywhere_inside_the_root() {
        for prefix in ["", "a", "a/", "a/b/", "a/b.", "a/.."] {
            assert!(check_prefix("memory", prefix).is_ok(), "{prefix:?}");
        }
        for prefix in ["/", "../", "a/../b", "a//b/"] {
            assert!(check_prefix("memory", prefix).is_err(), "{prefix:?}");
        }
    }
}
