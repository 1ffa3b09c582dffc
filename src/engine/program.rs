//! Compiled code becomes a [`Program`]: checked for what Coracle runs, and linked to WASI, ready to be instantiated.

use super::Engine;
use super::compile::reason;
use super::precompiled::{self, Code as Loaded};
use super::sandbox::Host;
use crate::config::fixed;
use crate::model::wasi::{self, Refused};
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{ExternType, FuncType, InstancePre, Module, ValType};
use wasmtime_wasi::p2::bindings::CommandPre;

/// A module or component that can be run. Clones share the compiled code.
#[derive(Clone)]
pub struct Program {
    pub(super) kind: Kind,
    needs: Needs,
    code: Code,
}

/// Which code that is in memory, for as long as anybody holds this: equal for clones of a [`Program`], and for no others.
#[derive(Debug, Clone, Default)]
pub struct Code(Arc<()>);

impl PartialEq for Code {
    fn eq(&self, other: &Code) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Code {}

impl Hash for Code {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// What an instance of a program may take of what all share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// What of its directory it can get at: without the imports it never will.
    pub reach: Reach,
    /// Memories, each with its reservation of addresses.
    pub memories: usize,
}

/// What a program can get at of the directory that it is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nothing: it is not lent, and takes no descriptor.
    Nothing,
    /// That it is there, and what is in it.
    Directory,
    /// Files, which it can open and make.
    Files,
}

/// Why there is no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLoaded {
    /// It cannot run here: one line, which may quote the module.
    Refused(String),
    /// It is not code for this engine, or cannot be mapped: it has to be compiled again.
    Unusable(String),
}

impl From<String> for NotLoaded {
    fn from(why: String) -> NotLoaded {
        NotLoaded::Refused(why)
    }
}

impl Program {
    /// What an instance may take.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Which code it is.
    pub fn code(&self) -> &Code {
        &self.code
    }
}

#[derive(Clone)]
pub(super) enum Kind {
    Module {
        pre: InstancePre<Host>,
        /// The same for the pool, if it fits.
        pooled: Option<InstancePre<Host>>,
    },
    Component(CommandPre<Host>),
}

impl Engine {
    /// Takes compiled code from a file that a [`Compiler`](super::Compiler) of ours wrote and nobody has changed since: see
    /// `precompiled`. Checks that it is a program, and links it.
    ///
    /// # Errors
    ///
    /// [`NotLoaded`].
    pub fn load(&self, file: File) -> Result<Program, NotLoaded> {
        let again = self.pool.as_ref().and_then(|_| file.try_clone().ok());
        match precompiled::load(&self.engine, file).map_err(|e| NotLoaded::Unusable(reason(&e)))? {
            Loaded::Module(module) => self.module(&module, again),
            Loaded::Component(component) => self.component(&component),
        }
    }

    fn module(&self, module: &Module, again: Option<File>) -> Result<Program, NotLoaded> {
        // What it was made for says more than that it is no program.
        if let Some(refused) = refused_imports(module).find(|refused| refused.made_for.is_some()) {
            return Err(refused.line().into());
        }
        match module.get_export("_start") {
            Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
            Some(_) => return Err("its `_start` is not a function without parameters and results".to_owned().into()),
            None => return Err("it has no `_start` function: it is a library, not a program".to_owned().into()),
        }
        let reach = module.imports().map(|import| match import.name() {
            name if name.starts_with("path_") => Reach::Files,
            name if name.starts_with("fd_prestat_") || name == "fd_readdir" => Reach::Directory,
            _ => Reach::Nothing,
        });
        let reach = reach.max().unwrap_or(Reach::Nothing);
        let needs = Needs { reach, memories: memories(&module.resources_required())? };
        let pre = self.modules.instantiate_pre(module).map_err(|e| match refused_imports(module).next() {
            Some(refused) => refused.line(),
            None => reason(&e),
        })?;
        let pooled = self.pool.as_ref().zip(again).and_then(|(pool, file)| pool.load(file));
        Ok(Program { kind: Kind::Module { pre, pooled }, needs, code: Code::default() })
    }

    fn component(&self, component: &Component) -> Result<Program, NotLoaded> {
        let ty = component.component_type();
        let reach = ty.imports(&self.engine).map(|(name, _)| match name {
            name if name.starts_with("wasi:filesystem/types") => Reach::Files,
            name if name.starts_with("wasi:filesystem/") => Reach::Directory,
            _ => Reach::Nothing,
        });
        let reach = reach.max().unwrap_or(Reach::Nothing);
        // A component that does not tell how much it instantiates is taken for the most that is allowed.
        let memories = component.resources_required().map_or(Ok(fixed::MEMORIES_MAX), |r| memories(&r))?;
        let pre = self.components.instantiate_pre(component).map_err(|e| {
            let mut wanted = ty.imports(&self.engine).filter(|(_, import)| !self.is_of_types(&import.ty));
            match wanted.find_map(|(name, _)| wasi::of_component(name).err()) {
                Some(refused) => refused.line(),
                None => reason(&e),
            }
        })?;
        match CommandPre::new(pre) {
            Ok(pre) => {
                let needs = Needs { reach, memories };
                Ok(Program { kind: Kind::Component(pre), needs, code: Code::default() })
            }
            Err(_) => Err("it does not export wasi:cli/run: it is a library, not a program".to_owned().into()),
        }
    }
}

impl Engine {
    /// Whether it only names types, which nobody has to give.
    fn is_of_types(&self, import: &ComponentItem) -> bool {
        let ComponentItem::ComponentInstance(instance) = import else { return false };
        instance.exports(&self.engine).all(|(_, export)| matches!(export.ty, ComponentItem::Type(_)))
    }
}

/// The imports that there is nothing for, in words.
fn refused_imports(module: &Module) -> impl Iterator<Item = Refused> {
    module.imports().filter_map(|import| {
        let signature = match import.ty() {
            ExternType::Func(ty) => Some(signature(&ty)),
            _ => None,
        };
        wasi::of_core(import.module(), import.name(), signature.as_deref()).err()
    })
}

/// Parameters, `:`, results, as `model::wasi` writes them.
fn signature(ty: &FuncType) -> String {
    let letter = |ty: ValType| match ty {
        ValType::I32 => 'i',
        ValType::I64 => 'l',
        ValType::F32 => 'f',
        ValType::F64 => 'd',
        ValType::V128 => 'v',
        ValType::Ref(_) => 'r',
    };
    ty.params().map(letter).chain([':']).chain(ty.results().map(letter)).collect()
}

fn memories(required: &wasmtime::ResourcesRequired) -> Result<usize, String> {
    match usize::try_from(required.num_memories) {
        Ok(n) if n <= fixed::MEMORIES_MAX => Ok(n),
        _ => Err(format!("it has {} memories; an instance may have {}", required.num_memories, fixed::MEMORIES_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compile::REASON_BYTES_MAX;
    use super::super::tests::program;
    use super::*;

    fn refusal(bytes: &[u8], text: bool) -> String {
        match program(&Engine::new(100_000).unwrap(), bytes, text) {
            Err(why) => why,
            _ => panic!("{} was not refused", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn a_program_says_what_it_needs() {
        let engine = Engine::new(100_000).unwrap();
        let needs = |text: &str| program(&engine, text.as_bytes(), true).unwrap().needs();
        let opens = "(module (import \"wasi_snapshot_preview1\" \"path_open\"
            (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))) (memory 1) (func (export \"_start\")))";
        assert_eq!(needs(opens), Needs { reach: Reach::Files, memories: 1 });
        let looks = "(module (import \"wasi_snapshot_preview1\" \"fd_prestat_get\" (func (param i32 i32) (result i32)))
            (func (export \"_start\")))";
        assert_eq!(needs(looks), Needs { reach: Reach::Directory, memories: 0 });
        let prints = "(module (import \"wasi_snapshot_preview1\" \"fd_write\"
            (func (param i32 i32 i32 i32) (result i32))) (func (export \"_start\")))";
        assert_eq!(needs(prints), Needs { reach: Reach::Nothing, memories: 0 });
        assert_eq!(needs("(module (func (export \"_start\")))"), Needs { reach: Reach::Nothing, memories: 0 });
    }

    const PREVIEW2_EXPORTS: [&str; 27] = [
        "get-environment",
        "exit",
        "get-stderr",
        "get-stdin",
        "get-stdout",
        "terminal-input",
        "terminal-output",
        "get-terminal-stderr",
        "get-terminal-stdin",
        "get-terminal-stdout",
        "now",
        "now",
        "get-directories",
        "descriptor",
        "error",
        "pollable",
        "input-stream",
        "get-insecure-random-bytes",
        "insecure-seed",
        "get-random-bytes",
        "instance-network",
        "resolve-addresses",
        "network",
        "tcp-socket",
        "create-tcp-socket",
        "udp-socket",
        "create-udp-socket",
    ];

    /// What is told of imports is what the linkers have: each function with its type, and each interface.
    #[test]
    fn the_imports_that_are_told_are_those_that_there_are() {
        let engine = Engine::new(100_000).unwrap();
        let imports: String = wasi::preview1()
            .map(|(name, parameters)| {
                let types = parameters.chars().map(|c| if c == 'l' { " i64" } else { " i32" }).collect::<String>();
                let result = if name == "proc_exit" { "" } else { "(result i32)" };
                format!("(import \"{}\" \"{name}\" (func (param{types}) {result}))", wasi::PREVIEW1)
            })
            .collect();
        let all = program(&engine, format!("(module {imports} (func (export \"_start\")))").as_bytes(), true);
        assert_eq!(all.err(), None);
        // An export of each: as a resource it is there, or it is "found" to be a function.
        for (name, export) in wasi::preview2().zip(PREVIEW2_EXPORTS) {
            let linked = |version: &str| {
                let text = format!(
                    "(component (import \"{name}@{version}\" (instance (export \"{export}\" (type (sub resource))))))"
                );
                let why = program(&engine, text.as_bytes(), true).err().unwrap();
                (why, wasi::of_component(&format!("{name}@{version}")).is_ok())
            };
            for version in ["0.2.0", "0.2.3", "0.2.99"] {
                let (why, told) = linked(version);
                let there =
                    why.contains("does not export wasi:cli/run") || why.contains("expected resource found func");
                assert!(told && there, "{name}@{version}: {why}");
            }
            let (why, told) = linked("0.3.0");
            assert!(!told && why.contains("WASI 0.3"), "{name}: {why}");
        }
        for name in ["wasi:clocks/timezone@0.2.0", "wasi:http/types@0.2.0", "wasi:nn/graph@0.2.0"] {
            let text = format!("(component (import \"{name}\" (instance (export \"f\" (func)))))");
            let why = program(&engine, text.as_bytes(), true).err().unwrap();
            assert!(why.contains(name) && why.contains("no flag"), "{why}");
        }
    }

    #[test]
    fn what_cannot_run_is_refused_with_the_reason() {
        for (bytes, text, why) in [
            (&b""[..], false, "empty"),
            (b"\x7fELF\x02\x01\x01\0", false, "native object"),
            (b"(module)", false, ".wat"),
            (b"\0asm", false, "cut off"),
            (b"\0asm\x01\0\0\0\x01", false, "unexpected end"),
            (b"(module (func (export \"_start\")", true, "line 1, column"),
            (b"(module (func $x (export \"_start\") call $y))", true, "line 1, column 41: unknown func"),
            (b"\xff\xfe", true, "UTF-8"),
            (b"(module)", true, "_start"),
            (b"(module (func (export \"_start\") (param i32)))", true, "without parameters"),
            (b"(module (memory (export \"_start\") 1))", true, "without parameters"),
            (b"(module (import \"env\" \"f\" (func)) (func (export \"_start\")))", true, "env"),
            (b"(module (import \"wasi_unstable\" \"fd_write\" (func)) (func (export \"_start\")))", true, "preview 0"),
            (
                b"(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func)) (func (export \"_start\")))",
                true,
                "fd_write",
            ),
            (
                format!("(module {} (func (export \"_start\")))", "(memory 1)".repeat(17)).as_bytes(),
                true,
                "17 memories",
            ),
            (b"(component)", true, "wasi:cli/run"),
            (b"(component (import \"my:own/thing\" (instance (export \"f\" (func)))))", true, "my:own/thing"),
        ] {
            let got = refusal(bytes, text);
            assert!(got.contains(why), "{}: {got}", String::from_utf8_lossy(bytes));
            assert!(!got.contains('\n') && got.len() <= REASON_BYTES_MAX, "{got}");
        }
    }
}
