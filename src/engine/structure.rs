//! How much of everything a module may have, counted on its bytes before the compiler sees them: what is absurd is refused
//! in milliseconds. What is merely expensive is the business of the limits on the compiler.

use crate::config::fixed;
use wasmparser::{Encoding, FunctionBody, Parser, Payload};

/// What a file has in all, nested modules and components included.
#[derive(Default)]
struct Counts {
    functions: u64,
    types: u64,
    imports: u64,
    exports: u64,
    globals: u64,
    segments: u64,
    nested: u64,
}

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
            Payload::ElementSection(s) => self.segments += u64::from(s.count()),
            Payload::DataSection(s) => self.segments += u64::from(s.count()),
            Payload::InstanceSection(s) => self.nested += u64::from(s.count()),
            Payload::ComponentInstanceSection(s) => self.nested += u64::from(s.count()),
            Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => self.nested += 1,
            Payload::CodeSectionEntry(body) => return check_body(body),
            _ => return Ok(()),
        }
        for (what, has, most) in [
            ("functions", self.functions, fixed::MODULE_FUNCTIONS_MAX),
            ("types", self.types, fixed::MODULE_TYPES_MAX),
            ("imports", self.imports, fixed::MODULE_IMPORTS_MAX),
            ("exports", self.exports, fixed::MODULE_EXPORTS_MAX),
            ("globals", self.globals, fixed::MODULE_GLOBALS_MAX),
            ("data and element segments", self.segments, fixed::MODULE_SEGMENTS_MAX),
            ("modules, components and instances in it", self.nested, fixed::MODULE_NESTED_MAX),
        ] {
            if has > most {
                return Err(format!("it has {has} {what}; {most} are the most"));
            }
        }
        Ok(())
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
