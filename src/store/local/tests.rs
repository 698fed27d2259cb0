use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, LocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path().join("repo"));
    (dir, store)
}

fn temporary_files(store: &LocalStore) -> usize {
    fs_err::read_dir(store.root.join(key::TEMPORARY)).unwrap().count()
}

fn keys(store: &LocalStore) -> Vec<String> {
    let mut keys = Vec::new();
    store
        .list("", None, &mut |meta| {
            keys.push(meta.key);
            true
        })
        .unwrap();
    keys
}

#[test]
fn objects_and_folders_are_private_to_their_user() {
    let (_dir, store) = store();
    store.put_new("a/b/c", Bytes::from_static(b"1")).unwrap();
    let mode = |path: &str| fs_err::metadata(store.root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("a"), mode("a/b"), mode("a/b/c"), mode(key::TEMPORARY)], [0o700, 0o700, 0o700, 0o600, 0o700]);
}

#[test]
fn nothing_temporary_stays_after_a_write_or_a_dropped_upload() {
    let (_dir, store) = store();
    store.put_new("a/b", Bytes::from_static(b"1")).unwrap();
    store.put_new("a/b", Bytes::from_static(b"2")).unwrap_err();
    let mut upload = store.upload_new("a/c").unwrap();
    upload.write(&[7; 1_000_000]).unwrap();
    assert_eq!(temporary_files(&store), 1);
    drop(upload);
    assert_eq!(temporary_files(&store), 0);
    assert_eq!(keys(&store), ["a/b"]);
}

#[test]
fn an_object_that_appears_during_an_upload_is_not_replaced() {
    let (_dir, store) = store();
    let mut upload = store.upload_new("a").unwrap();
    upload.write(b"late").unwrap();
    store.put_new("a", Bytes::from_static(b"early")).unwrap();
    assert!(matches!(upload.finish().unwrap_err(), StoreError::Exists { .. }));
    assert_eq!(store.get("a").unwrap(), &b"early"[..]);
    assert_eq!(temporary_files(&store), 0);
}

#[test]
fn an_object_is_made_durable_before_it_is_said_to_exist() {
    let (_dir, store) = store();
    store.put_new("a/b", Bytes::from_static(b"1")).unwrap();
    let mut upload = store.upload_new("a/c").unwrap();
    upload.write(b"late").unwrap();
    store.put_new("a/c", Bytes::from_static(b"early")).unwrap();
    // Their writers may have died between rename and fsync.
    let is_synced = |key: &str| {
        let synced = directory::SYNCED.take();
        synced.contains(&store.root.join(key)) && synced.contains(&store.root.join("a"))
    };
    directory::SYNCED.take();
    assert!(matches!(store.put_new("a/b", Bytes::from_static(b"1")), Err(StoreError::Exists { .. })));
    assert!(is_synced("a/b"));
    assert!(matches!(upload.finish(), Err(StoreError::Exists { .. })));
    assert!(is_synced("a/c"));
    store.settle("a/b").unwrap();
    assert!(is_synced("a/b"));
    assert!(matches!(store.settle("a/d"), Err(StoreError::NotFound { .. })));
}

#[test]
fn a_missing_root_is_a_wrong_path_and_not_an_empty_repository() {
    let (_dir, store) = store();
    let is_refused = |error| matches!(error, StoreError::Refused { setting: "repo.N.path", .. });
    assert!(is_refused(store.get("a").unwrap_err()));
    assert!(is_refused(store.head("a").unwrap_err()));
    assert!(is_refused(store.list("", None, &mut |_| true).unwrap_err()));
    assert!(is_refused(store.list_dir("").unwrap_err()));
    fs_err::write(&store.root, "a file").unwrap();
    assert!(is_refused(store.get("a").unwrap_err()));
}

#[test]
fn what_a_dead_writer_left_is_swept_and_what_a_living_one_holds_is_not() {
    let (_dir, store) = store();
    let living = store.upload_new("a").unwrap();
    let folder = store.root.join(key::TEMPORARY);
    fs_err::write(folder.join("dead"), "half").unwrap();
    fs_err::write(folder.join("young"), "half").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    for entry in fs_err::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("young") {
            File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }
    LocalStore::new(&store.root).put_new("b", Bytes::new()).unwrap();
    assert_eq!(temporary_files(&store), 2, "the living one and the young one");
    assert!(!folder.join("dead").exists());
    drop(living);
}

#[test]
fn folders_emptied_by_a_delete_vanish_and_empty_ones_are_not_listed() {
    let (_dir, store) = store();
    store.put_new("backup/one/data/0", Bytes::from_static(b"1")).unwrap();
    store.put_new("backup/two/manifest", Bytes::from_static(b"2")).unwrap();
    store.delete("backup/one/data/0").unwrap();
    assert!(!store.root.join("backup/one").exists());
    fs_err::create_dir_all(store.root.join("backup/three/data")).unwrap();
    assert_eq!(store.list_dir("backup/").unwrap(), ["two/"]);
}

#[test]
fn names_that_extend_a_folder_with_punctuation_keep_byte_order() {
    let (_dir, store) = store();
    let sorted = ["a", "b-c", "b.d", "b/0-1", "b/0/1", "b/00", "b0"];
    for key in sorted.iter().rev() {
        store.put_new(key, Bytes::new()).unwrap();
    }
    assert_eq!(keys(&store), sorted);
    let mut after = Vec::new();
    store
        .list("", Some("b.d"), &mut |meta| {
            after.push(meta.key);
            true
        })
        .unwrap();
    assert_eq!(after, sorted[3..]);
}

#[test]
fn a_linked_folder_is_listed_and_a_socket_is_not() {
    let (dir, store) = store();
    store.put_new("a/b", Bytes::from_static(b"1")).unwrap();
    fs_err::rename(store.root.join("a"), dir.path().join("elsewhere")).unwrap();
    fs_err::os::unix::fs::symlink(dir.path().join("elsewhere"), store.root.join("a")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(store.root.join("socket")).unwrap();
    assert_eq!(keys(&store), ["a/b"]);
    assert_eq!(store.list_dir("").unwrap(), ["a/"]);
}

/// A file system of 1 MiB, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]).arg(dir.path()).status().unwrap();
        assert!(mounted.success(), "this test mounts a small tmpfs: run it as root");
        SmallDisk(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_so_and_nothing_half_written_stays() {
    let disk = SmallDisk::new();
    let store = LocalStore::new(disk.0.path());
    let too_much = vec![1_u8; 2_000_000];
    assert!(matches!(store.put_new("a/b", too_much.clone().into()).unwrap_err(), StoreError::Full { .. }));
    let mut upload = store.upload_new("a/c").unwrap();
    let error = upload.write(&too_much).and_then(|()| upload.finish()).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(temporary_files(&store), 0);
    assert_eq!(keys(&store), [""; 0]);
    store.put_new("a/b", vec![1_u8; 500_000].into()).unwrap();
}
