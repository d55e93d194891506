//! A machine installs itself from a release and applies the secret.

use std::os::unix::fs::MetadataExt as _;

use lab::tools::required;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{SECRET, Scratch, cloud, infra, metadata, secret, settings, text, with_cloud};

#[test]
fn installs_itself_and_applies_the_secret() {
    let scratch = Scratch::new("install");
    let cloud = cloud();
    let bin = scratch.0.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    cloud.serve("a", &bin, &scratch.0.join("cloud")).unwrap();
    let apt = scratch.0.join("apt.calls");
    scratch.program("bin/apt-get", &format!("#!/bin/sh\necho \"$*\" >>'{}'\n", apt.display()));
    let archive = required("RELEASE_ARCHIVE").unwrap();
    let sha256 = hex::encode(Sha256::digest(std::fs::read(&archive).unwrap()));
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
        cloud.release(&settings.to_string(), &archive);
        let mut command = with_cloud(&infra("user-data"), &scratch);
        command.env("BEDROCK_GATEWAY_ROOT", &root).env("BEDROCK_GATEWAY_IMDS", &address).output().unwrap()
    };
    let signals = || -> Vec<String> {
        let asked = cloud.asked().into_iter().map(|asked| asked.words);
        asked.filter(|words| words.starts_with("cloudformation")).collect()
    };
    // A release with another digest is not installed, and the stack is signalled.
    let refused = user_data(&"0".repeat(64));
    assert!(!refused.status.success());
    assert!(text(&refused).contains("release.tar.gz is another file"), "{}", text(&refused));
    assert!(!root.join("opt/bedrock-gateway/infra/vpn").exists());
    let signal = "cloudformation signal-resource --stack-name bedrock-gateway-prod-vpn --logical-resource-id GatewayA --unique-id \
                  i-0123456789abcdef0 --status";
    assert_eq!(signals(), [format!("{signal} FAILURE")]);
    let installed = user_data(&sha256);
    assert!(installed.status.success(), "{}", text(&installed));
    assert_eq!(signals().last().unwrap(), &format!("{signal} SUCCESS"));
    assert!(std::fs::read_to_string(apt).unwrap().contains("--no-install-recommends install awscli"));
    let environment = std::fs::read_to_string(root.join("etc/bedrock-gateway/environment")).unwrap();
    assert!(environment.contains(&format!("BEDROCK_GATEWAY_SECRET={SECRET}\n")), "{environment}");
    // The programs of the units are installed and executable.
    for (unit, script) in [("apply", "apply"), ("watch", "watch.py"), ("logs", "logs.py")] {
        let text = std::fs::read_to_string(root.join(format!("etc/systemd/system/bedrock-gateway-vpn-{unit}.service")));
        assert!(text.unwrap().contains(&format!("ExecStart=/opt/bedrock-gateway/infra/vpn/{script}\n")));
        let program = std::fs::metadata(root.join("opt/bedrock-gateway/infra/vpn").join(script)).unwrap();
        assert_eq!(program.mode() & 0o111, 0o111);
    }

    let apply = || {
        let mut command = with_cloud(&root.join("opt/bedrock-gateway/infra/vpn/apply"), &scratch);
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
    assert_eq!(std::fs::metadata(&conf).unwrap().mode() & 0o077, 0, "only root may read the keys");
    assert_eq!(text(&apply()), "", "without a change nothing is done");
    let mut rotated = secret();
    rotated["gateways"]["a"]["tunnels"][0]["psk"] = json!("another.key.of.tunnel_1");
    cloud.keep(&rotated.to_string());
    assert_eq!(text(&apply()), "apply: changed: swanctl.conf\n");
    assert!(std::fs::read_to_string(&conf).unwrap().contains("another.key.of.tunnel_1"));
    // An invalid secret changes nothing.
    rotated["gateways"]["a"]["tunnels"][0]["psk"] = json!("short");
    cloud.keep(&rotated.to_string());
    let broken = apply();
    assert!(
        !broken.status.success() && text(&broken).contains("gateways.a.tunnels[0].psk: is not a key"),
        "{}",
        text(&broken)
    );
    assert!(std::fs::read_to_string(&conf).unwrap().contains("another.key.of.tunnel_1"));
    assert_eq!(cloud.refused(), Vec::<String>::new());
}
