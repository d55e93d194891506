//! Compiles and starts a module.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use wasmtime::{Config, Engine, Instance, Linker, Module, OptLevel, RegallocAlgorithm, Store, StoreLimitsBuilder};

use super::Vm;
use super::machine::Machine;
use super::state::State;
use super::wasi::Wasi;

/// Bytes: Envoy's limit for a VM.
const MEMORY_LIMIT: usize = 1 << 30;
/// Seconds that a callback may run.
const CALLBACK_LIMIT: u64 = 60;

/// Why a VM cannot start.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file does not exist.
    #[error("cannot find a module at {}", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// Not WebAssembly, or an import that Envoy does not offer.
    #[error("the module does not load: {0}")]
    Module(String),
    /// An export that the ABI requires is missing.
    #[error("the module does not export {0}")]
    Export(&'static str),
}

enum Source {
    File(PathBuf),
    Text(String),
}

/// Envoy's `vm_config`, and the host's clock, clusters and limits.
pub struct VmBuilder {
    source: Source,
    environment: Vec<(String, String)>,
    vm_configuration: Vec<u8>,
    clock: SystemTime,
    clusters: Vec<String>,
    log_level: u32,
    memory_limit: usize,
    callback_limit: u64,
}

impl Vm {
    /// A module in a file.
    pub fn load(path: impl Into<PathBuf>) -> VmBuilder {
        VmBuilder::new(Source::File(path.into()))
    }

    /// A module in the WebAssembly text format.
    pub fn from_wat(text: &str) -> VmBuilder {
        VmBuilder::new(Source::Text(text.to_owned()))
    }
}

impl VmBuilder {
    fn new(source: Source) -> Self {
        Self {
            source,
            environment: Vec::new(),
            vm_configuration: Vec::new(),
            // 2023-11-14T22:13:20Z: fixed, so that a failing test fails again.
            clock: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            clusters: Vec::new(),
            log_level: 0,
            memory_limit: MEMORY_LIMIT,
            callback_limit: CALLBACK_LIMIT,
        }
    }

    /// An environment variable, as by `vm_config.environment_variables`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `vm_config.configuration`.
    #[must_use]
    pub fn vm_configuration(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.vm_configuration = bytes.as_ref().to_vec();
        self
    }

    /// The clock's first time; only [`Vm::set_clock`] and [`Vm::advance`] move it. 2023-11-14T22:13:20Z unless set.
    #[must_use]
    pub fn clock(mut self, now: SystemTime) -> Self {
        self.clock = now;
        self
    }

    /// A cluster that HTTP calls can name.
    #[must_use]
    pub fn cluster(mut self, name: &str) -> Self {
        self.clusters.push(name.to_owned());
        self
    }

    /// The log level that `proxy_get_log_level` returns: 0 trace … 5 critical.
    #[must_use]
    pub fn log_level(mut self, level: u32) -> Self {
        self.log_level = level;
        self
    }

    /// The limit of the module's memory in bytes; 1 GiB unless set, as in Envoy.
    #[must_use]
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Seconds, rounded up, after which a running callback traps; 60 unless set.
    #[must_use]
    pub fn callback_limit(mut self, seconds: u64) -> Self {
        self.callback_limit = seconds;
        self
    }

    /// Compiles the module and starts a VM. A file is compiled once in a process.
    ///
    /// # Errors
    /// [`LoadError`] says which.
    pub fn start(self) -> Result<Vm, LoadError> {
        let module = match &self.source {
            Source::File(path) => compiled(path)?,
            Source::Text(text) => Module::new(engine(), text).map_err(|error| wrong(&error))?,
        };
        if module.get_export("proxy_abi_version_0_2_1").is_none() {
            return Err(LoadError::Export("proxy_abi_version_0_2_1"));
        }
        if let Some(import) = super::calls::not_offered(&module) {
            return Err(LoadError::Module(format!("it imports {import}, which Envoy's host does not offer")));
        }
        let mut linker = Linker::new(engine());
        super::calls::link(&mut linker).map_err(|error| wrong(&error))?;
        let mut store = Store::new(engine(), self.state());
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(self.callback_limit + 1);
        let instance = linker.instantiate(&mut store, &module).map_err(|error| wrong(&error))?;
        let memory = instance.get_memory(&mut store, "memory").ok_or(LoadError::Export("memory"))?;
        let allocate = ["proxy_on_memory_allocate", "malloc"]
            .into_iter()
            .find_map(|name| instance.get_typed_func(&mut store, name).ok());
        let state = store.data_mut();
        state.memory = Some(memory);
        state.allocate = allocate;
        let mut machine = Machine { store, instance, finished: BTreeMap::new(), callback_limit: self.callback_limit };
        initialize(&mut machine, instance)?;
        Ok(Vm { machine: Rc::new(RefCell::new(machine)) })
    }

    fn state(&self) -> State {
        State {
            memory: None,
            allocate: None,
            limits: StoreLimitsBuilder::new().memory_size(self.memory_limit).build(),
            wasi: Wasi::new(&self.environment, nanoseconds(self.clock)),
            vm_configuration: self.vm_configuration.clone(),
            log_level: self.log_level,
            logs: Vec::new(),
            refused: Vec::new(),
            counts: BTreeMap::new(),
            contexts: BTreeMap::new(),
            next_context: 0,
            callback: "",
            current: 0,
            effective: None,
            deferred: Vec::new(),
            filter_states: Vec::new(),
            shared: BTreeMap::new(),
            next_cas: 0,
            queues: Vec::new(),
            metric_ids: Vec::new(),
            metrics: BTreeMap::new(),
            clusters: self.clusters.clone(),
            calls: Vec::new(),
            next_token: 0,
            answer: None,
            failed: None,
        }
    }
}

/// Calls `_initialize`, else `_start`, as Envoy does.
fn initialize(machine: &mut Machine, instance: Instance) -> Result<(), LoadError> {
    for name in ["_initialize", "_start"] {
        if instance.get_func(&mut machine.store, name).is_some() {
            machine.call::<_, ()>(name, 0, ()).map_err(|fault| LoadError::Module(fault.to_string()))?;
            break;
        }
    }
    Ok(())
}

fn wrong(error: &wasmtime::Error) -> LoadError {
    LoadError::Module(format!("{error:#}"))
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        // A test binary compiles a module once and runs little of it, so compiling must be fast.
        let mut config = Config::new();
        config.cranelift_opt_level(OptLevel::None).cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
        // An epoch is a second: an endless loop fails its test instead of blocking the run.
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap_or_default();
        let ticking = engine.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                ticking.increment_epoch();
            }
        });
        engine
    })
}

/// The modules of this process. Compiling takes seconds, and all tests of a binary use the same module.
fn compiled(path: &Path) -> Result<Module, LoadError> {
    static MODULES: OnceLock<Mutex<HashMap<PathBuf, Module>>> = OnceLock::new();
    if !path.is_file() {
        return Err(LoadError::Absent { path: path.to_owned() });
    }
    let mut modules = MODULES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let module = Module::from_file(engine(), path).map_err(|error| wrong(&error))?;
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

pub(super) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
