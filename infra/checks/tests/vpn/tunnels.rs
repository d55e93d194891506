//! BGP over real tunnels.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bedrock_gateway::process::Process;
use lab::machine;
use lab::namespace::{self, Namespace, join};
use lab::tools::required;
use lab::vpn::daemons;

use crate::support::{REMOTE, Scratch, TABLES, cloud, infra, machine as rendered_machine, notice, text};

/// Both tunnels of one gateway with FRR at both ends. Without ESP: each tunnel is a veth pair. AWS prefers a tunnel by its MED
/// while it updates the other: https://docs.aws.amazon.com/vpn/latest/s2svpn/vpn-route-priority.html
#[test]
fn both_ends_leave_a_silent_tunnel_and_return() {
    let able = namespace::check("vpn").and_then(|()| Namespace::add("gw").map(drop));
    if let Err(why) = able {
        return notice(&format!("BGP OVER TWO TUNNELS WAS NOT RUN: {why}"));
    }
    let scratch = Scratch::new("two");
    let Some(machine) = rendered_machine(&scratch, "a") else { return };
    let root = machine::find().unwrap();
    let add = |role: &str| Namespace::add(role).unwrap();
    let (gateway, aws, router) = (add("vpn"), [add("aws1"), add("aws2")], add("bedrock"));
    gateway.loopback().unwrap();
    let (mut running, mut ends) = (Vec::new(), Vec::new());
    for (nth, (aws, net)) in (1..).zip(aws.iter().zip([4, 8])) {
        let [far, near] = [net + 1, net + 2].map(|host| format!("169.254.101.{host}"));
        let [here, there] = [1, 2].map(|host| format!("10.100.{nth}.{host}"));
        let device = format!("vpn{nth}");
        join([(&gateway, &device, &format!("{near}/30")), (aws, "tun", &format!("{far}/30"))]).unwrap();
        join([(&router, &format!("aws{nth}"), &format!("{here}/24")), (aws, "in", &format!("{there}/24"))]).unwrap();
        let end = root.machine(&scratch.0.join(format!("aws{nth}"))).unwrap();
        std::fs::write(end.outside("/etc/frr/frr.conf"), daemons::far_end([&far, &near, &here], (10, 30))).unwrap();
        running.extend(daemons::frr(&format!("aws{nth}"), &end, aws, &scratch.0).unwrap());
        ends.push((end, near));
    }
    let far = root.machine(&scratch.0.join("router")).unwrap();
    std::fs::write(far.outside("/etc/frr/frr.conf"), daemons::router(["10.100.1.2", "10.100.2.2"])).unwrap();
    running.extend(daemons::frr("router", &far, &router, &scratch.0).unwrap());
    running.extend(daemons::frr("gateway", &machine, &gateway, &scratch.0).unwrap());

    let cloud = cloud();
    cloud.serve("a", &machine.outside("/opt/bin"), &machine.outside("/opt/cloud")).unwrap();
    scratch.program("machine/opt/bin/swanctl", "#!/bin/sh\n");
    let place = machine.outside("/opt/vpn");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(infra("watch.py"), place.join("watch.py")).unwrap();
    std::fs::copy(scratch.0.join("out/watch.json"), place.join("watch.json")).unwrap();
    std::fs::write(place.join("imds.py"), daemons::IMDS).unwrap();
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
    // AWS's MEDs, tunnel by tunnel; the lower one is preferred.
    let meds = |meds: [u32; 2]| {
        for ((end, near), (space, med)) in ends.iter().zip(aws.iter().zip(meds)) {
            let mut vtysh = end.exec(Some(space), "vtysh");
            vtysh.args(["-c", "configure terminal", "-c", "route-map MED permit 10"]);
            vtysh.args(["-c", &format!("set metric {med}"), "-c", "exit", "-c", "router bgp 64512"]);
            vtysh.args(["-c", "address-family ipv4 unicast", "-c", &format!("neighbor {near} route-map MED out")]);
            let output = vtysh.output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
        }
    };
    until("a tunnel", 40, &|| routes(&gateway, REMOTE).contains("dev vpn"));
    // An update of the first tunnel's endpoint.
    meds([100, 50]);
    until("the tunnel that AWS prefers", 30, &|| routes(&gateway, REMOTE).contains("dev vpn2 "));
    meds([50, 100]);
    until("the first tunnel", 30, &|| by(1));
    until("the claim", 20, &|| cloud.routes().iter().all(|route| route.as_deref() == Some("eni-a")));
    let drop = "table ip cut {\n  chain input {\n    type filter hook input priority 0;\n    iifname tun drop\n  }\n  chain \
                output {\n    type filter hook output priority 0;\n    oifname tun drop\n  }\n}\n";
    aws[0].rules(drop).unwrap();
    // BGP alone would take 30 s.
    until("the second tunnel", 15, &|| by(2));
    aws[0].rules("delete table ip cut\n").unwrap();
    until("the first tunnel again", 40, &|| by(1));
    assert_eq!(cloud.refused(), Vec::<String>::new());
    let claims = cloud.asked().iter().filter(|asked| asked.words.contains("create-route")).count();
    assert_eq!(claims, TABLES.len(), "one claim for each table");
}

/// `cargo xtask soak vpn`, where this host allows it.
#[test]
fn calls_cross_the_vpn_and_survive_a_cut() {
    let program = required("LAB_BIN").unwrap();
    let able = namespace::check("vpn").and_then(|()| Namespace::add("vpc").map(drop)).and_then(|()| daemons::check());
    if let Err(why) = able {
        notice(&format!("THE VPN WAS NOT RUN: {why}. Run `cargo xtask soak vpn` where it can"));
        return;
    }
    let output = Command::new(program).args(["vpn", "--rate", "20"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("Everything held"), "{}", text(&output));
}
