//! What every [`Store`] promises, as functions over one that is empty at the start.

use std::sync::atomic::{AtomicUsize, Ordering};

use bygone::store::{Store, StoreError, Upload};
use bytes::Bytes;

/// Deterministic, incompressible bytes.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn is_exists<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Exists { .. }))
}

fn is_not_found<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::NotFound { .. }))
}

fn keys(store: &dyn Store, prefix: &str, after: Option<&str>) -> Vec<String> {
    let mut keys = Vec::new();
    let mut collect = |meta: bygone::store::Meta| {
        keys.push(meta.key);
        true
    };
    store.list(prefix, after, &mut collect).unwrap();
    keys
}

fn upload(store: &dyn Store, key: &str, body: &[u8]) -> Box<dyn Upload> {
    let mut upload = store.upload_new(key).unwrap();
    for piece in body.chunks(1_000_003) {
        upload.write(piece).unwrap();
    }
    upload
}

pub(crate) fn what_was_put_is_read_back(store: &dyn Store) {
    let body = noise(300_000, 1);
    store.put_new("cluster/main/wal/a b+c%20'é.zst", body.clone().into()).unwrap();
    assert_eq!(store.get("cluster/main/wal/a b+c%20'é.zst").unwrap(), body);
    let meta = store.head("cluster/main/wal/a b+c%20'é.zst").unwrap().unwrap();
    assert_eq!((meta.key.as_str(), meta.size), ("cluster/main/wal/a b+c%20'é.zst", 300_000));
    let age = std::time::SystemTime::now().duration_since(meta.modified).unwrap_or_default();
    assert!(age.as_secs() < 60, "written just now, not {age:?} ago");
}

pub(crate) fn a_key_is_written_once(store: &dyn Store) {
    store.put_new("a/b", Bytes::from_static(b"first")).unwrap();
    assert!(is_exists(&store.put_new("a/b", Bytes::from_static(b"second"))));
    assert!(is_exists(&store.put_new("a/b", Bytes::from_static(b"first"))), "the same bytes are no excuse");
    assert_eq!(store.get("a/b").unwrap(), &b"first"[..]);
}

pub(crate) fn racing_writers_have_one_winner(store: &dyn Store) {
    let won = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..16_u8 {
            let won = &won;
            scope.spawn(move || match store.put_new("race/for it", vec![writer; 10_000].into()) {
                Ok(()) => won.fetch_add(usize::from(writer) + 1, Ordering::SeqCst),
                Err(StoreError::Exists { .. }) => 0,
                Err(error) => panic!("{error}"),
            });
        }
    });
    let body = store.get("race/for it").unwrap();
    assert_eq!(won.into_inner(), usize::from(body[0]) + 1, "exactly the one whose bytes are there won");
    assert_eq!(body, vec![body[0]; 10_000]);
}

pub(crate) fn a_range_is_whole_or_an_error(store: &dyn Store) {
    let body = noise(100_000, 2);
    store.put_new("o", body.clone().into()).unwrap();
    for range in [0..1_u64, 0..100_000, 99_999..100_000, 4096..70_001, 5..5, 100_000..100_000] {
        let (from, to) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert_eq!(store.get_range("o", range.clone()).unwrap(), body[from..to], "{range:?}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a reversed range must be refused")]
    for range in [0..100_001_u64, 100_000..100_001, 200_000..200_010, 100_001..100_001, 10..5] {
        let error = store.get_range("o", range.clone()).unwrap_err();
        assert!(matches!(error, StoreError::OutOfRange { size: 100_000, .. }), "{range:?}: {error}");
    }
}

pub(crate) fn the_tail_comes_with_the_size(store: &dyn Store) {
    let body = noise(10_000, 3);
    store.put_new("o", body.clone().into()).unwrap();
    for (len, from) in [(100, 9_900), (10_000, 0), (50_000, 0), (0, 10_000)] {
        let (tail, size) = store.get_tail("o", len).unwrap();
        assert_eq!((tail.as_ref(), size), (&body[from..], 10_000), "the last {len} bytes");
    }
}

pub(crate) fn what_is_missing_is_not_found(store: &dyn Store) {
    store.put_new("a/b/c", Bytes::from_static(b"1")).unwrap();
    for key in ["a/b", "a/b/d", "a/b/c/d", "z"] {
        assert!(is_not_found(&store.get(key)), "{key}");
        assert!(is_not_found(&store.get_range(key, 0..1)), "{key}");
        assert!(is_not_found(&store.get_range(key, 0..0)), "{key}");
        assert!(is_not_found(&store.get_tail(key, 10)), "{key}");
        assert_eq!(store.head(key).unwrap(), None, "{key}");
    }
}

pub(crate) fn an_upload_appears_only_when_finished(store: &dyn Store) {
    for (key, len) in [("up/small", 10), ("up/large", 21_000_000)] {
        let body = noise(len, 4);
        let upload = upload(store, key, &body);
        assert_eq!(store.head(key).unwrap(), None, "{key} is not finished");
        upload.finish().unwrap();
        assert_eq!(store.get(key).unwrap(), body, "{key}");
    }
    drop(upload(store, "up/dropped", &noise(21_000_000, 5)));
    assert_eq!(keys(store, "", None), ["up/large", "up/small"]);
}

pub(crate) fn an_upload_finds_a_taken_key(store: &dyn Store) {
    for len in [10, 11_000_000] {
        let body = noise(len, 6);
        let key = format!("up/{len}");
        let upload = upload(store, &key, &body);
        store.put_new(&key, Bytes::from_static(b"early")).unwrap();
        assert!(is_exists(&upload.finish()));
        assert_eq!(store.get(&key).unwrap(), &b"early"[..]);
        let late = store.upload_new(&key).and_then(|mut late| late.write(&body).and_then(|()| late.finish()));
        assert!(is_exists(&late));
    }
}

pub(crate) fn an_empty_object_is_an_object(store: &dyn Store) {
    store.put_new("empty/put", Bytes::new()).unwrap();
    store.upload_new("empty/uploaded").unwrap().finish().unwrap();
    for key in ["empty/put", "empty/uploaded"] {
        assert_eq!(store.get(key).unwrap(), Bytes::new());
        assert_eq!(store.get_tail(key, 100).unwrap(), (Bytes::new(), 0));
        assert_eq!(store.get_range(key, 0..0).unwrap(), Bytes::new());
        assert_eq!(store.head(key).unwrap().unwrap().size, 0);
    }
    assert!(is_exists(&store.put_new("empty/put", Bytes::new())));
}

/// None extends a folder's name with a character below `/`: there, services differ ([`Store::list`]).
const KEYS: [&str; 9] = ["a", "b/0-1", "b/0.1", "b/00", "b/1/0", "b0", "b_c", "c/d/e/f", "c/d/e/g"];

pub(crate) fn keys_are_listed_in_byte_order(store: &dyn Store) {
    for key in KEYS {
        store.put_new(key, Bytes::copy_from_slice(key.as_bytes())).unwrap();
    }
    let sorted = |keep: &dyn Fn(&str) -> bool| {
        let mut keys: Vec<&str> = KEYS.into_iter().filter(|key| keep(key)).collect();
        keys.sort_unstable();
        keys
    };
    for prefix in ["", "b", "b/", "b/0", "c/d/", "c/d/e/f", "x", "c/x/"] {
        assert_eq!(keys(store, prefix, None), sorted(&|key| key.starts_with(prefix)), "below {prefix:?}");
    }
    let mut sizes = Vec::new();
    let mut collect = |meta: bygone::store::Meta| {
        sizes.push(meta.size);
        true
    };
    store.list("c/", None, &mut collect).unwrap();
    assert_eq!(sizes, [7, 7]);
}

pub(crate) fn a_listing_starts_after_a_key_and_stops_when_told(store: &dyn Store) {
    for number in 0..30 {
        store.put_new(&format!("wal/{:02}/{number:04}", number / 10), Bytes::new()).unwrap();
    }
    assert_eq!(keys(store, "wal/", Some("wal/01/0018")).len(), 11);
    assert_eq!(keys(store, "wal/", Some("wal/01/0018x"))[0], "wal/01/0019", "the key to start after need not exist");
    assert_eq!(keys(store, "wal/", Some("a")).len(), 30);
    assert_eq!(keys(store, "wal/", Some("wal/02/0029")), [""; 0]);
    assert_eq!(keys(store, "wal/01/", Some("wal/00/0005")).len(), 10);
    let mut seen = Vec::new();
    let mut three = |meta: bygone::store::Meta| {
        seen.push(meta.key);
        seen.len() < 3
    };
    store.list("wal/", Some("wal/00/0008"), &mut three).unwrap();
    assert_eq!(seen, ["wal/00/0009", "wal/01/0010", "wal/01/0011"]);
}

pub(crate) fn a_folder_shows_its_next_components(store: &dyn Store) {
    for key in ["bygone.json", "backup/1F/manifest", "backup/1F/data/0", "backup/2F/data/0", "backup/readme", "backup-old"] {
        store.put_new(key, Bytes::new()).unwrap();
    }
    assert_eq!(store.list_dir("").unwrap(), ["backup-old", "backup/", "bygone.json"]);
    assert_eq!(store.list_dir("backup/").unwrap(), ["1F/", "2F/", "readme"]);
    assert_eq!(store.list_dir("backup/1F/").unwrap(), ["data/", "manifest"]);
    assert_eq!(store.list_dir("nothing/").unwrap(), [""; 0]);
}

pub(crate) fn deleting_is_final_and_may_be_repeated(store: &dyn Store) {
    store.put_new("a/b", Bytes::new()).unwrap();
    store.put_new("a/c", Bytes::new()).unwrap();
    store.delete("a/b").unwrap();
    store.delete("a/b").unwrap();
    store.delete("never/was").unwrap();
    assert!(is_not_found(&store.get("a/b")));
    assert_eq!(keys(store, "", None), ["a/c"]);
    store.delete("a/c").unwrap();
    assert_eq!(keys(store, "", None), [""; 0]);
}

pub(crate) fn a_deleted_key_is_free_again(store: &dyn Store) {
    store.put_new("lock/main", Bytes::from_static(b"one")).unwrap();
    store.delete("lock/main").unwrap();
    store.put_new("lock/main", Bytes::from_static(b"two")).unwrap();
    assert_eq!(store.get("lock/main").unwrap(), &b"two"[..]);
}

pub(crate) fn keys_that_leave_the_root_are_refused(store: &dyn Store) {
    for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a\0b", ".bygone-tmp/x"] {
        let refused =
            |error: StoreError| matches!(error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput);
        assert!(refused(store.put_new(key, Bytes::new()).unwrap_err()), "{key:?}");
        assert!(refused(store.get(key).unwrap_err()), "{key:?}");
        assert!(refused(store.get_range(key, 0..1).unwrap_err()), "{key:?}");
        assert!(refused(store.get_tail(key, 1).unwrap_err()), "{key:?}");
        assert!(refused(store.head(key).unwrap_err()), "{key:?}");
        assert!(refused(store.delete(key).unwrap_err()), "{key:?}");
        assert!(store.upload_new(key).is_err_and(refused), "{key:?}");
    }
    assert!(store.list("../", None, &mut |_| true).is_err());
    assert!(store.list_dir("/etc/").is_err());
}

pub(crate) fn many_threads_share_a_store(store: &dyn Store) {
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            scope.spawn(move || {
                for number in 0..5 {
                    let (key, body) = (format!("shared/{number}/{thread}"), noise(20_000, thread));
                    store.put_new(&key, body.clone().into()).unwrap();
                    assert_eq!(store.get_range(&key, 100..19_000).unwrap(), body[100..19_000]);
                }
            });
        }
    });
    assert_eq!(keys(store, "shared/", None).len(), 40);
}
