use std::os::unix::fs::PermissionsExt;

use super::super::fault::{Call, FaultStore};
use super::super::memory::MemoryStore;
use super::*;

fn cache(max_bytes: u64) -> (tempfile::TempDir, Arc<RangeCache>) {
    let dir = tempfile::tempdir().unwrap();
    let cache = RangeCache::open(dir.path().join("cache"), max_bytes).unwrap();
    (dir, Arc::new(cache))
}

fn files(cache: &RangeCache) -> Vec<PathBuf> {
    let shards = fs_err::read_dir(&cache.dir).unwrap().map(|shard| shard.unwrap().path());
    shards.flat_map(|shard| fs_err::read_dir(shard).unwrap().map(|file| file.unwrap().path())).collect()
}

#[test]
fn a_range_is_found_again_and_no_other_takes_its_place() {
    let (_dir, cache) = cache(1 << 20);
    cache.put("repo", "a/b", &(10..15), b"hello");
    assert_eq!(cache.get("repo", "a/b", &(10..15)).unwrap(), &b"hello"[..]);
    assert_eq!(RangeCache::open(&cache.dir, 1 << 20).unwrap().get("repo", "a/b", &(10..15)).unwrap(), &b"hello"[..]);
    assert!(cache.get("other", "a/b", &(10..15)).is_none());
    assert!(cache.get("repo", "a/c", &(10..15)).is_none());
    assert!(cache.get("repo", "a/b", &(10..14)).is_none());
    assert!(cache.get("repo", "a/b", &(11..15)).is_none());
}

#[test]
fn a_damaged_entry_is_not_there_and_makes_room() {
    let (_dir, cache) = cache(1 << 20);
    let range = 0..1000;
    let put = || {
        cache.put("repo", "a", &range, &[7; 1000]);
        files(&cache).pop().unwrap()
    };
    let len = fs_err::read(put()).unwrap().len();
    for at in 0..len {
        let path = put();
        let mut bytes = fs_err::read(&path).unwrap();
        bytes[at] ^= 1;
        fs_err::write(&path, bytes).unwrap();
        assert!(cache.get("repo", "a", &range).is_none(), "a flipped bit in byte {at}");
        assert!(files(&cache).is_empty());
    }
    for damaged in [&[][..], &[0; 1020], &MAGIC[..], &[b"x".as_slice(), &fs_err::read(put()).unwrap()].concat()] {
        fs_err::write(put(), damaged).unwrap();
        assert!(cache.get("repo", "a", &range).is_none());
    }
}

#[test]
fn one_entry_under_the_name_of_another_is_not_taken_for_it() {
    let (_dir, cache) = cache(1 << 20);
    cache.put("repo", "a", &(0..5), b"right");
    let right = files(&cache).pop().unwrap();
    cache.put("repo", "b", &(0..5), b"wrong");
    let wrong = files(&cache).into_iter().find(|file| *file != right).unwrap();
    fs_err::rename(wrong, right).unwrap();
    assert!(cache.get("repo", "a", &(0..5)).is_none());
}

#[test]
fn the_cache_is_private_to_its_user() {
    let (_dir, cache) = cache(1 << 20);
    cache.put("repo", "a", &(0..5), b"hello");
    let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = files(&cache).pop().unwrap();
    assert_eq!([mode(&cache.dir), mode(file.parent().unwrap()), mode(&file)], [0o700, 0o700, 0o600]);
}

#[test]
fn it_stays_about_as_small_as_told_and_keeps_what_was_used_last() {
    let (_dir, cache) = cache(4 << 20);
    let range = 0..4096;
    let body = [1; 4096];
    for number in 0..4000 {
        cache.put("repo", &number.to_string(), &range, &body);
        let file = cache.path(&identity("repo", &number.to_string(), &range));
        // Times a second apart, as if written in the course of an hour; the first hundred are still in use.
        let used = if number < 100 { 5000 } else { number };
        File::options().write(true).open(file).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(used)).unwrap();
    }
    let taken: u64 = files(&cache).iter().map(|file| fs_err::metadata(file).unwrap().len()).sum();
    assert!(taken < (4 << 20) * 3 / 2 && taken > (4 << 20) / 2, "{taken} bytes");
    let kept = |numbers: Range<u64>| numbers.filter(|number| cache.get("repo", &number.to_string(), &range).is_some()).count();
    assert_eq!(kept(100..1000), 0, "long unused");
    assert_eq!(kept(0..100), 100, "old, but in use");
    assert!(kept(3900..4000) > 90, "just written");
}

#[test]
fn what_is_much_for_the_cache_is_not_kept() {
    let (_dir, cache) = cache(1 << 20);
    cache.put("repo", "a", &(0..100_000), &[0; 100_000]);
    assert!(files(&cache).is_empty());
}

#[test]
fn a_range_is_fetched_once_and_an_error_is_not_cached() {
    let (_dir, cache) = cache(1 << 20);
    let store = FaultStore::new(Arc::new(MemoryStore::default()));
    let cached = Cached::new(Arc::new(store.clone()), cache, "repo");
    assert!(matches!(cached.get_range("a", 0..5).unwrap_err(), StoreError::NotFound { .. }));
    cached.put_new("a", Bytes::from_static(b"hello, world")).unwrap();
    for _ in 0..3 {
        assert_eq!(cached.get_range("a", 0..5).unwrap(), &b"hello"[..]);
    }
    assert!(matches!(cached.get_range("a", 0..50).unwrap_err(), StoreError::OutOfRange { .. }));
    assert_eq!(store.calls(Call::Read), 3, "one missing, one fetched, one too long");
}

#[test]
fn pieces_are_kept_one_by_one_however_they_were_asked_for() {
    let (_dir, cache) = cache(1 << 20);
    let store = FaultStore::new(Arc::new(MemoryStore::default()));
    let cached = Cached::new(Arc::new(store.clone()), cache, "repo");
    let body: Vec<u8> = (0..100).collect();
    cached.put_new("a", body.clone().into()).unwrap();
    let pieces = [0..10, 10..30, 35..40, 40..60];
    let read = |pieces: &[Range<u64>]| cached.get_pieces("a", pieces).unwrap();
    assert_eq!(read(&pieces[1..3]), body[10..40]);
    assert_eq!(read(&pieces[2..3]), body[35..40]);
    assert_eq!(read(&pieces[1..2]), body[10..30]);
    assert_eq!(store.calls(Call::Read), 1);
    let all = read(&pieces);
    assert_eq!((&all[..30], &all[35..]), (&body[..30], &body[35..60]));
    assert_eq!(store.calls(Call::Read), 2);
    let kept = read(&pieces);
    assert_eq!((&kept[..30], &kept[30..35], &kept[35..]), (&body[..30], &[0; 5][..], &body[35..60]));
    assert_eq!(read(&[]), Bytes::new());
    assert_eq!(store.calls(Call::Read), 2);
}

#[test]
fn what_was_found_to_be_damaged_is_fetched_again_and_replaced() {
    let (_dir, cache) = cache(1 << 20);
    let memory = MemoryStore::default();
    let cached = Cached::new(Arc::new(memory.clone()), cache.clone(), "repo");
    cached.put_new("a", Bytes::from_static(b"hello, world")).unwrap();
    cache.put("repo", "a", &(0..5), b"hexlo");
    let pieces = std::slice::from_ref(&(0..5));
    assert_eq!(cached.get_pieces("a", pieces).unwrap(), &b"hexlo"[..]);
    cached.forget("a", pieces);
    assert_eq!(cached.get_pieces("a", pieces).unwrap(), &b"hello"[..]);

    assert_eq!(cached.get_tail("a", 5).unwrap().1, 12);
    memory.tamper("a", |bytes| bytes.truncate(11));
    assert_eq!(cached.get_tail("a", 5).unwrap().1, 12);
    cached.forget("a", &[]);
    assert_eq!(cached.get_tail("a", 5).unwrap(), (Bytes::from_static(b" worl"), 11));
}

#[test]
fn a_tail_is_fetched_once() {
    let (_dir, cache) = cache(1 << 20);
    let store = FaultStore::new(Arc::new(MemoryStore::default()));
    let cached = Cached::new(Arc::new(store.clone()), cache, "repo");
    cached.put_new("a", Bytes::from_static(b"hello, world")).unwrap();
    for _ in 0..2 {
        assert_eq!(cached.get_tail("a", 5).unwrap(), (Bytes::from_static(b"world"), 12));
        assert_eq!(cached.get_tail("a", 50).unwrap(), (Bytes::from_static(b"hello, world"), 12));
    }
    assert_eq!(cached.get_range("a", 7..12).unwrap(), &b"world"[..]);
    assert_eq!(store.calls(Call::Read), 2);
    assert!(matches!(cached.get_tail("b", 5), Err(StoreError::NotFound { .. })));
}

#[test]
fn many_users_share_it() {
    let (_dir, cache) = cache(256 << 10);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let cache = &cache;
            scope.spawn(move || {
                for number in 0..500_u64 {
                    let key = (number % 50).to_string();
                    let body = [u8::try_from(number % 50).unwrap(); 1000];
                    if let Some(found) = cache.get("repo", &key, &(0..1000)) {
                        assert_eq!(found, &body[..], "thread {thread}");
                    }
                    cache.put("repo", &key, &(0..1000), &body);
                }
            });
        }
    });
}
