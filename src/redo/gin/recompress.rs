//! Changes to a leaf of a posting tree: a list of actions on its segments, which are numbered from 0 as they were before.
//!
//! Every action names a segment: delete it, put another before it, replace it, or merge items into it.
//! Source: `ginRedoRecompress` (ginxlog.c, 14 to 18 agree). Postgres works in place and copies the tail once it has to;
//! here the new content is put together beside the page.

use crate::pg::page::Page;

use super::super::data::Data;
use super::super::fault::Fault;
use super::super::index::{change_flags, check_special};
use super::posting::{self, Item};
use super::{COMPRESSED, CONTENT, DATA, FLAGS, LEAF, MAX_OFF, SPECIAL, set_content};

const DELETE: u8 = 1;
const INSERT: u8 = 2;
const REPLACE: u8 = 3;
const ADD_ITEMS: u8 = 4;

/// Carries out `actions`: their number 2, then for each the segment 1, what to do 1, and a segment or a count 2 and items.
pub(super) fn redo(page: &mut Page, mut actions: Data<'_>) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    let flags = page.u16_at(FLAGS)?;
    if flags & (DATA | LEAF) != DATA | LEAF {
        return Err(Fault::Damaged("the page is not a leaf of a posting tree"));
    }
    let before = if flags & COMPRESSED != 0 { content(page)? } else { compress_old(page)? };
    let mut segments = Segments { rest: &before, number: 0, written: Vec::with_capacity(before.len()) };
    for _ in 0..actions.u16()? {
        let (number, action) = (actions.u8()?, actions.u8()?);
        segments.copy_until(number)?;
        match action {
            DELETE => {
                segments.next()?;
            }
            INSERT => segments.written.extend_from_slice(take_segment(&mut actions)?),
            REPLACE => {
                let new = take_segment(&mut actions)?;
                segments.next()?;
                segments.written.extend_from_slice(new);
            }
            ADD_ITEMS => {
                let added = take_items(&mut actions)?;
                let merged = merge(segments.next()?, &added).ok_or(Fault::Damaged("items do not fit into their segment"))?;
                segments.written.extend_from_slice(&merged);
            }
            _ => return Err(Fault::Damaged("unknown action on a posting list")),
        }
    }
    segments.written.extend_from_slice(segments.rest);
    let after = segments.written;
    if flags & COMPRESSED == 0 {
        change_flags(page, FLAGS, COMPRESSED, 0)?;
        page.put(MAX_OFF, &[0, 0])?;
    }
    set_content(page, &after)
}

/// The segments before, read once, and the segments after.
struct Segments<'a> {
    rest: &'a [u8],
    /// Of the segment that `rest` begins with.
    number: u8,
    written: Vec<u8>,
}

impl<'a> Segments<'a> {
    fn next(&mut self) -> Result<&'a [u8], Fault> {
        let len = posting::segment_len(self.rest).ok_or(Fault::Damaged("no such segment in a posting list"))?;
        let (segment, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.number = self.number.wrapping_add(1);
        Ok(segment)
    }

    /// Keeps the segments before `number`; actions come in the order of their segments.
    fn copy_until(&mut self, number: u8) -> Result<(), Fault> {
        while self.number < number {
            let segment = self.next()?;
            self.written.extend_from_slice(segment);
        }
        if self.number == number { Ok(()) } else { Err(Fault::Damaged("actions on a posting list are out of order")) }
    }
}

fn take_segment<'a>(actions: &mut Data<'a>) -> Result<&'a [u8], Fault> {
    actions.take(posting::segment_len(actions.rest()).ok_or(Fault::Damaged("segment is cut short"))?)
}

fn take_items(actions: &mut Data<'_>) -> Result<Vec<Item>, Fault> {
    let count = usize::from(actions.u16()?);
    read_items(actions.take(count * 6)?)
}

/// An array of `ItemPointerData`.
fn read_items(bytes: &[u8]) -> Result<Vec<Item>, Fault> {
    let items: Option<_> = bytes.as_chunks().0.iter().map(|pointer| Item::from_pointer(*pointer)).collect();
    items.ok_or(Fault::Damaged("item that no posting list can hold"))
}

fn merge(segment: &[u8], added: &[Item]) -> Option<Vec<u8>> {
    posting::encode(&posting::merge(added, &posting::decode(segment)?))
}

fn content(page: &Page) -> Result<Vec<u8>, Fault> {
    let len = page.lower().checked_sub(CONTENT).filter(|len| CONTENT + len <= SPECIAL);
    Ok(page.slice(CONTENT, len.ok_or(Fault::Damaged("page pointers are corrupted"))?)?.to_vec())
}

/// A leaf from before 9.4, which pg_upgrade carries along, holds plain items: as one segment.
fn compress_old(page: &Page) -> Result<Vec<u8>, Fault> {
    let count = usize::from(page.u16_at(MAX_OFF)?);
    if count == 0 {
        return Ok(Vec::new());
    }
    let items = read_items(page.slice(CONTENT, count * 6)?)?;
    posting::encode(&items).ok_or(Fault::Damaged("items do not rise"))
}
