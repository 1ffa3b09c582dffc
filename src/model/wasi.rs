//! What a module may import, in words: what there is, and of what there is not why, and the way out.
//!
//! The engine's linkers have exactly this (a test compares them), so that what is told before a run is what the run says.

use crate::model::escape;

/// The module that WASI preview 1 is imported from.
pub const PREVIEW1: &str = "wasi_snapshot_preview1";

/// Why an import is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// One sentence that names the import, and says that no flag allows it.
    pub why: String,
    /// What to do instead.
    pub way_out: String,
    /// What programs with such imports are made for, where that can be told.
    pub made_for: Option<&'static str>,
}

impl Refused {
    /// Both in one line.
    pub fn line(&self) -> String {
        format!("{}; {}", self.why, self.way_out)
    }
}

/// Functions of preview 1: the name, its parameters (`i` for i32, `l` for i64), and what it is for. All answer with an `i32`, but
/// for `proc_exit`.
const PREVIEW1_FUNCTIONS: [(&str, &str, &str); 46] = [
    ("args_get", "ii", ARGUMENTS),
    ("args_sizes_get", "ii", ARGUMENTS),
    ("environ_get", "ii", VARIABLES),
    ("environ_sizes_get", "ii", VARIABLES),
    ("clock_res_get", "ii", CLOCKS),
    ("clock_time_get", "ili", CLOCKS),
    ("fd_advise", "illi", FILES),
    ("fd_allocate", "ill", FILES),
    ("fd_close", "i", OPEN),
    ("fd_datasync", "i", FILES),
    ("fd_fdstat_get", "ii", OPEN),
    ("fd_fdstat_set_flags", "ii", OPEN),
    ("fd_fdstat_set_rights", "ill", OPEN),
    ("fd_filestat_get", "ii", OPEN),
    ("fd_filestat_set_size", "il", FILES),
    ("fd_filestat_set_times", "illi", FILES),
    ("fd_pread", "iiili", FILES),
    ("fd_prestat_dir_name", "iii", DIRECTORIES),
    ("fd_prestat_get", "ii", DIRECTORIES),
    ("fd_pwrite", "iiili", FILES),
    ("fd_read", "iiii", READ),
    ("fd_readdir", "iiili", DIRECTORIES),
    ("fd_renumber", "ii", OPEN),
    ("fd_seek", "ilii", OPEN),
    ("fd_sync", "i", FILES),
    ("fd_tell", "ii", OPEN),
    ("fd_write", "iiii", WRITE),
    ("path_create_directory", "iii", FILES),
    ("path_filestat_get", "iiiii", FILES),
    ("path_filestat_set_times", "iiiilli", FILES),
    ("path_link", "iiiiiii", FILES),
    ("path_open", "iiiiillii", FILES),
    ("path_readlink", "iiiiii", FILES),
    ("path_remove_directory", "iii", FILES),
    ("path_rename", "iiiiii", FILES),
    ("path_symlink", "iiiii", FILES),
    ("path_unlink_file", "iii", FILES),
    ("poll_oneoff", "iiii", WAITING),
    ("proc_exit", "i", EXIT),
    ("proc_raise", "i", EXIT),
    ("random_get", "ii", RANDOM),
    ("sched_yield", "", WAITING),
    ("sock_accept", "iii", SOCKETS),
    ("sock_recv", "iiiiii", SOCKETS),
    ("sock_send", "iiiii", SOCKETS),
    ("sock_shutdown", "ii", SOCKETS),
];

/// Interfaces of WASI 0.2, without their versions, and what they are for.
const PREVIEW2_INTERFACES: [(&str, &str); 27] = [
    ("wasi:cli/environment", "arguments and variables"),
    ("wasi:cli/exit", EXIT),
    ("wasi:cli/stderr", "standard output and error"),
    ("wasi:cli/stdin", STDIN),
    ("wasi:cli/stdout", "standard output and error"),
    ("wasi:cli/terminal-input", TERMINAL),
    ("wasi:cli/terminal-output", TERMINAL),
    ("wasi:cli/terminal-stderr", TERMINAL),
    ("wasi:cli/terminal-stdin", TERMINAL),
    ("wasi:cli/terminal-stdout", TERMINAL),
    ("wasi:clocks/monotonic-clock", CLOCKS),
    ("wasi:clocks/wall-clock", CLOCKS),
    ("wasi:filesystem/preopens", DIRECTORIES),
    ("wasi:filesystem/types", FILES),
    ("wasi:io/error", STREAMS),
    ("wasi:io/poll", WAITING),
    ("wasi:io/streams", STREAMS),
    ("wasi:random/insecure", RANDOM),
    ("wasi:random/insecure-seed", RANDOM),
    ("wasi:random/random", RANDOM),
    ("wasi:sockets/instance-network", SOCKETS),
    ("wasi:sockets/ip-name-lookup", SOCKETS),
    ("wasi:sockets/network", SOCKETS),
    ("wasi:sockets/tcp", SOCKETS),
    ("wasi:sockets/tcp-create-socket", SOCKETS),
    ("wasi:sockets/udp", SOCKETS),
    ("wasi:sockets/udp-create-socket", SOCKETS),
];

const ARGUMENTS: &str = "arguments";
const VARIABLES: &str = "environment variables";
const CLOCKS: &str = "clocks";
const RANDOM: &str = "random bytes";
const EXIT: &str = "exit";
const WAITING: &str = "waiting (timers, input)";
const STREAMS: &str = "streams";
const TERMINAL: &str = "terminal (there is none)";
const OPEN: &str = "what is open";
const WRITE: &str = "writing (standard output, files)";
/// Reading, of what nobody can tell from an import of preview 1.
pub const READ: &str = "reading (standard input, files)";
/// Standard input, told apart from files.
pub const STDIN: &str = "standard input";
/// Files, which it can open and make.
pub const FILES: &str = "files";
/// That directories are there.
pub const DIRECTORIES: &str = "directories that it is lent";
/// Sockets, which it is refused when it asks for one.
pub const SOCKETS: &str = "sockets (none are given)";

/// Every function of preview 1 with its signature.
pub fn preview1() -> impl Iterator<Item = (&'static str, &'static str)> {
    PREVIEW1_FUNCTIONS.iter().map(|(name, parameters, _)| (*name, *parameters))
}

/// Every interface of WASI 0.2.
pub fn preview2() -> impl Iterator<Item = &'static str> {
    PREVIEW2_INTERFACES.iter().map(|(name, _)| *name)
}

/// What an import of a core module is for. `signature`: of a function, its parameters, `:`, and its results; none if it is no
/// function.
///
/// # Errors
///
/// [`Refused`].
pub fn of_core(module: &str, name: &str, signature: Option<&str>) -> Result<&'static str, Refused> {
    if module != PREVIEW1 {
        return Err(foreign(module, name));
    }
    let Some((_, parameters, what)) = PREVIEW1_FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
        return Err(foreign(module, name));
    };
    let result = if name == "proc_exit" { "" } else { "i" };
    match signature.and_then(|signature| signature.split_once(':')) {
        Some((takes, gives)) if takes == *parameters && gives == result => Ok(what),
        _ => Err(Refused {
            why: format!("it imports `{name}` of {PREVIEW1} with another type than that has"),
            way_out: "build it with a toolchain for wasm32-wasip1".to_owned(),
            made_for: None,
        }),
    }
}

/// What an import of a component is for.
///
/// # Errors
///
/// [`Refused`].
pub fn of_component(name: &str) -> Result<&'static str, Refused> {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let known = PREVIEW2_INTERFACES.iter().find(|(known, _)| *known == interface);
    if let Some((_, what)) = known
        && version
            .strip_prefix("0.2.")
            .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
    {
        return Ok(what);
    }
    let shown = shown(name);
    let refused = |why: String, way_out: &str, made_for| Refused { why, way_out: way_out.to_owned(), made_for };
    Err(if interface.starts_with("wasi:http/") {
        refused(
            format!("it imports `{shown}`: guests have no network, and no flag gives one"),
            "a component for `wasmtime serve` or Spin is not a program that Coracle runs",
            Some("an HTTP server around it"),
        )
    } else if version.starts_with("0.3.") {
        refused(
            format!("it imports `{shown}` of WASI 0.3, and Coracle has 0.2; no flag adds to it"),
            "build it for wasm32-wasip2",
            Some("WASI 0.3"),
        )
    } else if known.is_some() {
        refused(
            format!("it imports `{shown}`, and Coracle has that of WASI 0.2 only"),
            "build it with a toolchain for wasm32-wasip2",
            None,
        )
    } else if interface.starts_with("wasi:") {
        refused(
            format!("it imports `{shown}`, which Coracle does not have; no flag adds to it"),
            "build it without, for wasm32-wasip2",
            None,
        )
    } else {
        refused(
            format!("it imports `{shown}`, which is not part of WASI; guests get nothing else, and no flag adds to it"),
            "compose it with a component that exports that (`wac plug`), or build it without",
            None,
        )
    })
}

/// An import as it is quoted in a sentence.
fn shown(name: &str) -> String {
    escape::short(name, 80)
}

/// Who gives such imports, and what to build instead. In the order in which they are tried.
fn foreign(module: &str, name: &str) -> Refused {
    const EMSCRIPTEN: [&str; 8] =
        ["emscripten_", "_emscripten_", "__syscall_", "invoke_", "_embind_", "_emval_", "__cxa_", "_mmap_js"];
    const NO_NETWORK: &str = "guests have no network, and no flag gives one";
    let import = format!("it imports `{}` of `{}`", shown(name), shown(module));
    let refused = |why: &str, way_out: &str, made_for: Option<&'static str>| Refused {
        why: format!("{import}{why}"),
        way_out: way_out.to_owned(),
        made_for,
    };
    let wasi = "build it for wasm32-wasip1";
    match (module, name) {
        ("wasi_unstable", _) => Refused {
            why: format!("it imports `{}` of wasi_unstable (WASI preview 0), which is not supported", shown(name)),
            way_out: "build it with a toolchain for wasm32-wasip1".to_owned(),
            made_for: Some("WASI preview 0"),
        },
        ("wasi", "thread-spawn") => refused(
            ": threads are off, and no flag turns them on",
            "build it for wasm32-wasip1 instead of wasm32-wasip1-threads, or without -pthread",
            Some("threads (wasi-threads)"),
        ),
        ("wasix_32v1" | "wasix_64v1", _) => refused(
            ", which is WASIX, Wasmer's own; Coracle has WASI, and no flag adds to it",
            wasi,
            Some("WASIX (Wasmer)"),
        ),
        ("gojs" | "go", _) => refused(
            ": it was built by Go for a browser, and no flag makes one",
            "build it with GOOS=wasip1 GOARCH=wasm",
            Some("a browser (Go, GOOS=js)"),
        ),
        ("wbg" | "__wbindgen_placeholder__" | "__wbindgen_externref_xform__", _) => bindgen(&refused),
        (module, _) if module.ends_with("_bg.js") => bindgen(&refused),
        ("env", name) if EMSCRIPTEN.iter().any(|begin| name.starts_with(begin)) => emscripten(&refused),
        // Emscripten with -O2 and above gives names of one letter.
        ("a", name) if name.len() <= 2 => emscripten(&refused),
        ("env", "memory") => refused(
            ": it wants a memory from outside, as programs with threads or for a browser do; no flag gives one",
            "link it without --import-memory and --shared-memory",
            Some("threads, or a host that gives it its memory"),
        ),
        ("env", "__memory_base" | "__table_base" | "__stack_pointer" | "__indirect_function_table")
        | ("GOT.mem" | "GOT.func", _) => refused(
            ": it is a shared library that somebody has to load, and no flag does",
            "link it statically, as a program",
            Some("dynamic linking"),
        ),
        ("env", "abort" | "seed" | "trace") => refused(
            ", as AssemblyScript's programs for a browser do; no flag gives it",
            "build it with AssemblyScript's WASI shim, and an exported `_start`",
            Some("AssemblyScript's own environment"),
        ),
        (PREVIEW1, name) if name.starts_with("sock_") => refused(
            &format!(", an extension of WasmEdge's: {NO_NETWORK}"),
            "build it without sockets",
            Some("WasmEdge"),
        ),
        (PREVIEW1, _) => refused(
            ", which is not part of WASI preview 1; no flag adds to it",
            "build it with a toolchain for wasm32-wasip1",
            None,
        ),
        (module, _) if module.starts_with("wasi:") || module.starts_with("cm32p2") => refused(
            ": it is the inner module of a component, which has to be put around it",
            "make a component of it: `wasm-tools component new`",
            Some("a component that is not made yet"),
        ),
        (module, _) if module.starts_with("wasi_ephemeral_") => {
            refused(", a proposal that Coracle does not have; no flag adds to it", "build it without", None)
        }
        _ => refused(
            ", which is not part of WASI; guests get nothing else, and no flag adds to it",
            "build it for wasm32-wasip1, without what its host was to give",
            Some("a host of its own"),
        ),
    }
}

fn bindgen(refused: &dyn Fn(&str, &str, Option<&'static str>) -> Refused) -> Refused {
    refused(
        ": it was built by wasm-bindgen for JavaScript around it, and no flag gives that",
        "build a program (fn main) for wasm32-wasip1, without wasm-bindgen",
        Some("a browser (wasm-bindgen)"),
    )
}

fn emscripten(refused: &dyn Fn(&str, &str, Option<&'static str>) -> Refused) -> Refused {
    refused(
        ": it was built by Emscripten for JavaScript around it, and no flag gives that",
        "build it with -sSTANDALONE_WASM, or with clang --target=wasm32-wasi",
        Some("a browser (Emscripten)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_told_in_words() {
        assert_eq!(of_core(PREVIEW1, "fd_read", Some("iiii:i")), Ok(READ));
        assert_eq!(of_core(PREVIEW1, "proc_exit", Some("i:")), Ok(EXIT));
        assert_eq!(of_component("wasi:cli/stdin@0.2.3"), Ok(STDIN));
        for signature in [None, Some(":"), Some("iiii:"), Some("iii:i")] {
            assert!(of_core(PREVIEW1, "fd_read", signature).unwrap_err().why.contains("another type"), "{signature:?}");
        }
        for version in ["", "@0.2", "@0.2.", "@0.2.0-rc-2023", "@0.20.0", "@1.0.0"] {
            assert!(of_component(&format!("wasi:cli/stdin{version}")).is_err(), "{version}");
        }
    }

    #[test]
    fn what_there_is_not_is_named_with_the_reason_and_the_way_out() {
        for (module, name, why, way_out) in [
            ("wasi_unstable", "fd_write", "preview 0", "wasm32-wasip1"),
            ("wasi", "thread-spawn", "threads are off", "instead of wasm32-wasip1-threads"),
            ("wasix_32v1", "fd_dup", "WASIX", "wasm32-wasip1"),
            ("gojs", "runtime.wasmExit", "Go", "GOOS=wasip1"),
            ("wbg", "__wbindgen_throw", "wasm-bindgen", "fn main"),
            ("./app_bg.js", "x", "wasm-bindgen", "fn main"),
            ("env", "emscripten_memcpy_js", "Emscripten", "-sSTANDALONE_WASM"),
            ("a", "b", "Emscripten", "-sSTANDALONE_WASM"),
            ("env", "memory", "memory from outside", "--import-memory"),
            ("env", "abort", "AssemblyScript", "shim"),
            ("GOT.mem", "x", "shared library", "statically"),
            (PREVIEW1, "sock_open", "no network, and no flag", "without sockets"),
            (PREVIEW1, "fd_frobnicate", "not part of WASI preview 1", "wasm32-wasip1"),
            ("wasi:cli/exit@0.2.0", "exit", "inner module of a component", "wasm-tools component new"),
            ("host", "f", "no flag adds to it", "wasm32-wasip1"),
        ] {
            let refused = of_core(module, name, Some(":")).unwrap_err();
            assert!(refused.why.contains(&format!("`{name}`")) && refused.why.contains(why), "{refused:?}");
            assert!(refused.way_out.contains(way_out), "{refused:?}");
        }
        for (name, why, way_out) in [
            ("wasi:http/outgoing-handler@0.2.0", "no network, and no flag", "wasmtime serve"),
            ("wasi:cli/stdin@0.3.0", "WASI 0.3", "wasm32-wasip2"),
            ("wasi:cli/stdin@0.2.0-rc-2023-11-10", "0.2 only", "wasm32-wasip2"),
            ("wasi:nn/graph@0.2.0", "no flag adds", "without"),
            ("my:own/thing", "not part of WASI", "wac plug"),
        ] {
            let refused = of_component(name).unwrap_err();
            assert!(refused.why.contains(&format!("`{name}`")) && refused.why.contains(why), "{refused:?}");
            assert!(refused.way_out.contains(way_out), "{refused:?}");
        }
    }

    #[test]
    fn a_name_of_a_strangers_is_quoted_short_and_printable() {
        let long = "\x1b[2J".repeat(100_000);
        for refused in [of_core(&long, &long, None).unwrap_err(), of_component(&long).unwrap_err()] {
            let line = refused.line();
            assert!(line.len() < 500 && !line.contains('\x1b') && !line.contains('\n'), "{line}");
        }
    }
}
