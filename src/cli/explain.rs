//! `explain`: how a page of a moment is rebuilt.

use std::process::ExitCode;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::Context;
use super::moment::{MomentArgs, open_first};
use super::report::print;
use crate::explain::{BaseBytes, ExplainError, Explained, Explanation, PageChange, explain, parse_block};
use crate::pg::Fork;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tablespace, database and relation file number (1663/5/16384), or a file of the data directory (base/5/16384)
    relation: String,
    /// Number of the block in the relation, or in the file
    #[arg(value_name = "BLOCK")]
    block: u32,
    /// Fork [default: that of the file, or main]
    #[arg(long, value_enum)]
    fork: Option<ForkArg>,
    #[command(flatten)]
    moment: MomentArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ForkArg {
    Main,
    Vm,
    Init,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let fork = args.fork.map(|fork| match fork {
        ForkArg::Main => Fork::Main,
        ForkArg::Vm => Fork::Vm,
        ForkArg::Init => Fork::Init,
    });
    let tag = parse_block(&args.relation, fork, args.block)?;
    let wanted = args.moment.wanted()?;
    let (_archive, opened) = open_first(context, |archive| Ok(archive.open(&wanted, &args.moment.options((0, 0), None))?))?;
    let moment = opened.view.moment.as_ref().ok_or(ExplainError::NotRebuilt)?;
    let explanation = explain(moment, tag)?;
    let (point, backup) = (opened.resolved.point, opened.resolved.backup.to_string());
    if context.json {
        let mut document = as_json(&explanation);
        document["lsn"] = json!(point.lsn.to_string());
        document["timeline"] = json!(point.timeline.0);
        document["backup"] = json!(backup);
        document["to_fetch"] =
            explanation.to_fetch.iter().map(|fetch| json!({ "object": fetch.key, "chunks": fetch.chunks, "bytes": fetch.bytes })).collect();
        print(&format!("{document}\n"));
    } else {
        print(&format!("{tag} at {point}\n{}", as_text(&explanation, "")));
        let (chunks, bytes) =
            explanation.to_fetch.iter().fold((0, 0), |(chunks, bytes), fetch| (chunks + fetch.chunks, bytes + fetch.bytes));
        print(&format!("to fetch: {} in {chunks} chunks of {} objects\n", HumanBytes(bytes), explanation.to_fetch.len()));
        for fetch in &explanation.to_fetch {
            print(&format!("  {}: {} in {} chunks\n", fetch.key, HumanBytes(fetch.bytes), fetch.chunks));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn word(page: PageChange) -> &'static str {
    match page {
        PageChange::Image => "image",
        PageChange::Init => "init",
        PageChange::Change => "change",
    }
}

fn as_text(explanation: &Explanation, indent: &str) -> String {
    let mut text = match &explanation.base {
        BaseBytes::Zeroes if explanation.steps.is_empty() => format!("{indent}base: zeroes, nothing has ever been written here\n"),
        BaseBytes::Zeroes => format!("{indent}base: zeroes, the first record makes the page\n"),
        BaseBytes::Copied { key, offset } => format!("{indent}base: the backup's copy, {key} from byte {offset}\n"),
        BaseBytes::Of(source) => {
            format!("{indent}base: {} as it stood when its database was copied:\n{}", source.tag, as_text(source, &format!("{indent}  ")))
        }
    };
    for step in &explanation.steps {
        text += &match step {
            Explained::Record(line) => format!(
                "{indent}  {}  xid {:<10} {:<28} {:<7}{:>7} bytes\n",
                line.lsn,
                line.xid,
                format!("{} {}", line.rmgr, line.operation),
                word(line.page),
                line.len_bytes
            ),
            Explained::CutMap { end, heap_blocks } => {
                format!("{indent}  {end}  the heap was cut to {heap_blocks} blocks: bits past them are cleared\n")
            }
        };
    }
    text
}

fn as_json(explanation: &Explanation) -> Value {
    let tag = explanation.tag;
    let base = match &explanation.base {
        BaseBytes::Zeroes => json!({ "kind": "zeroes" }),
        BaseBytes::Copied { key, offset } => json!({ "kind": "copied", "object": key, "offset": offset }),
        BaseBytes::Of(source) => json!({ "kind": "other relation", "page": as_json(source) }),
    };
    let step = |step: &Explained| match step {
        Explained::Record(line) => json!({
            "lsn": line.lsn.to_string(), "end": line.end.to_string(), "xid": line.xid, "rmgr": line.rmgr, "operation": line.operation,
            "page": word(line.page), "bytes": line.len_bytes,
        }),
        Explained::CutMap { end, heap_blocks } => json!({ "end": end.to_string(), "cut_to_heap_blocks": heap_blocks }),
    };
    json!({
        "relation": tag.rel.to_string(),
        "fork": tag.fork.to_string(),
        "block": tag.block,
        "base": base,
        "records": explanation.steps.iter().map(step).collect::<Vec<_>>(),
    })
}
