//! `ls` and `cat`: looks into a moment or a backup without a mount.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bygone_mount::{FileId, Kind, Source};

use super::Context;
use super::moment::{MomentArgs, open_first};
use super::report::print;
use crate::view::open::Archive;
use crate::view::read::View;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Path inside the data directory
    #[arg(default_value = "")]
    path: String,
    #[command(flatten)]
    moment: MomentArgs,
    /// The files of this backup, as they were copied
    #[arg(long, value_name = "LABEL", conflicts_with = "at")]
    backup: Option<String>,
}

/// Bytes read at a time.
const STEP: usize = 1 << 20;

fn view(args: &Args, context: &Context) -> anyhow::Result<View> {
    let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let wanted = args.moment.wanted()?;
    let open = |archive: &Archive| match &args.backup {
        Some(label) => Ok(archive.backup(label, owner)?),
        None => Ok(archive.open(&wanted, &args.moment.options(owner, None))?.view),
    };
    Ok(open_first(context, open)?.1)
}

fn find(view: &View, path: &str) -> anyhow::Result<FileId> {
    let names = path.split('/').filter(|name| !name.is_empty());
    names
        .into_iter()
        .try_fold(view.root(), |dir, name| view.lookup(dir, OsStr::new(name)))
        .with_context(|| format!("{path:?} does not exist at this moment"))
}

pub(super) fn ls(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let view = view(args, context)?;
    let id = find(&view, &args.path)?;
    let mut text = String::new();
    if view.attr(id)?.kind != Kind::Directory {
        text = format!("{:>14} {}\n", view.attr(id)?.size, args.path);
    } else {
        for entry in view.list(id)? {
            let attr = view.attr(entry.id)?;
            let mark = match attr.kind {
                Kind::Directory => "/",
                Kind::Symlink => "@",
                Kind::File => "",
            };
            text += &format!("{:>14} {}{mark}\n", attr.size, entry.name.to_string_lossy());
        }
    }
    print(&text);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn cat(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let view = view(args, context)?;
    let id = find(&view, &args.path)?;
    if view.attr(id)?.kind != Kind::File {
        bail!("{:?} is not a file", args.path);
    }
    let mut out = std::io::stdout().lock();
    let mut buf = vec![0; STEP];
    let mut offset = 0;
    loop {
        let len = view.read(id, offset, &mut buf)?;
        if len == 0 {
            out.flush().context("write to standard output")?;
            return Ok(ExitCode::SUCCESS);
        }
        out.write_all(&buf[..len]).context("write to standard output")?;
        offset += len as u64;
    }
}
