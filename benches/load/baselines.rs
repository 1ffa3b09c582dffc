//! What the daemon is measured beside.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1};

/// The tutorial's daemon, for as many clients as come: `run NAME` is an entry of a dictionary, and nothing runs.
pub(crate) async fn dictionary() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("listening on {}", listener.local_addr().expect("an address"));
    let containers: Arc<Mutex<HashMap<String, String>>> = Arc::default();
    let mut clients = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a socket");
        let containers = Arc::clone(&containers);
        clients.spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
                let name = line.trim_end().strip_prefix("run ").unwrap_or_default().to_owned();
                let reply = format!("Container '{name}' created at '/tmp/{name}'\n");
                containers.lock().expect("nobody panics").insert(name, "running".to_owned());
                if stream.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
}

const HELLO: &str = include_str!("../../guest-examples/hello/hello.wat");

/// Starts a second of the same program in this process, by one thread for each processor, as wasmtime does it by itself.
pub(crate) fn in_process(period: Duration) -> f64 {
    let engine = Engine::default();
    let mut linker: Linker<WasiP1Ctx> = Linker::new(&engine);
    wasi_snapshot_preview1::add_to_linker(&mut linker, |wasi| wasi).expect("it links");
    let module = Module::new(&engine, wat::parse_str(HELLO).expect("it is WebAssembly")).expect("it compiles");
    let pre = linker.instantiate_pre(&module).expect("it links");
    let one = || async {
        let wasi = WasiCtxBuilder::new().args(&["hello"]).build_p1();
        let mut store = Store::new(&engine, wasi);
        let instance = pre.instantiate_async(&mut store).await.expect("an instance");
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").expect("it has one");
        // An exit is an error here.
        let _exited = start.call_async(&mut store, ()).await;
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (begun, mut runs) = (Instant::now(), 0);
                while begun.elapsed() < period {
                    one().await;
                    runs += 1;
                }
                f64::from(runs) / begun.elapsed().as_secs_f64()
            })
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        all.into_iter().map(|thread| thread.join().expect("it ends")).sum()
    })
}

/// Starts a second of a program, one after the other.
fn started(mut command: Command, period: Duration) -> Option<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (begun, mut runs) = (Instant::now(), 0);
    while begun.elapsed() < period {
        if !command.status().ok()?.success() {
            return None;
        }
        runs += 1;
    }
    Some(f64::from(runs) / begun.elapsed().as_secs_f64())
}

pub(crate) fn spawned(period: Duration) -> f64 {
    started(Command::new("true"), period).expect("every system has it")
}

/// `None`: there is no such program.
pub(crate) fn wasmtime_run(period: Duration) -> Option<f64> {
    let mut file = tempfile::Builder::new().suffix(".wasm").tempfile().ok()?;
    // Not every one of them reads text.
    file.write_all(&wat::parse_str(HELLO).expect("it is WebAssembly")).ok()?;
    let mut command = Command::new("wasmtime");
    command.arg("run").arg(file.path());
    started(command, period)
}

/// Mebibytes a second that this system takes by write(2), 64 KiB at a time, without a sync.
pub(crate) fn disk_per_second() -> f64 {
    const PIECES: u32 = 4096;
    let mut file = tempfile::tempfile().expect("a file");
    let piece = vec![b'.'; 64 << 10];
    let begun = Instant::now();
    for _ in 0..PIECES {
        file.write_all(&piece).expect("there is room");
    }
    f64::from(PIECES) / 16.0 / begun.elapsed().as_secs_f64()
}
