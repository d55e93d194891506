//! The VPN's machine: what is rendered for strongSwan, FRR and the kernel is read by Debian's own programs, what is mistyped is
//! named, and the two gateways agree on who has the VPC's routes. `cargo xtask test` names the binaries in the environment.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bedrock_gateway::process::Process;
use lab::machine::{self, Machine};
use lab::namespace::{self, Namespace, join};
use lab::tools::{required, root, target};
use lab::vpn::cloud::Cloud;
use lab::vpn::lab as hosts;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const TABLES: [&str; 2] = ["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"];
const REMOTE: &str = "10.100.0.0/16";
const SECRET: &str = "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:bedrock-gateway-prod-tunnels";

/// A directory of the test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = target().join("tmp").join(format!("vpn-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let file = self.write(name, text);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn infra(name: &str) -> PathBuf {
    root().join("infra/vpn").join(name)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn settings(name: &str) -> Value {
    json!({
        "stack": "bedrock-gateway-prod-vpn", "resource": "GatewayA", "environment": "prod", "name": name,
        "other": "198.51.100.20", "bucket": "artifacts", "release": { "key": "release.tar.gz", "sha256": "0".repeat(64) },
        "secret": SECRET, "local_cidr": "10.20.0.0/16", "remote_cidr": REMOTE, "route_tables": TABLES,
        "log_group": "/bedrock-gateway/prod/vpn",
    })
}

fn secret() -> Value {
    let tunnel = |nth: u32, net: u32| {
        json!({ "outside": format!("203.0.113.{nth}"), "inside": format!("169.254.{net}.{}/30", 4 * nth),
                "psk": format!("example_key.of.tunnel_{nth}") })
    };
    json!({ "local_asn": 65010, "remote_asn": 64512, "gateways": {
        "a": { "outside": "198.51.100.10", "tunnels": [tunnel(1, 101), tunnel(2, 101)] },
        "b": { "outside": "198.51.100.20", "tunnels": [tunnel(3, 102), tunnel(4, 102)] },
    } })
}

fn render(scratch: &Scratch, secret: &Value, settings: &Value) -> Output {
    let mut command = Command::new(infra("render.py"));
    command.arg("--secret").arg(scratch.write("secret.json", &secret.to_string()));
    command.arg("--settings").arg(scratch.write("settings.json", &settings.to_string()));
    command.arg("--out").arg(scratch.0.join("out")).output().unwrap()
}

/// A line that is seen though the test passes: a macro's output would be swallowed.
fn loudly(line: &str) {
    std::io::stderr().write_all(format!("\n*** {line} ***\n").as_bytes()).unwrap();
}

/// A machine of Debian's packages, where programs may be given a root of their own.
fn bare_machine(scratch: &Scratch) -> Option<Machine> {
    let root = machine::find().unwrap();
    let machine = root.machine(&scratch.0.join("machine")).unwrap();
    let output = Command::new("unshare").args(["--user", "--mount", "true"]).output().unwrap();
    let entered = run(&machine, "true", &[]);
    if entered.status.success() {
        return Some(machine);
    }
    // Where namespaces are to be had, the machine is at fault.
    assert!(!output.status.success(), "{}", text(&entered));
    loudly(&format!("DEBIAN'S PROGRAMS DID NOT READ WHAT IS RENDERED: no namespaces here: {}", text(&entered).trim()));
    None
}

/// One with what was rendered for gateway `name`.
fn machine(scratch: &Scratch, name: &str) -> Option<Machine> {
    let rendered = render(scratch, &secret(), &settings(name));
    assert!(rendered.status.success(), "{}", text(&rendered));
    let machine = bare_machine(scratch)?;
    let out = scratch.0.join("out");
    for (name, place) in [
        ("swanctl.conf", "/etc/swanctl/conf.d/bedrock-gateway.conf"),
        ("frr.conf", "/etc/frr/frr.conf"),
        ("firewall.nft", "/etc/firewall.nft"),
        ("interfaces", "/etc/interfaces"),
    ] {
        std::fs::create_dir_all(machine.outside(place).parent().unwrap()).unwrap();
        std::fs::copy(out.join(name), machine.outside(place)).unwrap();
    }
    let conf = machine.outside("/etc/strongswan.d/bedrock-gateway.conf");
    std::fs::copy(infra("strongswan.conf"), conf).unwrap();
    Some(machine)
}

fn run(machine: &Machine, program: &str, arguments: &[&str]) -> Output {
    machine.exec(None, program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn strongswan_loads_what_is_rendered() {
    let scratch = Scratch::new("swanctl");
    let Some(machine) = machine(&scratch, "a") else { return };
    let conf = machine.outside("/etc/swanctl/conf.d/bedrock-gateway.conf");
    let good = std::fs::read_to_string(&conf).unwrap();
    // charon and swanctl have to be in one network, and so in one shell.
    let script = "charon-systemd 2>/run/charon.log & charon=$!
for _ in $(seq 200); do [ -S /run/charon.vici ] && break; sleep 0.05; done
swanctl --load-all --noprompt; code=$?
swanctl --list-conns --raw
kill $charon; wait $charon; exit $code";
    let load = || run(&machine, "sh", &["-c", script]);
    let loaded = load();
    let said = text(&loaded);
    assert!(loaded.status.success(), "{said}");
    assert!(said.contains("successfully loaded 2 connections, 0 unloaded"), "{said}");
    assert!(said.contains("loaded ike secret 'ike-vpn1'") && said.contains("loaded ike secret 'ike-vpn2'"), "{said}");
    for part in ["vpn1 {", "vpn2 {", "version=IKEv2", "remote_addrs=[203.0.113.1]", "remote_addrs=[203.0.113.2]"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("example_key"), "{said}");
    for (from, to) in
        [("aes256gcm16-prfsha384-ecp384", "aes256gcm17-ecp384"), ("rekey_time = 2700s", "rekey_time = soon")]
    {
        std::fs::write(&conf, good.replace(from, to)).unwrap();
        let refused = load();
        assert!(!refused.status.success(), "{to}: {}", text(&refused));
    }
}

#[test]
fn frr_and_the_kernels_firewall_read_what_is_rendered() {
    for name in ["a", "b"] {
        let scratch = Scratch::new(&format!("frr-{name}"));
        let Some(machine) = machine(&scratch, name) else { return };
        let read = run(&machine, "vtysh", &["-C", "-f", "/etc/frr/frr.conf"]);
        assert!(read.status.success(), "{}", text(&read));
        let read = run(&machine, "nft", &["-c", "-f", "/etc/firewall.nft"]);
        assert!(read.status.success(), "{}", text(&read));
        // Read; a kernel without xfrm interfaces, and a network without a device, can do no more.
        let read = run(&machine, "ip", &["-batch", "/etc/interfaces"]);
        let said = text(&read);
        assert!(!said.contains("Usage") && !said.contains("is a garbage") && !said.contains("is wrong"), "{said}");

        let frr = machine.outside("/etc/frr/frr.conf");
        let good = std::fs::read_to_string(&frr).unwrap();
        std::fs::write(&frr, good.replace("timers bgp 10 30", "timers bgp 10 often")).unwrap();
        let refused = run(&machine, "vtysh", &["-C", "-f", "/etc/frr/frr.conf"]);
        assert!(text(&refused).contains("timers bgp 10 often"), "{}", text(&refused));
        assert!(!refused.status.success());
        let firewall = machine.outside("/etc/firewall.nft");
        let good = std::fs::read_to_string(&firewall).unwrap();
        std::fs::write(&firewall, good.replace("policy drop", "policy maybe")).unwrap();
        assert!(!run(&machine, "nft", &["-c", "-f", "/etc/firewall.nft"]).status.success());
    }
}

#[test]
fn what_is_announced_and_taken_is_the_contracts_and_no_more() {
    let scratch = Scratch::new("lists");
    assert!(render(&scratch, &secret(), &settings("b")).status.success());
    let frr = std::fs::read_to_string(scratch.0.join("out/frr.conf")).unwrap();
    let lists: Vec<&str> = frr.lines().filter(|line| line.starts_with("ip prefix-list")).collect();
    assert_eq!(
        lists,
        ["ip prefix-list LOCAL seq 5 permit 10.20.0.0/16", "ip prefix-list REMOTE seq 5 permit 10.100.0.0/16 le 32"]
    );
    // b's second tunnel is the last that Commercial would choose.
    assert!(frr.contains("neighbor 169.254.102.17 route-map GIVE-7 out"), "{frr}");
    assert!(frr.contains("neighbor 169.254.102.13 route-map GIVE-6 out"), "{frr}");
    let key = std::fs::metadata(scratch.0.join("out/swanctl.conf")).unwrap();
    assert_eq!(key.mode() & 0o077, 0, "the keys are their owner's alone");
    for file in ["frr.conf", "interfaces", "firewall.nft", "watch.json"] {
        let text = std::fs::read_to_string(scratch.0.join("out").join(file)).unwrap();
        assert!(!text.contains("example_key"), "{file} holds a key");
    }
}

#[test]
fn names_each_wrong_field_and_no_key() {
    let scratch = Scratch::new("faults");
    let faults: [(&str, Value, &str); 18] = [
        ("/local_asn", json!("65010"), "secret: local_asn: is no AS number"),
        ("/remote_asn", json!(65010), "secret: remote_asn: is the same as local_asn"),
        ("/gateways/c", json!({}), "secret: gateways.c: is unknown"),
        ("/gateways/a/outside", json!("198.51.100.300"), "secret: gateways.a.outside: is no IPv4 address"),
        ("/gateways/b/tunnels", json!([]), "secret: gateways.b.tunnels: is no list of two tunnels"),
        ("/gateways/b/tunnels/0/outside", json!("203.0.113.1"), "is the same as gateways.a.tunnels[0].outside"),
        (
            "/gateways/a/tunnels/1/inside",
            json!("169.254.101.6/30"),
            "secret: gateways.a.tunnels[1].inside: is no IPv4 network",
        ),
        (
            "/gateways/a/tunnels/1/inside",
            json!("10.0.0.0/30"),
            "gateways.a.tunnels[1].inside: is no /30 of 169.254.0.0/16",
        ),
        ("/gateways/a/tunnels/1/inside", json!("169.254.5.0/30"), "is one that AWS keeps for itself"),
        ("/gateways/a/tunnels/1/inside", json!("169.254.101.4/30"), "is the same as gateways.a.tunnels[0].inside"),
        (
            "/gateways/b/tunnels/1/psk",
            json!("0secret\"key}"),
            "secret: gateways.b.tunnels[1].psk: is no key as AWS makes them",
        ),
        ("/gateways/b/tunnels/1/key", json!("secret"), "secret: gateways.b.tunnels[1].key: is unknown"),
        ("settings/name", json!("c"), "settings: name: is no gateway (a or b)"),
        ("settings/other", json!("gateway-b"), "settings: other: is no IPv4 address"),
        ("settings/local_cidr", json!("10.20.0.1/16"), "settings: local_cidr: is no IPv4 network"),
        ("settings/remote_cidr", json!("10.20.128.0/17"), "settings: remote_cidr: overlaps local_cidr"),
        ("settings/route_tables", json!(["rtb-1", "x"]), "settings: route_tables[1]: is no route table's id"),
        ("settings/environment", json!("Prod;"), "settings: environment: is no environment's name"),
    ];
    for (place, value, wanted) in faults {
        let (mut secret, mut settings) = (secret(), settings("a"));
        let (document, pointer) = match place.strip_prefix("settings") {
            Some(pointer) => (&mut settings, pointer),
            None => (&mut secret, place),
        };
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            object => object[key] = value,
        }
        let refused = render(&scratch, &secret, &settings);
        let said = text(&refused);
        assert!(!refused.status.success() && said.contains(wanted), "{place}: {said}");
        assert!(
            !said.contains("secret\"key") && !said.contains("example_key") && !said.contains("Traceback"),
            "{said}"
        );
    }
    // Each missing field of every object, one by one.
    fn fields(value: &Value, at: &str, all: &mut Vec<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                all.push(format!("{at}/{key}"));
                fields(value, &format!("{at}/{key}"), all);
            }),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(nth, value)| fields(value, &format!("{at}/{nth}"), all))
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    fields(&secret(), "", &mut all);
    assert_eq!(all.len(), 2 + 1 + 2 + 2 * 2 + 4 * 3);
    for pointer in all {
        let mut secret = secret();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        secret.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        let refused = render(&scratch, &secret, &settings("a"));
        let field = pointer.replace("/0", "[0]").replace("/1", "[1]").trim_start_matches('/').replace('/', ".");
        let wanted = format!("render: secret: {field}: is missing");
        assert!(
            !refused.status.success() && text(&refused).lines().any(|line| line == wanted),
            "{wanted}: {}",
            text(&refused)
        );
    }
    let broken = Command::new(infra("render.py"))
        .arg("--secret")
        .arg(scratch.write("broken", "{\"psk\": \"example_key\", }"))
        .arg("--settings")
        .arg(scratch.write("settings.json", &settings("a").to_string()))
        .arg("--out")
        .arg(scratch.0.join("out"))
        .output()
        .unwrap();
    assert!(!broken.status.success());
    assert_eq!(text(&broken), "render: secret: is no JSON (line 1)\n");
}

#[test]
fn scripts_and_units_are_sound() {
    let scratch = Scratch::new("units");
    let Some(machine) = bare_machine(&scratch) else { return };
    let place = machine.outside("/opt/bedrock-gateway/vpn");
    std::fs::create_dir_all(&place).unwrap();
    let mut units = Vec::new();
    for entry in std::fs::read_dir(infra("")).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_string_lossy().into_owned();
        std::fs::copy(&from, place.join(&name)).unwrap();
        if name.ends_with(".service") || name.ends_with(".timer") {
            std::fs::copy(&from, machine.outside("/etc/systemd/system").join(&name)).unwrap();
            units.push(format!("/etc/systemd/system/{name}"));
        }
    }
    assert_eq!(units.len(), 5);
    let verify = |units: &[String]| {
        let mut command = machine.exec(None, "systemd-analyze");
        text(&command.args(["verify", "--man=no"]).args(units).output().unwrap())
    };
    assert_eq!(verify(&units), "");
    let unit = machine.outside("/etc/systemd/system/bedrock-gateway-vpn-watch.service");
    let good = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, good.replace("ProtectHome=", "ProtectHouse=").replace("vpn/watch.py\n", "vpn/look.py\n"))
        .unwrap();
    let said = verify(&["/etc/systemd/system/bedrock-gateway-vpn-watch.service".to_owned()]);
    assert!(said.contains("ProtectHouse") && said.contains("vpn/look.py is not executable"), "{said}");

    for script in ["user-data", "install", "apply"] {
        let checked = run(&machine, "shellcheck", &[&format!("/opt/bedrock-gateway/vpn/{script}")]);
        assert!(checked.status.success(), "{}", text(&checked));
    }
    // Debian's Python, not this machine's.
    for script in ["render.py", "watch.py", "logs.py"] {
        let compile = format!("import ast; ast.parse(open('/opt/bedrock-gateway/vpn/{script}').read())");
        let checked = run(&machine, "python3", &["-c", &compile]);
        assert!(checked.status.success(), "{}", text(&checked));
    }
}

/// A double of AWS where nothing hangs on its routes.
fn cloud() -> Cloud {
    Cloud::new(REMOTE, &TABLES, Box::new(|_, _| Ok(())))
}

/// Python itself: what stands for it in PATH may put other programs before the doubles.
fn python(script: &Path, scratch: &Scratch) -> Command {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let mut command = with_cloud(Path::new(String::from_utf8(output.stdout).unwrap().trim()), scratch);
    command.arg(script);
    command
}

/// A program in an environment whose `aws` is the double's.
fn with_cloud(program: &Path, scratch: &Scratch) -> Command {
    let mut command = Command::new(program);
    let path = format!("{}:{}", scratch.0.join("bin").display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("CLOUD_DIR", scratch.0.join("cloud"));
    command
}

fn metadata(scratch: &Scratch, items: &[String]) -> (Process, String) {
    let mut command = Command::new("python3");
    command.arg(scratch.write("imds.py", hosts::IMDS)).args(["127.0.0.1", "0"]).args(items);
    Process::start_and_wait("the metadata service", command, &scratch.0.join("imds.log"), Duration::from_secs(20))
        .unwrap()
}

#[test]
fn a_machine_installs_itself_and_follows_the_secret() {
    let scratch = Scratch::new("install");
    let cloud = cloud();
    let bin = scratch.0.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    cloud.serve("a", &bin, &scratch.0.join("cloud")).unwrap();
    let apt = scratch.0.join("apt.calls");
    scratch.program("bin/apt-get", &format!("#!/bin/sh\necho \"$*\" >>'{}'\n", apt.display()));
    let made = required("RELEASE_ARCHIVE").unwrap();
    let sha256 = hex::encode(Sha256::digest(std::fs::read(&made).unwrap()));
    let items = [
        "placement/region=us-gov-west-1",
        "instance-id=i-0123456789abcdef0",
        "tags/instance/bedrock-gateway:settings=/x",
    ];
    let (_imds, address) = metadata(&scratch, &items.map(str::to_owned));
    let root = scratch.0.join("root");
    let user_data = |sha256: &str| {
        let mut settings = settings("a");
        settings["release"]["sha256"] = json!(sha256);
        cloud.release(&settings.to_string(), &made);
        let mut command = with_cloud(&infra("user-data"), &scratch);
        command.env("BEDROCK_GATEWAY_ROOT", &root).env("BEDROCK_GATEWAY_IMDS", &address).output().unwrap()
    };
    let signals = || -> Vec<String> {
        let asked = cloud.asked().into_iter().map(|asked| asked.words);
        asked.filter(|words| words.starts_with("cloudformation")).collect()
    };
    // Another release than the one that was meant is not installed, and the stack is told.
    let refused = user_data(&"0".repeat(64));
    assert!(!refused.status.success());
    assert!(text(&refused).contains("release.tar.gz is not the one that was meant"), "{}", text(&refused));
    assert!(!root.join("opt/bedrock-gateway/vpn").exists());
    let signal = "cloudformation signal-resource --stack-name bedrock-gateway-prod-vpn --logical-resource-id GatewayA --unique-id \
                  i-0123456789abcdef0 --status";
    assert_eq!(signals(), [format!("{signal} FAILURE")]);
    let installed = user_data(&sha256);
    assert!(installed.status.success(), "{}", text(&installed));
    assert_eq!(signals().last().unwrap(), &format!("{signal} SUCCESS"));
    assert!(std::fs::read_to_string(apt).unwrap().contains("--no-install-recommends install awscli"));
    let environment = std::fs::read_to_string(root.join("etc/bedrock-gateway/environment")).unwrap();
    assert!(environment.contains(&format!("BEDROCK_GATEWAY_SECRET={SECRET}\n")), "{environment}");
    // What the units start is there.
    for (unit, script) in [("apply", "apply"), ("watch", "watch.py"), ("logs", "logs.py")] {
        let text = std::fs::read_to_string(root.join(format!("etc/systemd/system/bedrock-gateway-vpn-{unit}.service")));
        assert!(text.unwrap().contains(&format!("ExecStart=/opt/bedrock-gateway/vpn/{script}\n")));
        let program = std::fs::metadata(root.join("opt/bedrock-gateway/vpn").join(script)).unwrap();
        assert_eq!(program.mode() & 0o111, 0o111);
    }

    let apply = || {
        let mut command = with_cloud(&root.join("opt/bedrock-gateway/vpn/apply"), &scratch);
        command.env("BEDROCK_GATEWAY_ROOT", &root).env("BEDROCK_GATEWAY_SECRET", SECRET).output().unwrap()
    };
    let conf = root.join("etc/swanctl/conf.d/bedrock-gateway.conf");
    cloud.keep("{}\n");
    let none = apply();
    assert!(none.status.success() && text(&none).contains("has no tunnels yet"), "{}", text(&none));
    assert!(!conf.exists());
    cloud.keep(&secret().to_string());
    let first = apply();
    assert!(first.status.success(), "{}", text(&first));
    assert_eq!(text(&first), "apply: changed: swanctl.conf frr.conf interfaces firewall.nft watch.json\n");
    assert!(std::fs::read_to_string(root.join("etc/frr/frr.conf")).unwrap().contains("router bgp 65010"));
    assert_eq!(std::fs::metadata(&conf).unwrap().mode() & 0o077, 0, "the keys are root's alone");
    assert_eq!(text(&apply()), "", "where nothing changed, nothing is done");
    let mut rotated = secret();
    rotated["gateways"]["a"]["tunnels"][0]["psk"] = json!("another.key.of.tunnel_1");
    cloud.keep(&rotated.to_string());
    assert_eq!(text(&apply()), "apply: changed: swanctl.conf\n");
    assert!(std::fs::read_to_string(&conf).unwrap().contains("another.key.of.tunnel_1"));
    // A secret that is broken changes nothing.
    rotated["gateways"]["a"]["tunnels"][0]["psk"] = json!("short");
    cloud.keep(&rotated.to_string());
    let broken = apply();
    assert!(
        !broken.status.success() && text(&broken).contains("gateways.a.tunnels[0].psk: is no key"),
        "{}",
        text(&broken)
    );
    assert!(std::fs::read_to_string(&conf).unwrap().contains("another.key.of.tunnel_1"));
    assert_eq!(cloud.refused(), Vec::<String>::new());
}

#[test]
fn the_journal_goes_to_cloudwatch_and_what_failed_goes_again() {
    let scratch = Scratch::new("logs");
    let cloud = cloud();
    let bin = scratch.0.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    cloud.serve("a", &bin, &scratch.0.join("cloud")).unwrap();
    let entry = |nth: u32, message: &str| {
        format!(
            "{{\"__CURSOR\":\"c{nth}\",\"__REALTIME_TIMESTAMP\":\"{nth}000000\",\"SYSLOG_IDENTIFIER\":\"watch\",\"MESSAGE\":{message}}}\n"
        )
    };
    let all = scratch.write("journal", &(entry(1, "\"one\"") + &entry(2, "[116, 119, 255]")));
    // From a cursor on there is the third entry only.
    let rest = scratch.write("journal.c2", &entry(3, "\"three\""));
    scratch.program(
        "bin/journalctl",
        &format!(
            "#!/bin/sh\ncase \"$*\" in\n*'--after-cursor c2') cat '{}' ;;\n*--after-cursor*) exit 1 ;;\n*--boot) cat '{}' ;;\n*) exit 1 ;;\nesac\n",
            rest.display(),
            all.display()
        ),
    );
    let logs = || {
        let mut command = python(&infra("logs.py"), &scratch);
        command.env("BEDROCK_GATEWAY_LOG_GROUP", "/bedrock-gateway/prod/vpn").env("BEDROCK_GATEWAY_INSTANCE", "i-0");
        command.env("BEDROCK_GATEWAY_CURSOR", scratch.0.join("cursor")).output().unwrap()
    };
    let events = || -> Vec<String> {
        let asked = cloud.asked().into_iter().filter_map(|asked| asked.words.strip_prefix("event ").map(str::to_owned));
        asked.collect()
    };
    cloud.fail(Some("ServiceUnavailableException"));
    let failed = logs();
    assert!(!failed.status.success() && text(&failed).contains("ServiceUnavailableException"), "{}", text(&failed));
    cloud.fail(None);
    assert!(logs().status.success());
    assert_eq!(events(), ["watch: one", "watch: tw\u{fffd}"]);
    assert!(logs().status.success());
    assert_eq!(events(), ["watch: one", "watch: tw\u{fffd}", "watch: three"]);
}

/// A gateway's `watch`, with doubles of the programs that it asks.
struct Watch {
    scratch: Scratch,
    name: &'static str,
    fars: [String; 2],
    port: u16,
    child: Option<Child>,
    imds: (Process, String),
}

/// A round, and the rounds after which a takes the routes back from a healthy b.
const ROUND: Duration = Duration::from_millis(100);
const RETURN: u32 = 15;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Watch {
    fn new(test: &str, name: &'static str, cloud: &Cloud) -> Watch {
        let scratch = Scratch::new(&format!("{test}-{name}"));
        let net = if name == "a" { 101 } else { 102 };
        let fars = [format!("169.254.{net}.1"), format!("169.254.{net}.5")];
        let bin = scratch.0.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        cloud.serve(name, &bin, &scratch.0.join("cloud")).unwrap();
        let state = scratch.0.join("state");
        std::fs::create_dir_all(&state).unwrap();
        for (nth, far) in fars.iter().enumerate() {
            std::fs::write(
                state.join(format!("{far}.given")),
                format!("GIVE-{}", if name == "a" { 5 } else { 6 } + nth),
            )
            .unwrap();
        }
        let head = format!("#!/bin/sh\ncd '{}'\n", state.display());
        let [one, two] = &fars;
        scratch.program(
            "bin/vtysh",
            &format!(
                r#"{head}case "$*" in
"-c show bgp neighbors json")
    sep='{{'
    for far in {one} {two}; do
        if [ -e $far.bgp ]; then is=Established; else is=Connect; fi
        printf '%s"%s":{{"bgpState":"%s","addressFamilyInfo":{{"ipv4Unicast":{{"acceptedPrefixCounter":1,"routeMapForOutgoingAdvertisements":"%s"}}}}}}' "$sep" $far $is "$(cat $far.given)"
        sep=,
    done
    echo '}}' ;;
"-c configure terminal -c router bgp 65010 -c address-family ipv4 unicast -c neighbor "*" route-map GIVE-"[0-7]" out")
    echo "$*" >>vtysh.calls
    set -- $8; echo "$4" >$2.given ;;
"-c clear bgp "*) echo "$*" >>vtysh.calls; set -- $2; rm -f $3.bgp ;;
*) echo "vtysh $*" >>refused; exit 1 ;;
esac
"#
            ),
        );
        scratch.program(
            "bin/swanctl",
            &format!(
                "{head}[ \"$*\" = '--list-sas --raw' ] || {{ echo \"swanctl $*\" >>refused; exit 1; }}\nfor n in 1 2; do echo \"list-sa event {{vpn$n \
                 {{uniqueid=$n state=ESTABLISHED child-sas {{vpn$n-1 {{name=vpn$n uniqueid=1 reqid=1 state=INSTALLED mode=TUNNEL}}}}}}}}\"; done\n"
            ),
        );
        scratch.program(
            "bin/ping",
            &format!(
                "{head}case \"$*\" in\n'-q -n -c 1 -W 1 -I vpn1 {one}' | '-q -n -c 1 -W 1 -I vpn2 {two}') [ -e \"${{9}}.answers\" ] ;;\n*) echo \"ping $*\" >>refused; exit 2 ;;\nesac\n"
            ),
        );
        let items = ["mac=02:00".to_owned(), format!("network/interfaces/macs/02:00/interface-id=eni-{name}")];
        let imds = metadata(&scratch, &items);
        Watch { scratch, name, fars, port: free_port(), child: None, imds }
    }

    /// Starts it; `other` is the port that it hears the other gateway on.
    fn start(&mut self, other: u16) {
        let [one, two] = &self.fars;
        let file = self.scratch.write(
            "watch.json",
            &json!({
                "environment": "prod", "name": self.name, "other": format!("http://127.0.0.1:{other}/"), "port": self.port,
                "remote_cidr": REMOTE, "route_tables": TABLES, "local_asn": 65010,
                "tunnels": [{ "number": 1, "device": "vpn1", "far": one }, { "number": 2, "device": "vpn2", "far": two }],
            })
            .to_string(),
        );
        let log = std::fs::File::options().create(true).append(true).open(self.scratch.0.join("log")).unwrap();
        let mut command = python(&infra("watch.py"), &self.scratch);
        command.arg(file).env("BEDROCK_GATEWAY_LISTEN", "127.0.0.1").env("BEDROCK_GATEWAY_IMDS", &self.imds.1);
        command.env("BEDROCK_GATEWAY_ROUND_SECONDS", ROUND.as_secs_f64().to_string());
        command.env("BEDROCK_GATEWAY_RETURN_ROUNDS", RETURN.to_string());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Says of a tunnel (0 or 1) whether BGP is up, and whether its far end answers.
    fn tunnel(&self, nth: usize, bgp: bool, answers: bool) {
        for (what, is) in [("bgp", bgp), ("answers", answers)] {
            let file = self.scratch.0.join("state").join(format!("{}.{what}", self.fars.get(nth).unwrap()));
            if is { std::fs::write(file, "").unwrap() } else { drop(std::fs::remove_file(file)) }
        }
    }

    fn well(&self, is: bool) {
        self.tunnel(0, is, is);
        self.tunnel(1, is, is);
    }

    fn given(&self) -> Vec<String> {
        let of = |far: &String| std::fs::read_to_string(self.scratch.0.join("state").join(format!("{far}.given")));
        self.fars.iter().map(|far| of(far).unwrap_or_default().trim().to_owned()).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.0.join("log")).unwrap_or_default()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.0.join("state").join(name)).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two gateways and what they share.
struct Pair {
    cloud: Cloud,
    a: Watch,
    b: Watch,
}

impl Pair {
    fn new(test: &str) -> Pair {
        let cloud = cloud();
        let (a, b) = (Watch::new(test, "a", &cloud), Watch::new(test, "b", &cloud));
        Pair { cloud, a, b }
    }

    fn start(&mut self) {
        let (a, b) = (self.a.port, self.b.port);
        self.a.start(b);
        self.b.start(a);
    }

    /// Waits until every route names this gateway.
    fn held(&self, by: &str) -> Duration {
        let wanted = Some(format!("eni-{by}"));
        self.until(&format!("{by} to hold the routes"), || self.cloud.routes().iter().all(|route| *route == wanted))
    }

    fn until(&self, what: &str, is: impl Fn() -> bool) -> Duration {
        let start = Instant::now();
        while !is() {
            if start.elapsed() > Duration::from_secs(40) {
                panic!(
                    "no sign of {what}: {:?}\n--- a\n{}--- b\n{}{:#?}",
                    self.cloud.routes(),
                    self.a.log(),
                    self.b.log(),
                    self.cloud.refused()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        start.elapsed()
    }

    /// The claims so far: the gateway and the action.
    fn claims(&self) -> Vec<(String, String)> {
        let claim =
            |words: &str| words.split(' ').nth(1).filter(|action| action.ends_with("-route")).map(str::to_owned);
        self.cloud.asked().into_iter().filter_map(|asked| Some((asked.gateway, claim(&asked.words)?))).collect()
    }

    /// Nothing was asked that nobody knows.
    fn strict(&self) {
        assert_eq!(self.cloud.refused(), Vec::<String>::new());
        for watch in [&self.a, &self.b] {
            assert_eq!(watch.file("refused"), "", "{}", watch.name);
            assert!(!watch.log().contains("Traceback"), "{}", watch.log());
        }
    }
}

fn rounds(count: u32) {
    std::thread::sleep(ROUND * count);
}

fn claims(of: &str, action: &str) -> Vec<(String, String)> {
    vec![(of.to_owned(), action.to_owned()); TABLES.len()]
}

#[test]
fn b_takes_over_and_a_comes_back_and_neither_flaps() {
    let mut pair = Pair::new("takeover");
    pair.a.well(true);
    pair.b.well(true);
    pair.start();
    pair.held("a");
    let mut wanted = claims("a", "create-route");
    assert_eq!(pair.claims(), wanted);
    pair.until("announcements", || pair.a.given() == ["GIVE-3", "GIVE-4"] && pair.b.given() == ["GIVE-6", "GIVE-7"]);

    // One tunnel of two: the gateway keeps the routes, and BGP moves to the other tunnel.
    pair.a.tunnel(0, true, false);
    pair.until("the second tunnel", || pair.a.given() == ["GIVE-4", "GIVE-2"]);
    assert!(pair.a.file("vtysh.calls").contains("-c clear bgp 169.254.101.1\n"), "{}", pair.a.file("vtysh.calls"));
    pair.a.tunnel(0, true, true);
    pair.until("the first tunnel", || pair.a.given() == ["GIVE-3", "GIVE-4"]);
    assert_eq!(pair.claims(), wanted);

    // Both tunnels.
    pair.a.well(false);
    pair.held("b");
    wanted.extend(claims("b", "replace-route"));
    assert_eq!(pair.claims(), wanted);
    pair.until("b's announcements", || pair.b.given() == ["GIVE-1", "GIVE-4"]);

    // Well for a moment is not well.
    let falls = || pair.a.log().matches("tunnel 2 is not well").count();
    for _ in 0..3 {
        let before = falls();
        pair.a.well(true);
        rounds(RETURN / 2);
        pair.a.well(false);
        pair.until("a's fall", || falls() > before);
    }
    assert_eq!(pair.claims(), wanted, "{}", pair.a.log());
    pair.a.well(true);
    let took = pair.held("a");
    assert!(took >= ROUND * (RETURN - 2), "{took:?}");
    wanted.extend(claims("a", "replace-route"));
    pair.until("b to step back", || pair.b.given() == ["GIVE-6", "GIVE-7"]);
    rounds(2 * RETURN);
    assert_eq!(pair.claims(), wanted, "a: {}\nb: {}", pair.a.log(), pair.b.log());

    // Neither is well: nobody writes anything.
    pair.b.well(false);
    pair.a.well(false);
    rounds(RETURN);
    assert_eq!(pair.claims(), wanted);
    pair.strict();
}

#[test]
fn a_dead_machine_loses_the_routes_and_a_restart_does_not() {
    let mut pair = Pair::new("dead");
    pair.a.well(true);
    pair.b.well(true);
    pair.start();
    pair.held("a");
    // A restart of the service is no failure.
    pair.a.kill();
    let b = pair.b.port;
    pair.a.start(b);
    rounds(2 * RETURN);
    assert_eq!(pair.claims(), claims("a", "create-route"), "a: {}\nb: {}", pair.a.log(), pair.b.log());
    pair.a.kill();
    pair.held("b");
    // The new machine has been well for as long as it must before it takes anything from b.
    pair.a.start(b);
    pair.held("a");
    let both = [claims("a", "create-route"), claims("b", "replace-route"), claims("a", "replace-route")].concat();
    assert_eq!(pair.claims(), both);
    pair.strict();
}

#[test]
fn gateways_that_do_not_hear_each_other_settle_on_a() {
    let mut pair = Pair::new("deaf");
    pair.a.well(true);
    pair.b.well(true);
    // Nobody listens on these.
    pair.a.start(free_port());
    pair.b.start(free_port());
    pair.until("a's sign of life", || pair.b.log().contains("the other gateway lives"));
    pair.held("a");
    let settled = pair.claims();
    rounds(2 * RETURN);
    assert_eq!(pair.claims(), settled, "a: {}\nb: {}", pair.a.log(), pair.b.log());
    assert!(settled.len() <= 4 * TABLES.len(), "{settled:?}");
    pair.strict();
}

#[test]
fn an_outage_of_aws_is_waited_for_and_metrics_are_told() {
    let mut pair = Pair::new("outage");
    pair.a.well(true);
    pair.cloud.fail(Some("An error occurred (RequestLimitExceeded)"));
    pair.start();
    pair.until("a's complaint", || pair.a.log().contains("routes: An error occurred (RequestLimitExceeded)"));
    pair.cloud.fail(None);
    pair.held("a");
    // Another hand moves the route; a sees it, and b has no tunnels.
    pair.cloud.point(Some("eni-0"));
    pair.held("a");
    let metrics = |gateway: &str| {
        let asked = pair.cloud.asked().into_iter().filter(|asked| asked.gateway == gateway);
        asked.rev().find_map(|asked| {
            let (_, data) = asked.words.split_once("put-metric-data --namespace BedrockGateway --metric-data ")?;
            serde_json::from_str::<Value>(data).ok()
        })
    };
    pair.until("metrics", || metrics("a").is_some() && metrics("b").is_some());
    let values = |gateway: &str| -> Vec<(String, Value, usize)> {
        let data = metrics(gateway).unwrap();
        let of = |datum: &Value| {
            let dimensions = datum["Dimensions"].as_array().unwrap();
            assert_eq!(dimensions[0], json!({ "Name": "Environment", "Value": "prod" }));
            assert_eq!(dimensions[1], json!({ "Name": "Gateway", "Value": gateway }));
            (datum["MetricName"].as_str().unwrap().to_owned(), datum["Value"].clone(), dimensions.len())
        };
        data.as_array().unwrap().iter().map(of).collect()
    };
    let told = |held: u32, bgp: u32| {
        [("RouteHeld", held, 2), ("TunnelUp", 1, 3), ("BgpUp", bgp, 3), ("TunnelUp", 1, 3), ("BgpUp", bgp, 3)]
            .map(|(name, value, dimensions)| (name.to_owned(), json!(value), dimensions))
            .to_vec()
    };
    assert_eq!(values("b"), told(0, 0));
    pair.until("a's metrics", || values("a") == told(1, 1));
    pair.strict();
}

/// Both tunnels of one gateway with FRR for real, though without ESP: cables stand for them.
#[test]
fn a_silent_tunnel_is_left_by_both_ends_and_taken_again() {
    let able = namespace::check("vpn").and_then(|()| Namespace::add("gw").map(drop));
    if let Err(why) = able {
        return loudly(&format!("BGP OVER TWO TUNNELS WAS NOT RUN: {why}"));
    }
    let scratch = Scratch::new("two");
    let Some(machine) = machine(&scratch, "a") else { return };
    let root = machine::find().unwrap();
    let add = |role: &str| Namespace::add(role).unwrap();
    let (gateway, aws, router) = (add("vpn"), [add("aws1"), add("aws2")], add("bedrock"));
    gateway.loopback().unwrap();
    let mut running = Vec::new();
    for (nth, (aws, net)) in (1..).zip(aws.iter().zip([4, 8])) {
        let [far, near] = [net + 1, net + 2].map(|host| format!("169.254.101.{host}"));
        let [here, there] = [1, 2].map(|host| format!("10.100.{nth}.{host}"));
        let device = format!("vpn{nth}");
        join([(&gateway, &device, &format!("{near}/30")), (aws, "tun", &format!("{far}/30"))]).unwrap();
        join([(&router, &format!("aws{nth}"), &format!("{here}/24")), (aws, "in", &format!("{there}/24"))]).unwrap();
        let end = root.machine(&scratch.0.join(format!("aws{nth}"))).unwrap();
        std::fs::write(end.outside("/etc/frr/frr.conf"), hosts::far_end([&far, &near, &here], (10, 30))).unwrap();
        running.extend(hosts::frr(&format!("aws{nth}"), &end, aws, &scratch.0).unwrap());
    }
    let far = root.machine(&scratch.0.join("router")).unwrap();
    std::fs::write(far.outside("/etc/frr/frr.conf"), hosts::router(["10.100.1.2", "10.100.2.2"])).unwrap();
    running.extend(hosts::frr("router", &far, &router, &scratch.0).unwrap());
    running.extend(hosts::frr("gateway", &machine, &gateway, &scratch.0).unwrap());

    let cloud = cloud();
    cloud.serve("a", &machine.outside("/opt/bin"), &machine.outside("/opt/cloud")).unwrap();
    scratch.program("machine/opt/bin/swanctl", "#!/bin/sh\n");
    let place = machine.outside("/opt/vpn");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(infra("watch.py"), place.join("watch.py")).unwrap();
    std::fs::copy(scratch.0.join("out/watch.json"), place.join("watch.json")).unwrap();
    std::fs::write(place.join("imds.py"), hosts::IMDS).unwrap();
    let mut imds = machine.exec(Some(&gateway), "python3");
    imds.args(["/opt/vpn/imds.py", "127.0.0.1", "80", "mac=02:00"]);
    imds.arg("network/interfaces/macs/02:00/interface-id=eni-a");
    let log = |name: &str| scratch.0.join(name).with_extension("log");
    running.push(Process::start_and_wait("imds", imds, &log("imds"), Duration::from_secs(20)).unwrap().0);
    let mut watch = machine.exec(Some(&gateway), "/opt/vpn/watch.py");
    watch.arg("/opt/vpn/watch.json").env("BEDROCK_GATEWAY_IMDS", "http://127.0.0.1");
    running.push(Process::start("watch", watch, &log("watch")).unwrap());

    let routes = |space: &Namespace, to: &str| {
        let output = space.exec(Path::new("ip")).args(["-4", "route", "show", to]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let until = |what: &str, limit: u64, is: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !is() {
            let watch = std::fs::read_to_string(log("watch")).unwrap_or_default();
            let both = (routes(&gateway, REMOTE), routes(&router, "10.20.0.0/16"));
            assert!(start.elapsed() < Duration::from_secs(limit), "no sign of {what}: {both:?}\n{watch}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let by = |nth: u32| {
        routes(&gateway, REMOTE).contains(&format!("dev vpn{nth} "))
            && routes(&router, "10.20.0.0/16").contains(&format!("via 10.100.{nth}.2 "))
    };
    until("the first tunnel", 40, &|| by(1));
    until("the claim", 20, &|| cloud.routes().iter().all(|route| route.as_deref() == Some("eni-a")));
    let drop = "table ip cut {\n  chain input {\n    type filter hook input priority 0;\n    iifname tun drop\n  }\n  chain \
                output {\n    type filter hook output priority 0;\n    oifname tun drop\n  }\n}\n";
    aws[0].rules(drop).unwrap();
    // BGP by itself would take 30 s.
    until("the second tunnel", 15, &|| by(2));
    aws[0].rules("delete table ip cut\n").unwrap();
    until("the first tunnel again", 40, &|| by(1));
    assert_eq!(cloud.refused(), Vec::<String>::new());
    let claims = cloud.asked().iter().filter(|asked| asked.words.contains("create-route")).count();
    assert_eq!(claims, TABLES.len(), "one claim for each table");
}

/// The VPN for real, where this machine may have it: `cargo xtask vpn`.
#[test]
fn a_call_crosses_the_vpn_and_a_cut_of_its_tunnel() {
    let program = required("LAB_BIN").unwrap();
    let able = namespace::check("vpn").and_then(|()| Namespace::add("vpc").map(drop)).and_then(|()| hosts::check());
    if let Err(why) = able {
        loudly(&format!("THE VPN WAS NOT RUN: {why}. Run `cargo xtask vpn` where it can"));
        return;
    }
    let output = Command::new(program).args(["vpn", "--rate", "20"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("Everything held"), "{}", text(&output));
}
