//! What can go wrong with a repository. Variants exist because callers act on them.

use thiserror::Error;

use crate::advice::Advice;
use crate::format::document::DocumentError;
use crate::format::keys::KeyError;
use crate::format::sealed::SealError;
use crate::store::StoreError;

/// An error of a repository; it names the store and the key.
#[derive(Debug, Error)]
pub enum RepoError {
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no repository in {store}")]
    NoRepository { store: String },
    #[error("{store} holds a repository already (id {id})")]
    AlreadyThere { store: String, id: String },
    /// It is not to be made anew.
    #[error("{store} holds a repository without {missing}")]
    Remains { store: String, missing: String },
    #[error("the repository in {store} is encrypted, and no key is configured")]
    SecretMissing { store: String },
    #[error("a key is configured, but the repository in {store} is not encrypted")]
    SecretUnused { store: String },
    #[error("the key for {store} is empty")]
    SecretEmpty { store: String },
    /// No wrapped key fits the secret, or the one that does is damaged.
    #[error("the key of {store} cannot be opened")]
    Key {
        store: String,
        #[source]
        source: KeyError,
    },
    /// An encrypted repository without any wrapped key: `init` was interrupted, or they were deleted.
    #[error("{store} is encrypted but holds no wrapped key below {prefix}")]
    NoWrappedKey { store: String, prefix: &'static str },
    /// A plain document.
    #[error("{key} in {store} cannot be used")]
    Document {
        store: String,
        key: String,
        #[source]
        source: DocumentError,
    },
    /// A sealed object, or a chunk of it.
    #[error("{key} in {store} cannot be read")]
    Sealed {
        store: String,
        key: String,
        #[source]
        source: SealError,
    },
    /// A caller asked for bytes that an object does not have: never answered with fewer.
    #[error("{key} in {store} has {len} bytes in its {stream} stream, bytes {from} to {to} were asked for")]
    BeyondEnd { store: String, key: String, stream: crate::format::sealed::Stream, len: u64, from: u64, to: u64 },
    /// Neither the repository that is being read nor another one has it.
    #[error("{here}; {elsewhere}")]
    Everywhere {
        first: Box<RepoError>,
        /// What `first` says, with its causes.
        here: String,
        /// What is wrong with each of the others.
        elsewhere: String,
    },
}

impl RepoError {
    /// Is it that the object is not there (and nothing else)?
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, RepoError::Store(StoreError::NotFound { .. }))
    }

    /// Could the same call succeed a little later?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            RepoError::Store(e) => e.is_retryable(),
            RepoError::Everywhere { first, .. } => first.is_retryable(),
            _ => false,
        }
    }

    /// Are the stored bytes themselves at fault, so that another repository may have better ones?
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            RepoError::Document { source, .. } => matches!(source, DocumentError::Damaged { .. }),
            RepoError::Sealed { source, .. } => {
                matches!(source, SealError::Damaged { .. } | SealError::WrongKey { .. } | SealError::OtherObject { .. })
            }
            RepoError::Key { source, .. } => matches!(source, KeyError::Damaged { .. }),
            RepoError::Store(StoreError::OutOfRange { .. }) => true,
            RepoError::Everywhere { first, .. } => first.is_damage(),
            _ => false,
        }
    }
}

impl Advice for RepoError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            RepoError::Store(e) => return e.hint(),
            RepoError::Everywhere { first, .. } => return first.hint(),
            RepoError::NoRepository { .. } => "Is the path right? `bygone init` makes a repository.",
            RepoError::AlreadyThere { .. } => "To use it, configure the key that it was made with; to make another, give another path.",
            RepoError::Remains { .. } => "Restore that from a copy of the repository, or give another path.",
            RepoError::SecretMissing { .. } => "Set key-file or key-command of this repository, or BYGONE_REPO_<N>_KEY.",
            RepoError::SecretUnused { .. } => {
                "Remove the key from the configuration if it is meant to be so; otherwise this is not the repository that you think it is."
            }
            RepoError::SecretEmpty { .. } => {
                "Does the key file hold anything, and does the key command print the secret to its standard output?"
            }
            RepoError::Key { source: KeyError::WrongSecret { .. }, .. } => {
                "Is this the key file of this repository? Nothing is damaged; the passphrase is another one."
            }
            RepoError::Key { source: KeyError::Damaged { .. }, .. } => {
                "The passphrase is right; restore the wrapped key from a copy of the repository."
            }
            RepoError::NoWrappedKey { .. } => {
                "If `init` was interrupted, run it again. If keys were deleted, bring them back: nothing can be read without."
            }
            RepoError::Document { source: DocumentError::Future { .. }, .. }
            | RepoError::Sealed { source: SealError::Future { .. }, .. } => {
                "It was written by a later version; use that one or a newer one here too. Nothing was changed."
            }
            RepoError::Sealed { source: SealError::NoKey { .. }, .. } => "Was the key rotated with a secret that this host does not have?",
            RepoError::Sealed { .. } | RepoError::Document { .. } => "Another repository (`--repo N`) may have a good copy.",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
