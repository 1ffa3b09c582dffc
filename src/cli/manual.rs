//! `coracle man`: pages for man(1), and the reference in Markdown, of the definitions that the command line is read with.

use super::{Failure, Outcome, command, print};
use clap::builder::StyledStr;
use clap::{Arg, Args, Command};
use clap_mangen::Man;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Arguments of `man`.
#[derive(Debug, Clone, Args)]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory, which is made if it is not there
    #[arg(long, value_name = "DIR", conflicts_with_all = ["markdown", "verb"])]
    out: Option<PathBuf>,
    /// Print the reference of every command and flag in Markdown instead
    #[arg(long, conflicts_with = "verb")]
    markdown: bool,
    /// The command whose page is printed [default: the page about all of them]
    #[arg(value_name = "COMMAND")]
    verb: Option<String>,
}

/// Prints a page, or writes all.
pub(super) fn manual(args: &ManArgs) -> Outcome {
    if args.markdown {
        return print(&markdown());
    }
    let failed = |e: std::io::Error| Failure::new(format!("cannot write the manual: {e}"));
    let grammar = grammar();
    if let Some(directory) = &args.out {
        std::fs::create_dir_all(directory).map_err(failed)?;
        let verbs = grammar.get_subcommands().filter(|c| !c.is_hide_set());
        for shown in std::iter::once(&grammar).chain(verbs) {
            let (name, page) = page(shown).map_err(failed)?;
            std::fs::write(directory.join(format!("{name}.1")), page).map_err(failed)?;
        }
        return Ok(0);
    }
    let shown = match &args.verb {
        None => &grammar,
        Some(verb) => grammar
            .find_subcommand(verb)
            .ok_or_else(|| Failure::new(format!("there is no command '{verb}'")).hint("`coracle help` lists them"))?,
    };
    print(&page(shown).map_err(failed)?.1)
}

/// The name of a page, and its text.
fn page(shown: &Command) -> std::io::Result<(String, String)> {
    let name = shown.get_display_name().unwrap_or_else(|| shown.get_name()).to_owned();
    let mut page = vec![];
    Man::new(shown.clone()).render(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    // With a place for the date, which there is none of: without it what comes next is taken for one.
    let title = format!(".TH {name} 1 \"\" \"coracle {}\" \"Coracle\"", env!("CARGO_PKG_VERSION"));
    let lines = page.lines().map(|line| if line.starts_with(".TH ") { &title } else { line });
    Ok((name, lines.map(|line| format!("{line}\n")).collect()))
}

/// As it is read, with the names that pages are called by.
fn grammar() -> Command {
    let mut grammar = command();
    grammar.build();
    grammar
}

/// Every command and flag that is shown in help, in its order.
fn markdown() -> String {
    let grammar = grammar();
    let mut text = String::from(
        "# Commands and flags\n\nWritten by `coracle man --markdown` from the definitions that the command line is read with; do \
         not edit.\n",
    );
    let global = |arg: &&Arg| arg.is_global_set();
    text.push_str("\n## Flags of all commands\n\n");
    flags(&mut text, grammar.get_arguments().filter(global));
    for verb in grammar.get_subcommands().filter(|c| !c.is_hide_set()) {
        let aliases: Vec<String> = verb.get_visible_aliases().map(|alias| format!(", `{alias}`")).collect();
        heading(&mut text, verb, &aliases.concat());
        let own = verb.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help");
        flags(&mut text, own);
        if let Some(more) = verb.get_after_help() {
            paragraph(&mut text, more);
        }
    }
    if let Some(more) = grammar.get_after_help() {
        text.push_str("\n## Exit codes\n");
        paragraph(&mut text, more);
    }
    text
}

fn heading(text: &mut String, verb: &Command, aliases: &str) {
    // To a string nothing fails.
    let _written = write!(text, "\n## `{}`{aliases}\n", verb.get_name());
    if let Some(about) = verb.get_about() {
        paragraph(text, about);
    }
    let usage = verb.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let _written = write!(text, "\n```text\n{usage}\n```\n\n");
}

fn paragraph(text: &mut String, of: &StyledStr) {
    let _written = write!(text, "\n{}.\n", cell(of).trim_end_matches('.'));
}

/// A table, one argument a line; nothing if there is none.
fn flags<'a>(text: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let mut args = args.filter(|arg| !arg.is_hide_set()).peekable();
    if args.peek().is_none() {
        text.truncate(text.trim_end().len());
        text.push('\n');
        return;
    }
    text.push_str("| argument | default | what |\n| --- | --- | --- |\n");
    for arg in args {
        let default: Vec<_> =
            arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        let default = if arg.get_action().takes_values() { default.join(", ") } else { String::new() };
        let mut what = arg.get_help().map(cell).unwrap_or_default();
        let possible: Vec<_> = arg.get_possible_values().iter().filter(|v| !v.is_hide_set()).map(possible).collect();
        if arg.get_action().takes_values() && !possible.is_empty() {
            what = format!("{what} ({})", possible.join("; "));
        }
        if let Some(variable) = arg.get_env() {
            what = format!("{what} (or in the environment: `{}`)", variable.to_string_lossy());
        }
        let _written = writeln!(text, "| {} | {default} | {what} |", spelled(arg));
    }
}

fn possible(value: &clap::builder::PossibleValue) -> String {
    match value.get_help() {
        Some(help) => format!("`{}`: {}", value.get_name(), cell(help).trim_end_matches('.')),
        None => format!("`{}`", value.get_name()),
    }
}

/// `-t`, `--time TIME`.
fn spelled(arg: &Arg) -> String {
    let values: Vec<&str> = arg.get_value_names().unwrap_or_default().iter().map(AsRef::as_ref).collect();
    let value = if arg.get_action().takes_values() { values.join(" ") } else { String::new() };
    let value = escaped(&value);
    let long = arg.get_long().map(|long| format!("`--{long} {value}`").replace(" `", "`"));
    match (arg.get_short(), long) {
        (Some(short), Some(long)) => format!("`-{short}`, {long}"),
        (Some(short), None) => format!("`-{short}`"),
        (None, Some(long)) => long,
        (None, None) => format!("`{value}`"),
    }
}

/// One line that fits a table.
fn cell(of: &StyledStr) -> String {
    escaped(&of.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
