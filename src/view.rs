//! The path out: a data directory as it stood at a moment, ready for `mount`.
//!
//! From: `cli` (mount, clone, ls, cat), which has a Repository and a moment.  To: `bygone_mount`, which shows it; `repo` below, which fetches.
//! A [`tree::Tree`] says which files exist, [`content::Content`] where the bytes of each come from, and [`read`] carries that out.
//! [`file_class`] is the one place that looks at a path and decides what it is; [`synth`] the one place that makes bytes which were never archived.

pub mod browse;
pub mod chunks;
pub mod content;
pub mod file_class;
pub mod fold;
pub mod house;
pub mod hybrid;
pub mod index_memory;
pub mod indexes;
pub mod locate;
pub mod moment;
pub mod native;
pub mod open;
pub mod page;
pub mod read;
pub mod relations;
pub mod scan;
pub mod settings;
pub mod slru;
pub mod spare;
pub mod stored;
pub mod synth;
pub mod tree;
pub mod wal;
pub mod wal_room;
