//! How a run of WAL changes the length of one fork's file.

/// A change of length, whatever the length was before. Changes that follow each other become one.
///
/// Applied in this order: the file went away; it was cut to at most `cap` blocks; it exists and has at least `floor` blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeChange {
    pub unlinked: bool,
    pub cap: Option<u32>,
    pub floor: Option<u32>,
}

impl SizeChange {
    /// The length (in blocks) after it; `None` where there is no file.
    #[must_use]
    pub fn apply(self, before: Option<u32>) -> Option<u32> {
        let kept = before.filter(|_| !self.unlinked);
        let cut = kept.map(|len| self.cap.map_or(len, |cap| len.min(cap)));
        self.floor.map_or(cut, |floor| Some(cut.unwrap_or(0).max(floor)))
    }

    /// This change, then `next`.
    #[must_use]
    pub fn then(self, next: SizeChange) -> SizeChange {
        if next.unlinked {
            return next;
        }
        let cut = |len: u32| next.cap.map_or(len, |cap| len.min(cap));
        let cap = self.cap.map(cut).or(next.cap);
        let floor = match (self.floor.map(cut), next.floor) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        SizeChange { unlinked: self.unlinked, cap, floor }
    }

    /// The file exists.
    pub(crate) fn created() -> SizeChange {
        SizeChange { floor: Some(0), ..SizeChange::default() }
    }

    /// The file exists and has at least `blocks` blocks.
    pub(crate) fn at_least(blocks: u32) -> SizeChange {
        SizeChange { floor: Some(blocks), ..SizeChange::default() }
    }

    /// The file is cut, if it is there.
    pub(crate) fn cut(blocks: u32) -> SizeChange {
        SizeChange { cap: Some(blocks), ..SizeChange::default() }
    }

    /// The file goes away.
    pub(crate) fn unlink() -> SizeChange {
        SizeChange { unlinked: true, ..SizeChange::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_change() -> impl Strategy<Value = SizeChange> {
        prop_oneof![
            Just(SizeChange::created()),
            Just(SizeChange::unlink()),
            (0u32..6).prop_map(SizeChange::at_least),
            (0u32..6).prop_map(SizeChange::cut),
        ]
    }

    proptest! {
        #[test]
        fn changes_taken_together_do_what_they_do_one_by_one(changes in proptest::collection::vec(any_change(), 0..8), before in proptest::option::of(0u32..6)) {
            let one_by_one = changes.iter().fold(before, |len, change| change.apply(len));
            let together = changes.iter().fold(SizeChange::default(), |all, change| all.then(*change));
            prop_assert_eq!(together.apply(before), one_by_one);
        }
    }
}
