//! The files of a moment.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::pg::checkpoint::Checkpoint;
use crate::pg::control::{ClusterState, ControlFile};
use crate::pg::relation::{BLCKSZ, GLOBAL_TABLESPACE, RELSEG_BLOCKS};
use crate::pg::relation_file::database_directory;
use crate::pg::wal::effect::DatabaseDir;
use crate::pg::{Fork as ForkName, Lsn, Timeline, WalSegment};
use crate::repo::RepoError;
use crate::repo::manifest::{Entry, EntryKind};
use crate::repo::marker::CLONE_MARKER;
use crate::view::content::{Content, RelationContent};
use crate::view::file_class::{FileClass, RelationFile, classify};
use crate::view::fold::{MapSource, TwoPhase};
use crate::view::moment::read::Moment;
use crate::view::moment::target::{Startup, Target, directory_of, read_copied};
use crate::view::native::{
    Setup, empty_tree, put_copied, put_made, put_needed_directories, put_recovery, put_settings, put_tablespace, required_settings,
    view_path,
};
use crate::view::read::FileContent;
use crate::view::settings::Start;
use crate::view::synth::segment::{Stream, craft};
use crate::view::synth::{ORIGINS, history_file, replication_origins, twophase_file};
use crate::view::tree::{Kind, Stat, Tree};

/// `pg_control`'s value for unlogged relations' Lsns after a reset (`FirstNormalUnloggedLSN`).
const FIRST_UNLOGGED_LSN: Lsn = Lsn(1000);

struct Builder<'a> {
    target: &'a Target<'a>,
    moment: &'a Moment,
    tree: Tree<FileContent>,
    stat: Stat,
    version_directory: String,
}

pub(super) fn tree(target: &Target<'_>, moment: &Moment, control: &ControlFile) -> Result<Tree<FileContent>, RepoError> {
    let group_may_read = target.manifest.header.data_directory_mode & 0o040 != 0;
    let mut builder = Builder {
        target,
        moment,
        tree: empty_tree(target.manifest),
        stat: Stat { mode: if group_may_read { 0o640 } else { 0o600 }, modified: SystemTime::now() },
        version_directory: format!("PG_{}_{}", control.major, control.catalog_version),
    };
    builder.other_files();
    builder.databases();
    builder.relations();
    builder.slrus();
    builder.two_phase()?;
    put_needed_directories(&mut builder.tree);
    builder.origins();
    builder.start_files(control)?;
    Ok(builder.tree)
}

impl Builder<'_> {
    fn put(&mut self, path: impl AsRef<Path>, len_bytes: u64, content: Content) {
        let path = path.as_ref();
        let content = FileContent::at(&path.to_string_lossy(), len_bytes, content);
        self.tree.put(view_path(path), self.stat, Kind::File { len_bytes, content });
    }

    fn put_made(&mut self, path: impl AsRef<Path>, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.put(path, bytes.len() as u64, Content::Made(bytes));
    }

    fn put_directory(&mut self, path: impl AsRef<Path>) {
        let stat = Stat { mode: self.stat.mode | self.stat.mode >> 2 & 0o110 | 0o100, ..self.stat };
        self.tree.put(view_path(path.as_ref()), stat, Kind::Directory(Default::default()));
    }

    /// What no record ever changes: configuration, certificates, files of extensions.
    fn other_files(&mut self) {
        for entry in &self.target.manifest.entries {
            if self.is_other(entry) {
                put_copied(&mut self.tree, &entry.path, entry);
            }
        }
    }

    fn is_other(&self, entry: &Entry) -> bool {
        let Some(path) = entry.path.to_str() else { return true };
        let first = path.split('/').next().unwrap_or_default();
        let whole_database = |dir: &str| database_directory(dir).is_some_and(|(tablespace, _)| tablespace != GLOBAL_TABLESPACE);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        match entry.kind {
            EntryKind::Directory => !whole_database(path) && first != "pg_tblspc" && classify(path) != FileClass::Emptied,
            EntryKind::File(_) => classify(path) == FileClass::Other && !whole_database(parent) && path != ORIGINS && first != "pg_stat",
            EntryKind::Symlink { .. } => first != "pg_tblspc" && path != "pg_wal",
        }
    }

    fn databases(&mut self) {
        for &oid in &self.moment.cluster.tablespaces {
            put_tablespace(&mut self.tree, oid);
            self.put_directory(format!("pg_tblspc/{oid}/{}", self.version_directory));
        }
        let major = self.moment.rules.major;
        for &dir in &self.moment.cluster.databases {
            let path = directory_of(dir, &self.version_directory);
            self.put_directory(&path);
            if self.moment.cluster.homes.contains(&dir) {
                self.put_made(format!("{path}/PG_VERSION"), format!("{major}\n"));
            }
        }
        let exists = |dir: &DatabaseDir| dir.tablespace == GLOBAL_TABLESPACE || self.moment.cluster.databases.contains(dir);
        for (&dir, source) in self.moment.cluster.maps.iter().filter(|(dir, _)| exists(dir)) {
            let map_of = |dir| format!("{}/pg_filenode.map", directory_of(dir, &self.version_directory));
            match source {
                MapSource::Logged(bytes) => self.put_made(map_of(dir), bytes.to_vec()),
                MapSource::Copied(from) => {
                    let copied = self.target.manifest.find(Path::new(&map_of(*from))).map(|entry| &entry.kind);
                    if let Some(EntryKind::File(data)) = copied {
                        self.put(map_of(dir), data.size, Content::Copied(data.place));
                    }
                }
            }
        }
    }

    fn relations(&mut self) {
        let relations = &self.moment.cluster.relations;
        let existing: BTreeSet<DatabaseDir> = self.moment.cluster.databases.clone();
        for (rel, name, fork) in relations.iter() {
            let dir = DatabaseDir { database: rel.database, tablespace: rel.tablespace };
            // A tablespace gets a database's directory with the first relation that is made there (`TablespaceCreateDbspace`), no record says so.
            let has_directory =
                rel.tablespace == GLOBAL_TABLESPACE || existing.contains(&dir) || self.moment.cluster.tablespaces.contains(&rel.tablespace);
            let unlogged = relations.is_unlogged(rel);
            if !has_directory || (unlogged && name != ForkName::Init) {
                continue;
            }
            let shown: &[ForkName] = if name == ForkName::Init { &[ForkName::Init, ForkName::Main] } else { &[name] };
            let directory = directory_of(dir, &self.version_directory);
            for &as_fork in shown {
                for segment in 0..=fork.blocks.saturating_sub(1) / RELSEG_BLOCKS {
                    let file = RelationFile { rel, fork: as_fork, segment };
                    let blocks = fork.blocks.saturating_sub(segment * RELSEG_BLOCKS).min(RELSEG_BLOCKS);
                    let content = Content::Relation(RelationContent { file, shows: name });
                    self.put(format!("{directory}/{}", file.name()), u64::from(blocks) * BLCKSZ as u64, content);
                }
            }
        }
    }

    fn slrus(&mut self) {
        for (slru, segment, pages) in self.moment.cluster.slrus.segments() {
            let path = format!("{}/{segment:04X}", slru.directory());
            self.put(path, pages * BLCKSZ as u64, Content::Slru { slru, segment });
        }
    }

    fn two_phase(&mut self) -> Result<(), RepoError> {
        let wide = self.moment.rules.major.facts().wide_twophase_name;
        for (&xid, source) in &self.moment.cluster.prepared {
            let full = self.moment.cluster.full_xid(xid);
            let name = if wide { format!("pg_twophase/{full:016X}") } else { format!("pg_twophase/{xid:08X}") };
            let bytes = match source {
                TwoPhase::Logged(state) => Some(twophase_file(state)),
                TwoPhase::Copied => read_copied(self.target, &name)?,
            };
            if let Some(bytes) = bytes {
                self.put_made(name, bytes);
            }
        }
        Ok(())
    }

    fn origins(&mut self) {
        if !self.moment.cluster.origins.is_empty() {
            self.put_made(ORIGINS, replication_origins(&self.moment.cluster.origins));
        }
    }

    /// What a server starts from: `pg_control`, WAL, settings.
    fn start_files(&mut self, control: &ControlFile) -> Result<(), RepoError> {
        let target = self.target;
        let mut control = control.clone();
        control.time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0));
        control.unlogged_lsn = FIRST_UNLOGGED_LSN;
        control.backup_start = Lsn::INVALID;
        control.backup_end = Lsn::INVALID;
        control.backup_end_required = false;
        control.settings = self.moment.cluster.settings;
        let start = match &target.startup {
            Startup::Cold { new_timeline, timeline, parent_history } => {
                self.shut_down(&mut control, *new_timeline, *timeline, parent_history);
                Start::Cold
            }
            Startup::Recovery { takeover, timeline, wal, start } => {
                control.state = ClusterState::ShutDownInRecovery;
                control.checkpoint_lsn = takeover.lsn;
                control.checkpoint = takeover.checkpoint;
                // All pages are as of the redo point: consistent from the start.
                control.min_recovery_point = takeover.redo();
                control.min_recovery_timeline = timeline.0;
                put_recovery(&mut self.tree, wal, target.wal.layout.segment_size);
                start.clone()
            }
        };
        self.put_made("global/pg_control", control.encode().to_vec());
        let auto_conf = read_copied(target, "postgresql.auto.conf")?.unwrap_or_default();
        let mut own_settings = target.own_settings.clone();
        let prepared = self.moment.cluster.prepared.len();
        let may_prepare = prepared > 0 || start != Start::Cold;
        if may_prepare && !own_settings.iter().any(|(name, _)| name == "max_prepared_transactions") {
            let needed = prepared.max(usize::try_from(control.settings.max_prepared_transactions).unwrap_or(0));
            own_settings.push(("max_prepared_transactions".to_owned(), needed.to_string()));
        }
        let setup = Setup {
            major: control.major,
            start,
            auto_conf: String::from_utf8_lossy(&auto_conf).into_owned(),
            own_settings,
            required: required_settings(&control),
        };
        put_settings(&mut self.tree, &setup);
        put_made(&mut self.tree, CLONE_MARKER, format!("view of {} at {}\n", target.manifest.header.cluster, target.until));
        Ok(())
    }

    /// What makes a server start without recovery: a checkpoint at the moment, in a segment of the new timeline, and that timeline's history.
    fn shut_down(&mut self, control: &mut ControlFile, new_timeline: Timeline, parent: Timeline, parent_history: &str) {
        let target = self.target;
        let size = target.wal.layout.segment_size;
        let checkpoint = Checkpoint {
            timeline: new_timeline,
            previous_timeline: parent,
            time: control.time,
            oldest_active_xid: 0,
            ..self.moment.cluster.counters
        };
        let stream = Stream { major: control.major, system_id: control.system_id, segment_size: size };
        let (segment, checkpoint) = craft(stream, target.until, self.moment.last_record, &checkpoint);
        control.state = ClusterState::ShutDown;
        control.checkpoint_lsn = segment.checkpoint_lsn;
        control.checkpoint = checkpoint;
        control.min_recovery_point = Lsn::INVALID;
        control.min_recovery_timeline = 0;
        // Where a timeline forks off, its file holds the parent's bytes too, and the parent's own was perhaps never archived.
        let no = segment.segment.no;
        let archived = target.wal.path.candidates(no, size).find(|segment| target.catalog.has(*segment));
        let parent_segment = archived.unwrap_or(WalSegment { timeline: parent, no });
        let path = format!("pg_wal/{}", segment.segment.name(size));
        self.put(path, size.bytes(), Content::Crafted { segment: Arc::new(segment), parent: Arc::from(parent_segment.name(size)) });
        self.put_made(format!("pg_wal/{new_timeline:08X}.history"), history_file(parent_history, parent, target.until));
    }
}
