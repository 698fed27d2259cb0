use proptest::prelude::*;

use super::*;

fn meta() -> Meta {
    Meta { mode: 0o600, uid: 26, gid: 27, nlink: 1, modified: SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5) }
}

fn records() -> Vec<OnDiskRecord> {
    let name = OsString::from("file");
    vec![
        OnDiskRecord::Node { ino: 7, kind: NodeKind::File, meta: meta(), base: Some(b"some/big/file".to_vec()), target: None },
        OnDiskRecord::Node { ino: 8, kind: NodeKind::Symlink, meta: meta(), base: None, target: Some("/there".into()) },
        OnDiskRecord::Name { dir: 1, name: name.clone(), ino: 7, hides: true },
        OnDiskRecord::Gone { dir: 1, name: name.clone() },
        OnDiskRecord::Drop { dir: 1, name },
        OnDiskRecord::Attr { ino: 7, meta: meta() },
        OnDiskRecord::Whole { ino: 7 },
        OnDiskRecord::Blocks { ino: 7, size: 8192, base_valid: 4096, runs: Runs(vec![0..1, 4..9]) },
        OnDiskRecord::Truncate { ino: 7, size: 1 },
    ]
}

#[test]
fn a_frame_reads_back_as_it_was_written() {
    let bytes = encode_frame(&records(), 32, 0);
    let frame = decode_frame(&bytes, 32).unwrap();
    assert_eq!(frame.records, records());
    assert_eq!(frame.len, bytes.len());
}

#[test]
fn a_frame_that_was_moved_is_refused() {
    assert!(decode_frame(&encode_frame(&records(), 32, 0), 64).is_none());
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let bytes = encode_frame(&records(), 32, 0);
    for at in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        assert!(decode_frame(&damaged, 32).is_none(), "bit {at}");
    }
}

#[test]
fn the_identity_reads_back_and_a_later_version_is_refused_by_number() {
    let bytes = encode_identity(99, "the tree of yesterday");
    assert_eq!(decode_identity(&bytes).unwrap(), (99, "the tree of yesterday".to_owned()));
    let mut future = bytes.clone();
    future[8] = 2;
    assert_eq!(decode_identity(&future), Err(Damage::Version(2)));
    let mut damaged = bytes;
    damaged[20] ^= 1;
    assert!(matches!(decode_identity(&damaged), Err(Damage::Checksum { .. })));
    assert_eq!(decode_identity(b"something else"), Err(Damage::NotOurs));
}

#[test]
fn the_journal_header_has_its_length_and_its_owner() {
    let bytes = encode_journal_header(5);
    assert_eq!(bytes.len() as u64, JOURNAL_HEADER);
    assert_eq!(decode_journal_header(&bytes), Ok(5));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), position in any::<u64>()) {
        drop(decode_frame(&bytes, position));
        drop(decode_identity(&bytes));
        drop(decode_journal_header(&bytes));
        let mut input = Reader(&bytes);
        while OnDiskRecord::decode(&mut input).is_some() {}
    }
}
