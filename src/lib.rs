//! Bygone: Postgres base backups and WAL in a repository, mountable at any past moment.
//!
//! The house, from the top down (a module may use what stands below it, never above or beside):
//! `cli` -> `archive` (path in) | `view` (path out) -> `repo` -> `store` | `format` | `redo` -> `pg`.
//! ARCHITECTURE.md has the picture; docs/format.md is the contract of the stored bytes.

pub mod advice;
pub mod archive;
pub mod cli;
pub mod clone;
pub mod config;
pub mod explain;
pub mod format;
pub mod parallel;
pub mod pg;
pub mod redo;
pub mod repo;
pub mod store;
pub mod view;
