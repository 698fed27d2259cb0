//! Prints: results to standard output, errors and logs to standard error.
//!
//! An error is printed as Postgres prints one: `error:`, then `detail:` and `hint:` where the chain of causes offers any ([`Advice`]).

use std::error::Error;
use std::fmt;
use std::io::{IsTerminal as _, Write as _};

use rustix::io::Errno;
use serde_json::{Value, json};
use tracing::field::Field;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::advice::Advice;

/// Writes to standard output. A reader that has gone (`bygone info | head`) is no error; any other is told, since a result that was not written is none.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        tell(&format!("error: standard output cannot be written: {error}\n"));
        std::process::exit(1);
    }
}

/// Writes to standard error. Nobody is left to tell if that fails, and the exit code says enough: it must not become another.
fn tell(text: &str) {
    let mut err = std::io::stderr().lock();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
}

/// Logs go to standard error: warnings and errors always, more with `-v`; `BYGONE_LOG` takes a filter such as `info,bygone::store=trace`.
pub(super) fn start_logging(verbose: u8) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
    // fuser warns when it finds that we have unmounted already.
    let chosen = format!("warn,fuser=error,bygone={level},bygone_mount={level}");
    let filter =
        std::env::var("BYGONE_LOG").ok().and_then(|filter| EnvFilter::try_new(filter).ok()).unwrap_or_else(|| EnvFilter::new(chosen));
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal).with_target(verbose > 1);
    let lines = lines.log_internal_errors(false);
    tracing_subscriber::registry().with(lines.with_filter(Awaited)).with(filter).init();
}

/// Leaves out what fuser calls an error though nothing is wrong: that nobody waits for an answer any more, because the reader was killed (ENOENT) or the
/// mount has ended (ENODEV).
struct Awaited;

impl<S: Subscriber> Filter<S> for Awaited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let mut unawaited = false;
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            unawaited |= field.name() == "message" && is_unawaited(&format!("{value:?}"));
        });
        !unawaited
    }
}

/// As fuser words it; the operating system's number stands at the end.
fn is_unawaited(message: &str) -> bool {
    message.starts_with("Failed to send FUSE reply: ")
        && [Errno::NOENT, Errno::NODEV].iter().any(|errno| message.ends_with(&format!("(os error {})", errno.raw_os_error())))
}

/// Prints an error once, with all its causes; as one JSON object if a program asked.
pub(super) fn error(error: &anyhow::Error, as_json: bool) {
    let told = Told::of(error);
    if as_json {
        tell(&format!("{}\n", json!({ "error": told.message, "detail": told.detail, "hint": told.hint })));
        return;
    }
    let mut text = format!("error: {}\n", told.message);
    for detail in told.detail.iter().flat_map(|detail| detail.lines()) {
        text += &format!("detail: {detail}\n");
    }
    if let Some(hint) = told.hint {
        text += &format!("hint: {hint}\n");
    }
    tell(&text);
}

/// Prints what is wrong with one repository while the others are worked on; gives it as an object for `--json`.
pub(super) fn of_repository(number: u32, error: anyhow::Error, as_json: bool) -> Value {
    let error = error.context(format!("repository {number}"));
    self::error(&error, as_json);
    json!({ "repository": number, "error": Told::of(&error).message })
}

/// What an error says.
pub(super) struct Told {
    /// The sentences of the chain, the outermost first.
    pub(super) message: String,
    /// One line for each cause that has a detail.
    pub(super) detail: Option<String>,
    /// That of the outermost cause that has one: it knows most of what was being done.
    pub(super) hint: Option<String>,
}

impl Told {
    /// Walks the chain of causes.
    pub(super) fn of(error: &anyhow::Error) -> Told {
        let advice: Vec<&dyn Advice> = error.chain().filter_map(advice_of).collect();
        let mut details: Vec<String> = advice.iter().filter_map(|advice| advice.detail()).collect();
        details.dedup();
        Told {
            message: sentences(error.chain()),
            detail: (!details.is_empty()).then(|| details.join("\n")),
            hint: advice.iter().find_map(|advice| advice.hint()),
        }
    }
}

/// The sentences of an error and its causes, in a row.
fn sentences<'e>(chain: impl Iterator<Item = &'e (dyn Error + 'static)>) -> String {
    let mut sentences: Vec<String> = Vec::new();
    for cause in chain {
        let sentence = cause.to_string();
        // A wrapper that shows its cause's sentence as its own adds nothing.
        if sentences.last().is_none_or(|last| !last.ends_with(&sentence)) {
            sentences.push(sentence);
        }
    }
    sentences.join(": ")
}

/// The same of an error that ends nothing: a line of a report.
pub(super) fn in_a_line(error: &(dyn Error + 'static)) -> String {
    sentences(anyhow::Chain::new(error))
}

/// The advice of an error, if it is one of ours: Rust cannot ask an error for a trait, so that every type is listed here.
fn advice_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e dyn Advice> {
    macro_rules! first_of {
        ($($known:ty),+ $(,)?) => { None$(.or_else(|| error.downcast_ref::<$known>().map(|known| known as &'e dyn Advice)))+ };
    }
    first_of!(
        crate::archive::backup::BackupError,
        crate::archive::check::CheckError,
        crate::archive::get::GetError,
        crate::archive::incarnation::IncarnationError,
        crate::archive::index::IndexingError,
        crate::archive::push::PushError,
        crate::clone::CloneError,
        crate::config::ConfigError,
        crate::explain::ExplainError,
        crate::repo::RepoError,
        crate::repo::cluster::ClusterError,
        crate::repo::moment::MomentError,
        crate::view::content::ReadError,
        crate::view::open::OpenError,
        bygone_mount::MountError,
        crate::store::StoreError,
    )
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::config::ConfigError;
    use crate::store::StoreError;

    #[test]
    fn an_error_tells_its_causes_its_detail_and_its_hint() {
        let missing = ConfigError::Missing { name: "repo.1.path".to_owned(), why: "no repository is configured" };
        let told = Told::of(&anyhow::Error::new(missing).context("read the configuration"));
        assert_eq!(told.message, "read the configuration: setting repo.1.path is missing");
        assert_eq!(told.detail.as_deref(), Some("no repository is configured"));
    }

    #[test]
    fn the_hint_of_an_inner_cause_is_found() {
        let full = StoreError::Full { store: "/r".to_owned(), key: "k".to_owned() };
        let told = Told::of(&Err::<(), _>(full).context("write").unwrap_err());
        assert_eq!(told.message, "write: /r is full, k was not written");
        assert!(told.hint.is_some());
    }

    #[test]
    fn only_answers_that_nobody_waits_for_are_left_out() {
        let failed = |errno: i32| format!("Failed to send FUSE reply: {}", std::io::Error::from_raw_os_error(errno));
        assert!(is_unawaited(&failed(2)) && is_unawaited(&failed(19)));
        assert!(!is_unawaited(&failed(22)), "the kernel refused it: the reader sees an I/O error");
        assert!(!is_unawaited(&std::io::Error::from_raw_os_error(2).to_string()));
    }
}
