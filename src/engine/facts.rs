//! Reads what a module is without compiling it: what it imports and exports, and whether the compiler would take it. Linear in its
//! size, and what is absurd is told as such before anything is counted one by one.

use super::compile::{check_header, cut, wat_reason};
use super::configuration::FEATURES;
use super::structure;
use crate::model::explain::{Facts, Form, Import, Memory, Producer, Start};
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::types::Types;
use wasmparser::{
    Encoding, ExternalKind, FuncType, KnownCustom, MemoryType, Parser, Payload, TypeRef, ValType, Validator,
    WasmFeatures,
};

/// What the toolchains say of themselves, at most.
const PRODUCERS_MAX: usize = 32;
/// Parameters and results of a function that are told apart.
const VALUES_MAX: usize = 32;

/// Proposals that are off and that toolchains use, by the words for them.
const OFF: [(&str, WasmFeatures); 11] = [
    ("threads", WasmFeatures::THREADS),
    ("shared-everything threads", WasmFeatures::SHARED_EVERYTHING_THREADS),
    ("64-bit memories", WasmFeatures::MEMORY64),
    ("tail calls", WasmFeatures::TAIL_CALL),
    ("exceptions", WasmFeatures::EXCEPTIONS),
    ("legacy exceptions", WasmFeatures::LEGACY_EXCEPTIONS),
    ("garbage collection", WasmFeatures::GC),
    ("references to the host's values (externref)", WasmFeatures::GC_TYPES),
    ("typed function references", WasmFeatures::FUNCTION_REFERENCES),
    ("wide arithmetic", WasmFeatures::WIDE_ARITHMETIC),
    ("component-model async (WASI 0.3)", WasmFeatures::CM_ASYNC),
];

/// What there is to know of a module. `text` says that it is WebAssembly text; bytes are never guessed to be text.
pub fn facts(bytes: &[u8], text: bool) -> Facts {
    let mut facts = Facts { bytes: bytes.len(), text, ..Facts::default() };
    let translated;
    let wasm = if text {
        match std::str::from_utf8(bytes)
            .map_err(|_| "it is no UTF-8 text".to_owned())
            .and_then(|text| wat::parse_str(text).map_err(|e| wat_reason(&e)))
        {
            Ok(wasm) => {
                translated = wasm;
                &translated
            }
            Err(why) => {
                facts.broken = Some(why);
                return facts;
            }
        }
    } else {
        bytes
    };
    if let Err(why) = check_header(wasm).and_then(|()| structure::check(wasm)) {
        facts.broken = Some(why);
        return facts;
    }
    facts.form = Some(if Parser::is_component(wasm) { Form::Component } else { Form::Module });
    // What is read of a module that is broken further on is still what it says.
    let mut reading = Reading { facts, ..Reading::default() };
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { break };
        reading.add(&payload);
    }
    let mut facts = reading.done();
    match Validator::new_with_features(FEATURES).validate_all(wasm) {
        Ok(types) => {
            for import in facts.imports.iter_mut().filter(|import| import.module.is_empty()) {
                import.of_types = is_of_types(&types, &import.name);
            }
        }
        Err(e) => {
            facts.broken = Some(cut(&format!("{} (at offset {:#x})", e.message(), e.offset())));
            facts.proposals = needed(wasm);
        }
    }
    facts
}

/// Whether an import of a component is an instance of nothing but types, none of them a resource.
fn is_of_types(types: &Types, import: &str) -> bool {
    let types = types.as_ref();
    match types.component_item_for_import(import).map(|item| item.ty) {
        Some(ComponentEntityType::Instance(id)) => types[id].exports.values().all(|export| match export.ty {
            ComponentEntityType::Type { created, .. } => !matches!(created, ComponentAnyTypeId::Resource(_)),
            _ => false,
        }),
        _ => false,
    }
}

/// Proposals without which it is nothing; none if it is nothing with all of them either.
fn needed(wasm: &[u8]) -> Vec<String> {
    let valid = |features| Validator::new_with_features(features).validate_all(wasm).is_ok();
    let all = WasmFeatures::all();
    if !valid(all) {
        return vec![];
    }
    let off = OFF.iter().filter(|(_, proposal)| !valid(all.difference(*proposal)));
    off.map(|(name, _)| (*name).to_owned()).collect()
}

#[derive(Default)]
struct Reading {
    facts: Facts,
    /// Of what is open around the next section, whether it is a component.
    scopes: Vec<bool>,
    /// Of the outermost module.
    types: Vec<Option<String>>,
    imported: Vec<u32>,
    functions: Vec<u32>,
    start: Option<(ExternalKind, u32)>,
}

impl Reading {
    fn add(&mut self, payload: &Payload<'_>) {
        match payload {
            Payload::Version { encoding, .. } => return self.scopes.push(*encoding == Encoding::Component),
            Payload::End(_) => {
                self.scopes.pop();
                return;
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(fields) = section.as_known() {
                    self.producers(fields);
                }
                return;
            }
            // The modules in a component have memories too.
            Payload::MemorySection(section) => {
                let memories = section.clone().into_iter().flatten().map(|memory| memory_of(&memory, false));
                return self.facts.memories.extend(memories);
            }
            _ => {}
        }
        if self.scopes.len() == 1 {
            self.outermost(payload);
        }
    }

    fn outermost(&mut self, payload: &Payload<'_>) {
        match payload {
            Payload::TypeSection(section) => {
                let types = section.clone().into_iter_err_on_gc_types();
                self.types = types.map(|ty| ty.ok().map(|ty| signature(&ty))).collect();
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports().flatten() {
                    let signature = match import.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                            self.imported.push(ty);
                            self.signature(ty)
                        }
                        TypeRef::Memory(memory) => {
                            self.facts.memories.push(memory_of(&memory, true));
                            None
                        }
                        _ => None,
                    };
                    let (module, name) = (import.module.to_owned(), import.name.to_owned());
                    self.facts.imports.push(Import { module, name, signature, of_types: false });
                }
            }
            Payload::FunctionSection(section) => self.functions = section.clone().into_iter().flatten().collect(),
            Payload::ExportSection(section) => {
                for export in section.clone().into_iter().flatten() {
                    if export.name == "_start" {
                        self.start = Some((export.kind, export.index));
                    }
                    self.facts.exports.push(export.name.to_owned());
                }
            }
            Payload::ComponentImportSection(section) => {
                let names = section.clone().into_iter().flatten().map(|import| import.name.name.to_owned());
                let import = |name| Import { name, ..Import::default() };
                self.facts.imports.extend(names.map(import));
            }
            Payload::ComponentExportSection(section) => {
                let names = section.clone().into_iter().flatten().map(|export| export.name.name.to_owned());
                self.facts.exports.extend(names);
            }
            _ => {}
        }
    }

    fn signature(&self, ty: u32) -> Option<String> {
        self.types.get(usize::try_from(ty).ok()?)?.clone()
    }

    fn producers(&mut self, fields: wasmparser::ProducersSectionReader<'_>) {
        for field in fields.into_iter().flatten() {
            for value in field.values.into_iter().flatten() {
                let (name, version) = (value.name.to_owned(), value.version.to_owned());
                let producer = Producer { field: field.name.to_owned(), name, version };
                if self.facts.producers.len() < PRODUCERS_MAX && !self.facts.producers.contains(&producer) {
                    self.facts.producers.push(producer);
                }
            }
        }
    }

    fn done(mut self) -> Facts {
        self.facts.start = match self.start {
            None => Start::Missing,
            Some((ExternalKind::Func | ExternalKind::FuncExact, index)) => {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                let ty = match index.checked_sub(self.imported.len()) {
                    Some(own) => self.functions.get(own),
                    None => self.imported.get(index),
                };
                match ty.and_then(|ty| self.signature(*ty)) {
                    Some(signature) if signature == ":" => Start::Function,
                    _ => Start::Other,
                }
            }
            Some(_) => Start::Other,
        };
        self.facts
    }
}

fn memory_of(memory: &MemoryType, imported: bool) -> Memory {
    let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
    let bytes = |pages: u64| pages.saturating_mul(page);
    Memory { initial_bytes: bytes(memory.initial), maximum_bytes: memory.maximum.map(bytes), imported }
}

/// Parameters, `:`, results.
fn signature(ty: &FuncType) -> String {
    let letters = |values: &[ValType]| -> String {
        let letter = |value: &ValType| match value {
            ValType::I32 => 'i',
            ValType::I64 => 'l',
            ValType::F32 => 'f',
            ValType::F64 => 'd',
            ValType::V128 => 'v',
            ValType::Ref(_) => 'r',
        };
        values.iter().take(VALUES_MAX).map(letter).collect()
    };
    format!("{}:{}", letters(ty.params()), letters(ty.results()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::explain::Report;

    fn of(text: &str) -> Facts {
        facts(text.as_bytes(), true)
    }

    #[test]
    fn a_module_is_read_without_being_run() {
        let read = of("(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32)))
            (memory (export \"memory\") 2 3) (func (export \"_start\")) (func (export \"other\") (param i64)))");
        assert_eq!((read.form, read.start), (Some(Form::Module), Start::Function));
        assert_eq!(read.imports[0].signature.as_deref(), Some("i:"));
        assert_eq!(read.exports, ["memory", "_start", "other"]);
        assert_eq!(read.memories, [Memory { initial_bytes: 2 << 16, maximum_bytes: Some(3 << 16), imported: false }]);
        assert_eq!(read.broken, None);
        let start = of("(module (func $f (import \"env\" \"f\") (param i32)) (export \"_start\" (func $f)))").start;
        assert_eq!(start, Start::Other, "a function that is imported has its type too");
        assert_eq!(of("(module)").start, Start::Missing);
    }

    #[test]
    fn what_is_in_a_component_is_not_its_own() {
        let read = of("(component
            (import \"wasi:cli/exit@0.2.0\" (instance))
            (component (import \"inner\" (func)))
            (core module (import \"env\" \"f\" (func)) (memory 1) (func (export \"_start\"))))");
        assert_eq!(read.form, Some(Form::Component));
        assert_eq!(read.imports.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["wasi:cli/exit@0.2.0"]);
        assert_eq!((read.start, read.exports.len()), (Start::Missing, 0));
        assert_eq!(read.memories.len(), 1, "but its memory counts");
    }

    #[test]
    fn what_only_names_types_is_wanted_of_nobody() {
        let verdict = |instance: &str| {
            let run =
                "(core module $m (func (export \"run\") (result i32) i32.const 0)) (core instance $i (instantiate $m))
                (func $run (result (result)) (canon lift (core func $i \"run\")))
                (instance $r (export \"run\" (func $run))) (export \"wasi:cli/run@0.2.0\" (instance $r))";
            Report::of("x", &of(&format!("(component (import \"my:own/types\" (instance {instance})) {run})"))).runs
        };
        assert!(verdict("") && verdict("(type $t (record (field \"x\" u32))) (export \"t\" (type (eq $t)))"));
        assert!(!verdict("(export \"f\" (func))") && !verdict("(export \"r\" (type (sub resource)))"));
    }

    #[test]
    fn a_proposal_that_is_off_is_named_with_the_way_out() {
        for (text, proposal, way_out) in [
            ("(module (memory 1 1 shared) (func (export \"_start\")))", "threads", "-atomics"),
            ("(module (memory i64 1) (func (export \"_start\")))", "64-bit memories", "wasm32"),
            ("(module (func $f (export \"_start\") return_call $f))", "tail calls", "-tail-call"),
            ("(module (tag) (func (export \"_start\")))", "exceptions", "exception"),
            ("(module (func (export \"_start\") try catch_all end))", "legacy exceptions", "exception"),
            ("(module (type (struct)) (func (export \"_start\")))", "garbage collection", "Kotlin"),
        ] {
            let report = Report::of("x.wasm", &of(text));
            assert!(!report.runs, "{text}");
            assert!(report.why.as_ref().unwrap().contains(proposal), "{report:?}");
            assert!(report.way_out.as_ref().unwrap().contains(way_out), "{report:?}");
        }
        let broken = of("(module (func (result i32)))");
        assert!(broken.broken.is_some() && broken.proposals.is_empty(), "{broken:?}");
    }

    #[test]
    fn what_is_no_module_or_absurd_is_told_as_such() {
        for (bytes, text, why) in [
            (&b""[..], false, "empty"),
            (b"\x7fELF\x02\x01\x01\0", false, "native object"),
            (b"(module)", false, ".wat"),
            (b"(module", true, "line 1"),
            (b"\xff", true, "UTF-8"),
            // A type section that says that it has 4,294,967,295 types.
            (b"\0asm\x01\0\0\0\x01\x05\xff\xff\xff\xff\x0f", false, "are the most"),
        ] {
            let report = Report::of("x", &facts(bytes, text));
            assert!(!report.runs && report.why.as_ref().unwrap().contains(why), "{report:?}");
        }
    }
}
