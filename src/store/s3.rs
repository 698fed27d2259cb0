//! Objects in a bucket of an S3 service.
//!
//! In: keys and bytes, from any thread.  Out: requests of the AWS SDK, on a small runtime of their own; async stays in here.
//! Nothing is overwritten: every write carries `If-None-Match: *`. A write whose answer was lost is repeated and then told that the key
//! is taken, by itself; so each write leaves a random token in the object's metadata, and "taken" is believed only if the token is another's.
//!
//! What arrives is what the service sent. A whole object is checked against the checksum that the service keeps, a range is not (S3 has none
//! for it): a bit that flips in a range is for the reader of the sealed object to find.

mod client;
mod error;
mod retry;
pub mod settings;
mod upload;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::Object;
use bytes::{Bytes, BytesMut};
use tokio::runtime::Runtime;

use super::{Meta, Store, StoreError, Upload, key};
use error::Failure;
use retry::Retry;
use settings::S3Settings;
use upload::S3Upload;

/// The metadata field with the token of an object's writer.
const WRITER: &str = "bygone-writer";

/// Room reserved at once for an answer, whatever length it announces.
const MOST_RESERVED: u64 = 64 << 20;

/// How often a key may be taken and free again in turn before a write gives up.
const TAKEN_AND_FREE: usize = 5;

/// A repository in a bucket.
#[derive(Debug)]
pub struct S3Store {
    bucket: Arc<Bucket>,
}

/// What requests need: shared with uploads and their background parts.
#[derive(Debug)]
struct Bucket {
    client: Client,
    name: String,
    /// Empty, or ends in `/`.
    prefix: String,
    /// For messages.
    described: String,
    part_size: usize,
    retry: Retry,
    /// Has the service proven, by an answer in S3's own words, that the bucket is there? Then a bare 404 means the object.
    spoken: AtomicBool,
}

impl S3Store {
    /// Opens a bucket. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the setting that cannot be right: an unreadable CA file, no region, no credentials.
    pub fn open(settings: &S3Settings) -> Result<Self, StoreError> {
        Self::open_over(settings, |http| http)
    }

    /// As [`S3Store::open`], with a layer around the HTTP client: how tests inject faults below signing and repetition.
    ///
    /// # Errors
    /// As [`S3Store::open`].
    pub fn open_over(settings: &S3Settings, wrap: impl FnOnce(SharedHttpClient) -> SharedHttpClient) -> Result<Self, StoreError> {
        let described = describe(settings);
        let open = || {
            let http = wrap(client::http_client(settings)?);
            runtime()?.block_on(client::client(settings, http))
        };
        let client = open().map_err(|failure| store_error(&described, "", failure))?;
        let prefix = settings.prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let retry = Retry::new(settings.timeouts.total, settings.parallel);
        let (name, part_size, spoken) = (settings.bucket.clone(), settings.part_size, AtomicBool::new(false));
        Ok(S3Store { bucket: Arc::new(Bucket { client, name, prefix, described, part_size, retry, spoken }) })
    }

    /// Runs one question to the bucket to its end and says in a caller's terms how it went.
    fn ask<T>(&self, key: &str, question: impl Future<Output = Result<T, Failure>>) -> Result<T, StoreError> {
        let answer = runtime().and_then(|runtime| runtime.block_on(question));
        answer.map_err(|failure| self.bucket.error(key, failure))
    }

    fn check(&self, key: &str) -> Result<(), StoreError> {
        key::check(&self.bucket.described, key)
    }

    /// The size of an object that must be there.
    fn size(&self, key: &str) -> Result<u64, StoreError> {
        let meta = self.head(key)?.ok_or_else(|| self.bucket.error(key, Failure::NoSuchKey))?;
        Ok(meta.size)
    }

    fn out_of_range(&self, key: &str, size: u64, range: Range<u64>) -> StoreError {
        StoreError::OutOfRange { store: self.describe(), key: key.to_owned(), size, range }
    }
}

fn describe(settings: &S3Settings) -> String {
    let prefix = settings.prefix.trim_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    let place = settings.endpoint_url().or_else(|| settings.region.clone()).unwrap_or_else(|| "AWS".to_owned());
    format!("s3://{}{slash}{prefix} at {place}", settings.bucket)
}

/// The threads that carry all requests of the process. Two suffice: they move bytes, the callers' threads wait.
fn runtime() -> Result<&'static Runtime, Failure> {
    static RUNTIME: LazyLock<std::io::Result<Runtime>> =
        LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("s3").enable_all().build());
    RUNTIME.as_ref().map_err(|error| Failure::transient(format!("no threads for requests: {error}")))
}

/// Tells one write from all others.
fn new_token() -> String {
    let mut token = [0_u8; 16];
    match getrandom::fill(&mut token) {
        Ok(()) => hex::encode(token),
        // No randomness: never equal to another's token, and never to our own either, which errs on the side of "taken".
        Err(_) => String::new(),
    }
}

impl Store for S3Store {
    fn describe(&self) -> String {
        self.bucket.described.clone()
    }

    fn put_new(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.check(key)?;
        if body.len() <= 2 * self.bucket.part_size {
            return self.ask(key, self.bucket.put(key, body));
        }
        let mut upload = self.upload_new(key)?;
        upload.write(&body)?;
        upload.finish()
    }

    fn upload_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        self.check(key)?;
        Ok(Box::new(S3Upload::new(self.bucket.clone(), key)))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.check(key)?;
        let header = (range.start < range.end).then(|| format!("bytes={}-{}", range.start, range.end - 1));
        let Some(header) = header else {
            let size = self.size(key)?;
            let inside = range.start == range.end && range.end <= size;
            return if inside { Ok(Bytes::new()) } else { Err(self.out_of_range(key, size, range)) };
        };
        match runtime().and_then(|runtime| runtime.block_on(self.bucket.get(key, Some(&header)))) {
            Ok(fetched) if fetched.total < range.end => Err(self.out_of_range(key, fetched.total, range)),
            Ok(fetched) => Ok(fetched.bytes),
            Err(Failure::BadRange) => Err(self.out_of_range(key, self.size(key)?, range)),
            Err(failure) => Err(self.bucket.error(key, failure)),
        }
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.check(key)?;
        Ok(self.ask(key, self.bucket.get(key, None))?.bytes)
    }

    fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64), StoreError> {
        self.check(key)?;
        if len == 0 {
            return Ok((Bytes::new(), self.size(key)?));
        }
        match runtime().and_then(|runtime| runtime.block_on(self.bucket.get(key, Some(&format!("bytes=-{len}"))))) {
            Ok(fetched) => Ok((fetched.bytes, fetched.total)),
            // There is no last byte of an empty object.
            Err(Failure::BadRange) => Ok((Bytes::new(), self.size(key)?)),
            Err(failure) => Err(self.bucket.error(key, failure)),
        }
    }

    fn head(&self, key: &str) -> Result<Option<Meta>, StoreError> {
        self.check(key)?;
        match runtime().and_then(|runtime| runtime.block_on(self.bucket.head(key))) {
            Ok(found) => Ok(Some(Meta { key: key.to_owned(), size: found.size, modified: found.modified })),
            Err(Failure::NoSuchKey) => Ok(None),
            Err(failure) => Err(self.bucket.error(key, failure)),
        }
    }

    fn list(&self, prefix: &str, after: Option<&str>, each: &mut dyn FnMut(Meta) -> bool) -> Result<(), StoreError> {
        key::check_prefix(&self.bucket.described, prefix)?;
        let mut next = None;
        loop {
            let page = self.ask(prefix, self.bucket.list(prefix, after, None, next))?;
            for object in page.objects {
                let key = object.key.as_deref().and_then(|key| key.strip_prefix(&self.bucket.prefix));
                let Some(key) = key else { continue };
                let meta = Meta { key: key.to_owned(), size: length(object.size), modified: time(object.last_modified) };
                if !each(meta) {
                    return Ok(());
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    fn list_dir(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        key::check_prefix(&self.bucket.described, prefix)?;
        let mut names = BTreeSet::new();
        let mut next = None;
        loop {
            let page = self.ask(prefix, self.bucket.list(prefix, None, Some("/"), next))?;
            let objects = page.objects.into_iter().filter_map(|object| object.key);
            let whole = self.bucket.full_key(prefix);
            names.extend(page.folders.into_iter().chain(objects).filter_map(|key| key.strip_prefix(&whole).map(str::to_owned)));
            next = page.next;
            if next.is_none() {
                return Ok(names.into_iter().collect());
            }
        }
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.check(key)?;
        match self.ask(key, self.bucket.delete(key)) {
            Err(StoreError::NotFound { .. }) => Ok(()),
            done => done,
        }
    }
}

/// Bytes of an object and its whole size.
struct Fetched {
    bytes: Bytes,
    total: u64,
}

/// What HEAD tells.
struct Found {
    size: u64,
    modified: SystemTime,
    writer: Option<String>,
}

struct Page {
    objects: Vec<Object>,
    folders: Vec<String>,
    next: Option<String>,
}

impl Bucket {
    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn error(&self, key: &str, failure: Failure) -> StoreError {
        store_error(&self.described, key, failure)
    }

    /// Remembers that an answer in S3's words came from this bucket.
    fn heard<T>(&self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if matches!(answer, Ok(_) | Err(Failure::NoSuchKey)) {
            self.spoken.store(true, Ordering::Relaxed);
        }
        answer
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), Failure> {
        let token = new_token();
        let size = body.len() as u64;
        let request = || async {
            let put = self.client.put_object().bucket(&self.name).key(self.full_key(key)).if_none_match("*").metadata(WRITER, &token);
            put.body(body.clone().into()).send().await?;
            Ok(())
        };
        for _ in 0..TAKEN_AND_FREE {
            match self.heard(self.retry.run(request).await) {
                Err(Failure::Taken) => (),
                done => return done,
            }
            match self.is_ours(key, &token, size).await {
                Err(Failure::NoSuchKey) => tokio::time::sleep(Duration::from_millis(200)).await,
                known => return known,
            }
        }
        Err(Failure::transient("the key is taken and free again in turn"))
    }

    /// Settles who wrote an object that was in the way: `Ok` if it was this very write.
    async fn is_ours(&self, key: &str, token: &str, size: u64) -> Result<(), Failure> {
        let found = self.head(key).await?;
        let ours = !token.is_empty() && found.writer.as_deref() == Some(token) && found.size == size;
        if ours { Ok(()) } else { Err(Failure::Taken) }
    }

    /// The whole object, or what a `Range` header names of it.
    async fn get(&self, key: &str, range: Option<&str>) -> Result<Fetched, Failure> {
        let request = || async {
            let get = self.client.get_object().bucket(&self.name).key(self.full_key(key)).set_range(range.map(str::to_owned));
            let answer = get.send().await?;
            let announced = answer.content_length.and_then(|len| u64::try_from(len).ok());
            let total = match range {
                Some(_) => answer.content_range.as_deref().and_then(total_of).ok_or_else(no_ranges)?,
                None => announced.unwrap_or_default(),
            };
            let bytes = read_body(answer.body, announced).await?;
            Ok(Fetched { total: total.max(bytes.len() as u64), bytes })
        };
        self.heard(self.retry.run(request).await)
    }

    async fn head(&self, key: &str) -> Result<Found, Failure> {
        let request = || async {
            let found = self.client.head_object().bucket(&self.name).key(self.full_key(key)).send().await?;
            let writer = found.metadata.and_then(|mut fields| fields.remove(WRITER));
            Ok(Found { size: length(found.content_length), modified: time(found.last_modified), writer })
        };
        match self.retry.run(request).await {
            Err(Failure::BareNotFound) if self.spoken.load(Ordering::Relaxed) => Err(Failure::NoSuchKey),
            Err(Failure::BareNotFound | Failure::BareRefusal(_)) => Err(self.why(key).await),
            answer => self.heard(answer),
        }
    }

    /// HEAD is answered without words. GET tells whether the object, the bucket or the permission is missing.
    async fn why(&self, key: &str) -> Failure {
        match self.get(key, Some("bytes=0-0")).await {
            Ok(_) | Err(Failure::BadRange) => Failure::transient("HEAD says that there is nothing, GET that there is"),
            Err(failure) => failure,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, delimiter: Option<&str>, next: Option<String>) -> Result<Page, Failure> {
        let after = after.map(|after| self.full_key(after));
        let request = || async {
            let list = self.client.list_objects_v2().bucket(&self.name).prefix(self.full_key(prefix));
            let list = list.set_start_after(after.clone()).set_delimiter(delimiter.map(str::to_owned)).set_continuation_token(next.clone());
            let page = list.send().await?;
            let folders = page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix).collect();
            let next = page.is_truncated.unwrap_or_default().then_some(page.next_continuation_token).flatten();
            Ok(Page { objects: page.contents.unwrap_or_default(), folders, next })
        };
        self.heard(self.retry.run(request).await)
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        let request = || async {
            self.client.delete_object().bucket(&self.name).key(self.full_key(key)).send().await?;
            Ok(())
        };
        self.retry.run(request).await
    }
}

/// Reads a body whole. One that ends early, or is longer than announced, is a failure that a repetition may cure.
async fn read_body(mut body: ByteStream, announced: Option<u64>) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(announced.unwrap_or_default().min(MOST_RESERVED)).unwrap_or_default());
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| Failure::transient(format!("the answer broke off: {}", error::words(&error))))?;
        bytes.extend_from_slice(&piece);
    }
    match announced {
        Some(announced) if announced != bytes.len() as u64 => {
            Err(Failure::transient(format!("{} bytes of {announced} arrived", bytes.len())))
        }
        _ => Ok(bytes.freeze()),
    }
}

fn no_ranges() -> Failure {
    Failure::refused("it answers a question for a part with the whole object", "repo.N.endpoint", "The service must know range requests.")
}

/// The size in `bytes 0-99/1234`.
fn total_of(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

fn length(len: Option<i64>) -> u64 {
    len.and_then(|len| u64::try_from(len).ok()).unwrap_or_default()
}

fn time(time: Option<DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn store_error(store: &str, key: &str, failure: Failure) -> StoreError {
    let (store, key) = (store.to_owned(), key.to_owned());
    let not_s3 = |what: String| StoreError::Refused {
        store: store.clone(),
        what,
        setting: "repo.N.endpoint",
        hint: "Is it an S3 service, and is its scheme (http or https) right?".to_owned(),
    };
    match failure {
        Failure::NoSuchKey => StoreError::NotFound { store, key },
        Failure::Taken => StoreError::Exists { store, key },
        Failure::Full => StoreError::Full { store, key },
        Failure::Refused { what, setting, hint } => StoreError::Refused { store, what, setting, hint },
        Failure::Transient { what, .. } => StoreError::Unavailable { store, what },
        Failure::BareNotFound => not_s3("it answers 404, but not in the words of S3".to_owned()),
        Failure::BareRefusal(status) => not_s3(format!("it answers {status}, but not in the words of S3")),
        Failure::BadRange => not_s3("it finds a range bad that was not asked for".to_owned()),
        Failure::NoSuchUpload => StoreError::Unavailable { store, what: format!("the upload of {key} was ended by somebody else") },
    }
}
