//! A large object in parts: a few on their way at a time, visible only when complete, gone when abandoned.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::super::{StoreError, Upload};
use super::error::Failure;
use super::{Bucket, WRITER, new_token, runtime};

/// Parts on their way at one time; one more is being filled.
const PARTS_UNDER_WAY: usize = 4;

/// S3 allows 10,000 parts. Every so many the part size doubles, so that with 8 MiB to begin with they suffice for its largest object.
const PARTS_OF_ONE_SIZE: usize = 1000;

/// How long an abandoned upload may keep us before its parts are left to the bucket's own clean-up.
const ABORT_PATIENCE: Duration = Duration::from_secs(10);

type Sent = JoinHandle<Result<CompletedPart, Failure>>;

pub(super) struct S3Upload {
    bucket: Arc<Bucket>,
    key: String,
    /// The part being filled.
    filling: Vec<u8>,
    /// Set once there is more than one part.
    parts: Option<Parts>,
}

/// A multipart upload that was begun.
struct Parts {
    id: String,
    token: String,
    under_way: VecDeque<Sent>,
    done: Vec<CompletedPart>,
    begun: usize,
    size: u64,
}

impl S3Upload {
    pub(super) fn new(bucket: Arc<Bucket>, key: &str) -> Self {
        S3Upload { bucket, key: key.to_owned(), filling: Vec::new(), parts: None }
    }

    fn part_size(&self) -> usize {
        let doublings = self.parts.as_ref().map_or(0, |parts| parts.begun / PARTS_OF_ONE_SIZE);
        self.bucket.part_size << doublings
    }

    fn send_part(&mut self) -> Result<(), Failure> {
        let next = Vec::with_capacity(self.part_size());
        let body = Bytes::from(std::mem::replace(&mut self.filling, next));
        let mut parts = match self.parts.take() {
            Some(parts) => parts,
            None => runtime()?.block_on(self.bucket.begin(&self.key))?,
        };
        let sent = parts.send(&self.bucket, &self.key, body);
        self.parts = Some(parts);
        sent
    }

    fn write_parts(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let room = self.part_size().saturating_sub(self.filling.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() >= self.part_size() {
                self.send_part()?;
            }
        }
        Ok(())
    }

    /// What fits one part is one plain request.
    fn finish_parts(&mut self) -> Result<(), Failure> {
        if self.parts.is_some() && !self.filling.is_empty() {
            self.send_part()?;
        }
        let Some(parts) = &mut self.parts else {
            let body = Bytes::from(std::mem::take(&mut self.filling));
            return runtime()?.block_on(self.bucket.put(&self.key, body));
        };
        parts.settle(0)?;
        runtime()?.block_on(self.bucket.complete(&self.key, parts))?;
        self.parts = None;
        Ok(())
    }
}

impl Upload for S3Upload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_parts(bytes).map_err(|failure| self.bucket.error(&self.key, failure))
    }

    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.finish_parts().map_err(|failure| self.bucket.error(&self.key, failure))
    }
}

impl Drop for S3Upload {
    /// Abandons what was not finished: unfinished parts are invisible, but paid for.
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        parts.under_way.iter().for_each(JoinHandle::abort);
        let Ok(runtime) = runtime() else { return };
        let abort = async {
            // A part that arrives after the upload's end would stay.
            for part in parts.under_way {
                drop(part.await);
            }
            self.bucket.abort(&self.key, &parts.id).await
        };
        let aborted = runtime.block_on(async { tokio::time::timeout(ABORT_PATIENCE, abort).await });
        if !matches!(aborted, Ok(Ok(()))) {
            tracing::warn!(
                key = self.key,
                upload = parts.id,
                "an unfinished upload could not be removed; a lifecycle rule of the bucket can do it"
            );
        }
    }
}

impl Parts {
    /// Sends one part in the background, once fewer than [`PARTS_UNDER_WAY`] are on their way.
    fn send(&mut self, bucket: &Arc<Bucket>, key: &str, body: Bytes) -> Result<(), Failure> {
        self.settle(PARTS_UNDER_WAY - 1)?;
        self.begun += 1;
        self.size += body.len() as u64;
        let number = i32::try_from(self.begun).map_err(|_| Failure::transient("too many parts"))?;
        let (bucket, key, id) = (bucket.clone(), key.to_owned(), self.id.clone());
        self.under_way.push_back(runtime()?.spawn(async move { bucket.send_part(&key, &id, number, body).await }));
        Ok(())
    }

    /// Waits until no more than `few` parts are on their way.
    fn settle(&mut self, few: usize) -> Result<(), Failure> {
        while self.under_way.len() > few {
            let Some(oldest) = self.under_way.pop_front() else { break };
            let part = runtime()?.block_on(oldest).map_err(|error| Failure::transient(error.to_string()))??;
            self.done.push(part);
        }
        Ok(())
    }
}

impl Bucket {
    async fn begin(&self, key: &str) -> Result<Parts, Failure> {
        let token = new_token();
        let request = || async {
            let begun = self.client.create_multipart_upload().bucket(&self.name).key(self.full_key(key)).metadata(WRITER, &token);
            let begun = begun.send().await?;
            begun.upload_id.ok_or_else(|| Failure::transient("a multipart upload got no id"))
        };
        let id = self.retry.run(request).await?;
        Ok(Parts { id, token, under_way: VecDeque::new(), done: Vec::new(), begun: 0, size: 0 })
    }

    async fn send_part(&self, key: &str, id: &str, number: i32, body: Bytes) -> Result<CompletedPart, Failure> {
        let request = || async {
            let part = self.client.upload_part().bucket(&self.name).key(self.full_key(key)).upload_id(id).part_number(number);
            let sent = part.body(body.clone().into()).send().await?;
            Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).set_checksum_crc32(sent.checksum_crc32).build())
        };
        self.retry.run(request).await
    }

    /// Puts the parts together under the key, if that is free. A repetition after a lost answer finds our own object.
    async fn complete(&self, key: &str, parts: &Parts) -> Result<(), Failure> {
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.done.clone())).build();
        let request = || async {
            let complete = self.client.complete_multipart_upload().bucket(&self.name).key(self.full_key(key)).upload_id(&parts.id);
            let done = complete.multipart_upload(list.clone()).if_none_match("*").send().await?;
            // The service begins its answer before it knows how the work ends.
            done.e_tag.map(|_tag| ()).ok_or_else(|| Failure::transient("an upload was completed without a tag"))
        };
        match self.retry.run(request).await {
            Err(Failure::Taken | Failure::NoSuchUpload) => self.is_ours(key, &parts.token, parts.size).await,
            done => done,
        }
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), Failure> {
        let request = || async {
            self.client.abort_multipart_upload().bucket(&self.name).key(self.full_key(key)).upload_id(id).send().await?;
            Ok(())
        };
        match self.retry.run(request).await {
            Err(Failure::NoSuchUpload) => Ok(()),
            done => done,
        }
    }
}
