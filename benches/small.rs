//! The small things that each request is made of: `cargo bench --bench small`.

use bytes::BytesMut;
use coracle::engine::{Compiler, DiskBudget, Engine, Floor, MemoryBudget, Sandbox, Sink, Usage};
use coracle::model::frame;
use coracle::model::request::{self, StdStream};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

struct Nowhere;

#[async_trait::async_trait]
impl Sink for Nowhere {
    fn room(&self) -> usize {
        4096
    }
    async fn ready(&self) {}
    fn write(&self, _: StdStream, _: bytes::Bytes) {}
}

fn sandbox(total: &Arc<MemoryBudget>) -> Sandbox {
    Sandbox {
        args: vec!["hello".into()],
        env: vec![],
        directory: Some(std::env::temp_dir()),
        mounts: vec![],
        disk: DiskBudget {
            max: Usage { bytes: 1 << 20, files: 10 },
            floor: Arc::new(Floor::new(std::env::temp_dir(), 0)),
            scan: None,
        },
        stdin: None,
        sink: Arc::new(Nowhere),
        memory_bytes_max: 1 << 20,
        memory_total: Arc::clone(total),
        gauges: Arc::default(),
        handles_max: 16,
        table_entries_max: 100_000,
        random_bytes_max: 64 << 10,
        hostcall_bytes_max: 32 << 20,
        brief: true,
        on_enter: Box::new(|| ()),
    }
}

fn parse(c: &mut Criterion) {
    let line = "run --name web -e KEY=value -m 64m --timeout 30s hello 'two words' x";
    c.bench_function("frame, split and parse a run", |b| {
        b.iter(|| {
            let mut buffer = BytesMut::from(format!("{line}\n").as_bytes());
            let line = frame::take_line(&mut buffer).ok().flatten().expect("a line");
            let words = request::split(frame::text(&line).expect("text")).expect("words");
            black_box(request::parse(&words).expect("a request"))
        });
    });
}

fn run(c: &mut Criterion) {
    let engine = Engine::new(100_000).expect("an engine");
    let text = include_str!("../guest-examples/hello/hello.wat");
    let compiler = Compiler::new(false).expect("a compiler");
    c.bench_function("compile hello", |b| b.iter(|| black_box(compiler.compile(text.as_bytes(), true).is_ok())));
    let code = compiler.compile(text.as_bytes(), true).expect("it compiles");
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&code).expect("room for it");
    let load = || engine.load(file.reopen().expect("it is there")).unwrap_or_else(|e| panic!("{e:?}"));
    c.bench_function("load hello", |b| b.iter(|| black_box(load())));
    let program = load();
    let total = Arc::new(MemoryBudget::new(1 << 30));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    c.bench_function("store, instantiate, run hello, drop", |b| {
        b.iter(|| {
            let ended = runtime.block_on(engine.paced(coracle::engine::run(&engine, &program, sandbox(&total))));
            assert_eq!(ended.status.exit_code(), 0);
        });
    });
}

criterion_group!(benches, parse, run);
criterion_main!(benches);
