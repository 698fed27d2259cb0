//! docs/commands.md and docs/configuration.md say what the code says: these tests fail when they do not, and rewrite them with `BYGONE_UPDATE_DOCS=1`.

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory as _;

use crate::config::{Kind, SETTINGS, Setting};

fn every_setting() -> String {
    let mut text = "| setting | variable | default | |\n|---|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let default = setting.default.map_or(String::new(), |default| format!("`{default}`"));
        let name = if setting.kind == Kind::Secret { String::new() } else { format!("`{}`", shown(setting)) };
        let variable = setting.variable().replace("REPO_*", "REPO_N").replace("CLUSTER_*", "CLUSTER_NAME");
        writeln!(text, "| {name} | `{variable}` | {default} | {}{} |", setting.about, kind(setting)).expect("text can be written");
    }
    text
}

fn shown(setting: &Setting) -> String {
    setting.name.replace("repo.*", "repo.N").replace("cluster.*", "cluster.NAME")
}

fn kind(setting: &Setting) -> String {
    match setting.kind {
        Kind::Number { min, max } => format!(" {min} to {max}."),
        Kind::Word(words) => format!(" {}.", words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")),
        _ => String::new(),
    }
}

fn every_command() -> String {
    let mut root = super::Cli::command().term_width(100);
    root.build();
    let global = root.clone().render_long_help().to_string();
    let mut text = format!("```text\n{}\n```\n", trimmed(&global));
    add_commands(&root, "bygone", &mut text);
    text
}

fn add_commands(parent: &clap::Command, path: &str, text: &mut String) {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help" && !command.is_hide_set()) {
        let name = format!("{path} {}", command.get_name());
        let help = command.clone().term_width(100).render_long_help().to_string();
        let own = help.split("\nGlobal options:").next().unwrap_or_default();
        write!(text, "\n## {name}\n\n```text\n{}\n```\n", trimmed(own)).expect("text can be written");
        add_commands(command, &name, text);
    }
}

fn trimmed(help: &str) -> String {
    help.trim().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Compares what stands between the two marks of a file with `wanted`.
fn compare(file: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
    let text = fs_err::read_to_string(&path).unwrap();
    let begin =
        text.find("<!-- generated").and_then(|at| Some(at + text[at..].find('\n')? + 1)).expect("the file has a mark where it begins");
    let end = text.rfind("<!-- end -->").expect("the file has a mark where it ends");
    if text[begin..end] == *wanted {
        return;
    }
    assert!(std::env::var_os("BYGONE_UPDATE_DOCS").is_some(), "docs/{file} is out of date: run BYGONE_UPDATE_DOCS=1 cargo test docs");
    fs_err::write(&path, format!("{}{wanted}{}", &text[..begin], &text[end..])).unwrap();
}

#[test]
fn configuration_md_lists_every_setting() {
    compare("configuration.md", &every_setting());
}

#[test]
fn commands_md_shows_every_command() {
    compare("commands.md", &every_command());
}
