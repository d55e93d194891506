//! AWS's DynamoDB Local, one process for all tests of a binary: it takes a second to start.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use audit_collector::store::dynamodb::{DynamoStore, http_client};
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::{Client, Config};

const REGION: &str = "us-gov-west-1";
const ACCESS_KEY: &str = "AKIDEXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

struct Local {
    port: u16,
    /// Statics are not dropped. The server ends when this process ends and closes the child's standard input.
    _child: Child,
}

static LOCAL: LazyLock<Local> = LazyLock::new(|| {
    let folder = std::env::var_os("DYNAMODB_LOCAL_DIR").map(PathBuf::from);
    let folder = folder.expect("DYNAMODB_LOCAL_DIR is not set; `cargo xtask test` fetches DynamoDB Local and sets it");
    assert!(folder.join("DynamoDBLocal.jar").is_file(), "no DynamoDBLocal.jar in {}", folder.display());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = "java -Djava.library.path=DynamoDBLocal_lib -Xmx256m -jar DynamoDBLocal.jar -inMemory -sharedDb \
                  -port \"$0\" </dev/null >/dev/null 2>&1 & server=$!; read -r _; kill $server";
    let mut command = Command::new("sh");
    command.args(["-c", script, &port.to_string()]).current_dir(&folder).stdin(Stdio::piped());
    #[expect(clippy::zombie_processes, reason = "it ends after this process")]
    let child = command.spawn().unwrap();
    for _ in 0..600 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Local { port, _child: child };
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("DynamoDB Local does not listen after a minute; it needs Java 17");
});

pub(crate) fn port() -> u16 {
    LOCAL.port
}

/// The SDK's settings for a child process.
pub(crate) fn environment() -> [(&'static str, &'static str); 4] {
    [
        ("AWS_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
}

/// A store on the DynamoDB that listens on `port`.
pub(crate) fn store(table: &str, port: u16) -> DynamoStore {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .endpoint_url(format!("http://127.0.0.1:{port}"))
        .http_client(http_client())
        .build();
    let rejected = std::env::temp_dir().join(format!("{table}-{}.rejected.jsonl", std::process::id()));
    DynamoStore::new(Client::from_conf(config), table, REGION).with_rejected(rejected)
}
