//! A double of the parts of AWS that a VPN machine calls: the VPC's routes, metrics, the secret, the log group. It is strict:
//! it refuses and records what it does not know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Error;

/// Replaces the AWS CLI.
const AWS: &str = include_str!("aws.py");
/// How often it looks for commands.
const LOOK: Duration = Duration::from_millis(5);

/// Called with the gateway and its network interface when a route is pointed at it.
type OnRoute = Box<dyn Fn(&str, &str) -> Result<(), String> + Send>;

/// The double, which serves until it is dropped.
#[derive(Debug)]
pub struct Cloud {
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
}

/// A command that a machine ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The machine.
    pub gateway: String,
    /// When, since the double's start.
    pub after: Duration,
    /// `ec2 replace-route …`.
    pub words: String,
}

struct State {
    cidr: String,
    /// The network interface that each route table's route names.
    routes: BTreeMap<String, Option<String>>,
    secret: Option<String>,
    parameter: Option<String>,
    object: Option<PathBuf>,
    asked: Vec<Asked>,
    refused: Vec<String>,
    /// The error of every call, if calls must fail.
    outage: Option<String>,
    on_route: OnRoute,
    start: Instant,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// Why a command is refused.
enum No {
    /// An error that AWS can return.
    Fails(&'static str),
    /// A command that a machine does not use, or invalid arguments.
    Refused(String),
}

impl<T: Into<String>> From<T> for No {
    fn from(why: T) -> No {
        No::Refused(why.into())
    }
}

struct Answer {
    code: u8,
    stdout: String,
    stderr: String,
}

impl Cloud {
    /// With these route tables, which have no route to `cidr` yet.
    pub fn new(cidr: &str, tables: &[&str], on_route: OnRoute) -> Cloud {
        let state = State {
            cidr: cidr.to_owned(),
            routes: tables.iter().map(|table| ((*table).to_owned(), None)).collect(),
            secret: None,
            parameter: None,
            object: None,
            asked: Vec::new(),
            refused: Vec::new(),
            outage: None,
            on_route,
            start: Instant::now(),
        };
        Cloud { state: Arc::new(Mutex::new(state)), over: Arc::new(AtomicBool::new(false)) }
    }

    /// Puts `aws` into `bin`, for a machine whose questions go through the directory `place` (its `CLOUD_DIR`).
    pub fn serve(&self, gateway: &str, bin: &Path, place: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(place).map_err(Error::file("cannot create", place))?;
        let program = bin.join("aws");
        std::fs::write(&program, AWS).map_err(Error::file("cannot write", &program))?;
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(Error::file("cannot change", &program))?;
        let (state, over) = (Arc::clone(&self.state), Arc::clone(&self.over));
        let (gateway, place) = (gateway.to_owned(), place.to_path_buf());
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                for file in questions(&place) {
                    let _ = answer(&file, |words| lock(&state).call(&gateway, words));
                }
                std::thread::sleep(LOOK);
            }
        });
        Ok(())
    }

    /// The commands so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state).asked.clone()
    }

    /// Commands that the double does not know.
    pub fn refused(&self) -> Vec<String> {
        lock(&self.state).refused.clone()
    }

    /// The target of each route table's route.
    pub fn routes(&self) -> Vec<Option<String>> {
        lock(&self.state).routes.values().cloned().collect()
    }

    /// Points every route at a network interface, as another operator would.
    pub fn point(&self, interface: Option<&str>) {
        lock(&self.state).routes.values_mut().for_each(|route| *route = interface.map(str::to_owned));
    }

    /// The text of the secret.
    pub fn keep(&self, secret: &str) {
        lock(&self.state).secret = Some(secret.to_owned());
    }

    /// The text of the parameter that has a machine's settings, and the file in the bucket that it installs.
    pub fn release(&self, parameter: &str, object: &Path) {
        let mut state = lock(&self.state);
        state.parameter = Some(parameter.to_owned());
        state.object = Some(object.to_path_buf());
    }

    /// Makes every call fail with this error, or none.
    pub fn fail(&self, why: Option<&str>) {
        lock(&self.state).outage = why.map(str::to_owned);
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        lock(&self.state).start.elapsed()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn questions(place: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "asked")).collect()
}

fn answer(file: &Path, call: impl Fn(&[&str]) -> Answer) -> std::io::Result<()> {
    let words: Vec<String> = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    std::fs::remove_file(file)?;
    let answer = call(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let text = json!({ "code": answer.code, "stdout": answer.stdout, "stderr": answer.stderr }).to_string();
    let new = file.with_extension("written");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file.with_extension("answer"))
}

impl State {
    fn call(&mut self, gateway: &str, words: &[&str]) -> Answer {
        let line = words.join(" ");
        self.asked.push(Asked { gateway: gateway.to_owned(), after: self.start.elapsed(), words: line.clone() });
        if let Some(why) = &self.outage {
            return Answer { code: 254, stdout: String::new(), stderr: format!("{why}\n") };
        }
        match self.carry_out(gateway, words) {
            Ok(stdout) => Answer { code: 0, stdout, stderr: String::new() },
            Err(No::Fails(why)) => Answer { code: 254, stdout: String::new(), stderr: format!("{why}\n") },
            Err(No::Refused(why)) => {
                self.refused.push(format!("{gateway}: aws {line}: {why}"));
                Answer { code: 252, stdout: String::new(), stderr: format!("{why}\n") }
            }
        }
    }

    fn carry_out(&mut self, gateway: &str, words: &[&str]) -> Result<String, No> {
        match words {
            ["ec2", "describe-route-tables", "--output", "json", "--route-table-ids", tables @ ..] => {
                self.tables(tables)
            }
            [
                "ec2",
                action @ ("create-route" | "replace-route"),
                "--route-table-id",
                table,
                "--destination-cidr-block",
                cidr,
                "--network-interface-id",
                interface,
            ] => {
                if *cidr != self.cidr {
                    return Err(format!("no route to {cidr} is this machine's to change").into());
                }
                let route = self.routes.get_mut(*table).ok_or("InvalidRouteTableID.NotFound")?;
                if route.is_some() == (*action == "create-route") {
                    return Err(No::Fails(if route.is_some() {
                        "RouteAlreadyExists"
                    } else {
                        "InvalidParameterValue"
                    }));
                }
                (self.on_route)(gateway, interface)?;
                *route = Some((*interface).to_owned());
                Ok(String::new())
            }
            ["cloudwatch", "put-metric-data", "--namespace", "BedrockGateway", "--metric-data", data] => {
                let data: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
                let whole = |datum: &Value| datum.get("MetricName").is_some() && datum.get("Value").is_some();
                match data.as_array() {
                    Some(data) if !data.is_empty() && data.iter().all(whole) => Ok(String::new()),
                    _ => Err("no metric data".into()),
                }
            }
            ["secretsmanager", "get-secret-value", "--secret-id", _, "--query", "SecretString", "--output", "text"] => {
                self.secret.clone().ok_or(No::Fails("ResourceNotFoundException"))
            }
            ["ssm", "get-parameter", "--name", _, "--query", "Parameter.Value", "--output", "text"] => {
                self.parameter.clone().ok_or(No::Fails("ParameterNotFound"))
            }
            ["s3", "cp", "--only-show-errors", from, to] if from.starts_with("s3://") => {
                let object = self.object.as_ref().ok_or(No::Fails("NoSuchKey"))?;
                std::fs::copy(object, to).map(|_| String::new()).map_err(|error| error.to_string().into())
            }
            [
                "cloudformation",
                "signal-resource",
                "--stack-name",
                _,
                "--logical-resource-id",
                _,
                "--unique-id",
                _,
                "--status",
                "SUCCESS" | "FAILURE",
            ] => Ok(String::new()),
            ["logs", "create-log-stream", "--log-group-name", _, "--log-stream-name", _] => Ok(String::new()),
            ["logs", "put-log-events", "--log-group-name", _, "--log-stream-name", _, "--log-events", file] => {
                let file = file.strip_prefix("file://").ok_or("no file of events")?;
                let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
                let events: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                let last = events.as_array().ok_or("no list of events")?;
                for event in last {
                    let message = event.get("message").and_then(Value::as_str).ok_or("an event with no message")?;
                    event.get("timestamp").and_then(Value::as_u64).ok_or("an event with no time")?;
                    self.asked.push(Asked {
                        gateway: gateway.to_owned(),
                        after: self.start.elapsed(),
                        words: format!("event {message}"),
                    });
                }
                Ok(String::new())
            }
            _ => Err("a VPN machine does not use this command".into()),
        }
    }

    fn tables(&self, wanted: &[&str]) -> Result<String, No> {
        let mut tables = Vec::new();
        for table in wanted {
            let route = self.routes.get(*table).ok_or("InvalidRouteTableID.NotFound")?;
            let mut routes = vec![json!({ "DestinationCidrBlock": "10.20.0.0/16", "GatewayId": "local" })];
            if let Some(interface) = route {
                routes.push(
                    json!({ "DestinationCidrBlock": self.cidr, "NetworkInterfaceId": interface, "State": "active" }),
                );
            }
            tables.push(json!({ "RouteTableId": table, "Routes": routes }));
        }
        Ok(json!({ "RouteTables": tables }).to_string())
    }
}
