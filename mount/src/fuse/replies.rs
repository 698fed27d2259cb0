//! Replies that know what they answer, so that a refusal can be logged with it.

use fuser::{Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite};

use crate::error::FsError;
use crate::pool::Refuse;

/// A reply and what it was asked for.
pub(super) struct Asked<R> {
    pub(super) reply: R,
    operation: &'static str,
    inode: u64,
}

impl<R> Asked<R> {
    pub(super) fn new(reply: R, operation: &'static str, inode: u64) -> Self {
        Self { reply, operation, inode }
    }

    fn errno(&self, error: &FsError) -> Errno {
        if error.is_failure() {
            tracing::error!(inode = self.inode, operation = self.operation, error = error.chain(), "request failed");
        } else {
            tracing::debug!(inode = self.inode, operation = self.operation, %error, "request refused");
        }
        Errno::from_i32(error.errno())
    }
}

macro_rules! refuse {
    ($($reply:ty),*) => {
        $(impl Refuse for Asked<$reply> {
            fn refuse(self, error: &FsError) {
                let errno = self.errno(error);
                self.reply.error(errno);
            }
        })*
    };
}

refuse!(ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite);
