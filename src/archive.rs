//! The path in: WAL and backups from a running cluster into the repositories.
//!
//! From: `cli`.  To: `repo`, `store`.  Meets the path out (`view`) only in the stored bytes.

pub mod archiver;
pub mod backup;
pub mod block_index;
pub mod check;
pub mod connection;
pub mod get;
pub mod incarnation;
pub mod index;
pub mod push;
#[cfg(test)]
mod testing;
pub mod wal_file;
pub mod watch;
