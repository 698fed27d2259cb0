//! Whom a clone's server runs as: Postgres refuses to be root.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::CloneError;

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    /// Main group.
    pub gid: u32,
}

impl User {
    /// Finds a user by name or number in `/etc/passwd`. A number that nobody has stands for itself.
    ///
    /// # Errors
    /// [`CloneError::NoUser`].
    pub fn find(name: &str) -> Result<User, CloneError> {
        let number = name.parse().ok();
        let passwd = fs_err::read_to_string("/etc/passwd")?;
        let known = passwd.lines().filter_map(of_line).find(|user| user.name == name || number == Some(user.uid));
        let unknown = || number.map(|uid| User { name: name.to_owned(), uid, gid: uid });
        known.or_else(unknown).ok_or_else(|| CloneError::NoUser { name: name.to_owned() })
    }
}

/// `name:x:uid:gid:…`
fn of_line(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    Some(User { name, uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

/// May the user pass through every directory down to `dir`?
///
/// # Errors
/// [`CloneError::OutOfReach`] with the first one that is closed.
pub(super) fn check_reach(dir: &Path, user: &User) -> Result<(), CloneError> {
    let real = fs_err::canonicalize(dir)?;
    for ancestor in real.ancestors().collect::<Vec<_>>().into_iter().rev() {
        let meta = fs_err::metadata(ancestor)?;
        let execute = match (meta.uid() == user.uid, meta.gid() == user.gid) {
            _ if user.uid == 0 => true,
            (true, _) => meta.mode() & 0o100 != 0,
            (false, true) => meta.mode() & 0o010 != 0,
            (false, false) => meta.mode() & 0o001 != 0,
        };
        if !execute {
            return Err(CloneError::OutOfReach { path: ancestor.to_owned(), user: user.name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        assert_eq!(User::find("root").unwrap(), User { name: "root".to_owned(), uid: 0, gid: 0 });
        assert_eq!(User::find("0").unwrap().name, "root");
        assert_eq!(User::find("4123456").unwrap().uid, 4_123_456);
        assert!(matches!(User::find("nobody-of-this-name"), Err(CloneError::NoUser { .. })));
    }

    #[test]
    fn a_closed_directory_on_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        let inside = closed.join("inside");
        fs_err::create_dir_all(&inside).unwrap();
        let other = User { name: "other".to_owned(), uid: 4_123_456, gid: 4_123_456 };
        for path in [dir.path(), &closed, &inside] {
            fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o711)).unwrap();
        }
        check_reach(&inside, &other).unwrap();
        fs_err::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        let error = check_reach(&inside, &other).unwrap_err();
        assert!(matches!(error, CloneError::OutOfReach { path, .. } if path.ends_with("closed")));
    }
}
