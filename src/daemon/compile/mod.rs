//! From the file of a module to a program: the code of an earlier time, or a compiler that gets its turn.
//!
//! Nothing is compiled in this process. [`places`] says whose turn it is, [`child`] runs the compiler, [`cache`] keeps what it
//! made; the engine maps that. Memory for compilers is bounded by their number times `--compile-memory`.

pub(super) mod cache;
mod child;
mod places;

pub use child::Said;

use crate::config::{Config, Limits, fixed};
use crate::daemon::{blocking, hex};
use crate::engine::{self, Engine, NotLoaded, Program};
use crate::error::{Error, Result};
use crate::model::exposition::{Exposition, Kind};
use cache::Cache;
use child::Task;
use places::{Place, Places, Step};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Processors for each slow place.
const PROCESSORS_PER_SLOW: usize = 4;

/// Why there is no program.
#[derive(Debug, Clone)]
pub(super) enum Unavailable {
    /// It cannot run here, now or later: one line.
    Refused(String),
    /// It cannot be compiled within the limits: one line, which names the one.
    Overrun(String),
    /// The file is not the one that was looked at.
    Changed,
    /// This machine could not do it now.
    Failed(String),
    /// Nobody waited for it any more when its turn came.
    Abandoned,
    /// It did not get so far.
    Error(Error),
}

impl From<Error> for Unavailable {
    fn from(error: Error) -> Unavailable {
        Unavailable::Error(error)
    }
}

/// How far a compilation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiling {
    /// It waits for its turn; 1 is next.
    Waiting {
        /// Its place.
        place: usize,
    },
    /// It goes on since then.
    Since(Instant),
}

/// Says how far it is to whoever wants to know.
pub(super) type Progress = Arc<watch::Sender<Option<Compiling>>>;

/// What is to be compiled.
pub(super) struct Order {
    /// The bytes, opened and not read yet.
    pub module: File,
    /// Their SHA-256, in hex.
    pub digest: Arc<str>,
    /// Whether they are WebAssembly text.
    pub text: bool,
}

/// Makes programs. A cheap handle; clones share everything.
#[derive(Clone)]
pub(super) struct Compilers(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    cache: Cache,
    /// What code has in common that this daemon can use.
    fingerprint: String,
    places: Places,
    program: Option<PathBuf>,
    dense: bool,
    limits: Limits,
    compilations: AtomicU64,
    /// Those that came to nothing, given up for others not counted; and microseconds that all took.
    failed: AtomicU64,
    took_us: AtomicU64,
    /// Programs that an earlier compilation had left on disk.
    found: AtomicU64,
    closing: CancellationToken,
}

/// The file again, with an offset of its own: a compiler that was killed a moment ago may still be reading with that of its own.
#[cfg(target_os = "linux")]
fn from_the_beginning(file: &mut File) -> std::io::Result<File> {
    // proc_pid_fd(5): opens the same inode, also if it has no name any more.
    File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))
}

/// Elsewhere the offset is shared.
#[cfg(not(target_os = "linux"))]
fn from_the_beginning(file: &mut File) -> std::io::Result<File> {
    std::io::Seek::rewind(file)?;
    file.try_clone()
}

/// Quick places and slow ones.
fn places() -> (usize, usize) {
    let quick = std::thread::available_parallelism().map_or(1, usize::from);
    (quick, quick.div_ceil(PROCESSORS_PER_SLOW))
}

/// How many compile at a time, at most.
pub(super) fn processes_max() -> usize {
    let (quick, slow) = places();
    quick + slow
}

/// Adds the time until it is dropped.
struct Took<'a> {
    begun: Instant,
    total_us: &'a AtomicU64,
}

impl Drop for Took<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.total_us.fetch_add(took, Ordering::Relaxed);
    }
}

impl Compilers {
    /// Compilers that keep their code in `directory`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Internal`].
    pub(super) fn open(engine: Arc<Engine>, directory: PathBuf, config: &Config) -> Result<Compilers> {
        let limits = config.limits.clone();
        let (quick, slow) = places();
        Ok(Compilers(Arc::new(Inner {
            engine,
            cache: Cache::open(directory, limits.compiled_bytes_max)?,
            fingerprint: engine::Compiler::new(config.dense)?.fingerprint(),
            places: Places::new(quick, slow, limits.compile_queue_max),
            program: config.program.clone(),
            dense: config.dense,
            limits,
            compilations: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            took_us: AtomicU64::new(0),
            found: AtomicU64::new(0),
            closing: CancellationToken::new(),
        })))
    }

    /// How many modules were compiled, or are being compiled.
    pub(super) fn compilations(&self) -> u64 {
        self.0.compilations.load(Ordering::Relaxed)
    }

    /// How many modules wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.0.places.waiting()
    }

    /// Bytes of code on disk.
    pub(super) fn bytes_kept(&self) -> u64 {
        self.0.cache.bytes()
    }

    /// What there is to tell of them in numbers.
    pub(super) fn write_metrics(&self, text: &mut Exposition) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        text.one("coracle_compilations_total", Kind::Counter, "Compilations that were begun", self.compilations());
        let what = "Compilations that came to nothing";
        text.one("coracle_compilations_failed_total", Kind::Counter, what, count(&self.0.failed));
        let what = "Time that compilers ran, also those that were given up for others";
        let took = Duration::from_micros(count(&self.0.took_us)).as_secs_f64();
        text.one("coracle_compile_seconds_total", Kind::Counter, what, took);
        let what = "Programs that were on disk from an earlier compilation";
        text.one("coracle_compile_cache_hits_total", Kind::Counter, what, count(&self.0.found));
        text.one("coracle_compile_queue", Kind::Gauge, "Modules that wait to be compiled", self.waiting());
        text.one("coracle_compile_cache_bytes", Kind::Gauge, "Compiled code on disk", self.bytes_kept());
        let what = "What that may come to (--compiled-cache)";
        text.one("coracle_compile_cache_limit_bytes", Kind::Gauge, what, self.0.limits.compiled_bytes_max);
    }

    /// The daemon ends: compilers that run are killed, and none is started any more.
    pub(super) fn close(&self) {
        self.0.closing.cancel();
    }

    /// The program that the module is.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a compiler that runs is killed.
    pub(super) async fn program(&self, order: Order, progress: Progress) -> Result<Program, Unavailable> {
        let key = self.key(&order);
        if let Some(program) = self.kept(&key).await? {
            self.0.found.fetch_add(1, Ordering::Relaxed);
            return Ok(program);
        }
        tokio::select! {
            biased;
            () = self.0.closing.cancelled() => Err(Error::ShuttingDown.into()),
            made = self.make(key, order, progress) => made,
        }
    }

    fn key(&self, order: &Order) -> String {
        let kind = if order.text { "text" } else { "binary" };
        hex(&Sha256::digest(format!("{} {kind} {}", order.digest, self.0.fingerprint)))
    }

    /// Code of an earlier time.
    async fn kept(&self, key: &str) -> Result<Option<Program>, Unavailable> {
        let (this, key) = (self.clone(), key.to_owned());
        blocking(move || {
            let Some(file) = this.0.cache.get(&key) else { return Ok(None) };
            match this.0.engine.load(file) {
                Ok(program) => Ok(Some(program)),
                Err(NotLoaded::Refused(why)) => Err(Unavailable::Refused(why)),
                Err(NotLoaded::Unusable(why)) => {
                    this.0.cache.remove(&key, &why);
                    Ok(None)
                }
            }
        })
        .await
    }

    async fn make(&self, key: String, mut order: Order, progress: Progress) -> Result<Program, Unavailable> {
        let bytes = order.module.metadata().map_err(|e| Unavailable::Failed(e.to_string()))?.len();
        let told = |progress: &Progress| {
            let progress = Arc::clone(progress);
            move |place| {
                progress.send_replace(Some(Compiling::Waiting { place }));
            }
        };
        // What nobody waits for is not begun; what has begun goes on, for whoever asks next.
        let mut place = tokio::select! {
            biased;
            place = self.0.places.quick(bytes, told(&progress)) => place?,
            () = progress.closed() => return Err(Unavailable::Abandoned),
        };
        self.0.compilations.fetch_add(1, Ordering::Relaxed);
        loop {
            progress.send_replace(Some(Compiling::Since(Instant::now())));
            if let Some(made) = self.attempt(&key, &mut order, &mut place).await {
                return made;
            }
            drop(place);
            place = tokio::select! {
                biased;
                place = self.0.places.slow(told(&progress)) => place?,
                () = progress.closed() => return Err(Unavailable::Abandoned),
            };
        }
    }

    /// Compiles. `None`: it had to make room.
    async fn attempt(&self, key: &str, order: &mut Order, place: &mut Place) -> Option<Result<Program, Unavailable>> {
        let begun = Instant::now();
        let (module, code) = match self.files(order).await {
            Ok(files) => files,
            Err(e) => return Some(Err(e)),
        };
        let written = match code.reopen() {
            Ok(file) => file,
            Err(e) => return Some(Err(Unavailable::Failed(e.to_string()))),
        };
        tracing::debug!(digest = %order.digest, "compiling");
        let task = Task {
            program: self.0.program.as_ref(),
            module,
            code: written,
            digest: &order.digest,
            text: order.text,
            dense: self.0.dense,
            limits: &self.0.limits,
        };
        let _took = Took { begun, total_us: &self.0.took_us };
        let compiled = tokio::select! {
            compiled = child::compile(task) => compiled,
            () = self.until_it_must_leave(begun, place) => {
                tracing::debug!(digest = %order.digest, "makes room for others, and is begun again");
                return None;
            }
        };
        tracing::debug!(digest = %order.digest, took = ?begun.elapsed(), ?compiled, "a compiler ended");
        Some(match compiled {
            Ok(()) => self.keep(key, code).await,
            Err(why) => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                Err(why)
            }
        })
    }

    /// Returns when a compilation in `place` has to be given up for others; in a slow place, never.
    async fn until_it_must_leave(&self, begun: Instant, place: &mut Place) {
        if place.is_slow() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(begun + fixed::COMPILE_QUICK).await;
        loop {
            self.0.places.pressed().await;
            match self.0.places.make_room(place) {
                Step::Slow => return std::future::pending().await,
                Step::Leave => return,
                Step::Stay => tokio::task::yield_now().await,
            }
        }
    }

    /// The module from its beginning, and an empty file for the code.
    async fn files(&self, order: &mut Order) -> Result<(File, tempfile::NamedTempFile), Unavailable> {
        let module = from_the_beginning(&mut order.module).map_err(|e| Unavailable::Failed(e.to_string()))?;
        let this = self.clone();
        Ok((module, blocking(move || this.0.cache.begin()).await?))
    }

    async fn keep(&self, key: &str, code: tempfile::NamedTempFile) -> Result<Program, Unavailable> {
        let (this, key) = (self.clone(), key.to_owned());
        blocking(move || {
            let file = this.0.cache.keep(&key, code)?;
            this.0.engine.load(file).map_err(|e| match e {
                NotLoaded::Refused(why) => Unavailable::Refused(why),
                NotLoaded::Unusable(why) => {
                    this.0.cache.remove(&key, &why);
                    Unavailable::Failed(format!("its compiler made nothing that can be used: {why}"))
                }
            })
        })
        .await
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn each_attempt_reads_the_module_by_itself() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"module").unwrap();
        let [mut first, mut second] = [(); 2].map(|()| from_the_beginning(&mut file).unwrap());
        let mut read = String::new();
        first.read_exact(&mut [0; 3]).unwrap();
        second.read_to_string(&mut read).unwrap();
        assert_eq!(read, "module");
        first.read_to_string(&mut read).unwrap();
        assert_eq!(read, "moduleule");
    }
}
