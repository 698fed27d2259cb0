use std::sync::atomic::Ordering;

use super::*;
use crate::archive::incarnation::IncarnationError;
use crate::archive::testing::{Ailing, Paper, SYSTEM_ID, folder, name, repository, segment};
use crate::format::index::{Head, Index, WalChunk};
use crate::pg::wal::Layout;
use crate::repo::ObjectKind;

fn request(paper: &Paper, repositories: &[&Arc<Repository>]) -> Request {
    let destinations = repositories.iter().map(|r| Destination { repository: (*r).clone(), required: true });
    Request {
        cluster: "main".into(),
        data_directory: paper.path().to_owned(),
        repositories: destinations.collect(),
        incomplete: false,
        parallel: 2,
        batch: 4,
        timeout: Duration::from_secs(60),
        notes: Some(paper.path().join("notes")),
    }
}

fn stored(repository: &Repository, no: u64) -> Option<Vec<u8>> {
    let key = folder().segment_file(&name(no));
    repository.has_object(&key).unwrap().then(|| repository.read_object(&key, ObjectKind::WalSegment).unwrap())
}

#[test]
fn segment_is_stored_everywhere_and_again_is_fine() {
    let paper = Paper::new();
    let ailing = Ailing::default();
    let (one, two) = (repository(ailing.clone()), repository(Ailing::default()));
    let path = paper.ready_segment(3);
    let request = request(&paper, &[&one, &two]);
    assert_eq!(push(&request, &path).unwrap(), Pushed { was_there: false, others: 0 });
    assert_eq!(stored(&one, 3), Some(segment(3, SYSTEM_ID)));
    assert_eq!(stored(&two, 3), Some(segment(3, SYSTEM_ID)));
    assert!(ailing.settled.lock().is_empty());
    assert_eq!(push(&request, &path).unwrap(), Pushed { was_there: true, others: 0 });
    assert_eq!(*ailing.settled.lock(), [folder().segment_file(&name(3))], "whoever stored it may have died before it was durable");
}

#[test]
fn others_that_are_ready_are_taken_along_up_to_the_batch() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let paths: Vec<_> = (3..10).map(|no| paper.ready_segment(no)).collect();
    let pushed = push(&request(&paper, &[&one]), &paths[0]).unwrap();
    assert_eq!(pushed, Pushed { was_there: false, others: 4 });
    assert!((3..8).all(|no| stored(&one, no).is_some()));
    assert_eq!(stored(&one, 8), None);
    let marks = fs_err::read_dir(paper.path().join("pg_wal/archive_status")).unwrap().count();
    assert_eq!(marks, 7, "the marks are left to Postgres");
}

#[test]
fn large_segments_are_pushed_by_fewer_threads() {
    let mb = |mb: u64| mb << 20;
    assert_eq!(threads(1, mb(16), 1), 2);
    assert_eq!(threads(2, mb(16), 2), 2);
    assert_eq!(threads(8, mb(16), 1), 4);
    assert_eq!(threads(8, mb(64), 2), 1);
    assert_eq!(threads(8, mb(1024), 1), 1);
    assert_eq!(threads(8, mb(1), 1), 16);
}

#[test]
fn different_content_under_the_same_name_is_refused_by_name() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let path = paper.ready_segment(3);
    push(&request(&paper, &[&one]), &path).unwrap();
    let mut other = segment(3, SYSTEM_ID);
    other[10_000_000] ^= 1;
    fs_err::write(&path, other).unwrap();
    let refused = push(&request(&paper, &[&one]), &path).unwrap_err();
    assert!(matches!(&refused, PushError::Different { name: n, .. } if *n == name(3)), "{refused}");
    assert_eq!(stored(&one, 3), Some(segment(3, SYSTEM_ID)));
}

#[test]
fn segment_of_another_cluster_is_refused() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let path = paper.ready_segment(3);
    let refuse = |bytes: &[u8]| {
        fs_err::write(&path, bytes).unwrap();
        match push(&request(&paper, &[&one]), &path) {
            Err(PushError::Foreign { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert!(refuse(&segment(3, 9)).contains("cluster 9"));
    assert!(refuse(&segment(4, SYSTEM_ID)).contains("address"));
    assert!(refuse(&segment(3, SYSTEM_ID)[..8192]).contains("8192 bytes"));
    let mut newer = segment(3, SYSTEM_ID);
    newer[4] = 2;
    assert!(refuse(&newer).contains("timeline 2"));
    assert_eq!(stored(&one, 3), None);
}

#[test]
fn segment_that_a_left_timeline_never_wrote_is_passed_over() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let path = paper.ready_segment(3);
    let control = paper.path().join("global/pg_control");
    let on_timeline = |timeline| {
        let mut now = ControlFile::decode(&fs_err::read(&control).unwrap()).unwrap();
        now.checkpoint.timeline = crate::pg::Timeline(timeline);
        fs_err::write(&control, *now.encode()).unwrap();
    };
    // Its first page is lost, but there is WAL in it.
    let mut damaged = segment(3, SYSTEM_ID);
    damaged.copy_within(..24, 8192);
    damaged[8194..8196].fill(0);
    damaged[8192 + 8..8192 + 16].copy_from_slice(&((3u64 << 24) + 8192).to_le_bytes());
    damaged[..8192].fill(0);
    for (bytes, is_unwritten) in
        [(segment(2, SYSTEM_ID), true), (vec![0; segment(3, SYSTEM_ID).len()], true), (segment(4, SYSTEM_ID), false), (damaged, false)]
    {
        fs_err::write(&path, bytes).unwrap();
        on_timeline(1);
        assert!(matches!(push(&request(&paper, &[&one]), &path), Err(PushError::Foreign { .. })), "WAL of the present timeline");
        on_timeline(2);
        assert_eq!(push(&request(&paper, &[&one]), &path).is_ok(), is_unwritten);
    }
    assert_eq!(stored(&one, 3), None);
    fs_err::write(&path, segment(3, SYSTEM_ID)).unwrap();
    push(&request(&paper, &[&one]), &path).unwrap();
    assert_eq!(stored(&one, 3), Some(segment(3, SYSTEM_ID)), "what was written is archived");
}

#[test]
fn cluster_that_the_repository_does_not_know_is_refused() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let path = paper.ready_segment(3);
    let mut request = request(&paper, &[&one]);
    request.cluster = "other".into();
    let refused = push(&request, &path).unwrap_err();
    assert!(matches!(refused, PushError::Incarnation(IncarnationError::Unknown { .. })), "{refused}");
}

#[test]
fn histories_backups_and_partial_segments_have_places_of_their_own() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let request = request(&paper, &[&one]);
    let history = paper.wal("00000002.history");
    fs_err::write(&history, "1\t0/3000000\tno recovery target specified\n").unwrap();
    push(&request, &history).unwrap();
    assert!(one.has_object(&folder().history(crate::pg::Timeline(2))).unwrap());
    let partial = paper.wal(&format!("{}.partial", name(3)));
    fs_err::write(&partial, segment(3, SYSTEM_ID)).unwrap();
    push(&request, &partial).unwrap();
    assert_eq!(stored(&one, 3), None);
    let backup = paper.wal(&format!("{}.00000028.backup", name(3)));
    fs_err::write(&backup, BACKUP_HISTORY).unwrap();
    push(&request, &backup).unwrap();
    fs_err::write(&history, "1\t0/4000000\tanother\n").unwrap();
    assert!(matches!(push(&request, &history), Err(PushError::Different { .. })));
    fs_err::write(&history, "nonsense").unwrap();
    assert!(matches!(push(&request, &history), Err(PushError::Foreign { .. })));
    assert!(matches!(push(&request, &paper.wal("postgresql.conf")), Err(PushError::Name(_))));
    assert!(matches!(push(&request, &paper.wal(&name(9))), Err(PushError::Read { .. })));
}

/// As Postgres 15 writes it.
const BACKUP_HISTORY: &str = "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)
STOP WAL LOCATION: 0/3000138 (file 000000010000000000000003)
CHECKPOINT LOCATION: 0/3000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-29 11:00:00 UTC
LABEL: x
START TIMELINE: 1
STOP TIME: 2026-11-29 11:00:01 UTC
STOP TIMELINE: 1
";

#[test]
fn a_history_without_a_parent_and_files_that_are_cut_are_refused() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let request = request(&paper, &[&one]);
    let refuses = |path: &Path, text: &str| {
        fs_err::write(path, text).unwrap();
        assert!(matches!(push(&request, path), Err(PushError::Foreign { .. })), "{text:?}");
    };
    let history = paper.wal("00000002.history");
    for text in ["", "\n", "# 1\t0/3000000\tnone\n", "1\t0/300"] {
        refuses(&history, text);
    }
    let backup = paper.wal(&format!("{}.00000028.backup", name(3)));
    for lines in 0..BACKUP_HISTORY.lines().count() {
        refuses(&backup, &BACKUP_HISTORY.split_inclusive('\n').take(lines).collect::<String>());
    }
    refuses(&backup, BACKUP_HISTORY.trim_end());
    fs_err::write(&backup, BACKUP_HISTORY).unwrap();
    push(&request, &backup).unwrap();
    fs_err::write(&history, "1\t0/3000000\tnone\n").unwrap();
    push(&request, &history).unwrap();
}

#[test]
fn clone_is_refused_by_name() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let path = paper.ready_segment(3);
    fs_err::write(paper.path().join(marker::CLONE_MARKER), "").unwrap();
    assert!(matches!(push(&request(&paper, &[&one]), &path), Err(PushError::IsClone { .. })));
    // Called from elsewhere the configured directory is taken, and that is production's.
    let production = Paper::new();
    let from_elsewhere = request(&production, &[&one]);
    assert!(matches!(push(&from_elsewhere, &path), Err(PushError::IsClone { .. })));
    let link = production.wal(&name(3));
    fs_err::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(push(&from_elsewhere, &link), Err(PushError::IsClone { .. })));
    // Its WAL may lie on another disk.
    let (wal, away) = (paper.path().join("pg_wal"), paper.path().join("global/wal"));
    fs_err::rename(&wal, &away).unwrap();
    fs_err::os::unix::fs::symlink(&away, &wal).unwrap();
    assert!(matches!(push(&from_elsewhere, &path), Err(PushError::IsClone { .. })));
    assert_eq!(stored(&one, 3), None);
}

#[test]
fn segment_without_wal_before_the_end_of_its_timeline_is_refused() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let request = request(&paper, &[&one]);
    let control = paper.path().join("global/pg_control");
    let mut now = ControlFile::decode(&fs_err::read(&control).unwrap()).unwrap();
    now.checkpoint.timeline = crate::pg::Timeline(2);
    fs_err::write(&control, *now.encode()).unwrap();
    let zeros = |no: u64| {
        let path = paper.ready_segment(no);
        fs_err::write(&path, vec![0; 16 << 20]).unwrap();
        push(&request, &path)
    };
    let is_lost = |pushed: Result<Pushed, PushError>| matches!(pushed, Err(PushError::Lost { .. }));
    // Without a history: a later segment with WAL in it tells.
    zeros(3).unwrap();
    fs_err::write(paper.wal(&name(5)), segment(5, SYSTEM_ID)).unwrap();
    assert!(is_lost(zeros(3)) && is_lost(zeros(4)));
    zeros(6).unwrap();
    // In the repository only, then beside the segment.
    let history = paper.wal("00000002.history");
    fs_err::write(&history, "1\t0/5000110\tno recovery target specified\n").unwrap();
    push(&request, &history).unwrap();
    fs_err::remove_file(&history).unwrap();
    assert!(is_lost(zeros(4)));
    zeros(5).unwrap();
    fs_err::write(&history, "1\t0/4000110\tno recovery target specified\n").unwrap();
    assert!(is_lost(zeros(3)));
    zeros(4).unwrap();
    assert!((3..7).all(|no| stored(&one, no).is_none()));
}

#[test]
fn dead_required_repository_fails_the_push_and_a_dead_optional_one_does_not() {
    let paper = Paper::new();
    let ailing = Ailing::default();
    let (one, two) = (repository(Ailing::default()), repository(ailing.clone()));
    let path = paper.ready_segment(3);
    ailing.dead.store(true, Ordering::Relaxed);
    let mut request = request(&paper, &[&one, &two]);
    assert!(push(&request, &path).is_err());
    request.repositories[1].required = false;
    push(&request, &path).unwrap();
    request.repositories.remove(0);
    assert!(push(&request, &path).is_err(), "one repository at least must have it");
}

#[test]
fn a_repository_that_fails_keeps_nothing_from_the_others() {
    for how in ["dead", "full", "not opened"] {
        let paper = Paper::new();
        let ailing = Ailing::default();
        let (one, two) = (repository(Ailing::default()), repository(ailing.clone()));
        let ails = |on| if how == "full" { &ailing.full } else { &ailing.dead }.store(on, Ordering::Relaxed);
        let paths: Vec<_> = (3..14).map(|no| paper.ready_segment(no)).collect();
        let both = request(&paper, &[&two, &one]);
        let left = Request { incomplete: true, ..request(&paper, &[&one]) };
        let failing = if how == "not opened" { &left } else { &both };
        ails(true);
        // Postgres calls for the same file until it is archived: each call gets further.
        for last in [7, 11, 13] {
            let pushed = push(failing, &paths[0]);
            assert_eq!(pushed.is_err(), how != "not opened", "{how}: {pushed:?}");
            assert!((3..=last).all(|no| stored(&one, no).is_some()), "{how}, up to {last}");
            assert!((last + 1..14).all(|no| stored(&one, no).is_none()), "{how}, behind {last}");
        }
        ails(false);
        assert!((3..14).all(|no| stored(&two, no).is_none()));
        // What was noted of one repository says nothing of both.
        assert_eq!(push(&both, &paths[0]).unwrap(), Pushed { was_there: false, others: 4 }, "{how}");
        assert!((3..8).all(|no| stored(&two, no).is_some()));
    }
}

#[test]
fn hung_store_fails_within_the_set_time_and_the_next_call_succeeds() {
    let paper = Paper::new();
    let ailing = Ailing::default();
    let one = repository(ailing.clone());
    let path = paper.ready_segment(3);
    ailing.hung.store(true, Ordering::Relaxed);
    let mut request = request(&paper, &[&one]);
    request.timeout = Duration::from_millis(200);
    let begun = Instant::now();
    assert!(matches!(push(&request, &path), Err(PushError::TimedOut { .. })));
    assert!(begun.elapsed() < Duration::from_secs(5));
    ailing.hung.store(false, Ordering::Relaxed);
    request.timeout = Duration::from_secs(60);
    push(&request, &path).unwrap();
    assert_eq!(stored(&one, 3), Some(segment(3, SYSTEM_ID)));
}

/// Writes real WAL into segments 3 and 4 (and into a part of 5): records of 1 MB, one of which crosses from 3 into 4. Gives where that begins.
fn write_wal(paper: &Paper) -> crate::pg::Lsn {
    use crate::pg::wal::Rmgr;
    use crate::pg::wal::fabricate::{Draft, Writer};
    let size = crate::pg::SegmentSize::DEFAULT;
    let mut writer = Writer::new(Layout { major: crate::pg::Major::V15, segment_size: size, system_id: Some(SYSTEM_ID) }, 3);
    let rel = crate::pg::RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };
    let tag = crate::pg::BlockTag { rel, fork: crate::pg::Fork::Main, block: 7 };
    let mut crossing = crate::pg::Lsn(0);
    for _ in 0..40 {
        let (lsn, end) = writer.push(&Draft::new(Rmgr::GENERIC, 0x00, 0, vec![8; 1_000_000]).block(0, tag, false, b"x"));
        if size.segment_no(lsn) == 3 && size.segment_no(end) == 4 {
            crossing = lsn;
        }
    }
    for (segment, bytes) in &writer.segments.0 {
        fs_err::write(paper.wal(&segment.name(size)), bytes).unwrap();
    }
    crossing
}

fn stored_index(repository: &Repository, no: u64) -> Option<Index<Vec<u8>>> {
    let object = repository.open_object(&folder().segment_file(&name(no)), ObjectKind::WalSegment).unwrap();
    (object.aux_len() > 0).then(|| Index::open(object.read_aux(0..object.aux_len()).unwrap()).unwrap())
}

#[test]
fn segment_is_stored_with_an_index_that_holds_the_record_reaching_into_it() {
    for before in ["beside it", "in the repository", "nowhere"] {
        let paper = Paper::new();
        let one = repository(Ailing::default());
        let crossing = write_wal(&paper);
        if before == "in the repository" {
            push(&request(&paper, &[&one]), &paper.wal(&name(3))).unwrap();
            assert_eq!(stored_index(&one, 3).unwrap().summaries()[0].tail, Some(crossing));
        }
        if before != "beside it" {
            fs_err::remove_file(paper.wal(&name(3))).unwrap();
        }
        push(&request(&paper, &[&one]), &paper.wal(&name(4))).unwrap();
        let index = stored_index(&one, 4).unwrap();
        let expected = if before == "nowhere" { Head::Missing } else { Head::Included(crossing) };
        assert_eq!(index.summaries()[0].head, expected, "{before}");
        let mut first = None;
        index
            .entries(&mut |entry| {
                first = Some(entry.chunk);
                false
            })
            .unwrap();
        assert_eq!(first == Some(WalChunk::of(crossing)), before != "nowhere");
    }
}

#[test]
fn segment_that_cannot_be_read_as_wal_is_stored_without_an_index() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    write_wal(&paper);
    let mut damaged = fs_err::read(paper.wal(&name(4))).unwrap();
    damaged[9_000_000] ^= 1;
    fs_err::write(paper.wal(&name(4)), &damaged).unwrap();
    push(&request(&paper, &[&one]), &paper.wal(&name(4))).unwrap();
    assert!(stored(&one, 4) == Some(damaged) && stored_index(&one, 4).is_none());
}

#[test]
fn a_file_that_was_taken_along_is_not_read_again_unless_it_has_changed_or_is_gone_from_the_repository() {
    let paper = Paper::new();
    let one = repository(Ailing::default());
    let paths: Vec<_> = (3..6).map(|no| paper.ready_segment(no)).collect();
    let request = request(&paper, &[&one]);
    let note = |no| paper.path().join("notes").join(name(no));
    let hears = |no| fs_err::remove_file(paper.wal(&format!("archive_status/{}.ready", name(no)))).unwrap();
    assert_eq!(push(&request, &paths[0]).unwrap(), Pushed { was_there: false, others: 2 });
    hears(3);
    assert!(!note(3).exists() && note(4).exists() && note(5).exists());
    // The stored bytes are not looked at: these would not pass.
    let key = |no| folder().segment_file(&name(no));
    one.store().delete(&key(4)).unwrap();
    one.store().put_new(&key(4), bytes::Bytes::from_static(b"damaged")).unwrap();
    assert_eq!(push(&request, &paths[1]).unwrap(), Pushed { was_there: true, others: 0 });
    hears(4);
    assert!(!note(4).exists() && note(5).exists());
    // Another file under the name, with the same length and time.
    let away = paths[2].with_extension("away");
    fs_err::rename(&paths[2], &away).unwrap();
    let mut other = segment(5, SYSTEM_ID);
    other[9_000_000] ^= 1;
    fs_err::write(&paths[2], other).unwrap();
    let modified = fs_err::metadata(&away).unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(&paths[2]).unwrap().set_modified(modified).unwrap();
    assert!(matches!(push(&request, &paths[2]), Err(PushError::Different { .. })));
    // The object is gone: a note alone makes nothing durable.
    fs_err::rename(&away, &paths[2]).unwrap();
    paper.ready_segment(6);
    assert_eq!(push(&request, &paper.wal(&name(6))).unwrap().others, 1);
    assert!(note(5).exists());
    one.store().delete(&key(5)).unwrap();
    let fresh = Arc::new(one.with_store(one.store().clone()));
    assert!(!push(&self::request(&paper, &[&fresh]), &paths[2]).unwrap().was_there);
    assert_eq!(stored(&one, 5), Some(segment(5, SYSTEM_ID)));
}
