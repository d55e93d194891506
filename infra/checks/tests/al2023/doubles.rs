//! What a machine reaches: doubles of the metadata service, AWS's services behind the VPC's endpoints, both STS and Bedrock. Each listens
//! on its own address of the network namespace that the machine is joined to, and is judged by the policy of its endpoint and by the
//! machine's role.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedrock_double::sources::Sources;
use bedrock_double::tls::Authority;
use bedrock_double::{Double, Keyring, Received, Running};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::policy::{ACCOUNT, BUCKET, REGION, Request, SETTINGS, TABLE, Templates, allows, value};

/// The bucket of Amazon Linux's packages. `dnf repolist -v` prints its host
/// (https://github.com/shamimice03/aws-secure-env); GovCloud's name follows the same form, and was not seen.
const REPOSITORIES: &str = "al2023-repos-us-gov-west-1-de612dc2";
const INSTANCE: &str = "i-0123456789abcdef0";

/// What a host's double is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The programs of `stubs`, without TLS.
    Stub,
    DynamoDb,
    Sts,
    Bedrock,
}

/// What the doubles know and have seen.
#[derive(Debug)]
pub(crate) struct State {
    templates: Templates,
    /// Replaces the policy of the S3 endpoint.
    pub(crate) s3: Mutex<Option<Value>>,
    pub(crate) settings: Value,
    pub(crate) certificate: String,
    pub(crate) release: PathBuf,
    pub(crate) config: PathBuf,
    tokens: Mutex<Vec<String>>,
    /// Whether the group wants to terminate the machine.
    pub(crate) terminates: AtomicBool,
    /// What the group was told of its lifecycle action.
    pub(crate) lifecycle: Mutex<Vec<String>>,
    /// Signals to CloudFormation.
    pub(crate) signals: Mutex<Vec<String>>,
    /// Records in the table.
    pub(crate) items: Mutex<Vec<Value>>,
    /// Requests that AWS would refuse, and why.
    pub(crate) refused: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(crate) struct Doubles {
    pub(crate) state: Arc<State>,
    bedrock: Running,
    sources: Sources,
    runtime: tokio::runtime::Runtime,
    /// The CA of the doubles' certificates.
    pub(crate) ca: PathBuf,
}

/// A host that the machine may look up.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    kind: Kind,
    service: String,
}

/// The hosts, each with an address: of an interface endpoint in the VPC, of a gateway endpoint's prefix list, or in public.
pub(crate) fn hosts(envoy: &str) -> Vec<Host> {
    let templates = Templates::read();
    let mut names: BTreeMap<String, (Kind, String)> = BTreeMap::new();
    for service in ["autoscaling", "cloudformation", "logs", "s3", "secretsmanager", "ssm"] {
        names.insert(format!("{service}.{REGION}.amazonaws.com"), (Kind::Stub, service.to_owned()));
    }
    names.insert(format!("{REPOSITORIES}.s3.dualstack.{REGION}.amazonaws.com"), (Kind::Stub, "s3".to_owned()));
    names.insert(format!("dynamodb.{REGION}.amazonaws.com"), (Kind::DynamoDb, "dynamodb".to_owned()));
    // Those that Envoy's configuration names.
    for name in envoy.split('"').filter(|word| word.ends_with(".amazonaws.com") || word.ends_with(".api.aws")) {
        let kind = if name.starts_with("sts.") { Kind::Sts } else { Kind::Bedrock };
        let service = name.split('.').next().unwrap().to_owned();
        names.entry(name.to_owned()).or_insert((kind, service));
    }
    let hosts = names.into_iter().zip(11_u8..).map(|((name, (kind, service)), at)| {
        let endpoint = name.contains(REGION).then(|| templates.endpoint(&service)).flatten();
        let net = match endpoint.as_ref().map(|(kind, _)| kind.as_str()) {
            Some("Interface") => [10, 64, 1],
            Some(_) => [198, 51, 100],
            None => [203, 0, 113],
        };
        Host { name, address: IpAddr::from([net[0], net[1], net[2], at]), kind, service }
    });
    hosts.collect()
}

/// Listens in a network namespace, which only a thread of its own enters.
fn listen(namespace: &Path, address: SocketAddr) -> StdListener {
    let namespace = std::fs::File::open(namespace).unwrap();
    let bound = std::thread::spawn(move || {
        let network = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(network)).unwrap();
        StdListener::bind(address).unwrap()
    });
    let listener = bound.join().unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// What a machine finds when it starts.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) settings: Value,
    /// Certificate and key of the TLS listener.
    pub(crate) certificate: String,
    pub(crate) release: PathBuf,
    pub(crate) config: PathBuf,
}

impl Doubles {
    /// Starts them in `namespace`. Files are in `dir`.
    pub(crate) fn start(dir: &Path, namespace: &Path, hosts: &[Host], found: Found) -> Doubles {
        let keyring = Keyring::default();
        let tls = dir.join("tls");
        let bedrock = Double::builder()
            .path_name("internet")
            .tls_dir(&tls)
            .region("us-east-1")
            .keyring(&keyring)
            .start()
            .unwrap();
        let sources = Sources::start(Duration::from_secs(3600), &keyring, false).unwrap();
        let state = Arc::new(State {
            templates: Templates::read(),
            s3: Mutex::new(None),
            settings: found.settings,
            certificate: found.certificate,
            release: found.release,
            config: found.config,
            tokens: Mutex::default(),
            terminates: AtomicBool::new(false),
            lifecycle: Mutex::default(),
            signals: Mutex::default(),
            items: Mutex::default(),
            refused: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let authority = Authority::open(&tls).unwrap();
        let (bedrock_addr, sources_addr) = (bedrock.addr(), sources.addr());
        let serve = |address: SocketAddr, host: Option<&Host>| {
            let listener = listen(namespace, address);
            let acceptor = host
                .filter(|host| matches!(host.kind, Kind::Sts | Kind::DynamoDb))
                .map(|host| TlsAcceptor::from(authority.server(vec![host.name.clone()], false).unwrap()));
            let kind = host.map(|host| host.kind);
            let service = host.map_or_else(|| "imds".to_owned(), |host| host.service.clone());
            let state = Arc::clone(&state);
            runtime.spawn(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (state, acceptor, service) = (Arc::clone(&state), acceptor.clone(), service.clone());
                    tokio::spawn(async move {
                        match (kind, acceptor) {
                            (Some(Kind::Bedrock), _) => pass(stream, bedrock_addr).await,
                            (Some(Kind::Sts), Some(acceptor)) => {
                                pass(acceptor.accept(stream).await?, sources_addr).await
                            }
                            (_, Some(acceptor)) => {
                                answer(acceptor.accept(stream).await?, &state, &service, sources_addr).await
                            }
                            (_, None) => answer(stream, &state, &service, sources_addr).await,
                        }
                    });
                }
            });
        };
        serve(SocketAddr::from(([169, 254, 169, 254], 80)), None);
        hosts.iter().for_each(|host| serve(SocketAddr::new(host.address, 443), Some(host)));
        let ca = authority.certificate().to_path_buf();
        Doubles { state, bedrock, sources, runtime, ca }
    }

    /// The calls that Bedrock received, and that nothing was wrong with.
    pub(crate) fn received(&self) -> Vec<Received> {
        assert_eq!(self.sources.complaints(), Vec::<String>::new());
        assert!(self.bedrock.violations().is_empty(), "{:?}", self.bedrock.violations());
        self.bedrock.requests()
    }

    pub(crate) fn stop(self) {
        self.runtime.shutdown_background();
        self.bedrock.stop();
    }
}

/// Copies bytes between a connection and a double that has no address in the namespace.
async fn pass(mut stream: impl AsyncRead + AsyncWrite + Unpin, to: SocketAddr) -> std::io::Result<()> {
    let mut double = TcpStream::connect(to).await?;
    copy_bidirectional(&mut stream, &mut double).await.map(drop)
}

/// Answers HTTP/1.1 requests of one connection.
async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    state: &State,
    service: &str,
    sources: SocketAddr,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length: usize = header(&head, "content-length").parse().unwrap_or(0);
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let body = bytes[end..end + length].to_vec();
        bytes.drain(..end + length);
        let (status, answer) = match service {
            "imds" => match state.metadata(&head) {
                Some(answer) => answer,
                None => {
                    let whole = ask(sources, &head).await?;
                    let (answered, text) = whole.split_once("\r\n\r\n").unwrap_or((&whole, ""));
                    if head.starts_with("PUT /latest/api/token ") {
                        state.tokens.lock().unwrap().push(text.to_owned());
                    }
                    (answered.split(' ').nth(1).unwrap_or("500").parse().unwrap_or(500), text.as_bytes().to_vec())
                }
            },
            "dynamodb" => state.table(&head, &body),
            "cloudformation" => state.signal(&body),
            "s3" if head.starts_with("GET ") => state.repository(&head),
            _ => state.command(service, &body),
        };
        let answered = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\n{}content-length: {}\r\n\r\n",
            // The metadata service says how long a session lives; AWS's SDK for Rust asks for that.
            if service == "imds" { "x-aws-ec2-metadata-token-ttl-seconds: 60\r\n" } else { "" },
            answer.len()
        );
        stream.write_all(answered.as_bytes()).await?;
        stream.write_all(&answer).await?;
        stream.flush().await?;
        if header(&head, "connection") == "close" {
            return Ok(());
        }
    }
}

/// Passes a request without a body on.
async fn ask(to: SocketAddr, head: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next().unwrap_or_default()
}

type Answer = (u16, Vec<u8>);

impl State {
    /// Whether the service's endpoint and, for a signed request, the role allow it.
    fn judge(&self, service: &str, request: Request<'_>) -> Result<(), Answer> {
        let replaced = self.s3.lock().unwrap().clone().filter(|_| service == "s3");
        let policy = replaced.or_else(|| self.templates.endpoint(service).map(|(_, policy)| policy));
        let why = if policy.is_some_and(|policy| !allows(&policy, request)) {
            format!("no VPC endpoint policy allows the {} action", request.action)
        } else if request.signed && !self.templates.role_allows(request) {
            format!("no identity-based policy allows the {} action", request.action)
        } else {
            return Ok(());
        };
        self.refused.lock().unwrap().push(format!("{} on {}: {why}", request.action, request.resource));
        Err((403, format!("An error occurred (AccessDeniedException): because {why}").into_bytes()))
    }

    /// Paths of the metadata service that only the machine's scripts read; `None` for those of credentials.
    fn metadata(&self, head: &str) -> Option<Answer> {
        let path = head.strip_prefix("GET /latest/meta-data/")?.split(' ').next()?;
        if path.starts_with("iam/") {
            return None;
        }
        // IMDSv2 (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html).
        let token = header(head, "x-aws-ec2-metadata-token");
        if !self.tokens.lock().unwrap().iter().any(|given| given == token) {
            return Some((401, Vec::new()));
        }
        let text = match path {
            "placement/region" => REGION,
            "instance-id" => INSTANCE,
            "tags/instance/bedrock-gateway:settings" => SETTINGS,
            "autoscaling/target-lifecycle-state" if self.terminates.load(Ordering::Relaxed) => "Terminated",
            // The item does not exist until the group has checked the machine.
            _ => return Some((404, Vec::new())),
        };
        Some((200, text.as_bytes().to_vec()))
    }

    /// A call of the stub of the AWS CLI.
    fn command(&self, service: &str, body: &[u8]) -> Answer {
        let words: Vec<String> = serde_json::from_slice(body).unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let arn = |kind: &str| format!("arn:aws-us-gov:{service}:{REGION}:{ACCOUNT}:{kind}");
        let signed = true;
        match words.as_slice() {
            ["ssm", "get-parameter", "--name", SETTINGS, "--query", "Parameter.Value", "--output", "text"] => {
                let resource = arn(&format!("parameter{SETTINGS}"));
                let judged = self.judge(service, Request { action: "ssm:GetParameter", resource: &resource, signed });
                judged.map_or_else(|refused| refused, |()| (200, self.settings.to_string().into_bytes()))
            }
            [
                "secretsmanager",
                "get-secret-value",
                "--secret-id",
                id,
                "--query",
                "SecretString",
                "--output",
                "text",
            ] => {
                let request = Request { action: "secretsmanager:GetSecretValue", resource: id, signed };
                match self.judge(service, request) {
                    Ok(()) if *id == value("CertificateSecretArn") => (200, self.certificate.clone().into_bytes()),
                    Ok(()) => (400, b"ResourceNotFoundException".to_vec()),
                    Err(refused) => refused,
                }
            }
            ["s3", "cp", "--only-show-errors", source, _] => {
                let path = source.strip_prefix("s3://").unwrap_or_default();
                let resource = format!("arn:aws-us-gov:s3:::{path}");
                match self.judge(service, Request { action: "s3:GetObject", resource: &resource, signed }) {
                    Ok(()) if path == format!("{BUCKET}/release/release.tar.gz") => {
                        (200, std::fs::read(&self.release).unwrap())
                    }
                    Ok(()) if path == format!("{BUCKET}/config/config.tar.gz") => {
                        (200, std::fs::read(&self.config).unwrap())
                    }
                    Ok(()) => (404, b"NoSuchKey".to_vec()),
                    Err(refused) => refused,
                }
            }
            [
                "autoscaling",
                action @ ("complete-lifecycle-action" | "record-lifecycle-action-heartbeat"),
                options @ ..,
            ] => {
                let name = if *action == "complete-lifecycle-action" {
                    "autoscaling:CompleteLifecycleAction"
                } else {
                    "autoscaling:RecordLifecycleActionHeartbeat"
                };
                let group = "--auto-scaling-group-name bedrock-gateway-prod";
                let wanted = format!("--lifecycle-hook-name drain {group} --instance-id {INSTANCE}");
                if !options.join(" ").starts_with(&wanted) {
                    return (400, b"ValidationError: No active Lifecycle Action found".to_vec());
                }
                let resource = arn(
                    "autoScalingGroup:4f7b6b0e-0000-4000-8000-000000000000:autoScalingGroupName/bedrock-gateway-prod",
                );
                let judged = self.judge(service, Request { action: name, resource: &resource, signed });
                judged.map_or_else(
                    |refused| refused,
                    |()| {
                        self.lifecycle.lock().unwrap().push(words[1..].join(" "));
                        (200, Vec::new())
                    },
                )
            }
            other => {
                self.refused.lock().unwrap().push(format!("unexpected: aws {other:?}"));
                (400, b"unexpected".to_vec())
            }
        }
    }

    fn signal(&self, body: &[u8]) -> Answer {
        let stack = value("AWS::StackId");
        let request = Request { action: "cloudformation:SignalResource", resource: &stack, signed: true };
        if let Err(refused) = self.judge("cloudformation", request) {
            return refused;
        }
        self.signals.lock().unwrap().push(String::from_utf8_lossy(body).into_owned());
        (200, Vec::new())
    }

    /// A file of Amazon Linux's repositories, which is asked for without credentials.
    fn repository(&self, head: &str) -> Answer {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let resource = format!("arn:aws-us-gov:s3:::{REPOSITORIES}{path}");
        let request = Request { action: "s3:GetObject", resource: &resource, signed: false };
        self.judge("s3", request).map_or_else(|refused| refused, |()| (200, b"mirror\n".to_vec()))
    }

    fn table(&self, head: &str, body: &[u8]) -> Answer {
        let action = header(head, "x-amz-target").replace("DynamoDB_20120810.", "dynamodb:");
        let request = Request { action: &action, resource: &value("TableArn"), signed: true };
        if !header(head, "authorization").contains("Credential=ASIALOCAL") {
            return (
                400,
                br#"{"__type":"UnrecognizedClientException","message":"the security token is invalid"}"#.to_vec(),
            );
        }
        if self.judge("dynamodb", request).is_err() {
            return (400, br#"{"__type":"AccessDeniedException","message":"not authorized"}"#.to_vec());
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let answer = match action.as_str() {
            "dynamodb:DescribeTable" if body["TableName"] == TABLE => {
                json!({"Table": {"TableName": TABLE, "TableStatus": "ACTIVE"}})
            }
            // A put without a condition would replace a record. The collector's own records of some kinds may be replaced.
            "dynamodb:PutItem" if body["TableName"] == TABLE => {
                let item = &body["Item"];
                let Some(replaced) = replaced_kinds(&body) else {
                    return (400, br#"{"__type":"ValidationException","message":"no condition"}"#.to_vec());
                };
                let mut items = self.items.lock().unwrap();
                items.retain(|stored| {
                    stored["request_id"] != item["request_id"] || !replaced.contains(&stored["kind"]["S"])
                });
                if let Some(stored) = items.iter().find(|stored| stored["request_id"] == item["request_id"]) {
                    // API reference, PutItem: `ReturnValuesOnConditionCheckFailure`.
                    let mut error = json!({
                        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                        "message": "The conditional request failed",
                    });
                    if body["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD" {
                        error["Item"] = stored.clone();
                    }
                    return (400, error.to_string().into_bytes());
                }
                items.push(item.clone());
                json!({})
            }
            _ => return (400, br#"{"__type":"ResourceNotFoundException","message":"no such table"}"#.to_vec()),
        };
        (200, answer.to_string().into_bytes())
    }
}

/// The kinds of records that a put may replace: its condition is `attribute_not_exists(#key)`, or that `OR #kind = :…`. None for
/// any other condition, and for names and values that it does not use, which DynamoDB refuses.
fn replaced_kinds(put: &Value) -> Option<Vec<Value>> {
    let (names, values) = (&put["ExpressionAttributeNames"], &put["ExpressionAttributeValues"]);
    let mut terms = put["ConditionExpression"].as_str()?.split(" OR ");
    if terms.next() != Some("attribute_not_exists(#key)") || names["#key"] != "request_id" {
        return None;
    }
    let kinds = terms.map(|term| Some(values[term.strip_prefix("#kind = ")?]["S"].clone()).filter(Value::is_string));
    let kinds: Vec<Value> = kinds.collect::<Option<_>>()?;
    let count = |all: &Value| all.as_object().map_or(0, serde_json::Map::len);
    let named = if kinds.is_empty() { 1 } else { 2 };
    let used = count(values) == kinds.len() && count(names) == named && (named == 1 || names["#kind"] == "kind");
    used.then_some(kinds)
}
