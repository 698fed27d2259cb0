//! What is fuzzed: each target takes any bytes and must come back, without a panic, within moments.
//!
//! An input begins with one byte of choices, so that inputs are plain files and one corpus serves every runner: cargo-fuzz (`fuzz_targets/`), the
//! runner for stable Rust (`examples/fuzz`). Checksums would keep every damaged byte from the code
//! behind them, so targets put them right first; the highest bit of the first byte leaves them wrong.
//! Writing outside a page cannot happen without a panic: the crate has no `unsafe` there.

mod files;
mod index;
mod sealed;
mod wal;

pub use files::files;
pub use index::index;
pub use sealed::sealed;
pub use wal::{record, redo, wal};

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [("wal", wal), ("record", record), ("redo", redo), ("index", index), ("sealed", sealed), ("files", files)];

/// The choices in an input's first byte, and the rest.
struct Choices<'a> {
    choice: u8,
    /// Put checksums right before anything reads them?
    mend: bool,
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    fn of(data: &'a [u8]) -> Option<Choices<'a>> {
        let (first, rest) = data.split_first()?;
        Some(Choices { choice: first & 0x7F, mend: first & 0x80 == 0, rest })
    }

    /// The choice as a major version.
    fn major(&self) -> bygone::pg::Major {
        bygone::pg::Major::from_number(14 + u32::from(self.choice) % 5).expect("14 to 18 are known")
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end)) {
        place.copy_from_slice(value);
    }
}
