//! Keys: the random data key of a generation, what is derived from it, and how it is wrapped by a secret from outside.
//!
//! From: `repo::keyring`.  To: `format::sealed`.
//! secret -> (Argon2id | HKDF) -> key-encryption key -> wraps the data key -> HKDF with an object's header -> that object's keys.
//! Nothing here is ever printed: no `Debug` shows a byte of a key, and all of it is wiped when dropped.

use std::fmt;

use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use super::RepositoryId;

pub(crate) type HmacSha256 = Hmac<Sha256>;
pub(crate) type CbcEncrypt = cbc::Encryptor<aes::Aes256>;
pub(crate) type CbcDecrypt = cbc::Decryptor<aes::Aes256>;

/// What unlocks a repository: the bytes of a passphrase or of a key file, given by the caller. `repo::secret` fetches them.
#[derive(Clone)]
pub struct Secret(SecretSlice<u8>);

impl Secret {
    /// Takes the bytes as they are. Callers trim what an editor or a shell adds.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes.into())
    }

    /// Are there no bytes at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.expose_secret().is_empty()
    }

    /// The way of stretching that suits this secret: a full-strength key (64 hex digits or the base64 of 32 bytes, as
    /// `openssl rand` prints them) needs none; anything else counts as a passphrase and gets Argon2id.
    #[must_use]
    pub fn suggested_kdf(&self) -> Kdf {
        let bytes = self.0.expose_secret();
        let is_hex = bytes.len() == 64 && bytes.iter().all(u8::is_ascii_hexdigit);
        let is_base64 = bytes.len() == 44
            && bytes.last() == Some(&b'=')
            && bytes.iter().take(43).all(|b| b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/');
        let mut distinct = bytes.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        if (is_hex || is_base64) && distinct.len() >= 8 { Kdf::Hkdf } else { Kdf::ARGON2ID }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// How the key-encryption key comes from the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kdf {
    /// For a secret that is a random 256-bit key: one HKDF-SHA-256, no stretching.
    Hkdf,
    /// For a passphrase. Memory in KiB, passes, lanes.
    Argon2id { memory_kib: u32, passes: u32, lanes: u32 },
}

impl Kdf {
    /// The second recommended option of RFC 9106, section 4: about 0.1 s and 64 MiB for each guess.
    pub const ARGON2ID: Kdf = Kdf::Argon2id { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// More memory than this is not believed: a damaged or forged key file must not exhaust the machine.
    const MAX_MEMORY_KIB: u32 = 1 << 20;
    const MAX_PASSES: u32 = 64;
    const MAX_LANES: u32 = 64;
}

/// Why a key could not be wrapped or unwrapped.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// The secret is another one.
    #[error("the secret does not fit key {generation}-{number}")]
    WrongSecret { generation: u32, number: u32 },
    /// The secret is right, the wrapped key is not what was written.
    #[error("the wrapped data key {generation}-{number} is damaged")]
    Damaged { generation: u32, number: u32 },
    /// Its parameters are out of all reason.
    #[error("the wrapped data key {generation}-{number} asks for {what}")]
    Unreasonable { generation: u32, number: u32, what: String },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    NoRandom(String),
}

/// Fills `N` bytes with the operating system's randomness.
///
/// # Errors
/// [`KeyError::NoRandom`].
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| KeyError::NoRandom(e.to_string()))?;
    Ok(bytes)
}

/// The random key of one generation of a repository; all objects of the generation derive their keys from it.
#[derive(Clone)]
pub struct DataKey {
    /// Counted from 1. An object's header names it.
    pub generation: u32,
    key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey(generation {}, hidden)", self.generation)
    }
}

impl DataKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`].
    pub fn generate(generation: u32) -> Result<DataKey, KeyError> {
        Ok(DataKey { generation, key: Zeroizing::new(random()?) })
    }

    /// The key with these bytes: for test vectors, and for whoever kept a copy elsewhere.
    #[must_use]
    pub fn from_bytes(generation: u32, key: [u8; 32]) -> DataKey {
        DataKey { generation, key: Zeroizing::new(key) }
    }

    /// The keys of one object: HKDF-SHA-256 over this key, salted with the header's salt, with the whole header as information,
    /// so that they fit no other object.
    pub(crate) fn object_keys(&self, salt: &[u8; 32], header: &[u8]) -> ObjectKeys {
        let mut okm = Zeroizing::new([0u8; 128]);
        let hkdf = Hkdf::<Sha256>::new(Some(salt), self.key.as_slice());
        hkdf.expand_multi_info(&[b"bygone sealed object 1", header], okm.as_mut_slice())
            .expect("128 bytes are fewer than HKDF's limit of 8160");
        let [cipher, mac, iv, digest] = split4(&okm);
        ObjectKeys { cipher, mac, iv, digest }
    }
}

/// Keys of one object.
#[derive(Clone)]
pub(crate) struct ObjectKeys {
    pub cipher: Zeroizing<[u8; 32]>,
    pub mac: Zeroizing<[u8; 32]>,
    pub iv: Zeroizing<[u8; 32]>,
    pub digest: Zeroizing<[u8; 32]>,
}

fn split4(okm: &[u8; 128]) -> [Zeroizing<[u8; 32]>; 4] {
    let mut parts: [Zeroizing<[u8; 32]>; 4] = Default::default();
    for (part, bytes) in parts.iter_mut().zip(okm.as_chunks::<32>().0) {
        **part = *bytes;
    }
    parts
}

/// An HMAC-SHA-256 that has taken nothing yet.
pub(crate) fn hmac(key: &[u8; 32]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// A data key, wrapped by a secret: what a key file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    pub repository: RepositoryId,
    pub generation: u32,
    /// Which wrap of this generation; the same data key may be wrapped by several secrets.
    pub number: u32,
    pub kdf: Kdf,
    pub salt: [u8; 32],
    /// Tells a wrong secret from a damaged file.
    pub check: [u8; 16],
    /// AES-256-CBC of the data key: two blocks and one of padding.
    pub wrapped: [u8; 48],
    /// HMAC-SHA-256 over everything above.
    pub tag: [u8; 32],
}

struct Kek {
    cipher: Zeroizing<[u8; 32]>,
    mac: Zeroizing<[u8; 32]>,
    iv: [u8; 16],
    check: [u8; 16],
}

impl WrappedKey {
    /// Wraps `key` with `secret`.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`]; [`KeyError::Unreasonable`] for such parameters of `kdf`.
    pub fn wrap(key: &DataKey, repository: RepositoryId, number: u32, secret: &Secret, kdf: Kdf) -> Result<WrappedKey, KeyError> {
        let generation = key.generation;
        let mut this = WrappedKey { repository, generation, number, kdf, salt: random()?, check: [0; 16], wrapped: [0; 48], tag: [0; 32] };
        let kek = this.kek(secret)?;
        this.check = kek.check;
        let mut buffer = Zeroizing::new([0u8; 48]);
        if let Some(plain) = buffer.first_chunk_mut::<32>() {
            *plain = *key.key;
        }
        let cipher = CbcEncrypt::new((&*kek.cipher).into(), (&kek.iv).into());
        cipher.encrypt_padded::<Pkcs7>(buffer.as_mut_slice(), 32).expect("48 bytes hold 32 and a block of padding");
        this.wrapped = *buffer;
        this.tag = this.mac(&kek).finalize().into_bytes().into();
        Ok(this)
    }

    /// The data key inside.
    ///
    /// # Errors
    /// [`KeyError::WrongSecret`], [`KeyError::Damaged`], [`KeyError::Unreasonable`].
    pub fn unwrap(&self, secret: &Secret) -> Result<DataKey, KeyError> {
        let (generation, number) = (self.generation, self.number);
        let kek = self.kek(secret)?;
        if kek.check != self.check {
            return Err(KeyError::WrongSecret { generation, number });
        }
        let damaged = || KeyError::Damaged { generation, number };
        self.mac(&kek).verify_slice(&self.tag).map_err(|_| damaged())?;
        let mut buffer = Zeroizing::new(self.wrapped);
        let cipher = CbcDecrypt::new((&*kek.cipher).into(), (&kek.iv).into());
        let plain = cipher.decrypt_padded::<Pkcs7>(buffer.as_mut_slice()).map_err(|_| damaged())?;
        let key = Zeroizing::new(<[u8; 32]>::try_from(plain).map_err(|_| damaged())?);
        Ok(DataKey { generation, key })
    }

    fn kek(&self, secret: &Secret) -> Result<Kek, KeyError> {
        let mut master = Zeroizing::new([0u8; 32]);
        let secret = secret.0.expose_secret();
        let hkdf = match self.kdf {
            Kdf::Hkdf => Hkdf::<Sha256>::new(Some(&self.salt), secret),
            Kdf::Argon2id { memory_kib, passes, lanes } => {
                self.argon2(memory_kib, passes, lanes)?
                    .hash_password_into(secret, &self.salt, master.as_mut_slice())
                    .map_err(|e| self.unreasonable(e.to_string()))?;
                Hkdf::<Sha256>::new(Some(&self.salt), master.as_slice())
            }
        };
        let mut okm = Zeroizing::new([0u8; 96]);
        hkdf.expand(b"bygone key wrap 1", okm.as_mut_slice()).expect("96 bytes are fewer than HKDF's limit of 8160");
        let mut kek = Kek { cipher: Zeroizing::default(), mac: Zeroizing::default(), iv: [0; 16], check: [0; 16] };
        if let ([cipher, mac, last], _) = okm.as_chunks::<32>() {
            (*kek.cipher, *kek.mac) = (*cipher, *mac);
            if let ([iv, check], _) = last.as_chunks::<16>() {
                (kek.iv, kek.check) = (*iv, *check);
            }
        }
        Ok(kek)
    }

    fn argon2(&self, memory_kib: u32, passes: u32, lanes: u32) -> Result<argon2::Argon2<'static>, KeyError> {
        if memory_kib > Kdf::MAX_MEMORY_KIB || passes > Kdf::MAX_PASSES || lanes > Kdf::MAX_LANES {
            return Err(self.unreasonable(format!("Argon2id with {memory_kib} KiB, {passes} passes, {lanes} lanes")));
        }
        let params = argon2::Params::new(memory_kib, passes, lanes, Some(32)).map_err(|e| self.unreasonable(e.to_string()))?;
        Ok(argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params))
    }

    fn unreasonable(&self, what: String) -> KeyError {
        KeyError::Unreasonable { generation: self.generation, number: self.number, what }
    }

    fn mac(&self, kek: &Kek) -> HmacSha256 {
        let (kdf, memory_kib, passes, lanes) = match self.kdf {
            Kdf::Hkdf => (0u32, 0, 0, 0),
            Kdf::Argon2id { memory_kib, passes, lanes } => (1, memory_kib, passes, lanes),
        };
        let mut mac = hmac(&kek.mac);
        mac.update(&self.repository.0);
        for number in [self.generation, self.number, kdf, memory_kib, passes, lanes] {
            mac.update(&number.to_le_bytes());
        }
        for part in [self.salt.as_slice(), &self.check, &self.wrapped] {
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Kdf = Kdf::Argon2id { memory_kib: 64, passes: 1, lanes: 1 };

    fn wrapped() -> (DataKey, WrappedKey) {
        let key = DataKey::generate(3).unwrap();
        let wrapped = WrappedKey::wrap(&key, RepositoryId([7; 16]), 2, &Secret::new(b"correct horse".to_vec()), QUICK).unwrap();
        (key, wrapped)
    }

    #[test]
    fn the_right_secret_gives_the_data_key_back() {
        let (key, wrapped) = wrapped();
        let back = wrapped.unwrap(&Secret::new(b"correct horse".to_vec())).unwrap();
        assert_eq!((back.generation, *back.key), (3, *key.key));
    }

    #[test]
    fn a_wrong_secret_is_told_apart_from_a_damaged_key() {
        let (_, mut wrapped) = wrapped();
        let wrong = wrapped.unwrap(&Secret::new(b"correct horsf".to_vec())).unwrap_err();
        assert_eq!(wrong, KeyError::WrongSecret { generation: 3, number: 2 });
        wrapped.wrapped[40] ^= 1;
        let damaged = wrapped.unwrap(&Secret::new(b"correct horse".to_vec())).unwrap_err();
        assert_eq!(damaged, KeyError::Damaged { generation: 3, number: 2 });
    }

    #[test]
    fn a_key_of_another_repository_or_generation_does_not_pass() {
        let secret = Secret::new(b"correct horse".to_vec());
        let (_, wrapped) = wrapped();
        let moved = WrappedKey { repository: RepositoryId([8; 16]), ..wrapped.clone() };
        assert!(matches!(moved.unwrap(&secret), Err(KeyError::Damaged { .. })));
        let renamed = WrappedKey { generation: 4, ..wrapped };
        assert!(matches!(renamed.unwrap(&secret), Err(KeyError::Damaged { .. })));
    }

    #[test]
    fn parameters_out_of_all_reason_are_refused_before_any_memory_is_taken() {
        let (_, mut wrapped) = wrapped();
        wrapped.kdf = Kdf::Argon2id { memory_kib: u32::MAX, passes: 3, lanes: 4 };
        assert!(matches!(wrapped.unwrap(&Secret::new(vec![1])), Err(KeyError::Unreasonable { .. })));
    }

    #[test]
    fn only_a_random_key_goes_without_stretching() {
        let kdf = |text: &str| Secret::new(text.into()).suggested_kdf();
        assert_eq!(kdf(&hex::encode((0..32).collect::<Vec<u8>>())), Kdf::Hkdf);
        assert_eq!(kdf("n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="), Kdf::Hkdf);
        assert_eq!(kdf(&"a".repeat(64)), Kdf::ARGON2ID);
        assert_eq!(kdf("correct horse battery staple"), Kdf::ARGON2ID);
    }

    #[test]
    fn nothing_secret_is_in_debug_output() {
        let secret = Secret::new(b"correct horse".to_vec());
        let key = DataKey::from_bytes(1, [0xAB; 32]);
        assert_eq!(format!("{secret:?} {key:?}"), "Secret(hidden) DataKey(generation 1, hidden)");
    }
}
