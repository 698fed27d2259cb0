//! A cluster whose counters are about to begin anew, as those of a busy one do now and then.

use std::path::Path;

use bygone::archive::incarnation::read_control;

use super::super::harness::mount::MountGuard;
use super::super::harness::repository::TestRepository;
use super::super::harness::tools::fuse_is_missing;
use super::super::harness::{MAJORS, TestCluster, World, postgres_is_missing};
use super::hybrid::replayed_equals;
use super::oracle::Oracle;
use super::{Past, compare};

/// How far a counter may be moved at once: half a circle, less what Postgres keeps free for itself.
const STEPS: [u32; 3] = [2_000_000_000, 4_000_000_000, u32::MAX - 700];

const MEMBERS_ON_PAGE: u32 = 1636;

/// Brings xids, multixacts and their members' offsets close to the end of their circle. The cluster must be running, and runs again afterwards.
pub(super) fn age(cluster: &TestCluster) {
    cluster.psql("alter database template0 allow_connections on");
    for next in STEPS {
        cluster.client("vacuumdb").args(["--all", "--freeze", "--quiet"]).ok();
        cluster.stop();
        let offset = next.max(u32::MAX - 2000);
        let resetwal = cluster.client("pg_resetwal").arg("-D").arg(cluster.data());
        resetwal.args(["-x", &next.to_string(), "-m", &format!("{next},{next}"), "-O", &offset.to_string()]).ok();
        for (folder, number, a_page) in
            [("pg_xact", next, 32_768), ("pg_multixact/offsets", next, 2048), ("pg_multixact/members", offset, MEMBERS_ON_PAGE)]
        {
            zero_segment(&cluster.data().join(folder), number / (a_page * 32));
        }
        cluster.start();
    }
    cluster.psql("alter database template0 allow_connections off");
}

/// Have all three come round?
pub(super) fn began_anew(cluster: &TestCluster) -> bool {
    cluster.psql("checkpoint");
    let small = "next_multixact_id::text::bigint < 100000 and next_multi_offset::text::bigint < 100000";
    cluster.psql(&format!("select next_xid not like '0:%' and {small} from pg_control_checkpoint()")) == "t"
}

/// What Postgres would have made on its way: 32 pages are a segment.
fn zero_segment(folder: &Path, number: u32) {
    let path = folder.join(format!("{number:04X}"));
    fs_err::write(&path, vec![0; 32 * 8192]).expect("a segment can be written");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs_err::metadata(folder).expect("its folder"));
    fs_err::os::unix::fs::chown(&path, Some(owner), None).expect("a file can be given away");
}

/// The offset of the next multixact is 0, which means "none": its place holds a 1 until a server starts.
fn offsets_come_round_to_zero(major: u16) {
    let world = World::new();
    let cluster = TestCluster::builder(major).archiving(&world).conf("autovacuum = off").start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    cluster.stop();
    let offset = u32::MAX - 1;
    cluster.client("pg_resetwal").arg("-D").arg(cluster.data()).args(["-O", &offset.to_string()]).ok();
    zero_segment(&cluster.data().join("pg_multixact/members"), offset / (MEMBERS_ON_PAGE * 32));
    cluster.start();
    cluster.psql("create table shared as select 1 as a");
    let report: serde_json::Value = serde_json::from_str(&world.bygone(["backup", "--json"]).ok()).expect("one JSON object");
    let label = report["label"].as_str().expect("a label").to_owned();
    let past = Past { world, cluster, repository, label };
    past.cluster.psql("checkpoint");
    let mut sessions = [past.cluster.connect(), past.cluster.connect()];
    for session in &mut sessions {
        session.batch_execute("begin; select a from shared for share").expect("SQL of the test");
    }
    let just_made = past.cluster.current_lsn();
    past.cluster.psql("checkpoint");
    let behind_a_checkpoint = past.here();
    drop(sessions);
    let oracle = Oracle::new(&past.world, &past.cluster, &past.repository, &past.label);
    for lsn in [just_made, behind_a_checkpoint] {
        let conf = [&format!("recovery_target_lsn = '{lsn}'"), "recovery_target_inclusive = off", "track_commit_timestamp = off"];
        let native = oracle.try_recover(&conf).expect("Postgres recovers");
        assert_eq!(native.control.checkpoint.next_multi_offset, 0, "they have come round");
        let args = ["--at", &format!("lsn:{lsn}"), "--exclusive"].map(str::to_owned);
        let dir = past.world.dir("mnt-round");
        let runner = past.world.bygone(["mount", "--foreground", "--replay", "bygone"]).args(&args).arg(&dir).by_root();
        let ours = MountGuard::start(&runner, &dir);
        let next = read_control(ours.dir()).expect("pg_control of the mount").checkpoint.next_multi as usize;
        let offsets = fs_err::read(ours.dir().join("pg_multixact/offsets/0000")).expect("the offsets");
        assert_eq!(offsets[next * 4 - 4..next * 4 + 4], [0xFE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0]);
        compare::assert_same(ours.dir(), native.cluster.data());
        assert_eq!(ours.terminate(), Some(0));
        assert!(replayed_equals(&past, &native, &args, &conf.map(str::to_owned)), "there is a checkpoint");
    }
}

#[test]
fn offsets_of_multixacts_come_round_to_zero() {
    // There is no pg_resetwal of 14 here.
    for major in MAJORS.into_iter().filter(|major| *major > 14) {
        if !postgres_is_missing(major) && !fuse_is_missing() {
            offsets_come_round_to_zero(major);
        }
    }
}
