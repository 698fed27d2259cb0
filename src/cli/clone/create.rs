//! `clone create`.

use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;
use std::time::Instant;

use jiff::Timestamp;

use super::super::Context;
use super::super::report::print;
use super::list::replayed_by;
use super::{CreateArgs, Took, WARMING, mount, report, server_of, tear_down};
use crate::clone::{CloneError, Clones, Record, ThinClone, User, port, warm};
use crate::view::open::Replay;

pub(super) fn run(args: &CreateArgs, clones: &Clones, context: &Context) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let wanted = args.moment.wanted()?;
    let user = user(args, context)?;
    let claim = clones.claim()?;
    let port = port::choose(clones, &claim, args.port)?;
    let clone = clones.make(&claim, &args.name, &user)?;
    let _starting = clone.begin_start()?;
    let record = Record {
        cluster: context.cluster()?.name.clone(),
        major: None,
        created: Timestamp::now(),
        wanted,
        replay: args.moment.replay(),
        pinned: None,
        user,
        port,
    };
    let mut made = clone.put_record(&record).map_err(Into::into).and_then(|()| {
        drop(claim);
        bring_up(&clone, &record, began, context)
    });
    // What did not come to be leaves nothing behind.
    if !matches!(made, Ok(Ok(()))) {
        match tear_down(&clone, context) {
            Ok(()) => made = made.map_err(without_log),
            Err(error) => tracing::warn!("what was made of clone {} is still there: {error:#}", clone.name()),
        }
    }
    Ok(made?.map_or_else(|code| code, |()| ExitCode::SUCCESS))
}

/// The server's log has gone with the clone: the error quotes its end.
fn without_log(mut error: anyhow::Error) -> anyhow::Error {
    if let Some(CloneError::Server { log, .. }) = error.downcast_mut() {
        *log = None;
    }
    error
}

fn bring_up(clone: &ThinClone, record: &Record, began: Instant, context: &Context) -> anyhow::Result<Result<(), ExitCode>> {
    if let Err(code) = mount(clone, record, context)? {
        return Ok(Err(code));
    }
    let mounted = began.elapsed();
    let warming = warm::begin(clone);
    let record = clone.record()?;
    let server = server_of(clone, &record, context)?;
    server.open_to_owner()?;
    let left_out = server.trim_preloaded()?;
    server.start()?;
    warming.wait_for_first(WARMING);
    if !context.json {
        let moment = record.pinned.as_ref().map(|pinned| pinned.point.to_string()).unwrap_or_default();
        let commit = clone.status().and_then(|status| status.last_commit).map(|time| format!(", last commit {time}")).unwrap_or_default();
        print(&format!("clone {} is the cluster at {moment}{commit}\n", clone.name()));
        if let Some(pinned) = record.pinned.as_ref().filter(|pinned| pinned.replay != Replay::Bygone) {
            let since = clone.status().and_then(|status| status.fell_back).map(|why| format!(", since {why}")).unwrap_or_default();
            print(&format!("the WAL was replayed by {}{since}\n", replayed_by(pinned)));
        }
        for left in &left_out {
            print(&format!("{} is not loaded: {}\n", left.library, left.why));
        }
    }
    report(clone, &record, &Took { mount: mounted, server: began.elapsed().saturating_sub(mounted) }, context);
    Ok(Ok(()))
}

/// Whom the server runs as: whoever runs this, unless that is root, as whom Postgres does not run.
fn user(args: &CreateArgs, context: &Context) -> anyhow::Result<User> {
    let me = rustix::process::geteuid();
    if !me.is_root() {
        return Ok(User::find(&me.as_raw().to_string())?);
    }
    if let Some(name) = args.owner.as_ref().or(context.config.clone_user.as_ref()) {
        return Ok(User::find(name)?);
    }
    let owner = fs_err::metadata(&context.cluster()?.data_directory).map(|meta| meta.uid()).ok().filter(|uid| *uid != 0);
    Ok(User::find(&owner.map_or("postgres".to_owned(), |uid| uid.to_string()))?)
}
