//! Fills the rooms of a [`House`](crate::view::house::House) from one cluster's archive.
//!
//! From: `view::house`, with a name that somebody looked up.  To: `view::open`.
//! A name below `at/` keeps the meaning that it had when it was first looked up, for as long as its view is open. Names that mean the same point
//! share a view. Opening one name holds up nobody who asks for another. What cannot be reached does not exist; the log says why, once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bygone_mount::{Source, SourceError};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;

use crate::advice::Advice;
use crate::pg::Timeline;
use crate::repo::catalog::Catalog;
use crate::repo::moment::{Moment, TimelineChoice, Wanted};
use crate::repo::resolve::RecoveryPoint;
use crate::view::house::{Opener, Room};
use crate::view::open::{Archive, OpenError, Replay, ViewOptions};
use crate::view::read::View;
use crate::view::wal_room::WalRoom;

/// What the archive holds is looked at again after this; until then, `latest/` stays where it is, and a name that led nowhere leads nowhere.
const FRESH: Duration = Duration::from_secs(5);

/// Names that are remembered.
const MOST_NAMES: usize = 1000;

/// See the module.
pub struct Browser {
    archive: Archive,
    timeline: TimelineChoice,
    owner: (u32, u32),
    catalog: Mutex<Option<(Instant, Arc<Catalog>)>>,
    names: Mutex<HashMap<(Room, String), SharedSlot>>,
    moments: Mutex<Vec<OpenMoment>>,
    wal_rooms: Mutex<HashMap<Timeline, Weak<WalRoom>>>,
}

type SharedSlot = Arc<Mutex<Slot>>;

/// What a name is known to mean. Locked while that is found out.
#[derive(Default)]
struct Slot {
    known: Option<(Instant, Known)>,
    /// The log has told already why it leads nowhere.
    told: bool,
    /// Why what it means cannot be shown.
    refused: Option<String>,
}

enum Known {
    View(Weak<dyn Source>),
    Nothing,
}

/// A moment that somebody is looking at.
struct OpenMoment {
    point: RecoveryPoint,
    backup: String,
    view: Weak<View>,
}

impl Browser {
    /// Rooms for one cluster; `timeline` is the one that names below `at/` follow, and everything belongs to `owner`.
    #[must_use]
    pub fn new(archive: Archive, timeline: TimelineChoice, owner: (u32, u32)) -> Browser {
        let (catalog, names) = (Mutex::default(), Mutex::default());
        Browser { archive, timeline, owner, catalog, names, moments: Mutex::default(), wal_rooms: Mutex::default() }
    }

    fn catalog(&self) -> Result<Arc<Catalog>, OpenError> {
        // Held while the store lists: whoever comes meanwhile would only list the same.
        let mut kept = self.catalog.lock();
        if let Some((read, catalog)) = kept.as_ref().filter(|(read, _)| read.elapsed() < FRESH) {
            tracing::trace!(age_ms = read.elapsed().as_millis(), "catalog is fresh");
            return Ok(catalog.clone());
        }
        let catalog = Arc::new(self.archive.catalog()?);
        *kept = Some((Instant::now(), catalog.clone()));
        Ok(catalog)
    }

    fn slot(&self, room: Room, name: &str) -> SharedSlot {
        let mut names = self.names.lock();
        if names.len() >= MOST_NAMES {
            names.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_none_or(|slot| slot.view().is_some()));
        }
        names.entry((room, name.to_owned())).or_default().clone()
    }

    /// Opens what a name means now.
    fn find(&self, room: Room, name: &str) -> Result<Arc<dyn Source>, OpenError> {
        match room {
            Room::Latest => self.moment(Moment::Latest),
            Room::At => self.moment(Moment::parse(name, Timestamp::now())?),
            Room::Backup => Ok(Arc::new(self.archive.backup(name, self.owner)?)),
            Room::Wal => self.wal(name),
        }
    }

    fn moment(&self, moment: Moment) -> Result<Arc<dyn Source>, OpenError> {
        let catalog = self.catalog()?;
        let resolved = self.archive.resolve(&catalog, &Wanted { moment, exclusive: false, timeline: self.timeline })?;
        let is_it = |open: &&OpenMoment| open.point == resolved.point && open.backup == resolved.backup.as_str();
        if let Some(view) = self.moments.lock().iter().find(is_it).and_then(|open| open.view.upgrade()) {
            return Ok(view);
        }
        let options = ViewOptions { replay: Replay::Bygone, owner: self.owner, mountpoint: None, own_settings: Vec::new() };
        let opened = self.archive.open_resolved(&catalog, resolved, &options)?;
        let view = Arc::new(opened.view);
        let (point, backup) = (opened.resolved.point, opened.resolved.backup.to_string());
        let mut moments = self.moments.lock();
        moments.retain(|open| open.view.strong_count() > 0);
        moments.push(OpenMoment { point, backup, view: Arc::downgrade(&view) });
        Ok(view)
    }

    fn wal(&self, name: &str) -> Result<Arc<dyn Source>, OpenError> {
        let no_timeline = || OpenError::NoTimeline { name: name.to_owned() };
        let timeline = u32::from_str_radix(name, 16).map(Timeline).ok().filter(|t| format!("{t:08X}") == name).ok_or_else(no_timeline)?;
        let catalog = self.catalog()?;
        let runs: Vec<_> = catalog.wal.iter().filter(|run| run.timeline == timeline).cloned().collect();
        if runs.is_empty() {
            return Err(no_timeline());
        }
        // The same directory as before, if nothing was archived since: whoever is in it stays in it.
        let known = self.wal_rooms.lock().get(&timeline).and_then(Weak::upgrade).filter(|room| room.runs == runs);
        if let Some(room) = known {
            return Ok(room);
        }
        let room = Arc::new(WalRoom {
            files: self.archive.files(""),
            timeline,
            segment_size: catalog.identity.wal_segment_size,
            runs,
            history: self.archive.history(timeline)?,
            owner: self.owner,
        });
        self.wal_rooms.lock().insert(timeline, Arc::downgrade(&room));
        Ok(room)
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Slot {
    fn view(&self) -> Option<Arc<dyn Source>> {
        match &self.known {
            Some((_, Known::View(view))) => view.upgrade(),
            _ => None,
        }
    }

    fn is_fresh(&self) -> bool {
        self.known.as_ref().is_some_and(|(since, _)| since.elapsed() < FRESH)
    }

    fn leads_nowhere(&self) -> bool {
        matches!(self.known, Some((_, Known::Nothing)))
    }
}

impl Opener for Browser {
    fn open(&self, room: Room, name: &str) -> Result<Arc<dyn Source>, SourceError> {
        let slot = self.slot(room, name);
        let mut slot = slot.lock();
        let may_move = matches!(room, Room::Latest | Room::Wal);
        if let Some(view) = slot.view().filter(|_| !may_move || slot.is_fresh()) {
            return Ok(view);
        }
        if slot.leads_nowhere() && slot.is_fresh() {
            return Err(SourceError::NotFound);
        }
        match self.find(room, name) {
            Ok(view) => {
                slot.refused = None;
                slot.known = Some((Instant::now(), Known::View(Arc::downgrade(&view))));
                Ok(view)
            }
            Err(error) if error.is_refusal() => {
                if !std::mem::replace(&mut slot.told, true) {
                    tracing::warn!(room = ?room, name, detail = error.detail(), "{name} does not exist: {error}");
                }
                slot.known = Some((Instant::now(), Known::Nothing));
                Err(SourceError::NotFound)
            }
            Err(error) => {
                slot.refused = Some(chain(&error));
                Err(SourceError::Unreadable(Box::new(error)))
            }
        }
    }

    fn names(&self, room: Room) -> Result<Vec<String>, SourceError> {
        let catalog = || self.catalog().map_err(|error| SourceError::Unreadable(Box::new(error)));
        Ok(match room {
            Room::Latest => Vec::new(),
            Room::At => {
                let names = self.names.lock();
                let is_open = |slot: &Mutex<Slot>| slot.try_lock().is_some_and(|slot| slot.view().is_some());
                let mut open: Vec<String> = names
                    .iter()
                    .filter(|((room, _), slot)| *room == Room::At && is_open(slot))
                    .map(|((_, name), _)| name.clone())
                    .collect();
                open.sort_unstable();
                open
            }
            Room::Backup => catalog()?.backups.iter().map(|backup| backup.label.to_string()).collect(),
            Room::Wal => {
                let mut timelines: Vec<String> = catalog()?.wal.iter().map(|run| format!("{:08X}", run.timeline)).collect();
                timelines.dedup();
                timelines
            }
        })
    }

    fn status(&self) -> String {
        let fetched = self.archive.shared.fetched();
        let moments = self.moments.lock();
        let open = moments.iter().filter_map(|open| {
            let (pages, records) = open.view.upgrade()?.moment.as_ref().map_or((0, 0), |moment| moment.counts());
            Some(json!({
                "lsn": open.point.lsn.to_string(), "timeline": open.point.timeline.0, "backup": open.backup, "replay": Replay::Bygone.word(),
                "rebuilt_pages": pages, "applied_records": records,
            }))
        });
        let names = self.names.lock();
        let refused = names.iter().filter_map(|((_, name), slot)| Some((name.clone(), slot.try_lock()?.refused.clone()?)));
        let refused: BTreeMap<String, String> = refused.collect();
        let status = json!({
            "cluster": self.archive.folder.to_string(),
            "repository": self.archive.shared.repository().store().describe(),
            "fetched_bytes": fetched.bytes,
            "fetched_chunks": fetched.chunks,
            "moments": open.collect::<Vec<_>>(),
            "refused": refused,
        });
        format!("{status:#}\n")
    }
}
