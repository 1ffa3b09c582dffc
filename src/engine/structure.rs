//! How much of everything a module may have, counted on its bytes before the compiler sees them: what is absurd is refused
//! in milliseconds. What is merely expensive is the business of the limits on the compiler.

use crate::config::fixed;
use wasmparser::{ElementItems, Encoding, FunctionBody, Parser, Payload};

/// What a file has in all, nested modules and components included.
#[derive(Default)]
struct Counts {
    functions: u64,
    types: u64,
    imports: u64,
    exports: u64,
    globals: u64,
    segments: u64,
    table_entries: u64,
    nested: u64,
    /// What is open around the next section: the host's bytes for an instance of it, if it is a core module.
    scopes: Vec<Option<u64>>,
    /// The most of these that one core module has.
    largest: u64,
    core_instances: u64,
    component_instances: u64,
    /// How deep components are nested.
    depth: u32,
}

/// What wasmtime writes out of a table that functions are put into: one number an entry, up to so many (`TableSegments`).
const TABLE_WRITTEN_OUT_MAX: u64 = 1 << 20;
/// What an instance of a core module takes for each global and each element of a segment, and for each function and import, in
/// bytes (`VMContext`, `ValRaw`, `VMFuncRef`).
const HOST_BYTES_SMALL: u64 = 16;
const HOST_BYTES_LARGE: u64 = 32;
/// [`fixed::CORE_INSTANCES_MAX`].
const CORE_INSTANCES_MAX: u64 = fixed::CORE_INSTANCES_MAX as u64;

/// Refuses a file that has more of something than any program would.
///
/// Bytes that do not parse are passed on: the compiler says better what is wrong with them.
///
/// # Errors
///
/// One line that names the limit.
pub(super) fn check(wasm: &[u8]) -> Result<(), String> {
    let mut counts = Counts::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let Ok(payload) = payload else { return Ok(()) };
        counts.add(&payload)?;
    }
    Ok(())
}

impl Counts {
    fn add(&mut self, payload: &Payload<'_>) -> Result<(), String> {
        match payload {
            Payload::TypeSection(s) => self.types += u64::from(s.count()),
            Payload::CoreTypeSection(s) => self.types += u64::from(s.count()),
            Payload::ComponentTypeSection(s) => self.types += u64::from(s.count()),
            Payload::ImportSection(s) => self.imports += u64::from(s.count()),
            Payload::ComponentImportSection(s) => self.imports += u64::from(s.count()),
            Payload::ComponentAliasSection(s) => self.imports += u64::from(s.count()),
            Payload::ExportSection(s) => self.exports += u64::from(s.count()),
            Payload::ComponentExportSection(s) => self.exports += u64::from(s.count()),
            Payload::FunctionSection(s) => self.functions += u64::from(s.count()),
            Payload::ComponentCanonicalSection(s) => self.functions += u64::from(s.count()),
            Payload::GlobalSection(s) => self.globals += u64::from(s.count()),
            Payload::TableSection(s) => {
                let tables = s.clone().into_iter().flatten();
                self.table_entries += tables.map(|t| t.ty.initial.min(TABLE_WRITTEN_OUT_MAX)).sum::<u64>();
            }
            Payload::ElementSection(s) => self.segments += u64::from(s.count()),
            Payload::DataSection(s) => self.segments += u64::from(s.count()),
            Payload::InstanceSection(s) => self.nested += u64::from(s.count()),
            Payload::ComponentInstanceSection(s) => self.nested += u64::from(s.count()),
            Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => self.nested += 1,
            Payload::CodeSectionEntry(body) => return check_body(body),
            Payload::End(_) => {}
            _ => return Ok(()),
        }
        self.add_instances(payload);
        for (what, has, most) in [
            ("functions", self.functions, fixed::MODULE_FUNCTIONS_MAX),
            ("types", self.types, fixed::MODULE_TYPES_MAX),
            ("imports", self.imports, fixed::MODULE_IMPORTS_MAX),
            ("exports", self.exports, fixed::MODULE_EXPORTS_MAX),
            ("globals", self.globals, fixed::MODULE_GLOBALS_MAX),
            ("data and element segments", self.segments, fixed::MODULE_SEGMENTS_MAX),
            ("table entries to begin with", self.table_entries, fixed::MODULE_TABLE_ENTRIES_MAX),
            ("bytes of the host in its instances", self.host_bytes(), fixed::INSTANCES_HOST_BYTES_MAX),
            ("modules, components and instances in it", self.nested, fixed::MODULE_NESTED_MAX),
        ] {
            if has > most {
                return Err(format!("it has {has} {what}; {most} are the most"));
            }
        }
        Ok(())
    }
}

impl Counts {
    /// What instances take of the host that no limit of a run knows: neither a memory nor a table.
    fn add_instances(&mut self, payload: &Payload<'_>) {
        let (small, large) = match payload {
            Payload::Version { encoding, .. } => {
                self.scopes.push((*encoding == Encoding::Module).then_some(0));
                let components = self.scopes.iter().filter(|scope| scope.is_none()).count();
                self.depth = self.depth.max(u32::try_from(components).unwrap_or(u32::MAX));
                return;
            }
            Payload::End(_) => {
                self.scopes.pop();
                return;
            }
            Payload::InstanceSection(s) => {
                self.core_instances += u64::from(s.count());
                return;
            }
            Payload::ComponentInstanceSection(s) => {
                self.component_instances += u64::from(s.count());
                return;
            }
            Payload::GlobalSection(s) => (u64::from(s.count()), 0),
            Payload::ElementSection(s) => {
                let items = s.clone().into_iter().flatten().map(|element| match element.items {
                    ElementItems::Functions(items) => u64::from(items.count()),
                    ElementItems::Expressions(_, items) => u64::from(items.count()),
                });
                (items.sum(), 0)
            }
            Payload::FunctionSection(s) => (0, u64::from(s.count())),
            Payload::ImportSection(s) => (0, u64::from(s.count())),
            _ => return,
        };
        if let Some(Some(bytes)) = self.scopes.last_mut() {
            *bytes = bytes.saturating_add(small * HOST_BYTES_SMALL).saturating_add(large * HOST_BYTES_LARGE);
            self.largest = self.largest.max(*bytes);
        }
    }

    /// For all instances together, at the most: a component says how often it instantiates, and what is nested in it may do so
    /// each time.
    fn host_bytes(&self) -> u64 {
        let each = self.component_instances.saturating_add(1).saturating_pow(self.depth.saturating_sub(1));
        let instances = self.core_instances.saturating_mul(each).clamp(1, CORE_INSTANCES_MAX);
        self.largest.saturating_mul(instances)
    }
}

fn check_body(body: &FunctionBody<'_>) -> Result<(), String> {
    let bytes = body.as_bytes().len();
    if bytes > fixed::FUNCTION_BYTES_MAX {
        return Err(format!("one of its functions has {bytes} bytes; {} are the most", fixed::FUNCTION_BYTES_MAX));
    }
    let Ok(groups) = body.get_locals_reader() else { return Ok(()) };
    let mut locals: u64 = 0;
    for group in groups {
        let Ok((count, _)) = group else { return Ok(()) };
        locals = locals.saturating_add(u64::from(count));
    }
    if locals > fixed::FUNCTION_LOCALS_MAX {
        return Err(format!("one of its functions has {locals} locals; {} are the most", fixed::FUNCTION_LOCALS_MAX));
    }
    Ok(())
}

/// Whatever a file holds: it is refused in one line that names the limit, and neither what comes behind nor a component around
/// it makes a difference. Panics where that is not so; see [`crate::check`].
pub(crate) fn promise(wasm: &[u8]) {
    let Err(why) = check(wasm) else { return };
    assert!(why.ends_with("are the most") && !why.contains('\n'), "{why}");
    assert_eq!(check(&[wasm, b"what comes behind"].concat()), Err(why));
    // What is cut short, or has something in it that goes on behind its end, does not fit a section; the compiler says so.
    let cut = |payload| match payload {
        Ok(Payload::ModuleSection { unchecked_range, .. } | Payload::ComponentSection { unchecked_range, .. }) => {
            unchecked_range.end > wasm.len()
        }
        Ok(_) => false,
        Err(_) => true,
    };
    if Parser::new(0).parse_all(wasm).any(cut) {
        return;
    }
    // A core module is a section of its own in a component, and so is a component (WebAssembly, Component Model, Binary).
    let section = if Parser::is_component(wasm) { 4 } else { 1 };
    let bytes = u32::try_from(wasm.len()).expect("no test is that large");
    let size = (0..5u8).map(|i| (bytes >> (7 * i)).to_le_bytes()[0] & 0x7f | if i < 4 { 0x80 } else { 0 });
    let around = b"\0asm\x0d\0\x01\0".iter().copied().chain([section]).chain(size).chain(wasm.iter().copied());
    assert!(check(&around.collect::<Vec<_>>()).is_err(), "a component around it makes a difference");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &[u8] = b"\0asm\x01\0\0\0";

    /// Seven bits at a time, five bytes always.
    fn leb(n: u64) -> Vec<u8> {
        (0..5u32).map(|i| u8::try_from((n >> (7 * i)) & 0x7f).unwrap() | if i < 4 { 0x80 } else { 0 }).collect()
    }

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        [&[id], &leb(content.len() as u64)[..], content].concat()
    }

    /// One function, and its code.
    fn function(locals: &[(u64, u8)], code_bytes: usize) -> Vec<u8> {
        let mut body = leb(locals.len() as u64);
        for (count, ty) in locals {
            body.extend([leb(*count), vec![*ty]].concat());
        }
        body.resize(code_bytes.max(body.len()), 1);
        let code = [leb(1), leb(body.len() as u64), body].concat();
        [section(3, &[leb(1), leb(0)].concat()), section(10, &code)].concat()
    }

    fn checked(wasm: &[u8]) -> String {
        promise(wasm);
        check(wasm).err().unwrap_or_default()
    }

    #[test]
    fn each_count_has_its_limit() {
        for (id, what, most) in [
            (1, "types", fixed::MODULE_TYPES_MAX),
            (2, "imports", fixed::MODULE_IMPORTS_MAX),
            (3, "functions", fixed::MODULE_FUNCTIONS_MAX),
            (6, "globals", fixed::MODULE_GLOBALS_MAX),
            (7, "exports", fixed::MODULE_EXPORTS_MAX),
            (9, "data and element segments", fixed::MODULE_SEGMENTS_MAX),
            (11, "data and element segments", fixed::MODULE_SEGMENTS_MAX),
        ] {
            let with = |n: u64| checked(&[HEADER, &section(id, &leb(n))].concat());
            assert_eq!(with(most), "", "{what}");
            assert_eq!(with(most + 1), format!("it has {} {what}; {most} are the most", most + 1));
        }
    }

    /// A compiler writes such tables out, and whoever loads the code has them on the heap.
    #[test]
    fn tables_are_bounded_from_the_start() {
        let tables = |sizes: &[u64]| {
            let tables = sizes.iter().map(|n| [&[0x70, 0][..], &leb(*n)].concat()).collect::<Vec<_>>().concat();
            checked(&[HEADER, &section(4, &[leb(sizes.len() as u64), tables].concat())].concat())
        };
        assert_eq!(tables(&[600_000, 400_000]), "");
        assert_eq!(tables(&[600_000, 400_001]), "it has 1000001 table entries to begin with; 1000000 are the most");
        assert_eq!(tables(&[u64::from(u32::MAX)]), "it has 1048576 table entries to begin with; 1000000 are the most");
    }

    #[test]
    fn what_instances_take_of_the_host_is_bounded() {
        let passive = |n: usize| {
            let elements = [leb(1), vec![1, 0], leb(n as u64), vec![0; n]].concat();
            checked(&[HEADER, &section(9, &elements)].concat())
        };
        assert_eq!(passive(4 << 20), "");
        assert!(passive((4 << 20) + 1).ends_with("bytes of the host in its instances; 67108864 are the most"));
        let globals = section(1, &[HEADER, &section(6, &leb(99_000))].concat());
        let component = |sections: &[Vec<u8>]| [&b"\0asm\x0d\0\x01\0"[..], &sections.concat()].concat();
        let (core, components) = (|n| section(2, &leb(n)), |n| section(5, &leb(n)));
        assert_eq!(checked(&component(&[globals.clone(), core(42)])), "");
        assert!(checked(&component(&[globals.clone(), core(43)])).contains("it has 68112000 bytes of the host"));
        // What is nested is instantiated as often as it is asked for.
        let nested = section(4, &component(&[globals, core(10)]));
        assert_eq!(checked(&component(&[nested.clone(), components(3)])), "");
        assert!(checked(&component(&[nested, components(4)])).contains("bytes of the host in its instances"));
    }

    #[test]
    fn a_function_has_limits_of_its_own() {
        const I32: u8 = 0x7f;
        const I64: u8 = 0x7e;
        let locals = |n: u64| checked(&[HEADER, &function(&[(n - 1, I32), (1, I64)], 0)].concat());
        assert_eq!(locals(fixed::FUNCTION_LOCALS_MAX), "");
        let refusal = locals(fixed::FUNCTION_LOCALS_MAX + 1);
        assert_eq!(refusal, "one of its functions has 10001 locals; 10000 are the most");
        let bytes = |n: usize| checked(&[HEADER, &function(&[], n)].concat());
        assert_eq!(bytes(fixed::FUNCTION_BYTES_MAX), "");
        assert!(bytes(fixed::FUNCTION_BYTES_MAX + 1).contains("bytes; 4194304 are the most"));
    }

    #[test]
    fn what_is_nested_counts_together() {
        let inner = [HEADER, &section(1, &leb(60_000))].concat();
        let component = |modules: &[&[u8]]| {
            [&b"\0asm\x0d\0\x01\0"[..], &modules.iter().map(|m| section(1, m)).collect::<Vec<_>>().concat()].concat()
        };
        let one = |n: usize| component(&vec![HEADER; n]);
        assert_eq!(checked(&component(&[&inner])), "");
        assert!(checked(&component(&[&inner, &inner])).starts_with("it has 120000 types"));
        assert_eq!(checked(&one(999)), "");
        assert!(checked(&one(1000)).contains("it has 1001 modules, components and instances in it"));
        let deep = (0..1001).fold(HEADER.to_vec(), |inner, _| {
            [&b"\0asm\x0d\0\x01\0"[..], &section(if inner.len() == 8 { 1 } else { 4 }, &inner)].concat()
        });
        assert!(checked(&deep).contains("modules, components and instances in it"), "{}", checked(&deep));
    }

    proptest! {
        /// Sections of which some say that they hold too much, and what is nearly one.
        #[test]
        fn what_is_refused_is_refused_wherever_it_stands(
            component in any::<bool>(),
            sections in prop::collection::vec((0u8..13, prop_oneof![0u64..9, 99_990u64..100_010, any::<u32>().prop_map(u64::from)],
                prop::collection::vec(any::<u8>(), 0..9)), 0..6),
        ) {
            let header = if component { b"\0asm\x0d\0\x01\0" } else { HEADER };
            let sections = sections.iter().map(|(id, n, rest)| section(*id, &[&leb(*n), &rest[..]].concat()));
            promise(&[header, &sections.collect::<Vec<_>>().concat()].concat());
        }
    }
}
