use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::format::Cipher;

const KEY: &str = "cluster/main/18-7/wal/00000001/00000000/000000010000000000000003";
const REPOSITORY: RepositoryId = RepositoryId([0xB7; 16]);

fn data_key() -> DataKey {
    DataKey::from_bytes(1, [0x42; 32])
}

fn header(encrypted: bool) -> Header {
    Header {
        cipher: Cipher::None,
        kind: ObjectKind::WalSegment,
        main_chunk: 2048,
        aux_chunk: 1024,
        generation: 0,
        repository: REPOSITORY,
        salt: if encrypted { [0x5A; 32] } else { [0; 32] },
        key_digest: Header::digest_of_key(KEY),
        has_digest: true,
    }
}

fn seal(header: Header, key: Option<&DataKey>, main: &[u8], aux: &[u8]) -> Vec<u8> {
    let sealer = Sealer::with_salt(header, key, 3);
    let mut tail = TailBuilder::default();
    let mut object = sealer.header_bytes().to_vec();
    for (stream, bytes, chunk) in [(Stream::Main, main, sealer.header().main_chunk), (Stream::Aux, aux, sealer.header().aux_chunk)] {
        let count = bytes.len().div_ceil(chunk as usize);
        for (number, part) in bytes.chunks(chunk as usize).enumerate() {
            let sealed = sealer.seal(stream, number as u64, number + 1 == count, part).unwrap();
            tail.push(&sealer, stream, &sealed).unwrap();
            object.extend_from_slice(&sealed.bytes);
        }
    }
    object.extend_from_slice(&tail.finish(&sealer).unwrap().0);
    object
}

fn sample(encrypted: bool) -> Vec<u8> {
    let key = data_key();
    seal(header(encrypted), encrypted.then_some(&key), &bytes(5000, 7), &bytes(1500, 3))
}

/// Bytes that compress a little.
fn bytes(len: usize, seed: u32) -> Vec<u8> {
    (0u32..).take(len).map(|i| u8::try_from(i.wrapping_mul(seed).wrapping_mul(2_654_435_761) >> 29).unwrap()).collect()
}

/// Reads everything as a careful reader does: both streams, or the first error.
fn open(object: &[u8], keys: &[DataKey], key: &str, kind: ObjectKind) -> Result<(Vec<u8>, Vec<u8>), SealError> {
    let expected = Expected { repository: REPOSITORY, key, kind, keys, encrypted: !keys.is_empty() };
    let size = object.len() as u64;
    let Parsed::Whole { opener, footer, table } = parse_tail(object, size, &expected)? else { panic!("the whole object was given") };
    if object[..HEADER_BYTES] != *opener.header_bytes() {
        return Err(damaged(Place::Header, "differs"));
    }
    let mut index = 0;
    let mut streams = [Vec::new(), Vec::new()];
    for (stream, len, chunk, out) in
        [(Stream::Main, footer.main_len, opener.header().main_chunk, 0), (Stream::Aux, footer.aux_len, opener.header().aux_chunk, 1)]
    {
        for number in 0..chunk_count(len, chunk) {
            let (at, crc) = table.entry(index).expect("the table lists every chunk");
            index += 1;
            let mut plain = vec![0; chunk as usize];
            let stored = &object[usize::try_from(at.start).unwrap()..usize::try_from(at.end).unwrap()];
            let written = opener.open((stream, number), len, stored, crc, &mut plain)?;
            streams[out].extend_from_slice(&plain[..written]);
        }
    }
    let [main, aux] = streams;
    if opener.keyed_digest(&content_digest(&main, opener.header().main_chunk)) != footer.digest {
        return Err(damaged(Place::Whole(Stream::Main), "digest"));
    }
    Ok((main, aux))
}

fn open_sample(object: &[u8], encrypted: bool) -> Result<(Vec<u8>, Vec<u8>), SealError> {
    let keys = [data_key()];
    open(object, if encrypted { &keys } else { &[] }, KEY, ObjectKind::WalSegment)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_comes_back_whatever_its_length(main in 0usize..9000, aux in 0usize..4000, seed: u32, encrypted: bool) {
        let key = data_key();
        let (main, aux) = (bytes(main, seed), bytes(aux, seed | 1));
        let object = seal(header(encrypted), encrypted.then_some(&key), &main, &aux);
        prop_assert_eq!(open_sample(&object, encrypted), Ok((main, aux)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(noise in proptest::collection::vec(any::<u8>(), 0..600), encrypted: bool) {
        prop_assert!(open_sample(&noise, encrypted).is_err());
    }

    #[test]
    fn arbitrary_bytes_between_a_good_start_and_a_good_end_never_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..4000, encrypted: bool) {
        let mut object = sample(encrypted);
        let at = at % object.len();
        let end = (at + noise.len()).min(object.len());
        let changed = object[at..end] != noise[..end - at];
        object[at..end].copy_from_slice(&noise[..end - at]);
        prop_assert_eq!(open_sample(&object, encrypted).is_err(), changed);
    }
}

#[test]
fn any_flipped_bit_is_an_error() {
    for encrypted in [false, true] {
        let good = sample(encrypted);
        assert!(open_sample(&good, encrypted).is_ok());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(open_sample(&bad, encrypted).is_err(), "byte {at} of {}, encrypted: {encrypted}", good.len());
        }
        for at in (0..HEADER_BYTES).chain(good.len() - FOOTER_BYTES..good.len()) {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(open_sample(&bad, encrypted).is_err(), "byte {at} bit {bit}, encrypted: {encrypted}");
            }
        }
    }
}

#[test]
fn any_cut_is_an_error() {
    for encrypted in [false, true] {
        let good = sample(encrypted);
        for len in 0..good.len() {
            assert!(open_sample(&good[..len], encrypted).is_err(), "cut to {len}");
            assert!(open_sample(&good[len + 1..], encrypted).is_err(), "begins at {}", len + 1);
        }
    }
}

#[test]
fn chunks_that_change_places_are_refused() {
    for encrypted in [false, true] {
        let (key, plain) = (data_key(), [[1u8; 2048], [2; 2048], [1; 2048]].concat());
        let good = seal(header(encrypted), encrypted.then_some(&key), &plain, &[]);
        let expected = Expected { repository: REPOSITORY, key: KEY, kind: ObjectKind::WalSegment, keys: &[key], encrypted };
        let Ok(Parsed::Whole { table, .. }) = parse_tail(&good, good.len() as u64, &expected) else { panic!("a good object") };
        let place = |n| table.entry(n).map(|(at, _)| usize::try_from(at.start).unwrap()..usize::try_from(at.end).unwrap()).unwrap();
        let mut bad = good.clone();
        bad[place(0)].copy_from_slice(&good[place(1)]);
        bad[place(1)].copy_from_slice(&good[place(0)]);
        let error = open_sample(&bad, encrypted).unwrap_err();
        assert!(matches!(error, SealError::Damaged { place: Place::Chunk { number: 0, .. }, .. }), "{error}");
    }
}

#[test]
fn another_object_does_not_pass_for_the_one_asked_for() {
    for encrypted in [false, true] {
        let object = sample(encrypted);
        let keys = [data_key()];
        let keys: &[DataKey] = if encrypted { &keys } else { &[] };
        let what = |result: Result<_, SealError>| match result {
            Err(SealError::OtherObject { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what(open(&object, keys, "another/key", ObjectKind::WalSegment)), "key digest");
        assert_eq!(what(open(&object, keys, KEY, ObjectKind::Manifest)), "kind");
        let mut header = header(encrypted);
        header.repository = RepositoryId([1; 16]);
        assert_eq!(what(open(&seal(header, keys.first(), b"x", b""), keys, KEY, ObjectKind::WalSegment)), "repository");
    }
}

#[test]
fn an_unencrypted_object_does_not_pass_in_an_encrypted_repository() {
    let error = open_sample(&sample(false), true).unwrap_err();
    assert!(matches!(error, SealError::OtherObject { what: "cipher", .. }), "{error}");
    let error = open_sample(&sample(true), false).unwrap_err();
    assert!(matches!(error, SealError::OtherObject { what: "cipher", .. }), "{error}");
}

#[test]
fn a_wrong_key_is_told_apart_from_damage_and_from_a_missing_one() {
    let object = sample(true);
    let with = |key| open(&object, &[key], KEY, ObjectKind::WalSegment).unwrap_err();
    assert_eq!(with(DataKey::from_bytes(1, [0x43; 32])), SealError::WrongKey { generation: 1 });
    assert_eq!(with(DataKey::from_bytes(2, [0x42; 32])), SealError::NoKey { generation: 1 });
}

#[test]
fn an_object_from_the_future_is_refused_naming_both_versions() {
    for at in [16, sample(false).len() - 16] {
        let mut object = sample(false);
        object[at] = 9;
        let error = open_sample(&object, false).unwrap_err();
        assert!(at == 16 || error == SealError::Future { found: 9, known: 1 }, "{error}");
    }
}

#[test]
fn a_forged_length_allocates_nothing() {
    let mut object = sample(false);
    let at = object.len() - FOOTER_BYTES + 120;
    object[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = open_sample(&object, false).unwrap_err();
    assert!(matches!(error, SealError::Damaged { place: Place::Footer, .. }), "{error}");
}

#[test]
fn a_large_table_asks_for_a_longer_tail() {
    let object = seal(header(false), None, &bytes(200 * 2048, 5), &[]);
    let expected = Expected { repository: REPOSITORY, key: KEY, kind: ObjectKind::WalSegment, keys: &[], encrypted: false };
    let tail = &object[object.len() - 300..];
    let Ok(Parsed::NeedTail(len)) = parse_tail(tail, object.len() as u64, &expected) else { panic!("300 bytes cannot hold 200 entries") };
    assert_eq!(len, 200 * 8 + FOOTER_BYTES as u64 + 8);
    let tail = &object[object.len() - usize::try_from(len).unwrap()..];
    assert!(matches!(parse_tail(tail, object.len() as u64, &expected), Ok(Parsed::Whole { .. })));
}

#[test]
fn zstd_decodes_an_unencrypted_object_to_its_main_stream() {
    let plain = zstd::stream::decode_all(sample(false).as_slice()).unwrap();
    assert_eq!(plain, bytes(5000, 7));
    assert_eq!(zstd::stream::decode_all(seal(header(false), None, b"", b"only aux").as_slice()).unwrap(), b"");
}

#[test]
fn nothing_of_the_contents_shows_in_an_encrypted_object() {
    let object = sample(true);
    let plain_digest = content_digest(&bytes(5000, 7), 2048);
    assert!(!object.windows(32).any(|w| w == plain_digest));
    assert!(!object.windows(4).any(|w| w == 0xFD2F_B528u32.to_le_bytes()), "a zstd frame");
}

/// The test vectors of docs/format.md: a change of a stored byte must not pass unnoticed. (zstd's own output may change between its versions: the vectors
/// use one byte of contents, a raw block, which cannot.)
#[test]
fn the_bytes_are_those_of_the_documented_vectors() {
    let key = data_key();
    let plain = seal(header(false), None, b"x", b"y");
    let sealed = seal(header(true), Some(&key), b"x", b"y");
    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    assert_eq!(
        [(plain.len(), digest(&plain)), (sealed.len(), digest(&sealed))],
        [
            (404, "bcebaa2008873a91db346d7620470df73a1f7cfe7393fa5d10df1f077cfa5c67".to_owned()),
            (456, "0d5e3eb4903b751ccdf661f7898315a4806a7d3b65b5efdb75b7a03e7ed061ae".to_owned())
        ]
    );
}

fn fixture(name: &str) -> Vec<u8> {
    fs_err::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sealed").join(name)).expect("a fixture")
}

#[test]
fn objects_of_version_1_are_read_their_damaged_twins_and_later_versions_are_not() {
    for (name, encrypted) in [("v1-plain", false), ("v1-encrypted", true)] {
        assert_eq!(open_sample(&fixture(name), encrypted), Ok((b"x".to_vec(), b"y".to_vec())));
        let error = open_sample(&fixture(&format!("{name}-damaged")), encrypted).unwrap_err();
        assert!(matches!(error, SealError::Damaged { place: Place::Chunk { stream: Stream::Main, number: 0, .. }, .. }), "{error}");
        let error = open_sample(&fixture(&format!("{name}-of-version-2")), encrypted).unwrap_err();
        assert_eq!(error, SealError::Future { found: 2, known: 1 });
    }
}
