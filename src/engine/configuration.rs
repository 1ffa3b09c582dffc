//! How wasmtime is set up, and what of WebAssembly is on: written down here, asserted here.

use crate::config::fixed;
use wasmtime::{Config, ModuleVersionStrategy, WasmBacktraceDetails, WasmFeatures};

/// The engine to the last digit, what `unroll` makes of loops, and ours. wasmtime itself compares the first number only, and
/// would run code that a release with a flaw has compiled.
pub(super) const VERSION_OF_CODE: &str = concat!("wasmtime 48.0.8, unroll 1, coracle ", env!("CARGO_PKG_VERSION"));

/// The proposals that are on. Everything else is off, and so is whatever a later wasmtime brings: rare, young or costly to
/// bound. A module that needs more is refused when it is compiled.
pub(super) const FEATURES: WasmFeatures = WasmFeatures::FLOATS
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL);

/// The one place that configures the engine. `dense`: memories begin and end where they do, and code compares each address with
/// that; neither can run the other's code.
pub(super) fn configuration(dense: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_features(FEATURES.complement(), false)
        .wasm_features(FEATURES, true)
        // A loop without calls has no other place where it could be left.
        .epoch_interruption(true)
        .max_wasm_stack(fixed::WASM_STACK_BYTES)
        .async_stack_size(fixed::STACK_BYTES)
        // As wasmtime would do it by itself: whatever a 32-bit address and an offset can reach is the guest's own or nobody's.
        .memory_reservation(fixed::MEMORY_ADDRESSES)
        .memory_guard_size(fixed::MEMORY_GUARD_BYTES)
        .guard_before_linear_memory(true)
        // Component-model async is off, and so is what it costs each run of a component.
        .concurrency_support(false)
        // Names come from the module's name section; files and lines would mean parsing DWARF that a stranger wrote.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .module_version(ModuleVersionStrategy::Custom(VERSION_OF_CODE.to_owned()))
        .expect("the version is short");
    if dense {
        config
            .memory_reservation(0)
            .memory_reservation_for_growth(0)
            .memory_guard_size(0)
            .guard_before_linear_memory(false)
            // Bytes that a module begins with would be a mapping of their own in each memory.
            .memory_init_cow(false);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::super::{Compiler, NotCompiled};
    use super::*;
    use wasmparser::{Validator, WasmFeatures as Flags};

    /// Every proposal that the engine has heard of, by the name that it has there. One that a later wasmtime adds has to be
    /// entered here, with a module below: until then this fails.
    const PROPOSALS: &[(&str, bool)] = &[
        ("mutable_global", true),
        ("saturating_float_to_int", true),
        ("sign_extension", true),
        ("reference_types", true),
        ("multi_value", true),
        ("bulk_memory", true),
        ("simd", true),
        ("relaxed_simd", true),
        ("threads", false),
        ("shared_everything_threads", false),
        ("tail_call", false),
        ("floats", true),
        ("multi_memory", true),
        ("exceptions", false),
        ("memory64", false),
        ("extended_const", true),
        ("component_model", true),
        ("function_references", false),
        ("memory_control", false),
        ("gc", false),
        ("custom_page_sizes", false),
        ("legacy_exceptions", false),
        ("gc_types", false),
        ("stack_switching", false),
        ("wide_arithmetic", false),
        ("cm_values", false),
        ("cm_nested_names", false),
        ("cm_async", false),
        ("cm_async_stackful", false),
        ("cm_more_async_builtins", false),
        ("cm_threading", false),
        ("cm_error_context", false),
        ("cm_fixed_length_lists", false),
        ("cm_gc", false),
        // Halves of two proposals that are on.
        ("call_indirect_overlong", true),
        ("bulk_memory_opt", true),
        ("custom_descriptors", false),
        ("compact_imports", false),
        ("cm_map", false),
        ("cm64", false),
        ("cm_implements", false),
        ("cm_canon_names", false),
    ];

    /// What wasmtime says of the configuration, which is all that is not at its default and every proposal.
    #[test]
    fn every_setting_is_the_one_that_is_written_down() {
        let proposals: String = PROPOSALS.iter().map(|(name, on)| format!("wasm_{name}: {on}, ")).collect();
        let compiler =
            "CompilerConfig { strategy: Some(Cranelift), settings: {}, flags: {}, clif_dir: None, wmemcheck: false }";
        for (dense, memories, guard, more) in [
            (false, "memory_reservation: 4294967296, memory_guard_size: 33554432, ", true, ""),
            (
                true,
                "memory_reservation: 0, memory_guard_size: 0, memory_reservation_for_growth: 0, ",
                false,
                "memory_init_cow: false, ",
            ),
        ] {
            let expected = format!(
                "Config {{ {proposals}parallel_compilation: true, compiler_config: Some({compiler}), {memories}\
                 parse_wasm_debuginfo: false, epoch_interruption: true, guard_before_linear_memory: {guard}, {more}\
                 concurrency_support: false }}"
            );
            assert_eq!(format!("{:?}", configuration(dense)), expected);
        }
    }

    /// wasmtime does not show the stacks, but refuses WebAssembly's to be larger than the whole: that tells where both end.
    #[test]
    fn host_code_has_what_guests_leave_of_the_stack() {
        let starts = |config: &Config| wasmtime::Engine::new(config).is_ok();
        assert!(starts(configuration(false).async_stack_size(fixed::WASM_STACK_BYTES)));
        assert!(!starts(configuration(false).async_stack_size(fixed::WASM_STACK_BYTES - 1)));
        assert!(starts(configuration(false).max_wasm_stack(fixed::STACK_BYTES)));
        assert!(!starts(configuration(false).max_wasm_stack(fixed::STACK_BYTES + 1)));
        const { assert!(fixed::STACK_BYTES - fixed::WASM_STACK_BYTES >= 3 << 19) };
    }

    #[test]
    fn the_version_of_code_is_that_of_the_engine() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
        let version = lock.split("name = \"wasmtime\"\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
        assert!(VERSION_OF_CODE.starts_with(&format!("wasmtime {version}, ")), "{version}");
        let code = Compiler::new(false).unwrap().compile(b"(module)", true).unwrap();
        assert!(
            code.windows(VERSION_OF_CODE.len()).any(|bytes| bytes == VERSION_OF_CODE.as_bytes()),
            "it is in the code"
        );
    }

    /// For each proposal that is off a module or component that is nothing without it, and what else it builds upon.
    const NEEDS: &[(&str, &[&str], &str)] = &[
        ("threads", &[], "(module (memory 1 1 shared))"),
        ("shared_everything_threads", &[], "(module (type (shared (func))))"),
        ("tail_call", &[], "(module (func return_call 0))"),
        ("exceptions", &[], "(module (tag))"),
        ("memory64", &[], "(module (memory i64 1))"),
        ("function_references", &[], "(module (type $t (func)) (func (param (ref $t))))"),
        ("memory_control", &[], "(module (memory 1) (func (memory.discard (i32.const 0) (i32.const 0))))"),
        ("gc", &["gc_types"], "(module (type (struct)))"),
        ("custom_page_sizes", &[], "(module (memory 1 (pagesize 1)))"),
        ("legacy_exceptions", &[], "(module (func try catch_all end))"),
        ("gc_types", &[], "(module (func (param externref)))"),
        ("stack_switching", &["gc_types", "function_references"], "(module (type $f (func)) (type (cont $f)))"),
        (
            "wide_arithmetic",
            &[],
            "(module (func (param i64 i64 i64 i64) (result i64 i64)
                local.get 0 local.get 1 local.get 2 local.get 3 i64.add128))",
        ),
        ("cm_values", &[], "(component (import \"v\" (value $v string)) (export \"w\" (value $v)))"),
        ("cm_nested_names", &[], "(component (import \"a:b:c/d\" (func)))"),
        ("cm_async", &[], "(component (type (future)))"),
        (
            "cm_async_stackful",
            &["cm_async"],
            "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
                (func async (canon lift (core func $i \"f\") async)))",
        ),
        (
            "cm_more_async_builtins",
            &["cm_async"],
            "(component (type $s (stream)) (core func (canon stream.cancel-read $s async)))",
        ),
        ("cm_threading", &[], "(component (core func (canon thread.index)))"),
        ("cm_error_context", &[], "(component (core func (canon error-context.drop)))"),
        ("cm_fixed_length_lists", &[], "(component (type (list u8 4)))"),
        (
            "cm_gc",
            &[],
            "(component (import \"f\" (func $f)) (core type $t (func))
                (core func (canon lower (func $f) gc (core-type $t))))",
        ),
        (
            "custom_descriptors",
            &["gc", "gc_types", "function_references"],
            "(module (type $s (struct)) (func (param (ref (exact $s)))))",
        ),
        ("compact_imports", &[], "(module (import \"m\" (item \"a\" (func)) (item \"b\" (global i32))))"),
        ("cm_map", &[], "(component (type (map string u8)))"),
        ("cm64", &["cm_async"], "(component (core func (canon context.get i64 0)))"),
        ("cm_implements", &[], "(component (import \"x\" (implements \"a:b/c\") (instance)))"),
        ("cm_canon_names", &[], "(component (import \"a:b/c@1\" (versionsuffix \".0.0\") (instance)))"),
    ];

    #[test]
    fn whatever_needs_a_proposal_that_is_off_is_refused() {
        let off: Vec<&str> = PROPOSALS.iter().filter(|(_, on)| !on).map(|(name, _)| *name).collect();
        assert_eq!(NEEDS.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), off, "one for each");
        let compiler = Compiler::new(false).unwrap();
        let flags = |names: &[&str]| names.iter().map(|name| Flags::from_name(&name.to_uppercase()).unwrap()).collect();
        for (name, upon, text) in NEEDS {
            let bytes = wat::parse_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            // That it is this proposal which is missing, and not something else wrong.
            let with = |more: Flags| Validator::new_with_features(FEATURES | more).validate_all(&bytes).map(|_| ());
            let upon: Flags = flags(upon);
            assert_eq!(with(upon | flags(&[name])).map_err(|e| e.to_string()), Ok(()), "{name}");
            assert!(with(upon).is_err(), "{name} is not needed by {text}");
            match compiler.compile(&bytes, false) {
                Err(NotCompiled::Refused(why)) => assert!(why.len() > 10, "{name}: {why}"),
                _ => panic!("{name} is not refused"),
            }
        }
    }
}
