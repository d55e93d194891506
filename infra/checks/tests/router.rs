//! The operator's router between the partitions: FRR reads its configuration, and its numbers match the example environment.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::process::Stdio;

use lab::machine;
use lab::tools::{root, target};

fn text(file: &str) -> String {
    std::fs::read_to_string(root().join("infra").join(file)).unwrap()
}

fn parameters(stack: &str) -> BTreeMap<String, String> {
    let text = text(&format!("environments/example/{stack}.params"));
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn frr_reads_the_router_configuration() {
    let dir = target().join("tmp").join(format!("router-{}", std::process::id()));
    let frr = machine::find().unwrap().machine(&dir).unwrap();
    let file = frr.outside("/etc/frr/frr.conf");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut vtysh = frr.exec(None, "vtysh");
        let output = vtysh.args(["-C", "-f", "/etc/frr/frr.conf"]).stdin(Stdio::null()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let text = text("router/frr.conf");
    let (well, said) = read(&text);
    assert!(well, "{said}");
    for (from, to) in [("set community 7224:7300", "set comunity 7224:7300"), ("remote-as 64601", "remote-at 64601")] {
        assert!(text.contains(from));
        let (well, said) = read(&text.replace(from, to));
        assert!(!well, "{to}: {said}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn matches_the_example_and_announces_one_range() {
    let text = text("router/frr.conf");
    let has = |line: String| assert_eq!(text.lines().filter(|one| one.trim() == line).count(), 1, "{line}");
    let ranges = [("GOVCLOUD", "govcloud/network"), ("COMMERCIAL", "commercial/dx-network")];
    for (name, stack) in ranges {
        has(format!("ip prefix-list {name} seq 5 permit {}", parameters(stack)["VpcCidr"]));
    }
    let sides = [
        ("commercial", "COMMERCIAL", "GOVCLOUD", parameters("commercial/direct-connect")),
        ("govcloud", "GOVCLOUD", "COMMERCIAL", parameters("govcloud/direct-connect")),
    ];
    for (partition, own, other, given) in &sides {
        let amazon = given["AmazonAddress"].split('/').next().unwrap();
        has(format!("router bgp {}", given["RouterAsn"]));
        has(format!("neighbor {amazon} remote-as {}", given["GatewayAsn"]));
        has(format!("neighbor {amazon} bfd profile direct-connect"));
        has(format!("neighbor {amazon} route-map FROM-{own} in"));
        has(format!("neighbor {amazon} route-map TO-{own} out"));
        has(format!("interface eth1.{}", given["Vlan"]));
        has(format!("ip address {}", given["RouterAddress"]));
        // Each side gets the other's range only, at each preference.
        for (map, community) in [(format!("TO-{own}"), "7224:7300"), (format!("TO-{own}-SECOND"), "7224:7100")] {
            let (_, rest) = text.split_once(&format!("route-map {map} permit 10\n")).unwrap();
            let (map, _) = rest.split_once("exit\n").unwrap();
            assert!(map.contains(&format!("match ip address prefix-list {other}\n")), "{partition}: {map}");
            assert!(map.contains(&format!("set community {community}\n")), "{partition}: {map}");
        }
    }
    let [(.., left), (.., right)] = &sides;
    assert_ne!(left["GatewayAsn"], right["GatewayAsn"], "each would drop the other's routes as a loop");
    assert_ne!(left["Vlan"], right["Vlan"]);
}
