//! What the system tests share.
//!
//! A [`World`] is a temporary directory that user `postgres` may reach, with a copy of the program in it; a [`TestCluster`] is a running Postgres
//! of some major version inside a world; [`MountGuard`] sees to it that no mount outlives its test. Everything is cleaned up on drop, whatever happened.
#![expect(unused_imports, reason = "a tool box: not every test uses every tool")]

pub(crate) mod clones;
pub(crate) mod cluster;
pub(crate) mod mount;
pub(crate) mod repository;
pub(crate) mod run;
pub(crate) mod tools;
pub(crate) mod world;

pub(crate) use cluster::TestCluster;
pub(crate) use mount::MountGuard;
pub(crate) use run::{Ran, Runner};
pub(crate) use tools::{MAJORS, postgres_is_missing, program};
pub(crate) use world::World;

use std::time::{Duration, Instant};

/// How much longer things may take than on a machine that does nothing else.
const LOADED: u32 = 10;

/// Waits until `happened` returns something, asking every 20 ms, and panics with `what` once that has taken far longer than `limit`, which is ample for a
/// quiet machine.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut happened: impl FnMut() -> Option<T>) -> T {
    let limit = limit * LOADED;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(result) = happened() {
            return result;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// [`wait_for`] a plain yes or no.
pub(crate) fn wait_until(what: &str, limit: Duration, mut happened: impl FnMut() -> bool) {
    wait_for(what, limit, || happened().then_some(()));
}
