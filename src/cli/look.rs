//! `ls` and `cat`: looks into a moment or a backup without a mount.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bygone_mount::{Attr, FileId, Kind, Source};
use serde_json::{Value, json};

use super::Context;
use super::moment::{MomentArgs, open_first};
use super::report::print;
use crate::view::open::Archive;
use crate::view::read::View;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Path inside the data directory
    #[arg(default_value = "")]
    path: OsString,
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

/// As many links as Linux follows on one path.
const MAX_LINKS: usize = 40;

/// Follows links that stay inside, as those of tablespaces do; one that leads elsewhere is no place of this moment.
fn find(view: &View, path: &OsStr) -> anyhow::Result<FileId> {
    let (mut dirs, mut links) = (vec![view.root()], 0);
    let mut rest: Vec<OsString> = names(path).rev().collect();
    let nowhere = || format!("{} does not exist at this moment", Path::new(path).display());
    while let Some(name) = rest.pop() {
        let dir = *dirs.last().with_context(nowhere)?;
        if name == ".." {
            dirs.pop();
            continue;
        }
        let id = view.lookup(dir, &name).with_context(nowhere)?;
        if view.attr(id)?.kind != Kind::Symlink {
            dirs.push(id);
            continue;
        }
        let target = view.read_link(id)?;
        links += 1;
        if Path::new(&target).is_absolute() || links > MAX_LINKS {
            bail!("{} leads to {}, which is not part of this moment", Path::new(path).display(), Path::new(&target).display());
        }
        rest.extend(names(&target).rev());
    }
    dirs.pop().with_context(nowhere)
}

fn names(path: &OsStr) -> impl DoubleEndedIterator<Item = OsString> + use<'_> {
    path.as_bytes().split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).map(|name| OsStr::from_bytes(name).to_owned())
}

pub(super) fn ls(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let view = view(args, context)?;
    let id = find(&view, &args.path)?;
    let mut files = Vec::new();
    if view.attr(id)?.kind == Kind::Directory {
        for entry in view.list(id)? {
            files.push((entry.name.to_string_lossy().into_owned(), view.attr(entry.id)?));
        }
    } else {
        files.push((Path::new(&args.path).display().to_string(), view.attr(id)?));
    }
    let as_json = |(name, attr): &(String, Attr)| json!({ "name": name, "type": kind(attr.kind).0, "size": attr.size });
    let as_line = |(name, attr): &(String, Attr)| format!("{:>14} {name}{}\n", attr.size, kind(attr.kind).1);
    print(&if context.json { format!("{}\n", files.iter().map(as_json).collect::<Value>()) } else { files.iter().map(as_line).collect() });
    Ok(ExitCode::SUCCESS)
}

/// The word for it, and the mark behind its name.
fn kind(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Directory => ("directory", "/"),
        Kind::Symlink => ("symlink", "@"),
        Kind::File => ("file", ""),
    }
}

pub(super) fn cat(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let view = view(args, context)?;
    let id = find(&view, &args.path)?;
    if view.attr(id)?.kind != Kind::File {
        bail!("{} is not a file", Path::new(&args.path).display());
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
