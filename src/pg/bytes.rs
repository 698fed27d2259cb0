//! Little-endian fixed-width fields of a slice, without a panic on a short one.

/// A number of a fixed width, read from and written to little-endian bytes.
pub trait Field: Sized {
    /// Reads it at byte `at`; `None` if the slice ends before.
    fn read(bytes: &[u8], at: usize) -> Option<Self>;
    /// Writes it at byte `at`; nothing if the slice ends before.
    fn write(self, bytes: &mut [u8], at: usize);
}

macro_rules! field {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn read(bytes: &[u8], at: usize) -> Option<Self> {
                let end = at.checked_add(size_of::<$number>())?;
                Some(<$number>::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
            }

            fn write(self, bytes: &mut [u8], at: usize) {
                if let Some(place) = at.checked_add(size_of::<$number>()).and_then(|end| bytes.get_mut(at..end)) {
                    place.copy_from_slice(&self.to_le_bytes());
                }
            }
        }
    )*};
}

field!(u8, u16, u32, u64, i32, i64);

/// Reads a number at byte `at` of `bytes`.
#[must_use]
pub fn get<T: Field>(bytes: &[u8], at: usize) -> Option<T> {
    T::read(bytes, at)
}

/// Writes a number at byte `at` of `bytes`.
pub fn put<T: Field>(bytes: &mut [u8], at: usize, value: T) {
    value.write(bytes, at);
}
