//! Bytes that we define: encode, decode, versions. No IO, no clock.
//!
//! From: `repo`, `archive`, `view`.  To: bytes that `store` keeps.
//! docs/format.md is the contract; every stored type here is named in it, byte by byte. Decoders take arbitrary bytes:
//! they never panic, never allocate what a forged length asks for, and refuse a version from the future by naming both versions.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod cluster;
pub mod document;
pub mod index;
pub mod keys;
pub mod lock;
pub mod manifest;
pub mod sealed;
pub(crate) mod varint;

use std::fmt;

/// The random name of a repository. Part of every checksum in it, so that an object of another repository cannot pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RepositoryId(pub [u8; 16]);

impl RepositoryId {
    /// Reads 32 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<RepositoryId> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok().map(|()| RepositoryId(id))
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a repository's objects are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// Not at all against reading; checksums against damage. `zstd -dc` decodes every object.
    None,
    /// AES-256-CBC, then HMAC-SHA-256 over the ciphertext and what it is.
    Aes256CbcHmacSha256,
}

impl Cipher {
    /// As written in `bygone.json` and in the configuration (`none`, `aes-256-cbc`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cipher::None => "none",
            Cipher::Aes256CbcHmacSha256 => "aes-256-cbc",
        }
    }

    /// The inverse of [`Cipher::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Cipher> {
        [Cipher::None, Cipher::Aes256CbcHmacSha256].into_iter().find(|c| c.name() == name)
    }

    fn code(self) -> u8 {
        match self {
            Cipher::None => 0,
            Cipher::Aes256CbcHmacSha256 => 1,
        }
    }

    fn from_code(code: u8) -> Option<Cipher> {
        [Cipher::None, Cipher::Aes256CbcHmacSha256].into_iter().find(|c| c.code() == code)
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `N` bytes at `at`, `None` past the end: how every decoder here reads.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}
