//! Numbers in as few bytes as they need: seven bits a byte, lowest first, the top bit set on all but the last (LEB128).

use crate::pg::cursor::Cursor;

/// Appends `value`: one to ten bytes.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    (value & 0x7F) as u8
}

/// Appends a number that may be negative: 0, -1, 1, -2, … become 0, 1, 2, 3, …
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, (value << 1 ^ value >> 63).cast_unsigned());
}

/// Reads what [`put`] wrote; `None` at the end of the bytes or past 64 bits.
pub(crate) fn get(c: &mut Cursor<'_>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = c.u8()?;
        let bits = u64::from(byte & 0x7F);
        value |= bits.checked_shl(shift)?;
        if shift == 63 && bits > 1 {
            return None;
        }
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Reads what [`put_signed`] wrote.
pub(crate) fn get_signed(c: &mut Cursor<'_>) -> Option<i64> {
    let value = get(c)?;
    Some((value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg())
}

/// Reads a number that must fit 32 bits.
pub(crate) fn get_u32(c: &mut Cursor<'_>) -> Option<u32> {
    u32::try_from(get(c)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(get(&mut Cursor::new(&out)), Some(value));
            assert_eq!(get(&mut Cursor::new(&out[..out.len() - 1])), None);
        }
        for value in [0, -1, 1, 63, -64, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_signed(&mut out, value);
            assert_eq!(get_signed(&mut Cursor::new(&out)), Some(value));
        }
        assert_eq!(get(&mut Cursor::new(&[0xFF; 11])), None);
    }
}
