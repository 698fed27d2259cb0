//! Which granules of a file the overlay holds.
//!
//! A granule is 4 KiB: the kernel's page, so that a write-back of the page cache, which comes in pages, never has to fetch what surrounds it.
//! A gigabyte needs 32 KiB of map. Granule `g` holds bytes `g * GRANULE .. (g + 1) * GRANULE`.

use std::ops::Range;

/// Bytes in a granule.
pub(crate) const GRANULE: u64 = 4096;

/// The granules that a byte range touches.
pub(crate) fn touched(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / GRANULE..bytes.end.div_ceil(GRANULE)
}

/// A set of granules, one bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlockMap {
    words: Vec<u64>,
}

impl BlockMap {
    fn place(granule: u64) -> (usize, u64) {
        (usize::try_from(granule / 64).unwrap_or(usize::MAX), 1 << (granule % 64))
    }

    pub(crate) fn contains(&self, granule: u64) -> bool {
        let (word, bit) = Self::place(granule);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds a granule; true if it is new.
    pub(crate) fn insert(&mut self, granule: u64) -> bool {
        let (index, bit) = Self::place(granule);
        if self.words.len() <= index {
            self.words.resize(index + 1, 0);
        }
        let word = &mut self.words[index];
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub(crate) fn insert_all(&mut self, granules: Range<u64>) {
        for granule in granules {
            self.insert(granule);
        }
    }

    pub(crate) fn remove(&mut self, granules: Range<u64>) {
        for granule in granules {
            let (index, bit) = Self::place(granule);
            let Some(word) = self.words.get_mut(index) else { break };
            *word &= !bit;
        }
    }

    /// Forgets `first` and everything after it.
    pub(crate) fn truncate(&mut self, first: u64) {
        let (index, bit) = Self::place(first);
        if let Some(word) = self.words.get_mut(index) {
            *word &= bit - 1;
            self.words.truncate(index + 1);
        }
    }

    /// The first and past-last granule of each run, in order.
    pub(crate) fn runs(&self) -> Runs {
        let mut runs = Runs::default();
        for (index, word) in self.words.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let start = rest.trailing_zeros();
                let len = (!(rest >> start)).trailing_zeros();
                let first = index as u64 * 64 + u64::from(start);
                runs.push(first..first + u64::from(len));
                rest = if start + len >= 64 { 0 } else { rest & (u64::MAX << (start + len)) };
            }
        }
        runs
    }

    /// Whether any granule from `first` on is there.
    pub(crate) fn any_from(&self, first: u64) -> bool {
        let (index, bit) = Self::place(first);
        self.words
            .get(index..)
            .is_some_and(|words| words.iter().enumerate().any(|(at, word)| if at == 0 { word & !(bit - 1) } else { *word } != 0))
    }
}

/// A list of runs of granules, in the order they were added; neighbours are merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs(pub(crate) Vec<Range<u64>>);

impl Runs {
    pub(crate) fn push(&mut self, run: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.0.push(run),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// Forgets `first` and everything after it.
    pub(crate) fn truncate(&mut self, first: u64) {
        for run in &mut self.0 {
            run.end = run.end.min(first);
        }
        self.0.retain(|run| !run.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_map_answers_as_a_set_does(inserts in prop::collection::vec((0u64..400, 1u64..80), 0..20), cut in 0u64..500) {
            let (mut map, mut set) = (BlockMap::default(), BTreeSet::new());
            for (first, len) in inserts {
                map.insert_all(first..first + len);
                set.extend(first..first + len);
            }
            let listed: Vec<u64> = map.runs().0.into_iter().flatten().collect();
            prop_assert_eq!(&listed, &set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(map.any_from(cut), set.range(cut..).next().is_some());
            map.truncate(cut);
            set.retain(|granule| *granule < cut);
            prop_assert!((0..600).all(|granule| map.contains(granule) == set.contains(&granule)));
        }
    }

    #[test]
    fn neighbouring_runs_are_merged_and_cut() {
        let mut runs = Runs::default();
        runs.push(0..2);
        runs.push(2..4);
        runs.push(9..10);
        assert_eq!(runs.0, [0..4, 9..10]);
        runs.truncate(3);
        assert_eq!(runs.0, vec![0..3]);
    }
}
