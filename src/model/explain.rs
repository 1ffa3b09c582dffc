//! What a module is, in words: what it wants, whether it can run here, and if not, what to do about it.
//!
//! Pure: [`Facts`] are read by the engine, and judged here in the order in which a run judges them.

use crate::model::wasi::{self, Refused};
use serde::Serialize;

/// Memory of a run that says nothing of it (`coracle daemon --memory`), in bytes.
pub const MEMORY_DEFAULT: u64 = 256 << 20;
/// Memories that an instance may have.
const MEMORIES_MAX: usize = 16;
/// Names that are told of each group.
const NAMES_MAX: usize = 64;
/// Bytes that are told of a name: a module may have names as long as it likes.
const NAME_BYTES_MAX: usize = 256;

/// What was read of a module.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its size, as it was given.
    pub bytes: usize,
    /// Whether that was WebAssembly text.
    pub text: bool,
    /// None: it is no WebAssembly, or was not looked at because it is absurd.
    pub form: Option<Form>,
    /// Why it cannot be compiled.
    pub broken: Option<String>,
    /// What of WebAssembly it needs and is off here.
    pub proposals: Vec<String>,
    /// What it imports; of a component its own imports only.
    pub imports: Vec<Import>,
    /// The names of what it exports.
    pub exports: Vec<String>,
    /// Its `_start`.
    pub start: Start,
    /// Memories, those of modules in a component too.
    pub memories: Vec<Memory>,
    /// What made it, as it says itself.
    pub producers: Vec<Producer>,
}

/// Which of the two kinds of WebAssembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// What is exported as `_start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// Nothing.
    #[default]
    Missing,
    /// Something that cannot be called.
    Other,
    /// A function without parameters and results.
    Function,
}

/// An import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// From where; empty of a component's.
    pub module: String,
    /// What.
    pub name: String,
    /// Of a function: its parameters, `:`, its results.
    pub signature: Option<String>,
    /// Whether it only names types, which nobody has to give.
    pub of_types: bool,
}

/// A memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What it has to begin with.
    pub initial_bytes: u64,
    /// What it may grow to; none: as far as it is let.
    pub maximum_bytes: Option<u64>,
    /// Whether somebody else has to give it.
    pub imported: bool,
}

/// A tool that made it (the `producers` section).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub field: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A program of WASI preview 1.
    Command,
    /// A component that is a program.
    CommandComponent,
    /// A library that wants to be initialized first.
    Reactor,
    /// A module that exports functions for somebody else.
    Library,
    /// A component that is no program.
    Component,
    /// No WebAssembly, or what was not looked at.
    Unknown,
}

/// Imports that are for one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What they are for; of what is refused, where it comes from.
    pub what: String,
    /// Whether a run gives it.
    pub provided: bool,
    /// Their names, not more than a screen of them.
    pub names: Vec<String>,
    /// How many there are.
    pub count: usize,
}

/// All of it, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was asked about.
    pub module: String,
    /// Its size, in bytes.
    pub bytes: usize,
    /// `binary` or `text`.
    pub format: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it was made for, if that is something else.
    pub made_for: Option<&'static str>,
    /// What made it.
    pub producers: Vec<Producer>,
    /// Its memories, as many as an instance may have.
    pub memories: Vec<Memory>,
    /// How many there are.
    pub memories_count: usize,
    /// What it imports.
    pub imports: Vec<Group>,
    /// What it exports, not more than a screen of it.
    pub exports: Vec<String>,
    /// How much that is.
    pub exports_count: usize,
    /// What a run may want to give it, in sentences.
    pub grants: Vec<String>,
    /// Whether a run would begin.
    pub runs: bool,
    /// Why not, in one sentence.
    pub why: Option<String>,
    /// What to do about it.
    pub way_out: Option<String>,
    /// The least command that runs it.
    pub command: Option<String>,
}

/// Why it does not run, and the way out.
type Verdict = Result<(), (String, Option<String>)>;

impl Report {
    /// Judges a module that is called `name` on a command line.
    pub fn of(name: &str, facts: &Facts) -> Report {
        let judged: Vec<_> = facts.imports.iter().map(|import| judge(facts, import)).collect();
        let made_for = judged.iter().filter_map(|judged| judged.as_ref().err()).find_map(|refused| refused.made_for);
        let verdict = verdict(facts, &judged);
        let (why, way_out) = match &verdict {
            Ok(()) => (None, None),
            Err((why, way_out)) => (Some(why.clone()), way_out.clone()),
        };
        Report {
            module: name.to_owned(),
            bytes: facts.bytes,
            format: if facts.text { "text" } else { "binary" },
            kind: kind(facts),
            made_for,
            producers: facts.producers.iter().take(NAMES_MAX).map(told).collect(),
            memories: facts.memories.iter().take(MEMORIES_MAX).cloned().collect(),
            memories_count: facts.memories.len(),
            imports: groups(facts, &judged),
            exports: facts.exports.iter().take(NAMES_MAX).map(|name| cut(name)).collect(),
            exports_count: facts.exports.len(),
            grants: grants(facts, &judged),
            runs: verdict.is_ok(),
            why,
            way_out,
            command: verdict.is_ok().then(|| command(name, facts)),
        }
    }
}

/// A name as far as it is told.
fn cut(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES_MAX)])
}

fn told(producer: &Producer) -> Producer {
    Producer { field: cut(&producer.field), name: cut(&producer.name), version: cut(&producer.version) }
}

fn judge(facts: &Facts, import: &Import) -> Result<&'static str, Refused> {
    match facts.form {
        Some(Form::Component) if import.of_types => wasi::of_component(&import.name).or(Ok("names of types")),
        Some(Form::Component) => wasi::of_component(&import.name),
        _ => wasi::of_core(&import.module, &import.name, import.signature.as_deref()),
    }
}

fn is_run(export: &str) -> bool {
    export.starts_with("wasi:cli/run@0.2.")
}

fn kind(facts: &Facts) -> Kind {
    let exports = |name: &str| facts.exports.iter().any(|export| export == name);
    match (facts.form, facts.start) {
        (None, _) => Kind::Unknown,
        (Some(Form::Component), _) if facts.exports.iter().any(|export| is_run(export)) => Kind::CommandComponent,
        (Some(Form::Component), _) => Kind::Component,
        (Some(Form::Module), Start::Function) => Kind::Command,
        (Some(Form::Module), _) if exports("_initialize") => Kind::Reactor,
        (Some(Form::Module), _) => Kind::Library,
    }
}

impl Kind {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Kind::Command => "a program of WASI preview 1 (it exports `_start`)",
            Kind::CommandComponent => "a program of WASI 0.2 (a component that exports `wasi:cli/run`)",
            Kind::Reactor => "a library (a reactor: it exports `_initialize`, and no `_start`)",
            Kind::Library => "a library (it exports no `_start`)",
            Kind::Component => "a component that is no program (it does not export `wasi:cli/run`)",
            Kind::Unknown => "nothing that could be read",
        }
    }
}

/// In the order of a run: first what the compiler says, then what is missing, then what is imported.
fn verdict(facts: &Facts, judged: &[Result<&'static str, Refused>]) -> Verdict {
    if let Some(why) = &facts.broken {
        if facts.proposals.is_empty() {
            return Err((why.clone(), None));
        }
        let needs = facts.proposals.join(", ");
        return Err((format!("it needs what is off here, and no flag turns on: {needs}"), without(&facts.proposals)));
    }
    let refused = |refused: &Refused| (refused.why.clone(), Some(refused.way_out.clone()));
    let of_imports = judged.iter().find_map(|judged| judged.as_ref().err());
    // What it was made for says more than that it is no program.
    if let Some(telling) = of_imports.filter(|refused| refused.made_for.is_some()) {
        return Err(refused(telling));
    }
    let library = "Coracle runs commands; this is a library, for a program that calls it";
    match (facts.form, facts.start) {
        (Some(Form::Module), Start::Missing) => {
            let why = "it has no `_start` function: it is a library, not a program".to_owned();
            return Err((why, Some(library.to_owned())));
        }
        (Some(Form::Module), Start::Other) => {
            let why = "its `_start` is not a function without parameters and results".to_owned();
            return Err((why, Some("build it as a program (fn main), for wasm32-wasip1".to_owned())));
        }
        _ => {}
    }
    if let Some(first) = of_imports {
        return Err(refused(first));
    }
    match facts.form {
        Some(Form::Module) if facts.memories.len() > MEMORIES_MAX => {
            Err((format!("it has {} memories; an instance may have {MEMORIES_MAX}", facts.memories.len()), None))
        }
        Some(Form::Component) if !facts.exports.iter().any(|export| is_run(export)) => {
            let why = "it does not export wasi:cli/run: it is a library, not a program".to_owned();
            Err((why, Some(library.to_owned())))
        }
        _ => Ok(()),
    }
}

/// How to build without a proposal.
fn without(proposals: &[String]) -> Option<String> {
    let advice = |proposal: &String| match proposal.as_str() {
        "threads" | "shared-everything threads" => {
            "build it for wasm32-wasip1, without -C target-feature=+atomics (-C target-feature=-atomics) or -pthread"
        }
        "64-bit memories" => "build it for a wasm32 target",
        "tail calls" => "build it with -C target-feature=-tail-call, or clang -mno-tail-call",
        "exceptions" | "legacy exceptions" => {
            "build it with panic=abort (-C target-feature=-exception-handling), or clang -fno-exceptions"
        }
        "garbage collection" | "references to the host's values (externref)" | "typed function references" => {
            "languages that compile to WebAssembly's garbage collection (Kotlin, Dart, Java) cannot run here; others leave it out \
             with -C target-feature=-reference-types,-gc"
        }
        "wide arithmetic" => "build it with -C target-feature=-wide-arithmetic",
        _ => "build it for wasm32-wasip2",
    };
    proposals.iter().map(advice).next().map(str::to_owned)
}

fn groups(facts: &Facts, judged: &[Result<&'static str, Refused>]) -> Vec<Group> {
    let mut groups: Vec<Group> = vec![];
    for (import, judged) in facts.imports.iter().zip(judged) {
        let provided = judged.is_ok();
        let what = match judged {
            Ok(what) => what,
            Err(_) if import.module.is_empty() => "not of WASI 0.2",
            Err(_) => import.module.as_str(),
        };
        let what = cut(what);
        let group = match groups.iter().position(|group| group.what == what && group.provided == provided) {
            Some(at) => &mut groups[at],
            // What many different strangers are to give is told together.
            None if groups.len() >= NAMES_MAX => groups.last_mut().expect("there are that many"),
            None => {
                groups.push(Group { what, provided, names: vec![], count: 0 });
                groups.last_mut().expect("just pushed")
            }
        };
        group.count += 1;
        if group.names.len() < NAMES_MAX {
            group.names.push(cut(&import.name));
        }
    }
    groups
}

/// What it begins with, of all memories together.
fn initial_bytes(facts: &Facts) -> u64 {
    facts.memories.iter().map(|memory| memory.initial_bytes).fold(0, u64::saturating_add)
}

fn grants(facts: &Facts, judged: &[Result<&'static str, Refused>]) -> Vec<String> {
    let wants = |what: &str| judged.iter().any(|judged| judged.as_ref().is_ok_and(|wanted| *wanted == what));
    let mut grants = vec![];
    if wants(wasi::FILES) {
        grants.push(
            "-v HOST:GUEST lends it a directory of yours. It can open files, and always finds its own directory as `/`; which \
             others it looks for, its imports do not tell",
        );
    }
    if wants(wasi::STDIN) {
        grants.push("-i passes your standard input on. It can read that; without -i it is at its end");
    } else if wants(wasi::READ) {
        grants.push(
            "-i passes your standard input on. It reads something, and its imports do not tell whether that is standard input \
             or files; without -i standard input is at its end",
        );
    }
    if wants("environment variables") || wants("arguments and variables") {
        grants.push("-e KEY=VALUE sets a variable. It can look at them, as most programs can; which, nobody can tell");
    }
    if wants(wasi::SOCKETS) {
        grants.push("No flag gives it a network. It can ask for sockets, and fails if it does");
    }
    let mut grants: Vec<String> = grants.into_iter().map(str::to_owned).collect();
    if initial_bytes(facts) > MEMORY_DEFAULT {
        grants.push(format!(
            "-m SIZE gives it memory. It begins with more than the {} that a run has otherwise",
            bytesize::ByteSize(MEMORY_DEFAULT)
        ));
    }
    grants
}

fn command(name: &str, facts: &Facts) -> String {
    let name = shlex::try_quote(name).unwrap_or_else(|_| "FILE".into());
    let bytes = initial_bytes(facts);
    if bytes > MEMORY_DEFAULT {
        // With room for what it adds.
        let mib = bytes.div_ceil(1 << 20).saturating_add(64);
        return format!("coracle run -m {mib}m {name}");
    }
    format!("coracle run {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(imports: &[(&str, &str, &str)], exports: &[&str]) -> Facts {
        let import = |(module, name, signature): &(&str, &str, &str)| Import {
            module: (*module).to_owned(),
            name: (*name).to_owned(),
            signature: Some((*signature).to_owned()),
            of_types: false,
        };
        Facts {
            bytes: 100,
            form: Some(Form::Module),
            imports: imports.iter().map(import).collect(),
            exports: exports.iter().map(|name| (*name).to_owned()).collect(),
            start: if exports.contains(&"_start") { Start::Function } else { Start::Missing },
            ..Facts::default()
        }
    }

    #[test]
    fn a_program_is_told_what_it_may_want() {
        let facts = module(
            &[
                (wasi::PREVIEW1, "fd_read", "iiii:i"),
                (wasi::PREVIEW1, "path_open", "iiiiillii:i"),
                (wasi::PREVIEW1, "path_link", "iiiiiii:i"),
            ],
            &["memory", "_start"],
        );
        let report = Report::of("./my app.wasm", &facts);
        assert_eq!((report.kind, report.runs, report.why.as_deref()), (Kind::Command, true, None));
        assert_eq!(report.command.as_deref(), Some("coracle run './my app.wasm'"));
        assert_eq!(
            report.imports.iter().map(|g| (g.what.as_str(), g.count)).collect::<Vec<_>>(),
            [("reading (standard input, files)", 1), ("files", 2)]
        );
        assert!(report.grants[0].starts_with("-v ") && report.grants[1].starts_with("-i "), "{report:?}");
        let nothing = Report::of("x", &module(&[], &["_start"]));
        assert!(nothing.runs && nothing.grants.is_empty());
    }

    #[test]
    fn a_program_that_begins_large_is_given_memory() {
        let large = Memory { initial_bytes: 300 << 20, maximum_bytes: None, imported: false };
        let facts = Facts { memories: vec![large], ..module(&[], &["_start"]) };
        let report = Report::of("x.wasm", &facts);
        assert_eq!(report.command.as_deref(), Some("coracle run -m 364m x.wasm"));
        assert!(report.grants[0].starts_with("-m "));
    }

    #[test]
    fn what_is_no_program_is_told_what_it_is() {
        let reactor = Report::of("x", &module(&[], &["_initialize", "f"]));
        assert_eq!((reactor.kind, reactor.runs), (Kind::Reactor, false));
        assert!(reactor.way_out.unwrap().starts_with("Coracle runs commands; this is a library"));
        // Without `_start` as well, but what it was made for says more.
        let browser = Report::of("x", &module(&[("wbg", "__wbindgen_throw", "ii:")], &["memory"]));
        assert_eq!((browser.kind, browser.made_for), (Kind::Library, Some("a browser (wasm-bindgen)")));
        assert!(browser.why.unwrap().contains("wasm-bindgen"));
        assert!(!browser.imports[0].provided && browser.imports[0].what == "wbg");
        assert_eq!(browser.command, None);
        let component = Facts { form: Some(Form::Component), ..Facts::default() };
        assert_eq!(Report::of("x", &component).kind, Kind::Component);
        let run = Facts { exports: vec!["wasi:cli/run@0.2.3".into()], ..component };
        assert!(Report::of("x", &run).runs);
    }

    #[test]
    fn ten_thousand_strangers_are_told_on_one_screen() {
        let import = |n: usize| Import { module: format!("m{n}"), name: format!("f{n}"), ..Import::default() };
        let facts = Facts { imports: (0..10_000).map(import).collect(), ..module(&[], &["_start"]) };
        let report = Report::of("x", &facts);
        assert!(report.imports.len() <= NAMES_MAX);
        assert_eq!(report.imports.iter().map(|group| group.count).sum::<usize>(), 10_000);
        let long = "\u{e4}".repeat(100_000);
        let producer = Producer { field: long.clone(), name: long.clone(), version: long.clone() };
        let import = || Import { module: long.clone(), name: long.clone(), ..Import::default() };
        let memory = Memory { initial_bytes: 1, maximum_bytes: None, imported: false };
        let facts = Facts {
            imports: (0..100).map(|_| import()).collect(),
            exports: vec![long.clone(); 100],
            producers: vec![producer; 100],
            memories: vec![memory; 100],
            ..module(&[], &["_start"])
        };
        let report = Report::of("x", &facts);
        assert_eq!((report.memories.len(), report.memories_count, report.exports_count), (MEMORIES_MAX, 100, 100));
        let bytes = serde_json::to_string(&report).unwrap().len();
        assert!(bytes < 100_000, "{bytes}");
    }
}
