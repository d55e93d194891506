//! A running gateway: Envoy with the module and, where wanted, the collector.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::base::Base;
use crate::bootstrap::{self, Settings, discovery};
use crate::change_error::ChangeError;
use crate::credentials::{self, Environment};
use crate::document::{self, Choices, Desk, Document, Written};
use crate::live::{Change, Live, Rendered};
use crate::paths::{PathError, PathSpec};
use crate::process::Process;
use crate::programs::Programs;
use crate::relay_listener::RelayListener;
use crate::{Error, net, platform, progress, tls};
use filter_core::config::Auth;
use filter_core::names::RegionName;

/// Time for Envoy to compile the module and resolve its upstreams.
const ENVOY_START: Duration = Duration::from_secs(60);
/// Time for a path's first health check, before calls are let in anyway: a path that misses it needs two more, 5 s apart.
const FIRST_CHECKS: Duration = Duration::from_secs(10);
/// Time for the collector to open its store.
const COLLECTOR_START: Duration = Duration::from_secs(30);
/// Time for calls in flight to end when the gateway is stopped.
const DRAIN: Duration = Duration::from_secs(10);
/// Time that Envoy gives a listener's connections when it is taken away, in seconds (`--drain-time-s`).
const LISTENER_DRAIN: &str = "1";
/// Time for streams to end with their exception, once the relay's listener is taken away.
const STREAMS_END: Duration = Duration::from_secs(5);
/// Time for a child to end after it was asked to.
const STOP: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The programs that are run, and where they write.
    pub programs: Programs,
    /// The paths; none means Bedrock itself over the internet.
    pub paths: Vec<PathSpec>,
    /// What upstreams are verified against; absent, this host's CAs, or the platform's where a bootstrap is rendered.
    pub upstream_ca: Option<PathBuf>,
    /// What certificates of clients of the TLS listener are verified against; absent, none is asked for.
    pub client_ca: Option<PathBuf>,
    /// The listener for HTTP/1.1 and h2c; port 0 is a free one, and so is none.
    pub listen: Option<SocketAddr>,
    /// The TLS listener; absent, 443 ports above the other, or a free one.
    pub listen_tls: Option<SocketAddr>,
    /// Envoy's worker threads; absent, one for each core.
    pub concurrency: Option<u16>,
    /// The SQLite file for audit records; absent, the collector does not run.
    pub audit: Option<PathBuf>,
    /// The access log; absent, it is in the run's directory.
    pub access_log: Option<PathBuf>,
    /// The filter's document, instead of the example; followed while the gateway runs.
    pub policy: Option<PathBuf>,
    /// The regions that are called; none means those of the document.
    pub regions: Vec<RegionName>,
    /// Whether the FIPS hosts are called, if the document does not say so.
    pub fips: bool,
    /// The host names and web pages that may call, besides the document's.
    pub desk: Desk,
    /// A file in place of `envoy/base.yaml`.
    pub base: Option<PathBuf>,
    /// Variables for Envoy in place of the environment's own (credentials of the demonstration); an empty one is unset.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// Whether paths and document are left to the program.
    pub(crate) fn choose_nothing(&self) -> bool {
        let document = self.policy.is_none() && self.regions.is_empty() && !self.fips;
        document && self.paths.is_empty() && self.base.is_none()
    }
}

/// An Envoy, a collector, and where they listen.
#[derive(Debug)]
pub struct Gateway {
    envoy: Process,
    collector: Option<Process>,
    streams: Option<RelayListener>,
    /// Envoy's admin page.
    pub admin: SocketAddr,
    /// Where HTTP/1.1 and h2c are served.
    pub plain: SocketAddr,
    /// Where TLS is served.
    pub tls: SocketAddr,
    /// What clients of the TLS listener trust.
    pub ca: PathBuf,
    /// How the gateway authenticates.
    pub credentials: Environment,
    /// The directory of this run's logs.
    pub run: PathBuf,
    /// The regions that were called when it started.
    pub regions: Vec<String>,
    plan: Plan,
    live: Option<Live>,
}

/// What a configuration is rendered from, now and when the document changes.
#[derive(Debug)]
struct Plan {
    base: Base,
    settings: Settings,
    choices: Choices,
    ca: PathBuf,
    client_ca: Option<PathBuf>,
    found: Environment,
}

/// Files and addresses of one run.
#[derive(Debug)]
struct Place {
    module: PathBuf,
    access_log: PathBuf,
    admin: SocketAddr,
    als: SocketAddr,
    intents: PathBuf,
}

/// The bootstrap that [`Gateway::start`] would run, as Envoy reads it (JSON, which is YAML too).
pub fn print_config(options: &Options) -> Result<String, Error> {
    let place = Place {
        module: options.programs.module()?,
        access_log: options.programs.state()?.join("up/access.jsonl"),
        admin: loopback(9901),
        als: loopback(18090),
        intents: options.programs.state()?.join("up/audit.sock"),
    };
    let (plan, document, _) = plan(options, place)?;
    let bootstrap = plan.render(&document)?;
    if let Some(folder) = plan.settings.access_log.parent() {
        std::fs::create_dir_all(folder).map_err(Error::file("cannot create", folder))?;
    }
    Ok(format!("{bootstrap:#}"))
}

impl Gateway {
    /// Starts the collector and Envoy, and waits until both serve, or until `interrupted`.
    pub fn start(options: &Options, interrupted: impl Fn() -> bool) -> Result<Gateway, Error> {
        if let Some(address) = options.listen.filter(|address| address.port() != 0) {
            net::check_free("--listen", address)?;
        }
        if let Some(address) = options.listen_tls.filter(|address| address.port() != 0) {
            net::check_free("--listen-tls", address)?;
        }
        let run = run_dir(&options.programs.state()?, "up")?;
        let place = Place {
            module: options.programs.module()?,
            access_log: run.join("access.jsonl"),
            admin: loopback(0),
            als: loopback(net::free_port()?),
            intents: socket(&run)?,
        };
        let (plan, document, text) = plan(options, place)?;
        let mut bootstrap = plan.render(&document)?;
        let envoy = options.programs.envoy()?;
        let collector = match (&options.audit, plan.settings.als) {
            (Some(audit), Some(als)) => {
                let program = options.programs.collector()?;
                Some(start_collector(&program, audit, als, &plan.settings, &run)?)
            }
            _ => None,
        };
        let live = match (&options.policy, text) {
            (Some(file), Some(text)) => {
                let filters = discovery::take_out(&mut bootstrap, &run);
                Some(Live::start(
                    file,
                    &text,
                    Rendered { frame: bootstrap.clone(), filters, document: data(&document) },
                )?)
            }
            _ => None,
        };
        let streams = RelayListener::take_out(&mut bootstrap, &run).map_err(Error::file("cannot write to", &run))?;
        let config = run.join("envoy.json");
        std::fs::write(&config, bootstrap.to_string()).map_err(Error::file("cannot write", &config))?;
        let admin_file = run.join("admin");
        let mut command = Command::new(envoy);
        let log = run.join("envoy.log");
        command.arg("-c").arg(&config).arg("--admin-address-path").arg(&admin_file).arg("--log-path").arg(&log).args([
            // Without shared memory, several gateways can run at the same time.
            "--disable-hot-restart",
            // What is not flushed is lost with a killed Envoy (the file's own comment says more).
            "--file-flush-interval-msec",
            "100",
            "--file-flush-min-size-kb",
            "1",
            "--drain-time-s",
            LISTENER_DRAIN,
        ]);
        if let Some(workers) = options.concurrency {
            command.args(["--concurrency", &workers.to_string()]);
        }
        for (name, value) in &options.environment {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        let envoy = Process::start_quiet("envoy", command, &log)?;
        let mut gateway = Gateway {
            envoy,
            collector,
            streams,
            admin: plan.settings.admin,
            plain: plan.settings.listen,
            tls: plan.settings.listen_tls,
            ca: plan.ca.clone(),
            credentials: plan.found,
            run,
            regions: document.regions().map(ToString::to_string).collect(),
            plan,
            live,
        };
        gateway.wait_until_ready(&admin_file, &interrupted)?;
        gateway.learn_ports();
        gateway.wait_for_a_path(interrupted);
        Ok(gateway)
    }

    fn wait_until_ready(&mut self, admin_file: &Path, interrupted: &impl Fn() -> bool) -> Result<(), Error> {
        let start = Instant::now();
        while start.elapsed() < ENVOY_START {
            self.check()?;
            if interrupted() {
                return Err(Error::Failed("interrupted before it was ready".into()));
            }
            if let Some(admin) = std::fs::read_to_string(admin_file).ok().and_then(|text| text.trim().parse().ok()) {
                self.admin = admin;
                if net::request(admin, "GET", "/ready").is_ok_and(|(status, _)| status == 200) {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Err(self.envoy.not_ready(ENVOY_START).into())
    }

    /// Envoy is ready when the first checks are over, even if they failed because it was busy starting. Where every path is
    /// really down, the gateway serves all the same: it says so to its callers.
    fn wait_for_a_path(&self, interrupted: impl Fn() -> bool) {
        let start = Instant::now();
        let filter = r"/stats?filter=^cluster\.bedrock.*\.membership_(healthy|total)$";
        while start.elapsed() < FIRST_CHECKS && !interrupted() {
            let Ok((200, body)) = net::request(self.admin, "GET", filter) else { return };
            let value = |kind: &str, cluster: &str| {
                let name = format!("{cluster}.membership_{kind}: ");
                body.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
            };
            let clusters = body.lines().filter_map(|line| Some(line.split_once(".membership_healthy")?.0));
            if clusters.into_iter().all(|cluster| value("total", cluster) == 0 || value("healthy", cluster) > 0) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        progress::note("no path has answered a health check yet; calls get 503 until one does");
    }

    /// A port of 0 was chosen by the kernel; Envoy knows which it is.
    fn learn_ports(&mut self) {
        let Ok((200, body)) = net::request(self.admin, "GET", "/listeners?format=json") else {
            return;
        };
        let Ok(listeners) = serde_json::from_str::<Value>(&body) else {
            return;
        };
        let statuses = listeners.get("listener_statuses").and_then(Value::as_array);
        for status in statuses.into_iter().flatten() {
            let address = status.pointer("/local_address/socket_address");
            let port = address.and_then(|address| address.get("port_value")).and_then(Value::as_u64);
            let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
                continue;
            };
            match status.get("name").and_then(Value::as_str) {
                Some("plain") => self.plain.set_port(port),
                Some("tls") => self.tls.set_port(port),
                _ => {}
            }
        }
    }

    /// Fails if Envoy or the collector has ended by itself.
    pub fn check(&mut self) -> Result<(), Error> {
        self.envoy.check()?;
        if let Some(collector) = &mut self.collector {
            collector.check()?;
        }
        Ok(())
    }

    /// Takes a change of the document, if there is one.
    ///
    /// # Errors
    /// Why a change is refused: the old document stays.
    pub fn follow(&mut self) -> Result<Change, Error> {
        let Gateway { plan, live: Some(live), admin, run, .. } = self else { return Ok(Change::None) };
        live.look(*admin, |file, text| {
            let written = Written::in_file(file, text, &plan.base)?;
            if written.auth().is_some_and(|auth| auth != plan.found.auth) {
                let why = "both roles authenticate as at the start".to_owned();
                return Err(ChangeError::Restart { keys: "`auth`".to_owned(), why }.into());
            }
            let document = written.compile(&plan.choices)?;
            let mut frame = plan.render(&document)?;
            let filters = discovery::take_out(&mut frame, run);
            Ok(Rendered { frame, filters, document: data(&document) })
        })
    }

    /// Takes no new calls, lets those in flight end (`hurry` cuts that short), ends the streams that are left with an exception,
    /// then ends Envoy and, after it, the collector, which still has its last records to store.
    pub fn stop(self, hurry: impl Fn() -> bool) {
        let _ = net::request(self.admin, "POST", "/drain_listeners?graceful&skip_exit");
        self.wait_for_calls(DRAIN, hurry);
        if let (Some(streams), Some(1..)) = (&self.streams, self.calls_in_flight())
            && streams.close().is_ok()
        {
            self.wait_for_calls(STREAMS_END, || false);
        }
        self.envoy.stop(STOP);
        if let Some(collector) = self.collector {
            collector.stop(STOP);
        }
    }

    fn wait_for_calls(&self, limit: Duration, hurry: impl Fn() -> bool) {
        let start = Instant::now();
        while start.elapsed() < limit && !hurry() && self.calls_in_flight().is_some_and(|calls| calls > 0) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn calls_in_flight(&self) -> Option<u64> {
        let (_, body) = net::request(self.admin, "GET", "/stats?filter=^http.gateway.downstream_rq_active$").ok()?;
        body.trim().rsplit_once(": ")?.1.parse().ok()
    }
}

impl Plan {
    fn render(&self, document: &Document) -> Result<Value, Error> {
        paths_are_used(&self.settings.paths, document)?;
        let mut bootstrap = bootstrap::render(&self.base, &self.settings, document)?;
        bootstrap::sources::add(&mut bootstrap, &self.base, document, &self.settings)?;
        if let Some(ca) = &self.client_ca {
            bootstrap::verify_client_certificates(&mut bootstrap, ca)?;
        }
        Ok(bootstrap)
    }
}

/// Refuses a path to a region that no call goes to.
pub(crate) fn paths_are_used(paths: &[PathSpec], document: &Document) -> Result<(), PathError> {
    for path in paths {
        if let Some(region) = path.region.as_ref().filter(|region| !document.regions().any(|called| called == *region))
        {
            return Err(PathError::Unused { label: path.label(), region: region.to_string() });
        }
    }
    Ok(())
}

/// Envoy's base, the document, and the text of its file.
pub(crate) fn written(options: &Options) -> Result<(Base, Written, Option<String>), Error> {
    let base = match &options.base {
        Some(file) => Base::read(file)?,
        None => Base::shipped()?,
    };
    let Some(file) = &options.policy else {
        let written = Written::example(&base)?;
        return Ok((base, written, None));
    };
    let text = std::fs::read_to_string(file).map_err(Error::file("--policy", file))?;
    let written = Written::in_file(file, &text, &base)?;
    Ok((base, written, Some(text)))
}

/// Everything that a run needs to know: what stays, the document, and the text of its file.
fn plan(options: &Options, place: Place) -> Result<(Plan, Document, Option<String>), Error> {
    if let Some(ca) = &options.upstream_ca {
        std::fs::File::open(ca).map_err(Error::file("--upstream-ca", ca))?;
    }
    if let Some(ca) = &options.client_ca {
        std::fs::File::open(ca).map_err(Error::file("--client-ca", ca))?;
    }
    let (base, written, text) = written(options)?;
    let own = |name: &str| options.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let found = if written.fetches() {
        Environment { auth: written.auth().unwrap_or(Auth::Sigv4), any: true }
    } else {
        credentials::find(written.auth(), |name| own(name).or_else(|| std::env::var(name).ok()))?
    };
    let paths = own("BEDROCK_PATHS").or_else(|| std::env::var("BEDROCK_PATHS").ok()).filter(|paths| !paths.is_empty());
    let choices = Choices {
        auth: found.auth,
        fips: options.fips,
        regions: options.regions.clone(),
        paths,
        audited: options.audit.is_some(),
        desk: Some(options.desk.clone()),
    };
    let document = written.compile(&choices)?;
    let listen = options.listen.unwrap_or(loopback(0));
    let listen_tls = options.listen_tls.unwrap_or_else(|| next_to(listen));
    let files = tls::prepare(&options.programs.state()?.join("tls"), listen_tls.ip())?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let settings = Settings {
        listen,
        listen_tls,
        admin: place.admin,
        module: place.module,
        certificate: files.certificate,
        key: files.key,
        paths: options.paths.clone(),
        upstream_ca: match &options.upstream_ca {
            Some(ca) => absolute(ca),
            None => platform::host_bundle()?,
        },
        access_log: options.access_log.as_deref().map_or(place.access_log, absolute),
        als: options.audit.as_ref().map(|_| place.als),
        intents: options.audit.as_ref().map(|_| place.intents),
    };
    let abroad = document.regions().find(|region| !document::in_the_united_states(region));
    if let Some(region) = abroad.filter(|_| options.policy.is_none()) {
        progress::note(&format!(
            "the table of inference profiles is for the United States and is left out in {region}"
        ));
    }
    if options.client_ca.is_none() && document.names_callers_by_certificate() {
        progress::note(
            "no --client-ca: clients show no certificate here, so no class with `principals` takes a call by its certificate's name",
        );
    }
    // No load balancer asks here, and its port would be one more to be free.
    let base = base.without_listener("health");
    let client_ca = options.client_ca.as_deref().map(absolute);
    let plan = Plan { base, settings, choices, ca: files.ca, client_ca, found };
    Ok((plan, document, text))
}

/// The document as data, to compare it with another.
fn data(document: &Document) -> Value {
    serde_json::to_value(document.config()).unwrap_or_default()
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

/// The TLS listener's address where none was given: 443 ports above the other, or any free one.
fn next_to(listen: SocketAddr) -> SocketAddr {
    let port = listen.port().checked_add(443).filter(|_| listen.port() != 0).unwrap_or(0);
    let address = SocketAddr::new(listen.ip(), port);
    let free = port != 0 && net::check_free("--listen-tls", address).is_ok();
    if free { address } else { SocketAddr::new(listen.ip(), 0) }
}

fn start_collector(
    program: &Path,
    audit: &Path,
    als: SocketAddr,
    settings: &Settings,
    run: &Path,
) -> Result<Process, Error> {
    let mut command = Command::new(program);
    command.args(["run", "--als", &als.to_string(), "--file"]).arg(&settings.access_log).arg("--sqlite").arg(audit);
    if let Some(socket) = &settings.intents {
        command.arg("--intents").arg(socket).arg("--ledger").arg(audit.with_added_extension("ledger.db"));
    }
    let log = run.join("collector.log");
    let (collector, _) = Process::start_and_wait("audit-collector", command, &log, COLLECTOR_START)?;
    Ok(collector)
}

/// The collector's socket: in the run's directory, unless its path is too long for a socket (unix(7): 107 bytes).
fn socket(run: &Path) -> Result<PathBuf, Error> {
    let socket = run.join("audit.sock");
    if socket.as_os_str().len() <= 107 {
        return Ok(socket);
    }
    let folder = std::env::temp_dir().join(format!("bedrock-gateway-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(Error::file("cannot create", &folder))?;
    Ok(folder.join("audit.sock"))
}

/// A directory of this process in `state/KIND`; those of processes that have ended are removed.
///
/// # Errors
/// It cannot be made.
pub fn run_dir(state: &Path, kind: &str) -> Result<PathBuf, Error> {
    let all = state.join(kind);
    let processes = Path::new("/proc");
    for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if processes.join("self").exists() && !processes.join(&name).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let run = all.join(std::process::id().to_string());
    std::fs::create_dir_all(&run).map_err(Error::file("cannot create", &run))?;
    Ok(run)
}
