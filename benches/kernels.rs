//! How fast guests compute, and what it costs that they can be ended at any moment: `cargo bench --bench kernels`.
//!
//! Each program of `kernels/`, which is compiled C and traps if its result is wrong, runs in turn in plain wasmtime, in plain
//! wasmtime that can interrupt it (as `wasmtime run -W timeout=1h` does), as the daemon runs it, and as it does with `--dense`.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::unwrap_used, reason = "a guest that does not run has no time")]

use coracle::engine::{Compiler, DiskBudget, Engine, Floor, MemoryBudget, Program, Sandbox, Setup, Sink, Usage};
use coracle::model::request::StdStream;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime_wasi::p1::{self, WasiP1Ctx};

const ROUNDS: usize = 21;
/// Of all rounds of a kernel together; a slow machine makes fewer.
const TIME_MAX: Duration = Duration::from_secs(10);

/// For `primes`; the others do not look at it.
const ARGS: [&str; 2] = ["primes", "50000000"];

const KERNELS: [(&str, &str); 9] = [
    ("matmul", include_str!("kernels/matmul.wat")),
    ("sieve", include_str!("kernels/sieve.wat")),
    ("fnv", include_str!("kernels/fnv.wat")),
    ("crc", include_str!("kernels/crc.wat")),
    ("scan", include_str!("kernels/scan.wat")),
    ("mandelbrot", include_str!("kernels/mandelbrot.wat")),
    ("quicksort", include_str!("kernels/quicksort.wat")),
    ("chase", include_str!("kernels/chase.wat")),
    ("fib", include_str!("kernels/fib.wat")),
];

fn main() {
    // `cargo test --benches` only wants to know that it is there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (plain, epochs) = (Plain::new(false), Plain::new(true));
    // There is a dense engine on Linux only.
    let (ours, dense) = (Ours::new(false), Ours::new(cfg!(target_os = "linux")));
    let mut programs: Vec<(&str, Vec<u8>)> =
        KERNELS.iter().map(|(name, text)| (*name, wat::parse_str(text).unwrap())).collect();
    // Rust, and the only one that calls the host: there if `guest-examples/build.sh` has built it.
    let primes = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/target/guests/primes.wasm");
    programs.extend(std::fs::read(primes).ok().map(|wasm| ("primes", wasm)));

    println!("\n| | plain, ms | with epochs | as the daemon | dense |\n| --- | --- | --- | --- | --- |");
    let mut products = [1.0; 3];
    for (name, wasm) in &programs {
        let (plain_pre, epochs_pre) = (plain.load(wasm), epochs.load(wasm));
        let (program, densely) = (ours.load(wasm), dense.load(wasm));
        let run = [&|| plain.run(&plain_pre) as Duration, &|| epochs.run(&epochs_pre), &|| ours.run(&program), &|| {
            dense.run(&densely)
        }] as [&dyn Fn() -> Duration; 4];
        let mut times = [(); 4].map(|()| vec![]);
        let begun = Instant::now();
        while times[0].len() < ROUNDS && begun.elapsed() < TIME_MAX {
            for (times, run) in times.iter_mut().zip(run) {
                times.push(run().as_secs_f64() * 1e3);
            }
        }
        let [plain, epochs, ours, dense] = times.map(median);
        println!("| {name} | {plain:.1} | {:.2} | {:.2} | {:.2} |", epochs / plain, ours / plain, dense / plain);
        products = [products[0] * epochs / plain, products[1] * ours / plain, products[2] * dense / plain];
    }
    let [epochs, ours, dense] = products.map(|product: f64| product.powf(1.0 / programs.len() as f64));
    println!("| geometric mean | | {epochs:.2} | {ours:.2} | {dense:.2} |");
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// wasmtime as it is by itself.
struct Plain {
    engine: wasmtime::Engine,
    linker: wasmtime::Linker<WasiP1Ctx>,
}

impl Plain {
    fn new(epochs: bool) -> Plain {
        let engine = wasmtime::Engine::new(wasmtime::Config::new().epoch_interruption(epochs)).unwrap();
        let mut linker = wasmtime::Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |wasi| wasi).unwrap();
        Plain { engine, linker }
    }

    fn load(&self, wasm: &[u8]) -> wasmtime::InstancePre<WasiP1Ctx> {
        self.linker.instantiate_pre(&wasmtime::Module::new(&self.engine, wasm).unwrap()).unwrap()
    }

    fn run(&self, program: &wasmtime::InstancePre<WasiP1Ctx>) -> Duration {
        let begun = Instant::now();
        let wasi = wasmtime_wasi::WasiCtxBuilder::new().args(&ARGS).build_p1();
        let mut store = wasmtime::Store::new(&self.engine, wasi);
        store.set_epoch_deadline(1);
        let instance = program.instantiate(&mut store).unwrap();
        instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap().call(&mut store, ()).unwrap();
        drop(store);
        begun.elapsed()
    }
}

/// The daemon's engine, ticker and store.
struct Ours {
    engine: Engine,
    compiler: Compiler,
    total: Arc<MemoryBudget>,
    runtime: tokio::runtime::Runtime,
}

impl Ours {
    fn new(dense: bool) -> Ours {
        Ours {
            engine: Engine::start(Setup { dense, ..Setup::new(100_000) }).unwrap(),
            compiler: Compiler::new(dense).unwrap(),
            total: Arc::new(MemoryBudget::new(1 << 30)),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    fn load(&self, wasm: &[u8]) -> Program {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.compiler.compile(wasm, false).unwrap()).unwrap();
        self.engine.load(file.reopen().unwrap()).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn run(&self, program: &Program) -> Duration {
        let begun = Instant::now();
        let run = coracle::engine::run(&self.engine, program, sandbox(&self.total));
        let ended = self.runtime.block_on(self.engine.paced(run));
        assert_eq!(ended.status.exit_code(), 0, "{ended:?}");
        begun.elapsed()
    }
}

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
        args: ARGS.map(str::to_owned).to_vec(),
        env: vec![],
        directory: None,
        mounts: vec![],
        disk: DiskBudget {
            max: Usage { bytes: 1 << 20, files: 10 },
            floor: Arc::new(Floor::new(std::env::temp_dir(), 0)),
            scan: None,
        },
        stdin: None,
        sink: Arc::new(Nowhere),
        memory_bytes_max: 64 << 20,
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
