//! Tests against the real things: Postgres of every major version, object stores, FUSE, and the `bygone` program itself.
//!
//! A file per promise; what they share is in `harness`. The Postgres versions come from `scripts/install-postgres`.
#![expect(clippy::print_stderr, reason = "a test that cannot run says so aloud")]

mod archive;
mod backup;
mod browse;
mod cache;
mod check;
mod clone;
mod damage;
mod explain;
mod fallback;
mod harness;
mod index;
mod info;
mod moment;

mod harness_itself;
mod rescue;
mod s3;
mod wal_records;
