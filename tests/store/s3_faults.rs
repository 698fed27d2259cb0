//! What can go wrong between us and an S3 service, and how it is said.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bygone::advice::Advice;
use bygone::store::s3::S3Store;
use bygone::store::settings::{AccessKey, S3Settings};
use bygone::store::{Store, StoreError, probe};
use bytes::Bytes;

use crate::conformance::noise;
use crate::faults::{self, Fault};
use crate::seaweed::{self, ACCESS_KEY, SECRET_KEY, seaweed};

fn patient_for(seconds: u64) -> S3Settings {
    let mut settings = seaweed::settings("faults");
    settings.timeouts.total = Duration::from_secs(seconds);
    settings
}

/// What a time limit of a few seconds must end within, on a machine with much else to do.
const SOON: Duration = Duration::from_secs(30);

fn body() -> Bytes {
    noise(100_000, 9).into()
}

/// A store with one object, and then the planned faults.
fn with_object(faults: &[Fault], forever: bool) -> (S3Store, faults::Plan) {
    // A service that has just been started takes its time.
    let mut settings = patient_for(60);
    S3Store::open(&settings).unwrap().put_new("o", body()).unwrap();
    settings.timeouts.total = Duration::from_secs(if forever { 3 } else { 60 });
    faults::store(&settings, faults, forever)
}

#[test]
fn a_busy_service_is_asked_again() {
    let (store, plan) = with_object(&[Fault::Answer(503, "SlowDown"), Fault::Answer(500, "InternalError"), Fault::Reset], false);
    assert_eq!(store.get("o").unwrap(), body());
    assert_eq!(plan.requests().len(), 4);
}

#[test]
fn a_dead_service_is_given_up_in_the_set_time_with_the_reason() {
    for (fault, words) in [(Fault::Answer(503, "SlowDown"), "SlowDown"), (Fault::Silence, "no answer"), (Fault::Reset, "reset")] {
        let (store, _plan) = with_object(&[Fault::Answer(500, "InternalError"), fault], true);
        let start = Instant::now();
        let error = store.put_new("new", body()).unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable { what, .. } if what.contains(words)), "{error}");
        assert!(start.elapsed() < SOON, "{words}: {:?}", start.elapsed());
        assert!(error.is_retryable() && error.hint().unwrap().contains("repo.N.endpoint"));
    }
}

#[test]
fn a_body_cut_short_is_fetched_again_and_never_passed_on() {
    let (store, plan) = with_object(&[Fault::Cut(1), Fault::Cut(50_000), Fault::None, Fault::Cut(1), Fault::None, Fault::Cut(7)], false);
    assert_eq!(store.get("o").unwrap(), body());
    assert_eq!(store.get_range("o", 10..90_000).unwrap(), body()[10..90_000]);
    assert_eq!(store.get_tail("o", 1000).unwrap(), (body().slice(99_000..), 100_000));
    assert_eq!(plan.requests().len(), 7);
    let (store, _plan) = with_object(&[Fault::Cut(1)], true);
    assert!(matches!(store.get("o").unwrap_err(), StoreError::Unavailable { .. }));
}

/// S3 keeps a checksum of the whole object only. The chunks of a sealed object carry their own.
#[test]
fn a_flipped_bit_is_caught_in_a_whole_object_and_passed_on_in_a_range() {
    let (store, _plan) = with_object(&[Fault::Flip, Fault::None, Fault::Flip], false);
    assert_eq!(store.get("o").unwrap(), body(), "caught by the checksum, and fetched again");
    let flipped = store.get_range("o", 0..1000).unwrap();
    assert_eq!((flipped[0] ^ 1, &flipped[1..]), (body()[0], &body()[1..1000]));
}

#[test]
fn a_write_whose_answer_was_lost_has_succeeded() {
    let (store, plan) = with_object(&[Fault::LoseAnswer], false);
    store.put_new("new", body()).unwrap();
    assert_eq!(plan.requests(), ["PUT", "PUT", "HEAD"]);
    assert!(matches!(store.put_new("new", body()).unwrap_err(), StoreError::Exists { .. }));
    assert_eq!(store.get("new").unwrap(), body());
}

#[test]
fn an_upload_whose_last_answer_was_lost_has_succeeded() {
    let two_parts = noise(10_000_000, 11);
    let sent = [Fault::None, Fault::None, Fault::None, Fault::LoseAnswer];
    let (store, _plan) = with_object(&sent, false);
    let mut upload = store.upload_new("big").unwrap();
    upload.write(&two_parts).unwrap();
    upload.finish().unwrap();
    assert_eq!(store.get("big").unwrap(), two_parts);
}

#[test]
fn a_part_that_fails_is_sent_again() {
    let three_parts = noise(20_000_000, 12);
    let (store, _plan) = with_object(&[Fault::None, Fault::Reset, Fault::Answer(503, "SlowDown"), Fault::LoseAnswer], false);
    store.put_new("big", three_parts.clone().into()).unwrap();
    assert_eq!(store.get("big").unwrap(), three_parts);
}

#[test]
fn an_abandoned_upload_is_removed_from_the_service() {
    let (store, plan) = with_object(&[], false);
    let mut upload = store.upload_new("big").unwrap();
    upload.write(&noise(10_000_000, 13)).unwrap();
    drop(upload);
    // A part that was on its way already may be heard of later.
    assert!(plan.requests().iter().any(|request| request == "DELETE"));
    assert_eq!(store.head("big").unwrap(), None);
}

fn setting(error: &StoreError) -> &'static str {
    match error {
        StoreError::Refused { setting, .. } => setting,
        other => panic!("{other}"),
    }
}

/// The settings that the refusals of every kind of reading name.
fn refused_reads(settings: &S3Settings) -> Vec<&'static str> {
    let store = S3Store::open(settings).unwrap();
    let errors = [
        store.head("a").unwrap_err(),
        store.get("a").unwrap_err(),
        store.get_range("a", 0..1).unwrap_err(),
        store.get_tail("a", 10).unwrap_err(),
        store.list("", None, &mut |_| true).unwrap_err(),
    ];
    errors.iter().map(setting).collect()
}

fn refusals(settings: &S3Settings) -> Vec<&'static str> {
    let mut named = refused_reads(settings);
    named.push(setting(&S3Store::open(settings).unwrap().put_new("a", Bytes::new()).unwrap_err()));
    named
}

#[test]
fn a_wrong_setting_is_named() {
    let right = seaweed::settings("wrong");
    let wrong = |change: &dyn Fn(&mut S3Settings)| {
        let mut settings = right.clone();
        change(&mut settings);
        refusals(&settings).into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let key = |id: &str, secret: &str| Some(AccessKey { id: id.to_owned(), secret: secret.into() });
    assert_eq!(wrong(&|s| s.access_key = key("nobody", SECRET_KEY)), ["repo.N.access-key-id"]);
    assert_eq!(wrong(&|s| s.access_key = key(ACCESS_KEY, "guessed")), ["repo.N.secret-access-key"]);
    assert_eq!(wrong(&|s| s.endpoint = Some(seaweed().https.replace("https", "http"))), ["repo.N.endpoint"], "TLS where we speak none");
    assert_eq!(wrong(&|s| s.endpoint = Some(seaweed().http.replace("http", "https"))), ["repo.N.endpoint"], "no TLS where we do");
}

/// SeaweedFS makes a bucket when something is put into it, so only reading shows this here.
#[test]
fn a_bucket_that_is_not_there_is_no_empty_bucket() {
    let mut settings = seaweed::settings("wrong");
    settings.bucket = "no-such-bucket".to_owned();
    assert_eq!(refused_reads(&settings), ["repo.N.bucket"; 5]);
}

#[test]
fn a_certificate_that_is_not_trusted_is_laid_to_the_ca_file() {
    let mut settings = seaweed::settings("tls");
    settings.endpoint = Some(seaweed().https.clone());
    settings.ca_file = Some(seaweed().ca_file.with_file_name("other-ca.pem"));
    assert_eq!(refusals(&settings), ["repo.N.ca-file"; 6]);
}

#[test]
fn a_ca_file_that_is_none_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = seaweed::settings("tls");
    settings.endpoint = Some(seaweed().https.clone());
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".as_slice();
    for content in [None, Some(&b""[..]), Some(b"no certificate"), Some(broken)] {
        let file = dir.path().join("ca.pem");
        if let Some(content) = content {
            fs_err::write(&file, content).unwrap();
        }
        settings.ca_file = Some(file);
        let error = S3Store::open(&settings).unwrap_err();
        assert!(matches!(&error, StoreError::Refused { setting: "repo.N.ca-file", .. }), "{error}");
    }
}

/// What SeaweedFS does not say by itself is said in its place.
#[test]
fn what_aws_says_of_region_clock_and_room_is_understood() {
    let setting = |status, code| setting(&with_object(&[Fault::Answer(status, code)], true).0.get("o").unwrap_err());
    assert_eq!(setting(400, "AuthorizationHeaderMalformed"), "repo.N.region");
    assert_eq!(setting(301, "PermanentRedirect"), "repo.N.region");
    assert_eq!(setting(403, "RequestTimeTooSkewed"), "the clock of this host");
    assert_eq!(setting(403, "AccessDenied"), "repo.N.access-key-id");
    assert_eq!(setting(400, "ExpiredToken"), "repo.N.profile");
    assert_eq!(setting(501, "NotImplemented"), "repo.N.endpoint");
    let full = with_object(&[Fault::Answer(403, "QuotaExceeded")], true).0.put_new("p", body()).unwrap_err();
    assert!(matches!(full, StoreError::Full { .. }));
}

/// Postgres would take "not there" for the end of the archive.
#[test]
fn a_404_that_is_not_s3s_is_never_taken_for_a_missing_object() {
    let (store, _plan) = with_object(&[Fault::Answer(404, "")], true);
    assert!(matches!(store.get("o").unwrap_err(), StoreError::Refused { setting: "repo.N.endpoint", .. }));
    assert!(matches!(store.head("o").unwrap_err(), StoreError::Refused { setting: "repo.N.endpoint", .. }));
}

#[test]
fn an_endpoint_where_nobody_listens_is_given_up_soon() {
    let mut settings = seaweed::settings("dead");
    for endpoint in ["http://127.0.0.1:1", "https://127.0.0.1:1", "http://no-such-host.invalid"] {
        settings.endpoint = Some(endpoint.to_owned());
        let start = Instant::now();
        let error = S3Store::open(&settings).unwrap().get("a").unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable { store, .. } if store.contains(endpoint)), "{error}");
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[test]
fn without_credentials_the_keys_are_asked_for() {
    let mut settings = seaweed::settings("nobody");
    settings.access_key = None;
    settings.profile = Some("there-is-no-such-profile".to_owned());
    let error = S3Store::open(&settings).and_then(|store| store.get("a")).unwrap_err();
    assert!(matches!(&error, StoreError::Refused { setting, .. } if setting.contains("repo.N.")), "{error}");
}

#[test]
fn a_service_that_keeps_its_promise_passes_the_probe() {
    let store = S3Store::open(&seaweed::settings("probe")).unwrap();
    probe(&store).unwrap();
    let mut left = 0;
    store
        .list("", None, &mut |_| {
            left += 1;
            true
        })
        .unwrap();
    assert_eq!(left, 0, "the probe is removed again");
}
