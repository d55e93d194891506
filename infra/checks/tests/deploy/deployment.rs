//! A copy of `infra/deploy` with templates and an environment of one test, and the mock of AWS that the tests share.

use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use filter_core::names::Partition::{self, GovCloud};
use infra_checks::AWS_MOCK_PYTHON;
use infra_checks::aws_mock::Aws;
use lab::tools::{required, root};

pub(crate) const SETTINGS: &str = "\
GOVCLOUD_PROFILE=govcloud
GOVCLOUD_REGION=us-gov-west-1
GOVCLOUD_ACCOUNT=444455556666
COMMERCIAL_PROFILE=commercial
COMMERCIAL_REGION=us-east-1
COMMERCIAL_ACCOUNT=111122223333
";

/// A topic that is named by a parameter.
pub(crate) const TOPIC: &str = "\
Parameters:
  Environment: { Type: String }
  Name: { Type: String, AllowedPattern: '[a-z-]+', ConstraintDescription: lower-case letters and hyphens }
  Label:
    Type: String
    Default: none
Resources:
  Topic:
    Type: AWS::SNS::Topic
    Properties:
      TopicName: !Sub '${Environment}-${Name}'
      DisplayName: !Ref Label
Outputs:
  TopicName:
    Value: !GetAtt Topic.TopicName
  TopicArn:
    Value: !Ref Topic
";

/// Runs a program on a terminal of its own, and types an answer when the output ends in a question; after 60 s without output it ends.
const TERMINAL: &str = r#"
import os, pty, select, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said = b""
while select.select([terminal], [], [], 60)[0]:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    said += more
    if said.endswith(b"[y/N] "):
        os.write(terminal, sys.argv[1].encode() + b"\n")
else:
    os.kill(child, 9)
sys.stdout.buffer.write(said.replace(b"\r", b""))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
"#;

/// The mock, which takes seconds to load. It ends with the last test that uses it.
pub(crate) struct Mock {
    aws: Aws,
    dir: PathBuf,
    _until_dropped: Sender<()>,
}

impl Mock {
    fn shared() -> Arc<Mock> {
        static SHARED: Mutex<Weak<Mock>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let mock = Arc::new(Mock::start("shared"));
            *shared = Arc::downgrade(&mock);
            mock
        })
    }

    /// The servers end with the thread that starts them, so that thread must outlive the test.
    fn start(name: &str) -> Mock {
        let dir = std::env::temp_dir().join(format!("deploy-aws-{name}-{}", std::process::id()));
        let (until_dropped, dropped) = channel::<()>();
        let (sender, started) = channel();
        let place = dir.clone();
        std::thread::spawn(move || {
            let _ = sender.send(Aws::start(&place));
            let _ = dropped.recv();
        });
        Mock { aws: started.recv().unwrap().unwrap(), dir, _until_dropped: until_dropped }
    }
}

impl std::ops::Deref for Mock {
    type Target = Aws;

    fn deref(&self) -> &Aws {
        &self.aws
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) struct Deployment {
    pub(crate) dir: PathBuf,
    pub(crate) aws: Arc<Mock>,
    name: &'static str,
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Deployment {
    /// `name` becomes the environment's name, which keeps the tests' stacks apart.
    pub(crate) fn start(name: &'static str) -> Deployment {
        Deployment::on(Mock::shared(), name)
    }

    /// As [`Deployment::start`], in accounts of its own: for a test that changes what an account may do.
    pub(crate) fn alone(name: &'static str) -> Deployment {
        Deployment::on(Arc::new(Mock::start(name)), name)
    }

    fn on(aws: Arc<Mock>, name: &'static str) -> Deployment {
        let dir = std::env::temp_dir().join(format!("deploy-{name}-{}", std::process::id()));
        let deployment = Deployment { dir, aws, name };
        std::fs::create_dir_all(deployment.dir.join("infra")).unwrap();
        // A link: a copy that another thread's new process still holds open for writing cannot be run ("Text file busy").
        for name in ["deploy", "lib"] {
            std::os::unix::fs::symlink(root().join("infra").join(name), deployment.dir.join("infra").join(name))
                .unwrap();
        }
        deployment.environment("settings", SETTINGS);
        deployment
    }

    fn script(&self) -> PathBuf {
        self.dir.join("infra/deploy")
    }

    /// Writes a file of `infra`.
    pub(crate) fn file(&self, name: &str, text: &str) {
        let file = self.dir.join("infra").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Writes a file of the environment.
    pub(crate) fn environment(&self, name: &str, text: &str) {
        self.file(&format!("environments/{}/{name}", self.name), text);
    }

    /// Runs `infra/deploy`: whether it succeeded, and its output.
    fn deploy(&self, arguments: &[&str]) -> (bool, String) {
        let (status, text) = self.status(arguments);
        (status == Some(0), text)
    }

    /// Runs `infra/deploy`: its exit status, and its output.
    pub(crate) fn status(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.aws.deploy(&self.script(), &[&[self.name], arguments].concat()).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// As [`Deployment::status`], on a terminal on which `answer` is typed when it is asked.
    pub(crate) fn on_terminal(&self, arguments: &[&str], answer: &str) -> (Option<i32>, String) {
        let python = required(AWS_MOCK_PYTHON).unwrap();
        let file = self.dir.join("terminal");
        let program = format!("#!{}\n{TERMINAL}", python.display());
        std::fs::write(&file, program).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let script = self.script();
        let arguments = [&[answer, script.to_str().unwrap(), self.name], arguments].concat();
        let output = self.aws.deploy(&file, &arguments).unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn succeeds(&self, arguments: &[&str]) -> String {
        let (success, text) = self.deploy(arguments);
        assert!(success, "{arguments:?}: {text}");
        text
    }

    pub(crate) fn fails(&self, arguments: &[&str], part: &str) -> String {
        let (success, text) = self.deploy(arguments);
        assert!(!success && text.contains(part), "{arguments:?}: want {part:?} in: {text}");
        text
    }

    /// Name and status of each of this environment's stacks.
    pub(crate) fn stacks(&self, partition: Partition) -> Vec<String> {
        let query = ["cloudformation", "describe-stacks", "--query", "Stacks[].[StackName, StackStatus]"];
        let answer = self.aws.call(partition, &query).unwrap();
        let prefix = format!("bedrock-gateway-{}-", self.name);
        let stacks = answer.as_array().unwrap().iter().filter_map(|pair| {
            let name = pair[0].as_str()?.strip_prefix(&prefix)?;
            Some(format!("{name} {}", pair[1].as_str()?))
        });
        stacks.collect()
    }

    /// An output of one of this environment's stacks.
    pub(crate) fn output(&self, partition: Partition, stack: &str, output: &str) -> String {
        let name = format!("bedrock-gateway-{}-{stack}", self.name);
        let query = format!("Stacks[0].Outputs[?OutputKey=='{output}'].OutputValue | [0]");
        let arguments = ["cloudformation", "describe-stacks", "--stack-name", &name, "--query", &query];
        self.aws.call(partition, &arguments).unwrap().as_str().unwrap().to_owned()
    }

    pub(crate) fn topics(&self) -> String {
        self.aws.call(GovCloud, &["sns", "list-topics"]).unwrap().to_string()
    }
}
