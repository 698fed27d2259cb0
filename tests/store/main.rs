//! Every store keeps the same promises: one suite, run on memory, a directory and S3.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;
mod faults;
mod rclone;
mod s3_faults;
mod seaweed;

use bygone::store::local::LocalStore;
use bygone::store::memory::MemoryStore;
use bygone::store::s3::S3Store;

/// One test per promise and store; `$make` yields the store and whatever must live as long as it.
macro_rules! conformance {
    ($module:ident, $make:expr) => {
        conformance!($module, $make,
            what_was_put_is_read_back, a_key_is_written_once, racing_writers_have_one_winner, a_range_is_whole_or_an_error,
            the_tail_comes_with_the_size, what_is_missing_is_not_found, an_upload_appears_only_when_finished, an_upload_finds_a_taken_key,
            an_empty_object_is_an_object, keys_are_listed_in_byte_order, a_listing_starts_after_a_key_and_stops_when_told,
            a_folder_shows_its_next_components, deleting_is_final_and_may_be_repeated, a_deleted_key_is_free_again,
            keys_that_leave_the_root_are_refused, many_threads_share_a_store);
    };
    ($module:ident, $make:expr, $($promise:ident),*) => {
        mod $module {
            use super::*;
            $(#[test]
            fn $promise() {
                let (_keep, store) = $make;
                conformance::$promise(&store);
            })*
        }
    };
}

conformance!(memory, ((), MemoryStore::default()));
conformance!(local, {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::new(dir.path());
    (dir, store)
});

conformance!(s3, ((), S3Store::open(&seaweed::settings("conformance")).unwrap()));
conformance!(s3_over_tls, {
    let mut settings = seaweed::settings("tls");
    settings.endpoint = Some(seaweed::seaweed().https.clone());
    settings.ca_file = Some(seaweed::seaweed().ca_file.clone());
    ((), S3Store::open(&settings).unwrap())
});
