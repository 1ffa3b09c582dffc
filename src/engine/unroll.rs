//! Short loops become longer ones that do the same, WebAssembly in and WebAssembly out. Whether a guest should yield or end is
//! asked at each `loop` (`Config::epoch_interruption`), and what costs is not the question but that a call may follow it, for
//! which registers are saved each time. So a body is there several times for each `loop`:
//!
//! ```text
//!   loop $again            loop $again
//!     body                   block $left
//!   end                        block $next  body with $next for $again  br $left  end        all copies but the last
//!                              body
//!                            end
//!                          end
//! ```
//!
//! Loops without calls or other loops, and without anything that takes long at once: a guest is asked again within
//! [`OPERATORS_AFTER_MAX`] operators. Functions keep their indices, so a backtrace has the same names; offsets into their code do
//! not, so nothing may be shown or read by them (`wasm_backtrace_details`, `wasm_branch_hinting`).

use crate::config::fixed;
use std::ops::Range;
use wasmparser::{BinaryReader, BlockType, CodeSectionReader, FunctionBody, Operator, Parser};

/// Goes with the code that comes of it: another number whenever other bytes come out.
#[cfg(test)]
const VERSION: &str = "unroll 1";

/// Operators of a body that is copied: a longer one takes so long that the question is cheap.
const OPERATORS_MAX: usize = 128;
/// Operators of all copies together.
const OPERATORS_AFTER_MAX: usize = 256;
const COPIES_MAX: usize = 16;
/// Bytes that may always be added to a code section; a larger one may grow by half.
const ADDED_BYTES: usize = 16 << 10;
/// Components in each other that are looked into.
const LEVELS_MAX: usize = 8;

// Opcodes, and the type of a block without results (WebAssembly core specification, 5.4).
const BLOCK: u8 = 0x02;
const LOOP: u8 = 0x03;
const END: u8 = 0x0b;
const BR: u8 = 0x0c;
const BR_IF: u8 = 0x0d;
const I32_EQZ: u8 = 0x45;
const EMPTY: u8 = 0x40;

/// The file with its short loops made longer. `None` if it has none, or does not parse: the compiler says what is wrong with it.
pub(crate) fn unroll(wasm: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(wasm.len() + wasm.len() / 8);
    binary(wasm, LEVELS_MAX, &mut out)?.then_some(out)
}

/// Writes a module or a component, or says that nothing in it changes.
fn binary(wasm: &[u8], levels: usize, out: &mut Vec<u8>) -> Option<bool> {
    let component = Parser::is_component(wasm);
    if levels == 0 || !(component || Parser::is_core_wasm(wasm)) {
        return Some(false);
    }
    let mut changes = false;
    let mut reader = BinaryReader::new(wasm, 0);
    out.extend(reader.read_bytes(8).ok()?);
    while !reader.eof() {
        let (from, written) = (reader.current_position(), out.len());
        let id = reader.read_u8().ok()?;
        let content = sized(&mut reader)?;
        out.push(id);
        let changed = match id {
            10 if !component => with_size(out, |out| code(content, out))?,
            // A core module, a component (Component Model, Binary).
            1 | 4 if component => with_size(out, |out| binary(content, levels - 1, out))?,
            _ => false,
        };
        if !changed {
            out.truncate(written);
            out.extend(&wasm[from..reader.current_position()]);
        }
        changes |= changed;
    }
    Some(changes)
}

fn sized<'a>(reader: &mut BinaryReader<'a>) -> Option<&'a [u8]> {
    let size = reader.read_var_u32().ok()?;
    reader.read_bytes(usize::try_from(size).ok()?).ok()
}

/// The size of what `content` writes, and then that.
fn with_size<T>(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>) -> Option<T>) -> Option<T> {
    let at = out.len();
    // Five bytes can hold any size, and may be longer than they had to be (core specification, 5.2.2).
    out.extend([0x80, 0x80, 0x80, 0x80, 0]);
    let written = content(out)?;
    let size = u32::try_from(out.len() - at - 5).ok()?;
    for (byte, shift) in out[at..at + 5].iter_mut().zip((0..).step_by(7)) {
        *byte |= (size >> shift).to_le_bytes()[0] & 0x7f;
    }
    Some(written)
}

/// Writes a code section, or says that nothing in it changes.
fn code(section: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let mut costs = [0; OPERATORS_MAX + 1];
    let mut functions = vec![];
    let reader = CodeSectionReader::new(BinaryReader::new(section, 0)).ok()?;
    let mut size_at = reader.original_position();
    for body in reader {
        let body = body.ok()?;
        let end = body.range().end;
        let loops = loops(section, &body)?;
        for found in &loops {
            costs[found.operators] += found.cost();
        }
        if !loops.is_empty() {
            functions.push((size_at, body));
        }
        size_at = end;
    }
    if functions.is_empty() {
        return Some(false);
    }
    let mut budget = Budget::new(ADDED_BYTES.max(section.len() / 2), &costs);
    let mut copied = 0;
    for (size_at, body) in functions {
        let mut chosen = loops(section, &body)?;
        chosen.retain(|found| budget.take(found));
        let bytes = body.range().len() + chosen.iter().map(Loop::cost).sum::<usize>();
        if chosen.is_empty() || bytes > fixed::FUNCTION_BYTES_MAX {
            continue;
        }
        out.extend(&section[copied..size_at]);
        copied = body.range().start;
        with_size(out, |out| {
            for found in &chosen {
                out.extend(&section[copied..found.whole.start]);
                found.write(section, out);
                copied = found.whole.end;
            }
            out.extend(&section[copied..body.range().end]);
            Some(())
        })?;
        copied = body.range().end;
    }
    out.extend(&section[copied..]);
    Some(copied > 0)
}

/// The shortest loops first: they gain most and cost least.
struct Budget {
    /// Loops of fewer operators have what they need.
    operators: usize,
    /// For those that have exactly so many.
    bytes: usize,
}

impl Budget {
    fn new(mut bytes: usize, costs: &[usize]) -> Budget {
        for (operators, cost) in costs.iter().enumerate() {
            match bytes.checked_sub(*cost) {
                Some(left) => bytes = left,
                None => return Budget { operators, bytes },
            }
        }
        Budget { operators: costs.len(), bytes }
    }

    fn take(&mut self, found: &Loop) -> bool {
        if found.operators == self.operators
            && let Some(left) = self.bytes.checked_sub(found.cost())
        {
            self.bytes = left;
            return true;
        }
        found.operators < self.operators
    }
}

/// A loop that is copied; places are in the code section.
struct Loop {
    whole: Range<usize>,
    body: Range<usize>,
    block_type: u8,
    operators: usize,
    /// Those that lead out of the body.
    labels: Vec<Label>,
    /// Where a `br_if` back to the loop begins that is the last operator of the body.
    last: Option<usize>,
    /// Blocks that are open, while the body is being read.
    depth: u32,
}

struct Label {
    at: Range<usize>,
    value: u32,
    /// Whether it is the loop's own.
    again: bool,
}

/// The loops of a function that are worth it, one behind the other.
fn loops(section: &[u8], body: &FunctionBody<'_>) -> Option<Vec<Loop>> {
    let mut all = vec![];
    let mut reader = body.get_operators_reader().ok()?;
    // What is around another loop is not looked at any more.
    let mut innermost: Option<Loop> = None;
    while !reader.eof() {
        let at = reader.original_position();
        let operator = reader.read().ok()?;
        let at = at..reader.original_position();
        match operator {
            Operator::Loop { blockty } => innermost = Loop::new(section, at, blockty),
            Operator::End if innermost.as_ref().is_some_and(|found| found.depth == 0) => {
                all.extend(innermost.take().and_then(|found| found.ended(at)));
            }
            _ => innermost = innermost.and_then(|found| found.with(section, &operator, at)),
        }
    }
    Some(all)
}

impl Loop {
    /// With the type that a block has that ends with it. One that takes something has another, and would need two.
    fn new(section: &[u8], at: Range<usize>, blockty: BlockType) -> Option<Loop> {
        let block_type = match (blockty, &section[at.clone()]) {
            (BlockType::Empty | BlockType::Type(_), [_, block_type]) => *block_type,
            _ => return None,
        };
        let body = at.end..at.end;
        Some(Loop { whole: at, body, block_type, operators: 0, labels: vec![], last: None, depth: 0 })
    }

    /// `None` if it is not copied with this operator in it.
    fn with(mut self, section: &[u8], operator: &Operator<'_>, at: Range<usize>) -> Option<Loop> {
        self.operators += 1;
        if self.operators > OPERATORS_MAX || !is_plain(&section[at.clone()]) {
            return None;
        }
        self.last = None;
        let labels = match operator {
            Operator::Block { .. } | Operator::If { .. } => {
                self.depth += 1;
                0
            }
            Operator::End => {
                self.depth -= 1;
                0
            }
            Operator::Br { .. } | Operator::BrIf { .. } => 1,
            Operator::BrTable { targets } => targets.len() + 1,
            _ => 0,
        };
        if matches!(operator, Operator::BrIf { relative_depth } if *relative_depth == self.depth) && self.depth == 0 {
            self.last = Some(at.start);
        }
        let mut reader = BinaryReader::new(&section[at.clone()], at.start);
        reader.read_u8().ok()?;
        if matches!(operator, Operator::BrTable { .. }) {
            reader.read_var_u32().ok()?;
        }
        for _ in 0..labels {
            let start = reader.original_position();
            let value = reader.read_var_u32().ok()?;
            if value >= self.depth {
                let again = value == self.depth;
                self.labels.push(Label { at: start..reader.original_position(), value, again });
            }
        }
        Some(self)
    }

    fn ended(mut self, end: Range<usize>) -> Option<Loop> {
        self.body.end = end.start;
        self.whole.end = end.end;
        // With a result behind a `br_if` the way out would have to be written behind each copy; see `write`.
        let left_by_result = self.last.is_some() && self.block_type != EMPTY;
        let repeats = self.labels.iter().any(|label| label.again);
        (repeats && !left_by_result && self.copies() >= 2).then_some(self)
    }

    fn copies(&self) -> usize {
        COPIES_MAX.min(OPERATORS_AFTER_MAX / self.operators.max(1))
    }

    /// Bytes that are added at most: labels may take a byte more each, and the size of the function four.
    fn cost(&self) -> usize {
        const AROUND_ALL: usize = 3 + 4;
        const AROUND_ONE: usize = 5;
        AROUND_ALL + self.labels.len() + (self.copies() - 1) * (self.body.len() + self.labels.len() + AROUND_ONE)
    }

    fn write(&self, section: &[u8], out: &mut Vec<u8>) {
        out.extend([LOOP, self.block_type, BLOCK, self.block_type]);
        for _ in 1..self.copies() {
            out.extend([BLOCK, EMPTY]);
            match self.last {
                // Not `br_if $next  br $left`: Cranelift moves what only the way out needs into each of them, so much work
                // for each copy that there is ever more of it, the further behind it is.
                Some(last) => {
                    self.write_body(section, last, [0, 2], out);
                    out.extend([I32_EQZ, BR_IF, 1]);
                }
                None => {
                    self.write_body(section, self.body.end, [0, 2], out);
                    out.extend([BR, 1]);
                }
            }
            out.push(END);
        }
        self.write_body(section, self.body.end, [1, 1], out);
        out.extend([END, END]);
    }

    /// The body up to `end`, with so much added to labels of the loop and to those around it.
    fn write_body(&self, section: &[u8], end: usize, [again, around]: [u32; 2], out: &mut Vec<u8>) {
        let mut copied = self.body.start;
        for label in self.labels.iter().filter(|label| label.at.end <= end) {
            out.extend(&section[copied..label.at.start]);
            // The largest is no label of anything, here or there.
            leb128(label.value.saturating_add(if label.again { again } else { around }), out);
            copied = label.at.end;
        }
        out.extend(&section[copied..end]);
    }
}

/// Whether an operator goes nowhere but to labels that are known here, and takes as little time as an addition.
fn is_plain(operator: &[u8]) -> bool {
    match operator {
        // Control, but loops, exceptions and calls.
        [0x00..=0x02 | 0x04 | 0x05 | 0x0b..=0x0f, ..] => true,
        // Values, locals, globals and entries of tables; loads and stores, the size of a memory but not its growth; numbers.
        [0x1a..=0x1c | 0x20..=0x26 | 0x28..=0x3f | 0x41..=0xc4, ..] => true,
        // References, conversions that saturate, the size of a table, vectors.
        [0xd0..=0xd2 | 0xfd, ..] | [0xfc, 0x00..=0x07 | 0x10, ..] => true,
        _ => false,
    }
}

fn leb128(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Whatever a file holds: what comes out is as valid as it was, is the same outside of functions, and is not much larger. Panics
/// where that is not so; see [`crate::check`].
pub(crate) fn promise(wasm: &[u8]) {
    use wasmparser::{Payload, Validator};
    let Some(unrolled) = unroll(wasm) else { return };
    assert_eq!(Validator::new().validate_all(&unrolled).is_ok(), Validator::new().validate_all(wasm).is_ok());
    let mut before = Parser::new(0).parse_all(wasm);
    for after in Parser::new(0).parse_all(&unrolled) {
        let (before, after) = match (before.next().expect("it ends where it ended"), after) {
            (Ok(before), Ok(after)) => (before, after),
            (before, after) => return assert!(before.is_err() && after.is_err()),
        };
        match (&before, &after) {
            (
                Payload::CodeSectionStart { count, range, .. },
                Payload::CodeSectionStart { count: same, range: now, .. },
            ) => {
                assert_eq!(count, same);
                assert!(
                    now.len() <= range.len() + ADDED_BYTES.max(range.len() / 2),
                    "{} are {}",
                    range.len(),
                    now.len()
                );
            }
            (Payload::CodeSectionEntry(before), Payload::CodeSectionEntry(after)) => {
                let (before, after) = (before.as_bytes(), after.as_bytes());
                assert!(after == before || after.len() <= fixed::FUNCTION_BYTES_MAX, "{} bytes", after.len());
            }
            (Payload::ModuleSection { .. } | Payload::ComponentSection { .. } | Payload::End(_), _) => {
                assert_eq!(std::mem::discriminant(&before), std::mem::discriminant(&after));
            }
            _ => {
                let bytes =
                    |payload: &Payload<'_>, of: &[u8]| payload.as_section().map(|(id, range)| (id, of[range].to_vec()));
                assert_eq!(bytes(&after, &unrolled), bytes(&before, wasm));
            }
        }
    }
    assert!(before.next().is_none(), "it ends where it ended");
}

#[cfg(test)]
mod tests;
