//! The journal rewritten as the shortest one that leads to the same state.
//!
//! Only what is durable goes in: granules that a sync has not finished with stay out, and that sync's record follows in the new journal.

use std::sync::atomic::Ordering;

use super::format::OnDiskRecord as Record;
use super::names::node_record;
use super::node::{Blocks, Data, Node};
use super::{Change, Namespace, Overlay, Result};

impl Overlay {
    /// Rewrites the journal. Holds the namespace meanwhile.
    pub(crate) fn compact(&self) -> Result<()> {
        let upper = self.upper()?;
        let names = self.names.write();
        upper.journal.replace(&state(&names))
    }
}

fn state(names: &Namespace) -> Vec<Vec<Record>> {
    let mut changes = Vec::new();
    let known = |node: &&std::sync::Arc<Node>| node.recorded.load(Ordering::Acquire) && !node.is_unlinked();
    for node in names.nodes.values().filter(known) {
        let mut records = vec![node_record(node)];
        records.extend(data_record(node));
        changes.push(records);
    }
    for (dir, entries) in &names.changes {
        for (name, change) in entries {
            let (dir, name) = (*dir, name.clone());
            changes.push(vec![match change {
                Change::Entry { ino, hides } => Record::Name { dir, name, ino: *ino, hides: *hides },
                Change::Gone => Record::Gone { dir, name },
            }]);
        }
    }
    changes
}

fn data_record(node: &Node) -> Option<Record> {
    match &*node.data.read() {
        Data::Base | Data::Whole { durable: false } => None,
        Data::Whole { durable: true } => Some(Record::Whole { ino: node.ino }),
        Data::Blocks(Blocks { recorded: None, .. }) => None,
        Data::Blocks(blocks) => {
            let (size, base_valid) = blocks.recorded?;
            let mut durable = blocks.map.clone();
            for run in blocks.dirty.0.iter().chain(&blocks.in_flight.0) {
                durable.remove(run.clone());
            }
            Some(Record::Blocks { ino: node.ino, size, base_valid, runs: durable.runs() })
        }
    }
}
