//! What comes out does what went in did: shapes by hand, programs by chance, and modules of wasm-smith.

use super::*;
use arbitrary::Unstructured;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use wasmtime::{Config, Engine, Extern, Instance, Module, Store, Trap, Val, component};

fn engine() -> Engine {
    Engine::new(Config::new().epoch_interruption(true)).unwrap()
}

/// A function of a number that loops so often, but for what its locals are.
fn function(body: &str) -> String {
    format!("(func (export \"f\") (param $n i32) (result i32) (local $i i32) (local $h i32) {body})")
}

/// One of a hash, and one of the counter.
const WORK: &str = "(local.set $h (i32.add (i32.mul (local.get $h) (i32.const 31)) (local.get $i)))";
const STEP: &str = "(local.set $i (i32.add (local.get $i) (i32.const 1)))";
const LESS: &str = "(i32.lt_u (local.get $i) (local.get $n))";
const OVER: &str = "(i32.gt_u (local.get $i) (local.get $n))";

/// Every way for a loop to go on and to end.
fn shapes() -> Vec<(&'static str, String)> {
    let deep = |levels: usize| {
        let (blocks, ends) = ("block ".repeat(levels), "end ".repeat(levels));
        format!("block $out {blocks} loop $l {STEP} {WORK} (br_if $out {OVER}) br $l end {ends} end local.get $h")
    };
    vec![
        ("do, while", format!("loop $l {STEP} {WORK} (br_if $l {LESS}) end local.get $h")),
        ("while, do", format!("block $b loop $l (br_if $b {OVER}) {STEP} {WORK} br $l end end local.get $h")),
        ("nothing but the way back", format!("loop $l {STEP} (br_if $l {LESS}) end local.get $i")),
        (
            "continue in the middle",
            format!("block $b loop $l {STEP} (br_if $b {OVER}) (br_if $l (i32.and (local.get $i) (i32.const 3))) {WORK} br $l end end local.get $h"),
        ),
        (
            "continue in the middle, and at the end",
            format!("loop $l {STEP} {WORK} (br_if $l (i32.and (i32.and (local.get $i) (i32.const 3)) {LESS})) {WORK} (br_if $l {LESS}) end local.get $h"),
        ),
        (
            "back by a table",
            format!(
                "block $b loop $l block $x block $y {STEP} (br_if $b {OVER})
                   (br_table $l $x $y $b $l (i32.rem_u (local.get $i) (i32.const 3))) end {WORK} {WORK} br $l end {WORK} br $l end end local.get $h"
            ),
        ),
        ("out by a table", format!("block $b loop $l {STEP} {WORK} (br_table $l $b {OVER}) end end local.get $h")),
        (
            "either way back",
            format!(
                "loop $l {STEP} (if (i32.and (local.get $i) (i32.const 2)) (then {WORK} (if {LESS} (then br $l) (else {WORK})))
                   (else (if {LESS} (then {WORK} {WORK} br $l)))) end local.get $h"
            ),
        ),
        ("back out of a block", format!("loop $l block {STEP} {WORK} (br_if $l {LESS}) end end local.get $h")),
        ("with a result", format!("loop $l (result i32) {STEP} {WORK} (if {LESS} (then br $l)) local.get $h end")),
        (
            "out with a value",
            format!("block $b (result i32) loop $l {STEP} {WORK} (br_if $b (local.get $h) {OVER}) drop br $l end unreachable end"),
        ),
        (
            "with a result, and out with a value",
            format!("block $b (result i32) loop $l (result i32) {STEP} {WORK} (br_if $b (local.get $h) {OVER}) drop br $l end end"),
        ),
        ("to the label of the function", format!("loop $l {STEP} {WORK} (if {OVER} (then (br 2 (local.get $h)))) br $l end unreachable")),
        ("return", format!("loop $l {STEP} {WORK} (if {OVER} (then (return (local.get $h)))) br $l end unreachable")),
        ("a trap", format!("loop $l {STEP} {WORK} (drop (i32.div_u (local.get $h) (i32.sub (local.get $i) (i32.const 37)))) (br_if $l {LESS}) end local.get $h")),
        ("unreachable", format!("loop $l {STEP} {WORK} (br_if $l {LESS}) unreachable end local.get $h")),
        (
            "what nobody reaches, behind a br",
            format!("block $b loop $l {STEP} {WORK} (br_if $b {OVER}) br $l i32.add i32.eqz br_if $b br_table $l $b $l end end local.get $h"),
        ),
        (
            "a way back that nobody reaches",
            format!("block $b loop $l {STEP} {WORK} (br_if $l {LESS}) br $b br_if $l end end local.get $h"),
        ),
        (
            "in another loop",
            format!("loop $o (local.set $i (i32.const 0)) loop $l {STEP} {WORK} (br_if $o (i32.eq (local.get $h) (i32.const 7))) (br_if $l {LESS}) end end local.get $h"),
        ),
        (
            "one behind the other",
            format!("loop $l {STEP} {WORK} (br_if $l {LESS}) end (local.set $i (i32.const 0)) loop $l {STEP} {WORK} {WORK} (br_if $l {LESS}) end local.get $h"),
        ),
        ("a label of two bytes", deep(125)),
        ("a label that becomes one of two bytes", deep(124)),
        (
            "vectors, references and what saturates",
            format!(
                "(local $v v128) loop $l {STEP} (local.set $v (i32x4.add (local.get $v) (i32x4.splat (local.get $i))))
                   (table.set 0 (i32.const 0) (select (result funcref) (ref.null func) (ref.func 0) {LESS}))
                   (local.set $h (i32.add (i32.trunc_sat_f32_u (f32.const nan)) (i32.add (table.size 0) (memory.size))))
                   (i32.store8 offset=3 (local.get $h) (i32x4.extract_lane 3 (local.get $v))) (br_if $l {LESS}) end
                   (i32.add (i32x4.extract_lane 1 (local.get $v)) (ref.is_null (table.get 0 (i32.const 0))))"
            ),
        ),
    ]
}

/// What stays as it is, and why.
fn left_alone() -> Vec<(&'static str, String)> {
    let with = |operators: &str| format!("loop $l {STEP} {operators} (br_if $l {LESS}) end local.get $i");
    vec![
        ("no way back", format!("loop $l {STEP} {WORK} end local.get $h")),
        (
            "a result behind the way back",
            format!("loop $l (result i32) {STEP} {WORK} local.get $h (br_if $l {LESS}) end"),
        ),
        (
            "a parameter",
            format!(
                "local.get $n loop $l (param i32) (result i32) {STEP} i32.const 1 i32.sub local.tee $h local.get $h br_if $l end"
            ),
        ),
        (
            "two results",
            format!("loop $l (result i32 i32) {STEP} (br_if $l {LESS}) i32.const 1 i32.const 2 end i32.add"),
        ),
        ("a call", with("(drop (call $zero))")),
        ("an indirect call", with("(drop (call_indirect (result i32) (i32.const 1)))")),
        ("more memory", with("(drop (memory.grow (i32.const 0)))")),
        ("a larger table", with("(drop (table.grow 0 (ref.null func) (i32.const 0)))")),
        ("filling", with("(memory.fill (i32.const 0) (i32.const 0) (i32.const 0))")),
        ("copying", with("(memory.copy (i32.const 0) (i32.const 0) (i32.const 0))")),
        ("data", with("(memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0))")),
        ("filling a table", with("(table.fill 0 (i32.const 0) (ref.null func) (i32.const 0))")),
        ("copying a table", with("(table.copy (i32.const 0) (i32.const 0) (i32.const 0))")),
        ("elements", with("(table.init 0 0 (i32.const 0) (i32.const 0) (i32.const 0))")),
        ("it is long", with(&WORK.repeat(21))),
    ]
}

fn module(body: &str) -> Vec<u8> {
    let text = format!(
        "(module (memory (export \"m\") 1) (table 4 funcref) (elem funcref (ref.null func)) (data \"\")
           {} (func $zero (result i32) i32.const 0) (elem (i32.const 1) $zero))",
        function(body)
    );
    wat::parse_str(text).unwrap_or_else(|e| panic!("{e}: {body}"))
}

/// The result and what is in the memory then, or the trap.
fn call(engine: &Engine, wasm: &[u8], n: i32) -> Result<(i32, Vec<u8>), String> {
    let module = Module::new(engine, wasm).unwrap();
    let mut store = Store::new(engine, ());
    store.set_epoch_deadline(1);
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let f = instance.get_typed_func::<i32, i32>(&mut store, "f").unwrap();
    match f.call(&mut store, n) {
        Ok(result) => Ok((result, instance.get_memory(&mut store, "m").unwrap().data(&store).to_vec())),
        Err(e) => Err(format!("{:?}", e.downcast_ref::<Trap>().unwrap())),
    }
}

#[test]
fn every_shape_does_what_it_did() {
    let engine = engine();
    for (shape, body) in shapes() {
        let wasm = module(&body);
        promise(&wasm);
        let unrolled = unroll(&wasm).unwrap_or_else(|| panic!("{shape} is left alone"));
        for n in (0..40).chain([100, 1000]) {
            assert_eq!(call(&engine, &unrolled, n), call(&engine, &wasm, n), "{shape}, {n}");
        }
    }
}

#[test]
fn what_takes_long_or_has_another_type_is_left_alone() {
    for (why, body) in left_alone() {
        let wasm = module(&body);
        assert_eq!(unroll(&wasm), None, "{why}");
        call(&engine(), &wasm, 3).unwrap();
    }
    // One operator less.
    let long = |last: &str| module(&format!("loop $l {} {last} (br_if $l {LESS}) end local.get $i", WORK.repeat(20)));
    let (most, more) = (long(&"nop ".repeat(4)), long(&"nop ".repeat(5)));
    assert!(unroll(&most).is_some() && unroll(&more).is_none());
}

/// The largest number there is takes each of them seconds, most of them minutes.
#[test]
fn every_shape_that_spins_is_stopped() {
    let engine = engine();
    for (shape, body) in shapes() {
        if shape == "a trap" {
            continue;
        }
        let unrolled = unroll(&module(&body)).unwrap();
        std::thread::scope(|scope| {
            let (ended, end) = channel::<()>();
            let engine = &engine;
            scope.spawn(move || {
                while end.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                    engine.increment_epoch();
                }
            });
            assert_eq!(call(engine, &unrolled, -1).unwrap_err(), "Interrupt", "{shape}");
            ended.send(()).unwrap();
        });
    }
}

#[test]
fn loops_inside_of_components_are_unrolled_too() {
    let text = format!(
        "(component (component $c (core module $m {}) (core instance $i (instantiate $m))
           (func (export \"f\") (param \"n\" u32) (result u32) (canon lift (core func $i \"f\"))))
         (instance $i (instantiate $c)) (@custom \"kept\" \"as it is\") (export \"f\" (func $i \"f\")))",
        function(&shapes()[0].1)
    );
    let wasm = wat::parse_str(text).unwrap();
    promise(&wasm);
    let unrolled = unroll(&wasm).unwrap();
    assert!(unrolled.windows(8).any(|bytes| bytes == b"as it is"));
    let engine = engine();
    let call = |wasm: &[u8]| {
        let component = component::Component::new(&engine, wasm).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        let instance = component::Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        let f = instance.get_typed_func::<(u32,), (u32,)>(&mut store, "f").unwrap();
        f.call(&mut store, (1000,)).unwrap()
    };
    assert_eq!(call(&unrolled), call(&wasm));
}

/// The message, and with it the names of the functions around.
#[test]
fn a_trap_in_a_loop_is_told_as_it_was() {
    let text = format!(
        "(module (func $inner (param $n i32) (result i32) (local $i i32) (local $h i32) {})
           (func $main (export \"_start\") (drop (call $inner (i32.const 100)))))",
        shapes().iter().find(|(shape, _)| *shape == "a trap").unwrap().1
    );
    assert!(unroll(&wat::parse_str(&text).unwrap()).is_some());
    let engine = super::super::Engine::new(100_000).unwrap();
    let program = super::super::tests::program(&engine, text.as_bytes(), true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended =
        runtime.block_on(engine.paced(super::super::run(&engine, &program, super::super::sandbox::tests::bare())));
    assert_eq!(ended.reason, "trap:integer-division-by-zero");
    assert_eq!(ended.message.unwrap(), "integer divide by zero in inner < main");
}

/// A component in a component in a component, and so on.
#[test]
fn what_is_too_deep_is_left_alone() {
    let inside = |levels| {
        (0..levels).fold(module(&shapes()[0].1), |inner, _| {
            let mut around = b"\0asm\x0d\0\x01\0".to_vec();
            around.push(if Parser::is_component(&inner) { 4 } else { 1 });
            leb128(u32::try_from(inner.len()).unwrap(), &mut around);
            [around, inner].concat()
        })
    };
    for (levels, changes) in [(0, true), (LEVELS_MAX - 1, true), (LEVELS_MAX, false), (1000, false)] {
        assert_eq!(unroll(&inside(levels)).is_some(), changes, "{levels}");
    }
    promise(&inside(LEVELS_MAX - 1));
}

#[test]
fn a_code_section_grows_by_half_and_the_shortest_loops_come_first() {
    let section = |wasm: &[u8]| {
        let of = |payload| match payload {
            Ok(wasmparser::Payload::CodeSectionStart { range, .. }) => Some(range.len()),
            _ => None,
        };
        Parser::new(0).parse_all(wasm).find_map(of).unwrap()
    };
    let long = format!("loop $l {} (br_if $l {LESS}) end local.get $h", WORK.repeat(15));
    let short = format!("loop $l {STEP} (br_if $l {LESS}) end local.get $i");
    let of = |long_ones: usize, short_ones: usize| {
        let functions = |body: &str, n: usize| {
            format!("(func (param $n i32) (result i32) (local $i i32) (local $h i32) {body})").repeat(n)
        };
        wat::parse_str(format!("(module {} {})", functions(&long, long_ones), functions(&short, short_ones))).unwrap()
    };
    let before = of(1000, 10);
    promise(&before);
    let after = unroll(&before).unwrap();
    let added = section(&after) - section(&before);
    let most = section(&before) / 2;
    assert!(added <= most && added > most * 9 / 10, "{added} of {most}");
    let sizes = |wasm: &[u8]| -> Vec<usize> {
        let size = |payload| match payload {
            Ok(wasmparser::Payload::CodeSectionEntry(body)) => Some(body.as_bytes().len()),
            _ => None,
        };
        Parser::new(0).parse_all(wasm).filter_map(size).collect()
    };
    let grown: Vec<bool> = sizes(&after).iter().zip(sizes(&before)).map(|(after, before)| *after > before).collect();
    let (long_ones, short_ones) = grown.split_at(1000);
    assert!(short_ones.iter().all(|grown| *grown));
    let long_ones = long_ones.iter().filter(|grown| **grown).count();
    assert!((400..600).contains(&long_ones), "{long_ones} of those that are long");
    // A small one may grow by more.
    let small = unroll(&of(0, 1)).unwrap();
    assert!(section(&small) > 4 * section(&of(0, 1)));
}

#[test]
fn a_function_stays_as_small_as_it_has_to_be() {
    let huge =
        |nops: usize| module(&format!("{} loop $l {STEP} (br_if $l {LESS}) end local.get $i", "nop ".repeat(nops)));
    let least = fixed::FUNCTION_BYTES_MAX;
    promise(&huge(least - 1000));
    assert!(unroll(&huge(least - 1000)).is_some());
    assert_eq!(unroll(&huge(least - 50)), None);
}

/// What another number has to be given to `VERSION` and `VERSION_OF_CODE` for.
#[test]
fn other_bytes_are_another_version() {
    let mut sha = Sha256::new();
    for (_, body) in shapes() {
        sha.update(unroll(&module(&body)).unwrap());
    }
    let digest: String = sha.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((VERSION, digest.as_str()), ("unroll 1", "5fc91ea4"));
    assert!(super::super::configuration::VERSION_OF_CODE.contains(&format!(", {VERSION}, ")));
}

/// A program that is structured as these are.
#[derive(Debug, Clone)]
enum Part {
    Work(u8),
    Block(bool, Vec<Part>),
    Loop(bool, Vec<Part>),
    If(Vec<Part>, Vec<Part>),
    Branch(u8),
    BranchIf(u8),
    Table(Vec<u8>),
    Return,
    Load,
}

fn parts(depth: u32) -> BoxedStrategy<Vec<Part>> {
    let leaf = prop_oneof![
        4 => any::<u8>().prop_map(Part::Work),
        1 => any::<u8>().prop_map(Part::Branch),
        4 => any::<u8>().prop_map(Part::BranchIf),
        2 => prop::collection::vec(any::<u8>(), 1..5).prop_map(Part::Table),
        1 => Just(Part::Return),
        1 => Just(Part::Load),
    ];
    let part = match depth {
        0 => leaf.boxed(),
        _ => prop_oneof![
            3 => leaf,
            1 => (any::<bool>(), parts(depth - 1)).prop_map(|(result, parts)| Part::Block(result, parts)),
            2 => (any::<bool>(), parts(depth - 1)).prop_map(|(result, parts)| Part::Loop(result, parts)),
            1 => (parts(depth - 1), parts(depth - 1)).prop_map(|(yes, no)| Part::If(yes, no)),
        ]
        .boxed(),
    };
    prop::collection::vec(part, 0..5).boxed()
}

/// Whether a label takes a value, the innermost last; the first is the function's.
fn write(parts: &[Part], labels: &mut Vec<bool>, out: &mut String) {
    const VALUE: &str = " (local.get $h)";
    let choose = |labels: &[bool], n: u8| usize::from(n) % labels.len();
    let takes = |labels: &[bool], label: usize| labels[labels.len() - 1 - label];
    for part in parts {
        match part {
            Part::Work(n) => {
                *out += &format!(" (local.set $h (i32.add (i32.mul (local.get $h) (i32.const 31)) (i32.const {n})))");
            }
            Part::Block(result, parts) | Part::Loop(result, parts) => {
                let is_loop = matches!(part, Part::Loop(..));
                *out += &format!(
                    " {} {}",
                    if is_loop { "loop" } else { "block" },
                    if *result { "(result i32)" } else { "" }
                );
                if is_loop {
                    *out += " (local.set $fuel (i32.sub (local.get $fuel) (i32.const 1)))
                        (if (i32.eqz (local.get $fuel)) (then unreachable))";
                }
                labels.push(*result && !is_loop);
                write(parts, labels, out);
                labels.pop();
                *out += if *result { " local.get $h end local.set $h" } else { " end" };
            }
            Part::If(yes, no) => {
                *out += " (i32.and (local.get $h) (i32.const 4)) if";
                labels.push(false);
                write(yes, labels, out);
                *out += " else";
                write(no, labels, out);
                labels.pop();
                *out += " end";
            }
            Part::Branch(n) => {
                let label = choose(labels, *n);
                *out += &format!("{} br {label}", if takes(labels, label) { VALUE } else { "" });
            }
            Part::BranchIf(n) => {
                let label = choose(labels, *n);
                let (value, after) = if takes(labels, label) { (VALUE, " drop") } else { ("", "") };
                *out += &format!(
                    "{value} (i32.and (i32.shr_u (local.get $h) (i32.const {})) (i32.const 1)) br_if {label}{after}",
                    n % 7
                );
            }
            Part::Table(all) => {
                let first = choose(labels, all[0]);
                let alike =
                    all.iter().map(|n| choose(labels, *n)).filter(|l| takes(labels, *l) == takes(labels, first));
                let alike: String = alike.map(|label| format!(" {label}")).collect();
                *out += if takes(labels, first) { VALUE } else { "" };
                *out += &format!(" (i32.and (local.get $h) (i32.const 7)) br_table{alike}");
            }
            Part::Return => {
                *out += " (if (i32.eqz (i32.and (local.get $h) (i32.const 15))) (then (return (local.get $h))))"
            }
            Part::Load => *out += " (local.set $h (i32.load8_u offset=3 (local.get $h)))",
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::default() })]

    /// Branches from anywhere to anywhere, and code that nobody reaches.
    #[test]
    fn any_program_does_what_it_did(parts in parts(4), n in any::<i32>()) {
        let mut body = "(local $fuel i32) (local.set $fuel (i32.const 500)) (local.set $h (local.get $n))".to_owned();
        write(&parts, &mut vec![true], &mut body);
        let wasm = module(&(body + " local.get $h"));
        promise(&wasm);
        let unrolled = unroll(&wasm);
        prop_assume!(unrolled.is_some());
        let engine = engine();
        let unrolled = unrolled.unwrap();
        for n in [n, 0, 1, 77] {
            prop_assert_eq!(call(&engine, &unrolled, n), call(&engine, &wasm, n));
        }
    }

    /// What is nearly a module.
    #[test]
    fn a_byte_that_is_another_breaks_no_promise(shape in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut wasm = module(&shape.get(&shapes()).1);
        *at.get_mut(&mut wasm[..]) = byte;
        promise(&wasm);
    }

    #[test]
    fn a_code_section_of_any_bytes_breaks_no_promise(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..0x20], 0..60)) {
        let code = [&[1, u8::try_from(bytes.len()).unwrap() + 2, 0][..], &bytes, &[END]].concat();
        let size = u8::try_from(code.len()).unwrap();
        promise(&[b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a", &[size][..], &code].concat());
    }
}

/// A module of wasm-smith's that ends, with everything exported.
fn smith(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let bytes: Vec<u8> = (0..512)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32).to_le_bytes()[..4].to_vec()
        })
        .collect();
    let config = wasm_smith::Config {
        export_everything: true,
        canonicalize_nans: true,
        max_imports: 0,
        min_funcs: 4,
        max_memory32_bytes: 1 << 20,
        max_table_elements: 1000,
        custom_page_sizes_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        // Those to whatever a host has need the `gc` of wasmtime.
        reference_types_enabled: false,
        relaxed_simd_enabled: false,
        shared_everything_threads_enabled: false,
        tail_call_enabled: false,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        ..wasm_smith::Config::default()
    };
    let mut module = wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).unwrap();
    module.ensure_termination(1000).unwrap();
    module.to_bytes()
}

/// What each function gives or traps with, and what there is afterwards. What no stack is large enough for differs, and so does
/// what comes behind it: frames have other sizes.
fn all_of(engine: &Engine, wasm: &[u8]) -> Option<Vec<String>> {
    let module = Module::new(engine, wasm).unwrap();
    let mut store = Store::new(engine, ());
    store.set_epoch_deadline(1);
    let mut seen = vec![];
    let trap = |e: &wasmtime::Error| format!("{:?}", e.downcast_ref::<Trap>().copied());
    let overflow = |trap: &str| trap.contains("StackOverflow");
    let instance = match Instance::new(&mut store, &module, &[]) {
        Ok(instance) => instance,
        Err(e) => return Some(vec![trap(&e)]).filter(|_| !overflow(&trap(&e))),
    };
    let exports: Vec<(String, Extern)> =
        instance.exports(&mut store).map(|e| (e.name().to_owned(), e.into_extern())).collect();
    for (_, export) in &exports {
        let Extern::Func(function) = export else { continue };
        let ty = function.ty(&store);
        let zero = ty.params().map(|ty| ty.default_value().unwrap_or(Val::I32(0))).collect::<Vec<_>>();
        let mut results = vec![Val::I32(0); ty.results().len()];
        match function.call(&mut store, &zero, &mut results) {
            Ok(()) => seen.extend(results.iter().map(|value| match value {
                Val::FuncRef(f) => format!("{}", f.is_some()),
                value => format!("{value:?}"),
            })),
            Err(e) if overflow(&trap(&e)) => return None,
            Err(e) => seen.push(trap(&e)),
        }
    }
    for (name, export) in exports {
        match export {
            Extern::Memory(memory) => {
                seen.push(format!("{name} {:x?}", Sha256::digest(memory.data(&store))));
            }
            Extern::Global(global) => match global.get(&mut store) {
                Val::FuncRef(f) => seen.push(format!("{name} {}", f.is_some())),
                value => seen.push(format!("{name} {value:?}")),
            },
            _ => {}
        }
    }
    Some(seen)
}

#[test]
fn random_modules_do_what_they_did() {
    let engine = engine();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (mut unrolled, mut compared) = (0, 0);
    for seed in now..now + 300 {
        let wasm = smith(seed);
        promise(&wasm);
        let Some(longer) = unroll(&wasm) else { continue };
        unrolled += 1;
        if let (Some(before), Some(after)) = (all_of(&engine, &wasm), all_of(&engine, &longer)) {
            assert_eq!(after, before, "smith({seed})");
            compared += 1;
        }
    }
    assert!(compared >= 20, "seeds from {now}: {unrolled} were unrolled, {compared} compared");
}
