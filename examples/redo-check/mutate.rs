//! Damages real records and pages and has redo apply them: it may refuse or make nonsense, but not panic.

use bygone::pg::page::Page;
use bygone::pg::wal::{BlockRef, Record};
use bygone::redo::{self, Context, Target, mask};

/// Pseudo-random numbers that are the same on every run (xorshift64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Dice {
        Dice(0x9E37_79B9_7F4A_7C15)
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % sides.max(1)
    }

    /// Changes up to three bytes, mostly to values that numbers in records have.
    fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.roll(3) {
            let at = self.roll(bytes.len());
            let value = [0, 1, 0x7F, 0xFF, u8::try_from(self.roll(256)).unwrap_or_default()][self.roll(5)];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
    }
}

/// Applies `rounds` damaged versions of the record to the page, or the record to damaged pages.
pub(crate) fn run(dice: &mut Dice, rounds: usize, context: &Context, record: &Record<'_>, block: &BlockRef<'_>, page: &Page) {
    for _ in 0..rounds {
        let mut page = page.clone();
        let mut main = record.main_data.to_vec();
        let mut data = block.data.unwrap_or_default().to_vec();
        match dice.roll(4) {
            0 => dice.damage(&mut main),
            1 => dice.damage(&mut data),
            2 => dice.damage(&mut page.0[12..60]), // header and first line pointers
            _ => dice.damage(&mut page.0[..]),
        }
        if dice.roll(8) == 0 {
            data.truncate(dice.roll(data.len()));
        }
        let mut damaged = Record { main_data: &main, ..record.clone() };
        for other in damaged.blocks.iter_mut().filter(|other| other.id == block.id) {
            other.data = block.data.map(|_| &data[..]);
        }
        let _outcome = redo::apply(context, &damaged, Target::Block(block.id), &mut page);
        mask::mask(record.rmgr, block.tag, &mut page);
    }
}
