//! `coracle explain`: what a module is, what it wants, and whether it can run. A file is read here, without a daemon; of a name
//! the daemon sends the bytes. Nothing is compiled, and nothing of the module runs.

use super::colour::Brush;
use super::failure::Failure;
use super::file::{self, ModuleFile};
use super::{CANNOT_RUN, Outcome, advice, on_a_runtime, print, print_json, template_lines};
use crate::client::{Client, Target};
use crate::engine;
use crate::error::Code;
use crate::model::escape;
use crate::model::explain::{MEMORY_DEFAULT, Memory, Producer, Report};
use crate::model::request::OutputFormat;
use bytesize::ByteSize;
use clap::Args;
use std::io::{IsTerminal, Write};

/// The largest module that is looked at: four times what a daemon takes unless told otherwise.
const BYTES_MAX: usize = 512 << 20;
/// Columns that names of imports and exports are broken at.
const COLUMNS: usize = 100;

/// Arguments of `explain`.
#[derive(Debug, Clone, Args)]
pub(super) struct ExplainArgs {
    /// A file (./app.wasm, ./app.wat), or the name of a module that the daemon has
    #[arg(value_name = "FILE|NAME")]
    module: String,
    /// How to show it: table, json, or a template such as '{{.kind}} {{.runs}}' over the fields of the JSON [default: table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<OutputFormat>,
}

/// Tells it. The exit code is 0 for what can run, and that of a run for what cannot.
pub(super) fn explain(target: impl FnOnce() -> Result<Target, Failure>, args: &ExplainArgs) -> Outcome {
    if file::is_path(&args.module) {
        let module = ModuleFile::read_up_to(&args.module, BYTES_MAX)?;
        let (bytes, text) = module.content();
        return show(args, bytes, text);
    }
    let target = target()?;
    on_a_runtime(async {
        let mut client = Client::connect(target).await.map_err(|e| {
            let failure = Failure::from(e);
            failure.hint(format!("a file needs no daemon: coracle explain ./{}.wasm", args.module))
        })?;
        match client.get(&args.module, BYTES_MAX).await {
            Ok((bytes, view)) => show(args, &bytes, view.text),
            Err(e) => {
                let failure = Failure::from(e);
                match failure.refused {
                    Some(Code::NoModule) => Err(of_instance(failure, &mut client, &args.module).await),
                    _ => Err(failure),
                }
            }
        }
    })
}

/// There is no such module, but there may be an instance of that name, and it has one.
async fn of_instance(failure: Failure, client: &mut Client, name: &str) -> Failure {
    let instances = tokio::time::timeout(advice::PATIENCE, client.list()).await;
    let instances = instances.ok().and_then(Result::ok).unwrap_or_default();
    match instances.iter().find(|view| view.name.as_str().eq_ignore_ascii_case(name)) {
        Some(view) => failure
            .hint(format!("'{}' is an instance of the module '{1}': coracle explain {1}", view.name, view.module)),
        None => failure,
    }
}

/// `coracle get`: the bytes, on standard output.
pub(super) async fn get(client: &mut Client, name: &str) -> Outcome {
    if std::io::stdout().is_terminal() {
        return Err(
            Failure::new("a module is no text for a terminal").hint(format!("coracle get {name} > {name}.wasm"))
        );
    }
    let (bytes, _) = client.get(name, BYTES_MAX).await?;
    let mut out = std::io::stdout().lock();
    match out.write_all(&bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(0),
        Err(e) => super::quiet_if_closed(e),
    }
}

fn show(args: &ExplainArgs, bytes: &[u8], text: bool) -> Outcome {
    let report = Report::of(&args.module, &engine::facts(bytes, text));
    match args.format.clone().unwrap_or_default() {
        OutputFormat::Template(template) => print(&template_lines(&template, [&report])?)?,
        OutputFormat::Json => print_json(&report)?,
        OutputFormat::Table => print(&page(&report, Brush::on(&std::io::stdout())))?,
    };
    Ok(if report.runs { 0 } else { CANNOT_RUN })
}

/// For people: what is told of a module passes `escape`, for it is the module's.
fn page(report: &Report, brush: Brush) -> String {
    let mut page = String::new();
    let mut row = |head: &str, text: &str| page.push_str(&format!("{head:9} {}\n", escape::line(text)));
    row("module", &format!("{}, {}, {}", report.module, ByteSize(wide(report.bytes)), report.format));
    row("kind", report.kind.text());
    if let Some(made_for) = report.made_for {
        row("made for", made_for);
    }
    for producer in &report.producers {
        row("made by", &made_by(producer));
    }
    for memory in &report.memories {
        row("memory", &memory_text(memory));
    }
    match report.memories_count - report.memories.len() {
        0 => {}
        more => row("memory", &format!("and {more} more")),
    }
    if report.imports.is_empty() {
        row("imports", "nothing");
    }
    for group in &report.imports {
        let refused = if group.provided { "" } else { ", REFUSED" };
        row("imports", &format!("{}{refused}: {}", group.what, names(&group.names, group.count)));
    }
    if report.exports_count == 0 {
        row("exports", "nothing");
    } else {
        row("exports", &names(&report.exports, report.exports_count));
    }
    for grant in &report.grants {
        row("grant", grant);
    }
    match &report.why {
        None => {
            page.push_str(&format!("{:9} {}\n", "verdict", brush.good("it can run")));
        }
        Some(why) => {
            page.push_str(&format!("{:9} {} {}\n", "verdict", brush.bad("it cannot run:"), escape::line(why)));
        }
    }
    if let Some(way_out) = &report.way_out {
        page.push_str(&format!("{:9} {}\n", "way out", escape::line(way_out)));
    }
    if let Some(command) = &report.command {
        page.push_str(&format!("{:9} {}\n", "run it", escape::line(command)));
    }
    page
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn made_by(producer: &Producer) -> String {
    let version = if producer.version.is_empty() { String::new() } else { format!(" {}", producer.version) };
    let what = if producer.field == "language" { " (language)" } else { "" };
    format!("{}{version}{what}", producer.name)
}

fn memory_text(memory: &Memory) -> String {
    let most = match memory.maximum_bytes {
        Some(bytes) => format!("{} at the most", ByteSize(bytes)),
        None => format!("more as far as its run lets it ({} unless -m says otherwise)", ByteSize(MEMORY_DEFAULT)),
    };
    let whose = if memory.imported { ", to be given to it" } else { "" };
    format!("{} to begin with, {most}{whose}", ByteSize(memory.initial_bytes))
}

/// As many as fit a line, and how many more there are.
fn names(names: &[String], count: usize) -> String {
    let mut text = String::new();
    let mut shown = 0;
    for name in names {
        let name = escape::short(name, 60);
        if shown > 0 && text.chars().count() + name.chars().count() > COLUMNS {
            break;
        }
        if shown > 0 {
            text.push_str(", ");
        }
        text.push_str(&name);
        shown += 1;
    }
    match count - shown {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::explain::{Facts, Form, Import, Start};

    #[test]
    fn a_page_is_printable_whatever_a_module_says() {
        let hostile = "a\x1b[2J\n\u{202e}".to_owned();
        let producer = Producer { field: "language".into(), name: hostile.clone(), version: hostile.clone() };
        let import = Import { module: hostile.clone(), name: hostile.clone(), ..Import::default() };
        let facts = Facts {
            form: Some(Form::Module),
            start: Start::Function,
            imports: vec![import],
            exports: vec![hostile.clone()],
            producers: vec![producer],
            ..Facts::default()
        };
        let page = page(&Report::of(&hostile, &facts), Brush::default());
        assert!(!page.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{page:?}");
        assert_eq!(page.lines().count(), 8, "{page}");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let many: Vec<String> = (0..64).map(|n| format!("function_{n}")).collect();
        let text = names(&many, 1000);
        assert!(text.len() < 130 && text.ends_with(" and 992 more"), "{text}");
        assert_eq!(names(&many[..2], 2), "function_0, function_1");
    }
}
