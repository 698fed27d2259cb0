//! pglz, the compression that Postgres brings along: the decoder.
//!
//! A control byte announces eight items, lowest bit first: 0 is a byte to copy, 1 a back-reference of two bytes (three if its length is 18):
//! low nibble of the first + 3 = length, high nibble and second byte = distance, 1 to 4095. Source: pg_lzcompress.c `pglz_decompress`.

use thiserror::Error;

use super::cursor::Cursor;

/// Bytes that pglz did not write, or not all of them, or for another length.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("pglz data is damaged after {written} of {expected} bytes")]
pub struct BadPglz {
    pub written: usize,
    pub expected: usize,
}

/// Decompresses all of `source` into all of `target`.
///
/// # Errors
/// [`BadPglz`] if the two do not come to an end together, or a reference points before the start.
pub fn decompress(source: &[u8], target: &mut [u8]) -> Result<(), BadPglz> {
    let expected = target.len();
    let mut out = Output { target, written: 0 };
    let complete = fill(&mut Cursor::new(source), &mut out).is_some() && out.written == expected;
    if complete { Ok(()) } else { Err(BadPglz { written: out.written, expected }) }
}

struct Output<'t> {
    target: &'t mut [u8],
    written: usize,
}

impl Output<'_> {
    fn literal(&mut self, byte: u8) -> Option<()> {
        *self.target.get_mut(self.written)? = byte;
        self.written = self.written.checked_add(1)?;
        Some(())
    }

    /// Copies `len` bytes from `distance` back; the two may overlap, which repeats a pattern. What does not fit is cut off, as Postgres does.
    fn repeat(&mut self, distance: usize, len: usize) -> Option<()> {
        let from = self.written.checked_sub(distance).filter(|_| distance > 0)?;
        let len = len.min(self.target.len().saturating_sub(self.written));
        let end = self.written.checked_add(len)?;
        if distance >= len {
            self.target.copy_within(from..from.checked_add(len)?, self.written);
            self.written = end;
        } else {
            for at in from..from.checked_add(len)? {
                let byte = *self.target.get(at)?;
                self.literal(byte)?;
            }
        }
        Some(())
    }
}

/// `None` where the source contradicts itself or goes on after the target is full.
fn fill(c: &mut Cursor<'_>, out: &mut Output<'_>) -> Option<()> {
    while !c.is_empty() {
        let control = c.u8()?;
        for bit in 0..8 {
            if c.is_empty() {
                break;
            }
            if control & 1 << bit == 0 {
                out.literal(c.u8()?)?;
                continue;
            }
            if out.written == out.target.len() {
                return None;
            }
            let [first, second] = c.array()?;
            let distance = usize::from(first & 0xF0) << 4 | usize::from(second);
            let mut len = usize::from(first & 0x0F).checked_add(3)?;
            if len == 18 {
                len = len.checked_add(usize::from(c.u8()?))?;
            }
            out.repeat(distance, len)?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(source: &[u8], len: usize) -> Result<Vec<u8>, BadPglz> {
        let mut target = vec![0xEE; len];
        decompress(source, &mut target).map(|()| target)
    }

    #[test]
    fn literals_and_references_are_undone() {
        assert_eq!(decode(&[0, b'a', b'b', b'c'], 3).unwrap(), b"abc");
        // "ab", then 6 bytes from 2 back: overlapping.
        assert_eq!(decode(&[0b100, b'a', b'b', 0x03, 2], 8).unwrap(), b"abababab");
        // Length 18 + 4 = 22 in three bytes, from 1 back.
        assert_eq!(decode(&[0b10, b'z', 0x0F, 1, 4], 23).unwrap(), [b'z'; 23]);
    }

    #[test]
    fn data_for_another_length_or_with_bad_references_is_refused() {
        assert!(decode(&[0, b'a', b'b', b'c'], 4).is_err());
        assert!(decode(&[0, b'a', b'b', b'c'], 2).is_err());
        assert!(decode(&[0b10, b'a', 0x00, 0], 4).is_err(), "distance 0");
        assert!(decode(&[0b10, b'a', 0x00, 2], 4).is_err(), "before the start");
        assert!(decode(&[0b10, b'a', 0x00], 4).is_err(), "half a reference");
        assert_eq!(decode(&[0b10, b'a', 0x00, 2], 4).unwrap_err(), BadPglz { written: 1, expected: 4 });
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(source in proptest::collection::vec(0u8..=255, 0..600), len in 0usize..9000) {
            drop(decode(&source, len));
        }
    }
}
