//! Carries out who replays the WAL: we do, Postgres from a checkpoint on, or Postgres from the backup on.
//!
//! From: `open`, which has resolved the moment.  To: `view::moment`, `view::hybrid`, `view::native`.
//! [`Replay::Auto`] is the first of the three that can. What we cannot replay is known before anything is shown: then the next one is taken as a whole.

use std::path::Path;

use super::{Archive, OpenError, Opened, Replay, ViewOptions, layout_of};
use crate::pg::control::ControlFile;
use crate::pg::{Lsn, Timeline, WalSegment};
use crate::repo::RepoError;
use crate::repo::catalog::Catalog;
use crate::repo::manifest::{EntryKind, Manifest};
use crate::repo::resolve::Resolved;
use crate::view::content::Content;
use crate::view::hybrid::{Search, Takeover};
use crate::view::indexes::WalIndexes;
use crate::view::moment::{self, BuildError, Startup};
use crate::view::native::{ARCHIVED_WAL, Setup, WalFile, WalFileKind, recovering_tree, required_settings};
use crate::view::read::View;
use crate::view::settings::{Start, Target};
use crate::view::wal::ArchivedWal;

/// What is to be opened.
pub(super) struct Opening<'a> {
    pub(super) archive: &'a Archive,
    pub(super) catalog: &'a Catalog,
    pub(super) resolved: Resolved,
    pub(super) manifest: Manifest,
    pub(super) new_timeline: Timeline,
    pub(super) options: &'a ViewOptions,
    /// Where the checkpoint's record begins that [`Replay::Hybrid`] starts from; `None` if that is to be found out.
    pub(super) checkpoint: Option<Lsn>,
}

/// A view, and who replays how.
struct Way {
    view: View,
    replay: Replay,
    takeover: Option<Takeover>,
    fell_back: Option<String>,
}

impl Opening<'_> {
    pub(super) fn open(self) -> Result<Opened, OpenError> {
        let Way { view, replay, takeover, fell_back } = match self.options.replay {
            Replay::Bygone => self.rebuilt()?,
            Replay::Hybrid => self.hybrid(self.until(), None)?.ok_or_else(|| self.no_checkpoint())?,
            Replay::Postgres => self.native(None)?,
            Replay::Auto => self.rebuilt().or_else(|error| self.fall_back(error))?,
        };
        Ok(Opened { view, resolved: self.resolved, replay, takeover, fell_back, new_timeline: self.new_timeline })
    }

    fn until(&self) -> Lsn {
        self.resolved.point.lsn
    }

    fn no_checkpoint(&self) -> OpenError {
        OpenError::NoCheckpoint { from: self.manifest.header.stop_lsn, to: self.until() }
    }

    /// Without a record that only Postgres can replay, the error stands.
    fn fall_back(&self, error: OpenError) -> Result<Way, OpenError> {
        let Some((first, why)) = beyond_us(&error) else { return Err(error) };
        match self.hybrid(first, Some(why.clone()))? {
            Some(way) => Ok(way),
            None => self.native(Some(format!("{why}, and there is no checkpoint between the backup and it"))),
        }
    }

    /// We replay all of it.
    fn rebuilt(&self) -> Result<Way, OpenError> {
        let timeline = self.resolved.point.timeline;
        let parent_history = self.archive.history(timeline)?;
        let view = self.built(self.until(), Startup::Cold { new_timeline: self.new_timeline, timeline, parent_history })?;
        Ok(Way { view, replay: Replay::Bygone, takeover: None, fell_back: None })
    }

    fn built(&self, until: Lsn, startup: Startup) -> Result<View, OpenError> {
        let files = self.archive.files(self.resolved.backup.as_str());
        let target = moment::Target {
            manifest: &self.manifest,
            files: files.clone(),
            wal: self.wal(),
            catalog: self.catalog,
            indexes: &self.catalog.indexes,
            memory: self.archive.memory.clone(),
            until,
            startup,
            own_settings: self.options.own_settings.clone(),
        };
        let (tree, moment) = moment::build(&target)?;
        Ok(View { tree, files, moment: Some(moment), owner: self.options.owner })
    }

    fn wal(&self) -> ArchivedWal {
        ArchivedWal::new(self.archive.files(self.resolved.backup.as_str()), layout_of(self.catalog), self.resolved.path.clone())
    }

    /// We replay up to a checkpoint's redo point that does not lie behind `limit`, Postgres does the rest. `None` if there is no such checkpoint.
    fn hybrid(&self, mut limit: Lsn, why: Option<String>) -> Result<Option<Way>, OpenError> {
        let start = self.recovery(why.as_ref())?;
        while let Some(takeover) = self.takeover(limit)? {
            let redo = takeover.redo();
            self.refuse_new_tablespaces(redo)?;
            let timeline = self.resolved.path.timeline_at(Lsn(redo.0.saturating_sub(1)));
            let startup = Startup::Recovery { takeover, timeline, wal: self.wal_files(redo)?, start: start.clone() };
            match self.built(redo, startup) {
                Ok(view) => return Ok(Some(Way { view, replay: Replay::Hybrid, takeover: Some(takeover), fell_back: why })),
                Err(error) => match beyond_us(&error).filter(|_| self.checkpoint.is_none()) {
                    Some((first, _)) => limit = first,
                    None => return Err(error),
                },
            }
        }
        Ok(None)
    }

    fn takeover(&self, limit: Lsn) -> Result<Option<Takeover>, OpenError> {
        if let Some(lsn) = self.checkpoint {
            return Takeover::at(&self.wal(), lsn)?.map(Some).ok_or(OpenError::LostCheckpoint { lsn });
        }
        let from = self.manifest.header.stop_lsn;
        self.search(from, |search| search.newest_checkpoint(&(from..=limit)))
    }

    /// Postgres makes a tablespace where its record says: in production's place, if this is production's host.
    fn refuse_new_tablespaces(&self, from: Lsn) -> Result<(), OpenError> {
        match self.search(from, |search| search.new_tablespace(from))? {
            Some((lsn, path)) => Err(OpenError::Tablespace { lsn, path }),
            None => Ok(()),
        }
    }

    fn search<T>(&self, from: Lsn, find: impl FnOnce(&Search<'_>) -> Result<T, RepoError>) -> Result<T, OpenError> {
        let (wal, files) = (self.wal(), self.archive.files(self.resolved.backup.as_str()));
        let listed = &self.catalog.indexes;
        let (catalog, memory) = (self.catalog, self.archive.memory.indexes());
        let indexes = WalIndexes { files: &files, wal: &wal, catalog, listed, memory };
        let size = wal.layout.segment_size;
        let summaries = indexes.summaries(size.segment_no(from)..size.segment_no(self.until()) + 1)?;
        Ok(find(&Search { wal: &wal, summaries: &summaries, until: self.until() })?)
    }

    /// Postgres replays all of it.
    fn native(&self, why: Option<String>) -> Result<Way, OpenError> {
        let start = self.recovery(why.as_ref())?;
        self.refuse_new_tablespaces(self.manifest.header.start_lsn)?;
        let files = self.archive.files(self.resolved.backup.as_str());
        let read = |path: &str| -> Result<Vec<u8>, RepoError> {
            let Some(EntryKind::File(data)) = self.manifest.find(Path::new(path)).map(|entry| &entry.kind) else { return Ok(Vec::new()) };
            let mut bytes = vec![0; usize::try_from(data.size).unwrap_or(0)];
            files.read_stored(&Content::Copied(data.place), 0, &mut bytes)?;
            Ok(bytes)
        };
        let control = ControlFile::decode(&read("global/pg_control")?)
            .map_err(|source| OpenError::Control { label: self.resolved.backup.to_string(), source })?;
        let setup = Setup {
            major: control.major,
            start,
            auto_conf: String::from_utf8_lossy(&read("postgresql.auto.conf")?).into_owned(),
            own_settings: self.options.own_settings.clone(),
            required: required_settings(&control),
        };
        let wal = self.wal_files(self.manifest.header.start_lsn)?;
        let tree = recovering_tree(&self.manifest, &wal, self.catalog.identity.wal_segment_size, &setup);
        let view = View { tree, files, moment: None, owner: self.options.owner };
        Ok(Way { view, replay: Replay::Postgres, takeover: None, fell_back: why })
    }

    /// How a server recovers to the moment.
    fn recovery(&self, why: Option<&String>) -> Result<Start, OpenError> {
        let mountpoint = self.options.mountpoint.as_ref().ok_or_else(|| OpenError::NoMountpoint { why: why.cloned() })?;
        // A server does not stop before a record that is not there; but behind the last one it does.
        let (lsn, inclusive) = match self.last_record()? {
            Some(last) => (last, true),
            None => (self.until(), false),
        };
        let timeline = self.resolved.path.newest().to_string();
        let target = Target { setting: Some(("recovery_target_lsn", lsn.to_string())), inclusive, timeline };
        Ok(Start::Replay { wal_directory: format!("{mountpoint}/{ARCHIVED_WAL}"), target })
    }

    /// Where the last record before the moment begins, if the archive has none behind it.
    fn last_record(&self) -> Result<Option<Lsn>, OpenError> {
        let (wal, until) = (self.wal(), self.until());
        if wal.reader(until).next()?.is_some() {
            return Ok(None);
        }
        let size = wal.layout.segment_size;
        let [first, last] = [self.manifest.header.start_lsn, Lsn(until.0.saturating_sub(1))].map(|lsn| size.segment_no(lsn));
        for no in (first..=last).rev() {
            let (mut reader, mut found) = (wal.reader_from_page(size.start(no)), None);
            while let Some(raw) = reader.next()?.filter(|raw| raw.end <= until) {
                found = Some(raw.lsn);
            }
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What recovery from `from` on may ask for: segments up to the one that holds the record behind the point, and history files.
    fn wal_files(&self, from: Lsn) -> Result<Vec<WalFile>, OpenError> {
        let (size, path) = (self.catalog.identity.wal_segment_size, &self.resolved.path);
        let last = size.segment_no(self.until()).saturating_add(2);
        let mut files: Vec<WalFile> = (size.segment_no(from)..=last)
            .filter_map(|no| path.candidates(no, size).find(|segment: &WalSegment| self.catalog.has(*segment)))
            .map(|segment| WalFile { name: segment.name(size), kind: WalFileKind::Segment })
            .collect();
        for stretch in path.stretches() {
            let text = self.archive.history(stretch.timeline)?;
            if !text.is_empty() {
                files.push(WalFile { name: format!("{:08X}.history", stretch.timeline), kind: WalFileKind::History(text) });
            }
        }
        Ok(files)
    }
}

/// Where the first record begins that only Postgres, or an extension, can replay, and what is said of it; `None` if something else is wrong.
fn beyond_us(error: &OpenError) -> Option<(Lsn, String)> {
    let OpenError::Build(BuildError::Scan(scan)) = error else { return None };
    Some((scan.beyond_us()?, scan.to_string()))
}
