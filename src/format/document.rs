//! The few plain JSON documents of a repository: identity, wrapped keys, cluster identity, lock entries.
//!
//! From: `repo`.  To: bytes that a person can read with `cat`.
//! A document is one JSON object whose last member is `"crc32c"`, eight hex digits over all bytes before that member's quote;
//! its first members are `"bygone"` (what it is) and `"format"` (its version). Everything here is plain and unauthenticated: what must not be
//! forged is covered by the MAC of a wrapped key or of a sealed object.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of every document here.
pub const DOCUMENT_VERSION: u32 = 1;

/// Larger documents are not believed.
pub const MAX_DOCUMENT_BYTES: u64 = 1 << 20;

const SUM: &str = "  \"crc32c\": \"";

/// Why a document could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DocumentError {
    #[error("not a {expected} document: {what}")]
    NotThis { expected: &'static str, what: String },
    #[error("the {expected} document is damaged: {what}")]
    Damaged { expected: &'static str, what: String },
    #[error("the {expected} document has format {found}, this version of bygone reads up to {known}")]
    Future { expected: &'static str, found: u32, known: u32 },
}

/// A type that is stored as a document.
pub trait Document: Serialize + DeserializeOwned {
    /// The value of its first member, `"bygone"`.
    const WHAT: &'static str;
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    bygone: String,
    format: u32,
    #[serde(flatten)]
    body: T,
}

#[derive(Deserialize)]
struct Head {
    bygone: String,
    format: u32,
}

/// The document's bytes.
///
/// # Errors
/// None for the types of this crate; `serde_json`'s for a type that JSON cannot express.
pub fn encode<T: Document>(body: &T) -> Result<Vec<u8>, serde_json::Error> {
    let envelope = Envelope { bygone: T::WHAT.to_owned(), format: DOCUMENT_VERSION, body };
    let json = serde_json::to_string_pretty(&envelope)?;
    let open = json.strip_suffix("\n}").unwrap_or(&json);
    let covered = format!("{open},\n");
    let sum = crc32c::crc32c(covered.as_bytes());
    Ok(format!("{covered}{SUM}{sum:08x}\"\n}}\n").into_bytes())
}

/// Reads a document back; the inverse of [`encode`].
///
/// # Errors
/// [`DocumentError::Future`] before anything but the version is looked at; [`DocumentError::Damaged`] for any changed byte;
/// [`DocumentError::NotThis`] for a document of another sort.
pub fn decode<T: Document>(bytes: &[u8]) -> Result<T, DocumentError> {
    let expected = T::WHAT;
    let damaged = |what: String| DocumentError::Damaged { expected, what };
    let text = std::str::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
    let head: Head = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
    if head.bygone == expected && head.format > DOCUMENT_VERSION {
        return Err(DocumentError::Future { expected, found: head.format, known: DOCUMENT_VERSION });
    }
    let (covered, rest) = text.rsplit_once(SUM).ok_or_else(|| damaged("it has no checksum".to_owned()))?;
    let sum = crc32c::crc32c(covered.as_bytes());
    let stored = rest.strip_suffix("\"\n}\n").unwrap_or(rest);
    if stored != format!("{sum:08x}") || stored.len() == rest.len() {
        return Err(damaged(format!("the checksum says {stored:?}, the contents give {sum:08x}")));
    }
    if head.bygone != expected {
        return Err(DocumentError::NotThis { expected, what: format!("it says {:?}", head.bygone) });
    }
    if head.format != DOCUMENT_VERSION {
        return Err(damaged(format!("format {} was never written", head.format)));
    }
    serde_json::from_str::<Envelope<T>>(text).map(|envelope| envelope.body).map_err(|e| damaged(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        number: u64,
    }

    impl Document for Sample {
        const WHAT: &'static str = "sample";
    }

    fn sample() -> Sample {
        Sample { name: "a \"crc32c\": thing".to_owned(), number: u64::MAX }
    }

    #[test]
    fn a_document_comes_back_and_is_plain_json() {
        let bytes = encode(&sample()).unwrap();
        assert_eq!(decode::<Sample>(&bytes), Ok(sample()));
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["bygone"], "sample");
        assert_eq!(value["format"], 1);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_in_a_document_is_an_error() {
        let bytes = encode(&sample()).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(decode::<Sample>(&bad).is_err(), "byte {at} bit {bit}: {}", String::from_utf8_lossy(&bad));
            }
            assert!(decode::<Sample>(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_document_from_the_future_is_refused_naming_both_versions() {
        let text = "{\"bygone\": \"sample\", \"format\": 9, \"all\": \"else\"}";
        let error = decode::<Sample>(text.as_bytes()).unwrap_err();
        assert_eq!(error, DocumentError::Future { expected: "sample", found: 9, known: 1 });
    }

    #[test]
    fn a_document_of_another_sort_is_refused() {
        #[derive(Debug, Serialize, Deserialize)]
        struct Other {}
        impl Document for Other {
            const WHAT: &'static str = "other";
        }
        assert!(matches!(decode::<Other>(&encode(&sample()).unwrap()), Err(DocumentError::NotThis { .. })));
    }
}
