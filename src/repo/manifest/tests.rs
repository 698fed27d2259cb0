use super::*;

pub(crate) fn header() -> Header {
    Header {
        label: "20261125-101500F".parse().unwrap(),
        kind: BackupKind::Full,
        cluster: "main".into(),
        system_id: 7_711_940_346_348_827_306,
        major: Major::V15,
        server_version_num: 150_018,
        control_version: 1300,
        catalog_version: 202_209_061,
        segment_size: SegmentSize::DEFAULT,
        checksums: true,
        timeline: Timeline(1),
        start_lsn: Lsn(0x0200_0028),
        stop_lsn: Lsn(0x0200_0138),
        checkpoint_lsn: Lsn(0x0200_0060),
        start_time: "2026-11-25T10:15:00Z".parse().unwrap(),
        stop_time: "2026-11-25T10:15:07Z".parse().unwrap(),
        backup_label: "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n".into(),
        tablespace_map: "16385 /srv/ts \\\\ one\n".into(),
        tablespaces: vec![Tablespace { oid: 16385, name: "one".into(), path: "/srv/ts".into(), in_place: false }],
        data_directory: "/var/lib/postgresql/15/main".into(),
        data_directory_mode: 0o700,
        owner: Owner { user: "postgres".into(), group: "postgres".into() },
        host: "db1".into(),
        database_bytes: 16384,
        stored_bytes: 900,
        bad_pages: 3,
        options: Options { fast_checkpoint: true, processes: 2, page_checksums_verified: true },
        objects: 2,
        warnings: vec!["x was followed".into()],
        taken_by: "0.1.0".into(),
    }
}

fn file(path: impl Into<PathBuf>, size: u64) -> Entry {
    let place = (size > 0).then_some(Place { object: 1, offset: 77 });
    let kind = EntryKind::File(FileData { size, crc32c: 0xABCD, place, bad_pages: Vec::new() });
    Entry { path: path.into(), mode: 0o600, owner: None, mtime: 1_795_600_000, kind, link: None }
}

fn sample() -> Manifest {
    let mut bad = file("base/5/1259", 81920);
    if let EntryKind::File(data) = &mut bad.kind {
        data.bad_pages = vec![0, 3, 4];
    }
    let odd = file(OsString::from_vec(b"odd\xFF name".to_vec()), 1);
    let mut owned = file("server.key", 5);
    owned.owner = Some(Owner { user: "root".into(), group: "ssl-cert".into() });
    owned.link = Some("/etc/ssl/server.key".into());
    let target = "/srv/ts".into();
    let link = Entry { kind: EntryKind::Symlink { target }, ..file("pg_tblspc/16385", 0) };
    let dir = Entry { kind: EntryKind::Directory, mode: 0o700, ..file("base", 0) };
    let mut manifest = Manifest { header: header(), entries: vec![odd, owned, link, bad, dir, file("base/5/empty", 0)] };
    manifest.sort();
    manifest
}

#[test]
fn manifest_survives_its_stored_form() {
    let manifest = sample();
    let bytes = manifest.encode();
    assert_eq!(Manifest::decode(&bytes).as_ref(), Ok(&manifest));
    let first_line = bytes.split(|b| *b == b'\n').next().unwrap();
    assert_eq!(Header::decode(first_line), Ok(manifest.header));
}

#[test]
fn path_is_found_by_its_bytes() {
    let manifest = sample();
    assert_eq!(manifest.find(Path::new("pg_tblspc/16385")).unwrap().kind.letter(), "l");
    assert!(manifest.find(Path::new("pg_tblspc")).is_none());
}

#[test]
fn manifest_of_a_later_version_is_refused_naming_both() {
    let text = r#"{"format":"bygone-manifest","version":9,"what":"else"}"#;
    assert_eq!(Manifest::decode(text.as_bytes()), Err(ManifestError::Newer { found: 9, known: 1 }));
}

#[test]
fn field_that_we_do_not_know_is_passed_over() {
    let text = String::from_utf8(sample().encode()).unwrap();
    let with_more = text.replacen(r#"{"path""#, r#"{"later":[1],"path""#, 1);
    assert_eq!(Manifest::decode(with_more.as_bytes()), Ok(sample()));
}

#[test]
fn damage_is_named_by_its_line() {
    let text = String::from_utf8(sample().encode()).unwrap();
    let damaged = |from: &str, to: &str| match Manifest::decode(text.replacen(from, to, 1).as_bytes()) {
        Err(ManifestError::Damaged { line, what }) => (line, what),
        other => panic!("{from} -> {to}: {other:?}"),
    };
    assert_eq!(damaged("\"system_id\":\"77", "\"system_id\":\"x").0, 1);
    assert_eq!(damaged("bygone-manifest", "something").0, 1);
    assert_eq!(damaged("\"path\":\"base\"", "\"path\":\"../base\"").0, 2);
    assert_eq!(damaged("\"path\":\"base\"", "\"path\":\"/base\"").0, 2);
    assert_eq!(damaged("\"path\":\"base\"", "\"path\":\"\"").0, 2);
    assert_eq!(damaged("\"path\":\"base\"", "\"path\":\"./base\"").0, 2);
    assert_eq!(damaged("\"object\":1", "\"object\":2").0, 3);
    assert_eq!(damaged("\"bad_pages\":[[0,0],[3,4]]", "\"bad_pages\":[[0,99]]").0, 3);
    assert_eq!(damaged("\"crc32c\":\"0000abcd\"", "\"crc32c\":\"0000abcg\"").0, 3);
    assert_eq!(damaged("\"path\":\"pg_tblspc/16385\"", "\"path\":\"a\"").0, 6);
    assert_eq!(damaged("\"type\":\"l\"", "\"type\":\"x\"").0, 6);
    assert!(damaged("\"entries\":6", "\"entries\":7").1.contains("6 paths"));
}

#[test]
fn cut_manifest_is_refused_wherever_it_is_cut() {
    let bytes = sample().encode();
    for len in 0..bytes.len() - 1 {
        assert!(Manifest::decode(&bytes[..len]).is_err(), "cut at {len}");
    }
}
