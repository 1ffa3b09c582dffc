//! From a name to a [`Program`]: stored modules, then files of the `--modules` directories, then the built-in examples.
//!
//! A module is known by the SHA-256 of its bytes. Its program is made once per content however many clients ask at the same
//! time ([`compile`](super::compile)), and the newest stay in memory. Nothing here runs on an async thread for longer than a
//! lookup takes.

mod files;
mod listing;
mod reading;
mod upload;

use files::{Stamp, open_regular, read_error};
pub use reading::OpenModule;
use upload::Place;
pub use upload::Upload;

use crate::config::{Config, Limits};
use crate::daemon::compile::{Compilers, Compiling, Order, Progress, Unavailable};
use crate::daemon::store::{Change, ModuleRow, Store};
use crate::daemon::workspace::Workspaces;
use crate::daemon::{blocking, hex};
use crate::engine::{Engine, Program};
use crate::error::{Error, Result};
use crate::model::alike;
use crate::model::exposition::{Exposition, Kind};
use crate::model::name::Name;
use crate::model::reply::ModuleView;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Modules that are part of the program, so that the first command needs no toolchain.
const BUILT_IN: [(&str, &str); 3] = [
    ("clock", include_str!("../../../guest-examples/clock/clock.wat")),
    ("hello", include_str!("../../../guest-examples/hello/hello.wat")),
    ("spin", include_str!("../../../guest-examples/spin/spin.wat")),
];

/// The bytes of a module, under the name of their content.
#[derive(Debug, Clone)]
struct Content {
    digest: Arc<str>,
    text: bool,
}

/// The key of a program.
type Key = (Arc<str>, bool);

/// A program that is ready, with the digest of what it was compiled from.
#[derive(Clone)]
pub(super) struct Loaded {
    /// SHA-256 of the module's bytes, in hex.
    pub digest: Arc<str>,
    /// The compiled program.
    pub program: Program,
}

/// Finds, compiles and stores modules. A cheap handle; clones share everything.
#[derive(Clone)]
pub(super) struct Modules(Arc<Inner>);

struct BuiltIn {
    name: Name,
    text: &'static str,
    digest: Arc<str>,
}

struct Inner {
    built_in: Vec<BuiltIn>,
    store: Arc<Store>,
    directories: Vec<PathBuf>,
    limits: Limits,
    tracker: TaskTracker,
    compilers: Compilers,
    state: Mutex<State>,
    /// Turns to read a file whole.
    hashing: Arc<Semaphore>,
    /// Bytes that were announced by those who `put`.
    incoming: Arc<AtomicU64>,
    /// Programs that were asked for, and that were in memory.
    asked: AtomicU64,
    found: AtomicU64,
    /// Held while stored modules change, so that a file is not removed under a `put` of the same bytes.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Folded name to row.
    stored: BTreeMap<String, ModuleRow>,
    /// What files of the `--modules` directories held when they were last read.
    files: HashMap<PathBuf, (Stamp, Content)>,
    programs: HashMap<Key, Cached>,
    clock: u64,
}

struct Cached {
    flight: Arc<Flight>,
    used: u64,
}

/// One making of a program, that many may wait for.
#[derive(Default)]
struct Flight {
    result: OnceLock<Result<Program, Unavailable>>,
    progress: Progress,
    /// Cancelled when the result is there, or never will be.
    landed: CancellationToken,
}

impl Flight {
    /// Whether there is nothing more to expect of it.
    fn is_spent(&self) -> bool {
        match self.result.get() {
            Some(Ok(_) | Err(Unavailable::Refused(_))) => false,
            Some(Err(_)) => true,
            None => self.landed.is_cancelled(),
        }
    }
}

/// Where a module's bytes are.
#[derive(Debug, Clone)]
enum Source {
    Stored(ModuleRow),
    File(PathBuf),
    /// Which of them.
    BuiltIn(usize),
}

/// What is compiled.
#[derive(Debug, Clone)]
enum Input {
    /// What a name leads to.
    Of(Source),
    /// A transfer's file, which is there also if its client is gone.
    Open(Arc<File>),
}

impl Modules {
    /// Reads the table of stored modules, and looks at the code that was compiled before.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Internal`]; [`Error::Denied`] for a `--modules` directory that is none, or that others than the
    /// operator write to: guests do in theirs, and clients in the state directory.
    pub(super) fn open(
        engine: Arc<Engine>,
        store: Arc<Store>,
        workspaces: &Workspaces,
        config: &Config,
        tracker: TaskTracker,
    ) -> Result<Modules> {
        let directories = &config.module_dirs;
        for directory in directories {
            let refuse = |why: &str| Error::Denied(format!("--modules {}: {why}", directory.display()));
            let io = |e: std::io::Error| Error::io(format!("cannot look at {}", directory.display()), &e);
            if !directory.is_dir() {
                return Err(refuse("there is no such directory"));
            }
            let real = directory.canonicalize().map_err(io)?;
            if store.holds(&real)? {
                return Err(refuse("it lies in the state directory; give another one"));
            }
            if workspaces.holds(&real)? {
                return Err(refuse("it lies in the directory of an instance, where guests write; give another one"));
            }
        }
        store.remove_unused_modules()?;
        let stored = store.modules()?.into_iter().map(|row| (row.name.to_ascii_lowercase(), row)).collect();
        let compilers = Compilers::open(engine, store.compiled(), config)?;
        let built_in = BUILT_IN.iter().map(|(name, text)| BuiltIn {
            name: name.parse().expect("built-in names keep the rule"),
            text,
            digest: hex(&Sha256::digest(text)).into(),
        });
        Ok(Modules(Arc::new(Inner {
            built_in: built_in.collect(),
            store,
            directories: directories.clone(),
            limits: config.limits.clone(),
            tracker,
            compilers,
            state: Mutex::new(State { stored, ..State::default() }),
            hashing: Arc::new(Semaphore::new(files::HASHED_MAX)),
            incoming: Arc::default(),
            asked: AtomicU64::new(0),
            found: AtomicU64::new(0),
            changing: tokio::sync::Mutex::new(()),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Maps that a panic in between leaves whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program called `name`; `digest` insists on one content of a stored module. `compiling` hears how far it is, if it
    /// has to be compiled first, which can take minutes.
    ///
    /// # Errors
    ///
    /// [`Error::NoModule`], [`Error::BadModule`], [`Error::Io`], [`Error::Limit`] for a file that is too large, or too
    /// many that wait to be compiled.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a compilation goes on for whoever asks next.
    pub(super) async fn load(
        &self,
        name: &Name,
        digest: Option<&str>,
        compiling: impl FnMut(Compiling),
    ) -> Result<Loaded> {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let source = match digest {
            // It may have lost its name by now, to another file that was called the same.
            Some(digest) => match self.compiled(digest) {
                Some(loaded) => {
                    self.0.found.fetch_add(1, Ordering::Relaxed);
                    return Ok(loaded);
                }
                None => self.stored_content(name, digest)?,
            },
            None => self.find(name).await?,
        };
        let content = self.content(name, &source).await?;
        self.program(name, content, Input::Of(source), compiling).await
    }

    fn compiled(&self, digest: &str) -> Option<Loaded> {
        let state = self.lock();
        [false, true].into_iter().find_map(|text| {
            let cached = state.programs.get(&(digest.into(), text))?;
            let program = cached.flight.result.get()?.as_ref().ok()?.clone();
            Some(Loaded { digest: digest.into(), program })
        })
    }

    fn stored_content(&self, name: &Name, digest: &str) -> Result<Source> {
        let state = self.lock();
        let row = state.stored.values().find(|row| row.sha256 == digest);
        row.cloned()
            .map(Source::Stored)
            .ok_or_else(|| Error::NoModule { name: name.to_string(), hint: " with that content".to_owned() })
    }

    async fn find(&self, name: &Name) -> Result<Source> {
        if let Some(row) = self.lock().stored.get(&name.folded()).filter(|row| row.name == name.as_str()) {
            return Ok(Source::Stored(row.clone()));
        }
        if !self.0.directories.is_empty() {
            let (this, wanted) = (self.clone(), name.clone());
            if let Some(path) = blocking(move || this.find_file(&wanted)).await {
                return Ok(Source::File(path));
            }
        }
        match self.0.built_in.iter().position(|b| b.name == *name) {
            Some(index) => Ok(Source::BuiltIn(index)),
            None => {
                let hint = self.hint(name).await;
                Err(Error::NoModule { name: name.to_string(), hint })
            }
        }
    }

    fn find_file(&self, name: &Name) -> Option<PathBuf> {
        self.0.directories.iter().find_map(|directory| {
            ["wasm", "wat"]
                .iter()
                .map(|ext| directory.join(format!("{name}.{ext}")))
                .find(|path| path.symlink_metadata().is_ok())
        })
    }

    async fn hint(&self, name: &Name) -> String {
        let known = self.list().await;
        match alike::closest(name.as_str(), known.iter().map(|view| view.name.as_str())) {
            Some(known) => format!(" (did you mean '{known}'?)"),
            None => " (`modules` lists those that there are)".to_owned(),
        }
    }

    /// What `source` holds now; read only if it may have changed.
    async fn content(&self, name: &Name, source: &Source) -> Result<Content> {
        match source {
            Source::Stored(row) => Ok(Content { digest: row.sha256.as_str().into(), text: row.text }),
            Source::BuiltIn(index) => Ok(Content { digest: Arc::clone(&self.0.built_in[*index].digest), text: true }),
            Source::File(path) => self.file_content(name, path).await,
        }
    }

    fn too_large(&self) -> Error {
        let max = u64::try_from(self.0.limits.module_bytes_max).unwrap_or(u64::MAX);
        Error::Limit { what: "a module", limit: bytesize::ByteSize(max).to_string(), name: "--module-size" }
    }

    /// The compiled form: from memory, from whoever is making it already, or made now.
    async fn program(
        &self,
        name: &Name,
        content: Content,
        input: Input,
        mut compiling: impl FnMut(Compiling),
    ) -> Result<Loaded> {
        let result = loop {
            let (flight, mut progress) = self.flight(name, &content, input.clone());
            while flight.result.get().is_none() {
                tokio::select! {
                    biased;
                    () = flight.landed.cancelled() => break,
                    // The flight has the sender.
                    Ok(()) = progress.changed() => {
                        let now = *progress.borrow_and_update();
                        now.map(&mut compiling);
                    }
                }
            }
            let ended_early = || Error::Internal("the compilation ended early".to_owned());
            match flight.result.get().ok_or_else(ended_early)?.clone() {
                // The last one left just before this one came.
                Err(Unavailable::Abandoned) => {}
                result => break result,
            }
        };
        match result {
            Ok(program) => Ok(Loaded { digest: content.digest, program }),
            Err(Unavailable::Refused(why) | Unavailable::Overrun(why)) => {
                Err(Error::BadModule { name: name.to_string(), why })
            }
            Err(Unavailable::Failed(why)) => Err(Error::io(format!("module '{name}' could not be compiled"), &why)),
            Err(Unavailable::Changed) => {
                Err(Error::io(format!("module '{name}'"), &"the file changed while it was read; try again"))
            }
            Err(Unavailable::Error(error)) => Err(error),
            Err(Unavailable::Abandoned) => Err(Error::Internal("an abandoned compilation is begun again".into())),
        }
    }

    /// The flight that makes this content into a program, begun now if there is none. What came of one is forgotten if it may be
    /// otherwise the next time.
    fn flight(
        &self,
        name: &Name,
        content: &Content,
        input: Input,
    ) -> (Arc<Flight>, watch::Receiver<Option<Compiling>>) {
        let key = (Arc::clone(&content.digest), content.text);
        let flight = {
            let mut state = self.lock();
            state.clock += 1;
            let used = state.clock;
            if let Some(cached) = state.programs.get_mut(&key)
                && !cached.flight.is_spent()
            {
                cached.used = used;
                self.0.found.fetch_add(1, Ordering::Relaxed);
                return (Arc::clone(&cached.flight), cached.flight.progress.subscribe());
            }
            let flight = Arc::new(Flight::default());
            state.programs.insert(key, Cached { flight: Arc::clone(&flight), used });
            evict(&mut state.programs, self.0.limits.module_cache_max);
            flight
        };
        // Before it begins, or it would find that nobody waits.
        let progress = flight.progress.subscribe();
        // A task of its own: a client that goes away does not end a compilation that others may be waiting for.
        let (this, name, content, result) = (self.clone(), name.clone(), content.clone(), Arc::clone(&flight));
        self.0.tracker.spawn(async move {
            let _landing = result.landed.clone().drop_guard();
            let made = this.make(&name, &content, input, Arc::clone(&result.progress)).await;
            result.result.set(made).unwrap_or_else(|_| unreachable!("a flight lands once"));
        });
        (flight, progress)
    }

    async fn make(
        &self,
        name: &Name,
        content: &Content,
        input: Input,
        progress: Progress,
    ) -> Result<Program, Unavailable> {
        let stored = matches!(input, Input::Of(Source::Stored(_))).then(|| self.0.store.module_path(&content.digest));
        let (this, module) = (self.clone(), name.clone());
        let file = blocking(move || this.open_input(&module, input)).await?;
        let order = Order { module: file, digest: Arc::clone(&content.digest), text: content.text };
        let made = self.0.compilers.program(order, progress).await;
        match (made, stored) {
            (Err(Unavailable::Changed), Some(path)) => {
                // A `put` may bring it again meanwhile. The compiler is not believed, for it is what modules attack.
                let _changing = self.0.changing.lock().await;
                let digest = Arc::clone(&content.digest);
                let removed = blocking(move || files::remove_damaged(&path, &digest)).await;
                if removed.map_err(|e| Error::io(format!("module '{name}' cannot be read"), &e))? {
                    tracing::error!(module = %name, "the stored file was damaged, and is removed");
                    return Err(
                        Error::io(format!("module '{name}'"), &"its stored file is damaged; put it again").into()
                    );
                }
                Err(Unavailable::Failed("its compiler read something else than the stored file".to_owned()))
            }
            (made, _) => made,
        }
    }

    fn open_input(&self, name: &Name, input: Input) -> Result<File> {
        let source = match input {
            Input::Of(source) => source,
            Input::Open(file) => {
                return file.try_clone().map_err(|e| Error::io(format!("module '{name}' cannot be read"), &e));
            }
        };
        let path = match source {
            Source::BuiltIn(index) => {
                let failed = |e| Error::io(format!("module '{name}' cannot be read"), &e);
                let mut file = tempfile::tempfile_in(self.0.store.incoming()).map_err(failed)?;
                file.write_all(self.0.built_in[index].text.as_bytes()).map_err(failed)?;
                return Ok(file);
            }
            Source::File(path) => path,
            Source::Stored(row) => self.0.store.module_path(&row.sha256),
        };
        let file = open_regular(name, &path)?;
        let bytes = file.metadata().map_err(|e| read_error(&path, &e))?.len();
        let max = u64::try_from(self.0.limits.module_bytes_max).unwrap_or(u64::MAX);
        if bytes > max { Err(self.too_large()) } else { Ok(file) }
    }

    /// How many are stored.
    pub(super) fn stored(&self) -> usize {
        self.lock().stored.len()
    }

    /// How many are compiled, or about to be, in memory.
    pub(super) fn compiled_in_memory(&self) -> usize {
        self.lock().programs.len()
    }

    /// What there is to tell of them in numbers.
    pub(super) fn write_metrics(&self, text: &mut Exposition) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        text.one("coracle_modules_stored", Kind::Gauge, "Modules that were put", self.stored());
        let what = "Modules that were asked for by a run";
        text.one("coracle_module_loads_total", Kind::Counter, what, count(&self.0.asked));
        let what = "Modules whose program was in memory, or being made, when it was asked for";
        text.one("coracle_module_memory_hits_total", Kind::Counter, what, count(&self.0.found));
        self.0.compilers.write_metrics(text);
    }

    /// How many compilations were begun.
    pub(crate) fn compilations(&self) -> u64 {
        self.0.compilers.compilations()
    }

    /// Whether a module was put under this name.
    pub(super) fn is_stored(&self, name: &Name) -> bool {
        self.lock().stored.get(&name.folded()).is_some_and(|row| row.name == name.as_str())
    }

    /// What compiles.
    pub(super) fn compilers(&self) -> &Compilers {
        &self.0.compilers
    }

    /// Whether `put` of this content under this name has nothing left to do but the name.
    ///
    /// # Errors
    ///
    /// As [`Modules::begin_put`]; [`Error::Io`].
    pub(super) async fn put_known(&self, name: &Name, sha256: &str, text: bool) -> Result<Option<ModuleView>> {
        self.check_put(name)?;
        let known = {
            let state = self.lock();
            state.stored.values().find(|row| row.sha256 == sha256 && row.text == text).cloned()
        };
        let Some(row) = known else { return Ok(None) };
        // It may have been lost behind our back; then it is wanted again.
        let path = self.0.store.module_path(sha256);
        let whole = blocking(move || path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == row.bytes));
        if !whole.await {
            return Ok(None);
        }
        let _changing = self.0.changing.lock().await;
        if !self.lock().stored.values().any(|r| r.sha256 == sha256) {
            return Ok(None);
        }
        self.record(name, ModuleRow { name: name.to_string(), ..row }).await.map(Some)
    }

    fn check_put(&self, name: &Name) -> Result<()> {
        let state = self.lock();
        let max = self.0.limits.stored_modules_max;
        match state.stored.get(&name.folded()) {
            Some(row) if row.name != name.as_str() => Err(Error::ExistsOtherCase {
                asked: name.clone(),
                known: row
                    .name
                    .clone()
                    .try_into()
                    .map_err(|_| Error::Internal("a stored name breaks the rule".into()))?,
            }),
            Some(_) => Ok(()),
            None if state.stored.len() >= max => {
                Err(Error::Limit { what: "stored modules", limit: max.to_string(), name: "--stored-modules" })
            }
            None => Ok(()),
        }
    }

    /// Begins to receive a module of `bytes` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`], [`Error::ExistsOtherCase`], [`Error::Io`].
    pub(super) fn begin_put(&self, name: &Name, bytes: u64, text: bool) -> Result<Upload> {
        self.check_put(name)?;
        if bytes > u64::try_from(self.0.limits.module_bytes_max).unwrap_or(u64::MAX) {
            return Err(self.too_large());
        }
        let place = self.place(bytes)?;
        let directory = self.0.store.incoming();
        let file = tempfile::NamedTempFile::new_in(&directory)
            .map_err(|e| Error::io(format!("cannot receive into {}", directory.display()), &e))?;
        let (modules, name) = (self.clone(), name.clone());
        Ok(Upload { modules, name, text, file, hash: Sha256::new(), missing: bytes, bytes, place })
    }

    /// Room for what is announced: until it is stored or given up, it takes room on the disk that has the state.
    fn place(&self, bytes: u64) -> Result<Place> {
        let max = self.0.limits.uploads_bytes_max;
        let fits = |all: u64| all.checked_add(bytes).filter(|sum| *sum <= u64::try_from(max).unwrap_or(u64::MAX));
        match self.0.incoming.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Place { all: Arc::clone(&self.0.incoming), bytes }),
            Err(_) => Err(Error::Limit {
                what: "modules that are on their way in",
                limit: bytesize::ByteSize(u64::try_from(max).unwrap_or(u64::MAX)).to_string(),
                name: "--uploads",
            }),
        }
    }

    /// Bytes of modules that are on their way in.
    pub(super) fn bytes_on_their_way(&self) -> u64 {
        self.0.incoming.load(Ordering::Relaxed)
    }

    /// Records the name, then shows it: what is listed is on disk. `changing` is held.
    async fn record(&self, name: &Name, row: ModuleRow) -> Result<ModuleView> {
        self.check_put(name)?;
        self.0.store.submit(Change::PutModule(row.clone()), true).recorded().await?;
        let view = ModuleView {
            name: name.clone(),
            source: "stored".into(),
            path: None,
            bytes: row.bytes,
            digest: Some(row.sha256.clone()),
        };
        let old = self.lock().stored.insert(name.folded(), row);
        if let Some(old) = old {
            self.remove_unused(&old.sha256).await;
        }
        Ok(view)
    }

    /// Forgets a stored module. Instances that run it go on.
    ///
    /// # Errors
    ///
    /// [`Error::NoModule`]; [`Error::Denied`] for one that is not stored; [`Error::Io`].
    pub(super) async fn forget(&self, name: &Name) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let row = self.lock().stored.get(&name.folded()).filter(|row| row.name == name.as_str()).cloned();
        let Some(row) = row else {
            let source = self.find(name).await?;
            return Err(Error::Denied(match source {
                Source::File(path) => format!("'{name}' is a file of a --modules directory: remove {}", path.display()),
                Source::BuiltIn(_) | Source::Stored(_) => {
                    format!("'{name}' is built in; only stored modules can be forgotten")
                }
            }));
        };
        self.0.store.submit(Change::ForgetModule(row.name.clone()), true).recorded().await?;
        self.lock().stored.remove(&name.folded());
        self.remove_unused(&row.sha256).await;
        Ok(())
    }

    async fn remove_unused(&self, sha256: &str) {
        if self.lock().stored.values().any(|row| row.sha256 == sha256) {
            return;
        }
        let path = self.0.store.module_path(sha256);
        blocking(move || {
            if let Err(e) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), "cannot remove an unused module: {e}");
            }
        })
        .await;
    }
}

/// Drops the compiled modules that were used least recently; running instances keep theirs, and what is being made stays.
fn evict(programs: &mut HashMap<Key, Cached>, max: usize) {
    while programs.len() > max {
        let done = programs.iter().filter(|(_, cached)| cached.flight.landed.is_cancelled());
        let oldest = done.min_by_key(|(_, cached)| cached.used).map(|(key, _)| key.clone());
        let Some(key) = oldest else { return };
        programs.remove(&key);
    }
}
