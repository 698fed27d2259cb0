use super::*;
use crate::advice::Advice;
use crate::format::sealed::{Place, SealError};
use crate::store::memory::MemoryStore;

/// A full-strength secret, so that no test waits for Argon2.
fn secret() -> Secret {
    Secret::new(hex::encode((0..32).collect::<Vec<u8>>()).into_bytes())
}

fn both(test: impl Fn(&MemoryStore, Repository)) {
    for (cipher, secret) in [(Cipher::None, None), (Cipher::Aes256CbcHmacSha256, Some(secret()))] {
        let store = MemoryStore::default();
        let repository = Repository::create(Arc::new(store.clone()), cipher, secret.as_ref()).unwrap();
        test(&store, repository);
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(len)
    .collect()
}

#[test]
fn any_range_of_an_object_reads_as_it_was_put() {
    both(|_, repository| {
        let (main, aux) = (noise(1_000_000), noise(200_000));
        let summary = repository.put_object("a", ObjectKind::WalSegment, &main, Some(&aux)).unwrap();
        assert_eq!(summary.main_len, 1_000_000);
        let object = repository.open_object("a", ObjectKind::WalSegment).unwrap();
        assert_eq!((object.main_len(), object.aux_len(), object.stored_len()), (1_000_000, 200_000, summary.stored_len));
        for range in [0..0, 0..1, 131_071..131_073, 300_000..900_000, 999_999..1_000_000, 0..1_000_000] {
            let (from, to) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
            assert_eq!(object.read_main(range.clone()).unwrap(), main[from..to], "{range:?}");
        }
        assert_eq!(object.read_aux(65_000..66_000).unwrap(), aux[65_000..66_000]);
        assert_eq!(object.read_aux(0..200_000).unwrap(), aux);
        object.verify(&mut |_| ()).unwrap();
    });
}

#[test]
fn a_writer_adds_an_aux_stream_behind_what_it_wrote() {
    both(|_, repository| {
        let (main, aux) = (noise(300_000), noise(150_000));
        let mut writer = repository.writer("a", ObjectKind::WalSegment).unwrap();
        main.chunks(70_000).for_each(|piece| writer.write(piece).unwrap());
        let summary = writer.finish_with(&aux).unwrap();
        let object = repository.open_object("a", ObjectKind::WalSegment).unwrap();
        assert_eq!((object.main_len(), object.aux_len(), object.stored_len()), (300_000, 150_000, summary.stored_len));
        assert!(object.read_main(0..300_000).unwrap() == main && object.read_aux(0..150_000).unwrap() == aux);
        object.verify(&mut |_| ()).unwrap();
    });
}

#[test]
fn a_read_past_the_end_is_an_error_that_says_how_long_the_object_is() {
    both(|_, repository| {
        repository.put_object("a", ObjectKind::BackupData, b"hello", None).unwrap();
        let object = repository.open_object("a", ObjectKind::BackupData).unwrap();
        let error = object.read_main(3..6).unwrap_err();
        assert_eq!(error.to_string(), "a in memory has 5 bytes in its main stream, bytes 3 to 6 were asked for");
        assert!(object.read_main(0..u64::MAX).is_err());
        assert!(object.read_aux(0..1).is_err());
    });
}

#[test]
fn a_writer_gives_the_same_object_as_a_put_whatever_the_pieces() {
    both(|_, repository| {
        let main = noise(300_000);
        for piece in [1000, 65_536, 131_072, 300_000] {
            let key = format!("piece/{piece}");
            let mut writer = repository.writer(&key, ObjectKind::BackupData).unwrap();
            main.chunks(piece).for_each(|part| writer.write(part).unwrap());
            assert_eq!(writer.main_len(), 300_000);
            let summary = writer.finish().unwrap();
            assert_eq!(summary.stored_len, repository.store().head(&key).unwrap().unwrap().size);
            assert_eq!(repository.read_object(&key, ObjectKind::BackupData).unwrap(), main);
        }
        let writer = repository.writer("empty", ObjectKind::BackupData).unwrap();
        assert_eq!(writer.finish().unwrap().main_len, 0);
        assert_eq!(repository.read_object("empty", ObjectKind::BackupData).unwrap(), b"");
    });
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    both(|_, repository| {
        let mut writer = repository.writer("a", ObjectKind::BackupData).unwrap();
        writer.write(b"hello").unwrap();
        drop(writer);
        assert!(!repository.has_object("a").unwrap());
    });
}

#[test]
fn an_object_is_never_overwritten() {
    both(|_, repository| {
        repository.put_object("a", ObjectKind::Manifest, b"first", None).unwrap();
        assert!(is_taken(&repository.put_object("a", ObjectKind::Manifest, b"second", None).unwrap_err()));
        assert_eq!(repository.read_object("a", ObjectKind::Manifest).unwrap(), b"first");
    });
}

#[test]
fn the_same_contents_are_recognised_without_reading_them() {
    both(|store, repository| {
        let main = noise(500_000);
        let mut other = main.clone();
        other[400_000] ^= 1;
        for kind in [ObjectKind::WalIndex, ObjectKind::WalSegment] {
            let key = kind.to_string();
            repository.put_object(&key, kind, &main, None).unwrap();
            let object = repository.open_object(&key, kind).unwrap();
            assert!(object.main_equals(&main).unwrap());
            assert!(!object.main_equals(&other).unwrap());
            assert!(!object.main_equals(&main[1..]).unwrap());
        }
        let object = repository.open_object("WAL index", ObjectKind::WalIndex).unwrap();
        store.tamper("WAL index", |bytes| bytes[1000..200_000].fill(0));
        assert!(object.main_equals(&main).unwrap(), "the digest answers, not the chunks");
    });
}

#[test]
fn a_damaged_chunk_is_named_and_its_neighbours_are_readable() {
    both(|store, repository| {
        let main = noise(500_000);
        repository.put_object("a", ObjectKind::BackupData, &main, None).unwrap();
        store.tamper("a", |bytes| bytes[100_000] ^= 4);
        let object = repository.open_object("a", ObjectKind::BackupData).unwrap();
        let RepoError::Sealed { key, source: SealError::Damaged { place, .. }, .. } = object.read_main(0..500_000).unwrap_err() else {
            panic!("damage is Sealed")
        };
        assert_eq!((key.as_str(), place), ("a", Place::Chunk { stream: Stream::Main, number: 1, from: 65_536 }));
        assert_eq!(object.read_main(0..65_536).unwrap(), main[..65_536]);
        assert_eq!(object.read_main(131_072..500_000).unwrap(), main[131_072..]);
        assert!(object.verify(&mut |_| ()).unwrap_err().is_damage());
    });
}

#[test]
fn a_damaged_header_is_found_by_verify() {
    both(|store, repository| {
        repository.put_object("a", ObjectKind::BackupData, &noise(500_000), None).unwrap();
        store.tamper("a", |bytes| bytes[50] ^= 4);
        let object = repository.open_object("a", ObjectKind::BackupData).unwrap();
        let error = object.verify(&mut |_| ()).unwrap_err();
        assert!(matches!(error, RepoError::Sealed { source: SealError::Damaged { place: Place::Header, .. }, .. }));
    });
}

#[test]
fn two_objects_that_change_places_are_both_refused() {
    both(|store, repository| {
        repository.put_object("a", ObjectKind::BackupData, b"of a", None).unwrap();
        repository.put_object("b", ObjectKind::BackupData, b"of b", None).unwrap();
        let (a, b) = (store.get("a").unwrap(), store.get("b").unwrap());
        store.tamper("a", |bytes| *bytes = b.to_vec());
        store.tamper("b", |bytes| *bytes = a.to_vec());
        for key in ["a", "b"] {
            let error = repository.open_object(key, ObjectKind::BackupData).unwrap_err();
            assert!(matches!(error, RepoError::Sealed { source: SealError::OtherObject { what: "key digest", .. }, .. }), "{error}");
        }
    });
}

#[test]
fn an_object_whose_table_is_longer_than_the_first_read_opens() {
    let repository = Repository::create(Arc::new(MemoryStore::default()), Cipher::None, None).unwrap().with_level(1);
    // The first read holds 8,164 entries of a table.
    let mut writer = repository.writer("big", ObjectKind::BackupData).unwrap();
    let zeroes = vec![0; 1 << 20];
    (0..512).for_each(|_| writer.write(&zeroes).unwrap());
    writer.write(b"the end").unwrap();
    assert_eq!(writer.finish().unwrap().main_len, (512 << 20) + 7);
    let object = repository.open_object("big", ObjectKind::BackupData).unwrap();
    assert_eq!(object.read_main((512 << 20) - 1..(512 << 20) + 7).unwrap(), b"\0the end");
}

#[test]
fn a_repository_opens_again_with_its_secret_only() {
    let store = Arc::new(MemoryStore::default());
    let made = Repository::create(store.clone(), Cipher::Aes256CbcHmacSha256, Some(&secret())).unwrap();
    made.put_object("a", ObjectKind::Manifest, b"hello", None).unwrap();
    let again = Repository::open(store.clone(), Some(&secret())).unwrap();
    assert_eq!((again.id(), again.key_generation()), (made.id(), Some(1)));
    assert_eq!(again.read_object("a", ObjectKind::Manifest).unwrap(), b"hello");

    let wrong = Repository::open(store.clone(), Some(&Secret::new(b"wrong".to_vec()))).unwrap_err();
    assert!(matches!(wrong, RepoError::Key { source: crate::format::keys::KeyError::WrongSecret { .. }, .. }), "{wrong}");
    assert!(!wrong.is_damage());
    assert!(matches!(Repository::open(store.clone(), None), Err(RepoError::SecretMissing { .. })));
    assert!(matches!(Repository::open(store, Some(&Secret::new(vec![]))), Err(RepoError::SecretEmpty { .. })));
}

#[test]
fn a_passphrase_is_stretched_and_opens() {
    let store = Arc::new(MemoryStore::default());
    let secret = Secret::new(b"correct horse battery staple".to_vec());
    Repository::create(store.clone(), Cipher::Aes256CbcHmacSha256, Some(&secret)).unwrap();
    let key: serde_json::Value = serde_json::from_slice(&store.get("key/1-1.json").unwrap()).unwrap();
    assert_eq!(key["kdf"]["name"], "argon2id");
    Repository::open(store, Some(&secret)).unwrap();
}

#[test]
fn a_damaged_key_file_is_not_called_a_wrong_secret() {
    let store = MemoryStore::default();
    Repository::create(Arc::new(store.clone()), Cipher::Aes256CbcHmacSha256, Some(&secret())).unwrap();
    let len = store.get("key/1-1.json").unwrap().len();
    for at in 0..len {
        store.tamper("key/1-1.json", |bytes| bytes[at] ^= 1);
        let error = Repository::open(Arc::new(store.clone()), Some(&secret())).unwrap_err();
        assert!(matches!(error, RepoError::Document { .. }), "byte {at}: {error}");
        store.tamper("key/1-1.json", |bytes| bytes[at] ^= 1);
    }
}

#[test]
fn a_key_for_an_unencrypted_repository_is_refused() {
    let store = Arc::new(MemoryStore::default());
    Repository::create(store.clone(), Cipher::None, None).unwrap();
    assert!(matches!(Repository::open(store, Some(&secret())), Err(RepoError::SecretUnused { .. })));
}

#[test]
fn a_second_create_is_refused_and_an_interrupted_one_is_finished() {
    let store = MemoryStore::default();
    let create = || Repository::create(Arc::new(store.clone()), Cipher::Aes256CbcHmacSha256, Some(&secret()));
    let first = create().unwrap();
    assert!(matches!(create(), Err(RepoError::AlreadyThere { .. })));
    store.delete("key/1-1.json").unwrap();
    assert!(matches!(Repository::open(Arc::new(store.clone()), Some(&secret())), Err(RepoError::NoWrappedKey { .. })));
    assert_eq!(create().unwrap().id(), first.id());
}

#[test]
fn a_used_repository_that_has_lost_its_identity_or_its_keys_is_not_made_anew() {
    for lost in ["key/1-1.json", "bygone.json"] {
        let store = MemoryStore::default();
        let create = || Repository::create(Arc::new(store.clone()), Cipher::Aes256CbcHmacSha256, Some(&secret()));
        create().unwrap().put_object("cluster/main/1", ObjectKind::WalSegment, b"x", None).unwrap();
        let (bytes, _) = store.get_tail(lost, 1 << 20).unwrap();
        store.delete(lost).unwrap();
        assert!(matches!(create(), Err(RepoError::Remains { .. })));
        store.put_new(lost, bytes).unwrap();
        let found = Repository::open(Arc::new(store.clone()), Some(&secret())).unwrap();
        assert_eq!(found.read_object("cluster/main/1", ObjectKind::WalSegment).unwrap(), b"x");
    }
}

#[test]
fn nothing_there_is_said_so_with_advice() {
    let error = Repository::open(Arc::new(MemoryStore::default()), None).unwrap_err();
    assert_eq!(error.to_string(), "there is no repository in memory");
    assert!(error.hint().unwrap().contains("bygone init"));
}

#[test]
fn a_missing_object_is_not_found_and_nothing_else() {
    both(|_, repository| assert!(repository.open_object("none", ObjectKind::Manifest).unwrap_err().is_not_found()));
}
