//! Debian's own programs read what `render.py` writes.

use std::os::unix::fs::MetadataExt as _;

use crate::support::{Scratch, machine, render, run, secret, settings, text};

#[test]
fn strongswan_loads_the_rendered_files() {
    let scratch = Scratch::new("swanctl");
    let Some(machine) = machine(&scratch, "a") else { return };
    let conf = machine.outside("/etc/swanctl/conf.d/bedrock-gateway.conf");
    let good = std::fs::read_to_string(&conf).unwrap();
    // One shell, so that charon and swanctl share a network namespace.
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
fn frr_nft_and_ip_read_the_rendered_files() {
    for name in ["a", "b"] {
        let scratch = Scratch::new(&format!("frr-{name}"));
        let Some(machine) = machine(&scratch, name) else { return };
        let read = run(&machine, "vtysh", &["-C", "-f", "/etc/frr/frr.conf"]);
        assert!(read.status.success(), "{}", text(&read));
        let read = run(&machine, "nft", &["-c", "-f", "/etc/firewall.nft"]);
        assert!(read.status.success(), "{}", text(&read));
        // Without xfrm and without the device `ip` fails, but only after it has parsed the lines.
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
fn announces_and_accepts_only_the_two_ranges() {
    let scratch = Scratch::new("lists");
    assert!(render(&scratch, &secret(), &settings("b")).status.success());
    let frr = std::fs::read_to_string(scratch.0.join("out/frr.conf")).unwrap();
    let lists: Vec<&str> = frr.lines().filter(|line| line.starts_with("ip prefix-list")).collect();
    assert_eq!(
        lists,
        ["ip prefix-list LOCAL seq 5 permit 10.20.0.0/16", "ip prefix-list REMOTE seq 5 permit 10.100.0.0/16 le 32"]
    );
    // Both tunnels have the same path length and no preference, so that AWS's MED decides.
    assert!(frr.contains("neighbor 169.254.102.17 route-map GIVE-6 out"), "{frr}");
    assert!(frr.contains("neighbor 169.254.102.13 route-map GIVE-6 out"), "{frr}");
    for outranks in ["local-preference", "weight", "compare-routerid"] {
        assert!(!frr.contains(outranks), "{frr}");
    }
    let key = std::fs::metadata(scratch.0.join("out/swanctl.conf")).unwrap();
    assert_eq!(key.mode() & 0o077, 0, "only the owner may read the keys");
    for file in ["frr.conf", "interfaces", "firewall.nft", "watch.json"] {
        let text = std::fs::read_to_string(scratch.0.join("out").join(file)).unwrap();
        assert!(!text.contains("example_key"), "{file} holds a key");
    }
}
