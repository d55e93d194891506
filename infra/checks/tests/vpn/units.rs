//! Scripts and units, read by the tools for them.

use crate::support::{Scratch, bare_machine, infra, run, text};

#[test]
fn scripts_and_units_are_sound() {
    let scratch = Scratch::new("units");
    let Some(machine) = bare_machine(&scratch) else { return };
    let place = machine.outside("/opt/bedrock-gateway/infra/vpn");
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
        let checked = run(&machine, "shellcheck", &[&format!("/opt/bedrock-gateway/infra/vpn/{script}")]);
        assert!(checked.status.success(), "{}", text(&checked));
    }
    // With Debian's Python, which may be older than this machine's.
    for script in ["render.py", "watch.py", "logs.py"] {
        let compile = format!("import ast; ast.parse(open('/opt/bedrock-gateway/infra/vpn/{script}').read())");
        let checked = run(&machine, "python3", &["-c", &compile]);
        assert!(checked.status.success(), "{}", text(&checked));
    }
}
