//! A cluster whose counters are about to begin anew, as those of a busy one do now and then.

use std::path::Path;

use super::super::harness::TestCluster;

/// How far a counter may be moved at once: half a circle, less what Postgres keeps free for itself.
const STEPS: [u32; 3] = [2_000_000_000, 4_000_000_000, u32::MAX - 700];

/// Brings xids, multixacts and their members' offsets close to the end of their circle. The cluster must be running, and runs again afterwards.
pub(super) fn age(cluster: &TestCluster) {
    cluster.psql("alter database template0 allow_connections on");
    for next in STEPS {
        cluster.client("vacuumdb").args(["--all", "--freeze", "--quiet"]).ok();
        cluster.stop();
        let offset = next.max(u32::MAX - 2000);
        let resetwal = cluster.client("pg_resetwal").arg("-D").arg(cluster.data());
        resetwal.args(["-x", &next.to_string(), "-m", &format!("{next},{next}"), "-O", &offset.to_string()]).ok();
        // Entries a page, in the folder's order: transaction status, offsets, members; 32 pages are a segment.
        for (folder, number, a_page) in
            [("pg_xact", next, 32_768), ("pg_multixact/offsets", next, 2048), ("pg_multixact/members", offset, 1636)]
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

/// What Postgres would have made on its way.
fn zero_segment(folder: &Path, number: u32) {
    let path = folder.join(format!("{number:04X}"));
    fs_err::write(&path, vec![0; 32 * 8192]).expect("a segment can be written");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs_err::metadata(folder).expect("its folder"));
    fs_err::os::unix::fs::chown(&path, Some(owner), None).expect("a file can be given away");
}
