//! Bytes become a [`Program`]: compiled, checked for what Coracle runs, and linked to WASI, ready to be instantiated.

use super::Engine;
use super::sandbox::Host;
use crate::config::fixed;
use wasmtime::component::Component;
use wasmtime::{ExternType, InstancePre, Module};
use wasmtime_wasi::p2::bindings::CommandPre;

/// A module or component that can be run. Clones share the compiled code.
#[derive(Clone)]
pub struct Program {
    pub(super) kind: Kind,
    needs: Needs,
}

/// What an instance of a program may take of what all share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Whether it can open or make files at all: without the imports it never will.
    pub files: bool,
    /// Memories, each with its reservation of addresses.
    pub memories: usize,
}

/// Why there is no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCompiled {
    /// The bytes cannot run here: one line, which may quote the module.
    Refused(String),
    /// This machine could not do it now, whatever the bytes are.
    Failed(String),
}

impl From<String> for NotCompiled {
    fn from(why: String) -> NotCompiled {
        NotCompiled::Refused(why)
    }
}

impl Program {
    /// What an instance may take.
    pub fn needs(&self) -> Needs {
        self.needs
    }
}

#[derive(Clone)]
pub(super) enum Kind {
    Module(InstancePre<Host>),
    Component(CommandPre<Host>),
}

/// The longest reason that is passed on; parsers like to quote.
const REASON_BYTES_MAX: usize = 400;

impl Engine {
    /// Compiles `bytes`, which takes from a millisecond to a minute and blocks for as long. `text` says that they are
    /// WebAssembly text; bytes are never guessed to be text.
    ///
    /// # Errors
    ///
    /// [`NotCompiled`].
    pub fn compile(&self, bytes: &[u8], text: bool) -> Result<Program, NotCompiled> {
        let translated;
        let wasm = if text {
            let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned())?;
            translated = wat::parse_str(text).map_err(|e| wat_reason(&e))?;
            &translated
        } else {
            bytes
        };
        check_header(wasm)?;
        if is_component(wasm) { self.component(wasm) } else { self.module(wasm) }
    }

    fn module(&self, wasm: &[u8]) -> Result<Program, NotCompiled> {
        let module = Module::from_binary(&self.engine, wasm).map_err(|e| not_compiled(&e))?;
        match module.get_export("_start") {
            Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
            Some(_) => return Err("its `_start` is not a function without parameters and results".to_owned().into()),
            None => return Err("it has no `_start` function: it is a library, not a program".to_owned().into()),
        }
        if let Some(import) = module.imports().find(|i| i.module() == "wasi_unstable") {
            return Err(format!(
                "it imports `{}` of wasi_unstable (WASI preview 0), which is not supported; build it with a toolchain for wasm32-wasip1",
                import.name()
            )
            .into());
        }
        let files = module.imports().any(|i| i.name().starts_with("path_"));
        let needs = Needs { files, memories: memories(&module.resources_required())? };
        let pre = self.modules.instantiate_pre(&module).map_err(|e| reason(&e))?;
        Ok(Program { kind: Kind::Module(pre), needs })
    }

    fn component(&self, wasm: &[u8]) -> Result<Program, NotCompiled> {
        let component = Component::from_binary(&self.engine, wasm).map_err(|e| not_compiled(&e))?;
        let ty = component.component_type();
        let files = ty.imports(&self.engine).any(|(name, _)| name.starts_with("wasi:filesystem/types"));
        // A component that does not tell how much it instantiates is taken for the most that is allowed.
        let memories = component.resources_required().map_or(Ok(fixed::MEMORIES_MAX), |r| memories(&r))?;
        let pre = self.components.instantiate_pre(&component).map_err(|e| reason(&e))?;
        match CommandPre::new(pre) {
            Ok(pre) => Ok(Program { kind: Kind::Component(pre), needs: Needs { files, memories } }),
            Err(_) => Err("it does not export wasi:cli/run: it is a library, not a program".to_owned().into()),
        }
    }
}

/// The first eight bytes: the magic number, then version and layer (WebAssembly core specification, 5.5.16).
fn check_header(wasm: &[u8]) -> Result<(), String> {
    const MAGIC: &[u8] = b"\0asm";
    const ELF: &[u8] = b"\x7fELF";
    if wasm.is_empty() {
        return Err("it is empty".to_owned());
    }
    if wasm.starts_with(ELF) {
        return Err("it is a native object, not WebAssembly; precompiled modules are not accepted".to_owned());
    }
    if !wasm.starts_with(MAGIC) {
        return Err(
            "it does not begin as a WebAssembly binary does; text modules are accepted from files that end in .wat"
                .to_owned(),
        );
    }
    if wasm.len() < 8 {
        return Err("it is cut off after its first bytes".to_owned());
    }
    Ok(())
}

fn is_component(wasm: &[u8]) -> bool {
    wasm.get(6) == Some(&1)
}

fn memories(required: &wasmtime::ResourcesRequired) -> Result<usize, String> {
    match usize::try_from(required.num_memories) {
        Ok(n) if n <= fixed::MEMORIES_MAX => Ok(n),
        _ => Err(format!("it has {} memories; an instance may have {}", required.num_memories, fixed::MEMORIES_MAX)),
    }
}

/// An error of the system below (no memory for the code, no thread) says nothing of the module.
fn not_compiled(error: &wasmtime::Error) -> NotCompiled {
    #[cfg(unix)]
    let of_the_system = error.chain().any(|e| e.is::<std::io::Error>() || e.is::<rustix::io::Errno>());
    #[cfg(not(unix))]
    let of_the_system = error.chain().any(|e| e.is::<std::io::Error>());
    if of_the_system { NotCompiled::Failed(reason(error)) } else { NotCompiled::Refused(reason(error)) }
}

fn reason(error: &wasmtime::Error) -> String {
    let all: Vec<String> = error.chain().map(ToString::to_string).collect();
    cut(&all.join(": "))
}

fn wat_reason(error: &wat::Error) -> String {
    // "message\n     --> <anon>:1:2\n ...": the message, and where.
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim);
    let message = lines.next().unwrap_or_default();
    let place = lines.find_map(|l| l.strip_prefix("--> <anon>:").or_else(|| l.strip_prefix("-->")));
    match place {
        Some(place) => cut(&format!("line {}: {message}", place.trim().replacen(':', ", column ", 1))),
        None => cut(message),
    }
}

fn cut(text: &str) -> String {
    crate::model::escape::short(text, REASON_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8], text: bool) -> String {
        match Engine::new().unwrap().compile(bytes, text) {
            Err(NotCompiled::Refused(why)) => why,
            _ => panic!("{} was not refused", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn a_program_says_what_it_needs() {
        let engine = Engine::new().unwrap();
        let needs = |text: &str| engine.compile(text.as_bytes(), true).unwrap_or_else(|e| panic!("{e:?}")).needs();
        let opens = "(module (import \"wasi_snapshot_preview1\" \"path_open\"
            (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))) (memory 1) (func (export \"_start\")))";
        assert_eq!(needs(opens), Needs { files: true, memories: 1 });
        assert_eq!(needs("(module (func (export \"_start\")))"), Needs { files: false, memories: 0 });
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
