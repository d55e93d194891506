//! Two gateways' `watch.py`, with doubles of the programs that it calls.

use std::process::Child;
use std::time::{Duration, Instant};

use bedrock_gateway::process::Process;
use lab::vpn::cloud::Cloud;
use serde_json::json;

use crate::support::{REMOTE, Scratch, TABLES, cloud, infra, metadata, python};

/// One gateway's `watch.py`, with doubles of the programs that it calls.
pub(crate) struct Watch {
    scratch: Scratch,
    pub(crate) name: &'static str,
    fars: [String; 2],
    pub(crate) port: u16,
    child: Option<Child>,
    imds: (Process, String),
}

/// The length of a round, and the rounds after which `a` takes the routes back from a healthy `b`.
pub(crate) const ROUND: Duration = Duration::from_millis(100);
pub(crate) const RETURN: u32 = 15;

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Watch {
    pub(crate) fn new(test: &str, name: &'static str, cloud: &Cloud) -> Watch {
        let scratch = Scratch::new(&format!("{test}-{name}"));
        let net = if name == "a" { 101 } else { 102 };
        let fars = [format!("169.254.{net}.1"), format!("169.254.{net}.5")];
        let bin = scratch.0.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        cloud.serve(name, &bin, &scratch.0.join("cloud")).unwrap();
        let state = scratch.0.join("state");
        std::fs::create_dir_all(&state).unwrap();
        for far in &fars {
            let given = if name == "a" { "GIVE-5" } else { "GIVE-6" };
            std::fs::write(state.join(format!("{far}.given")), given).unwrap();
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
"-c configure terminal -c router bgp 65010 -c address-family ipv4 unicast -c neighbor "*" route-map GIVE-"[0-6]" out")
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

    /// Starts it; `other` is the other gateway's port.
    pub(crate) fn start(&mut self, other: u16) {
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

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sets whether BGP is up over a tunnel (0 or 1), and whether its far end answers.
    pub(crate) fn tunnel(&self, nth: usize, bgp: bool, answers: bool) {
        for (what, is) in [("bgp", bgp), ("answers", answers)] {
            let file = self.scratch.0.join("state").join(format!("{}.{what}", self.fars.get(nth).unwrap()));
            if is { std::fs::write(file, "").unwrap() } else { drop(std::fs::remove_file(file)) }
        }
    }

    pub(crate) fn well(&self, is: bool) {
        self.tunnel(0, is, is);
        self.tunnel(1, is, is);
    }

    pub(crate) fn given(&self) -> Vec<String> {
        let of = |far: &String| std::fs::read_to_string(self.scratch.0.join("state").join(format!("{far}.given")));
        self.fars.iter().map(|far| of(far).unwrap_or_default().trim().to_owned()).collect()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.0.join("log")).unwrap_or_default()
    }

    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.0.join("state").join(name)).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two gateways and the double of AWS that they share.
pub(crate) struct Pair {
    pub(crate) cloud: Cloud,
    pub(crate) a: Watch,
    pub(crate) b: Watch,
}

impl Pair {
    pub(crate) fn new(test: &str) -> Pair {
        let cloud = cloud();
        let (a, b) = (Watch::new(test, "a", &cloud), Watch::new(test, "b", &cloud));
        Pair { cloud, a, b }
    }

    pub(crate) fn start(&mut self) {
        let (a, b) = (self.a.port, self.b.port);
        self.a.start(b);
        self.b.start(a);
    }

    /// Waits until every route names this gateway.
    pub(crate) fn wait_for_holder(&self, by: &str) -> Duration {
        let wanted = Some(format!("eni-{by}"));
        self.until(&format!("{by} to hold the routes"), || self.cloud.routes().iter().all(|route| *route == wanted))
    }

    pub(crate) fn until(&self, what: &str, is: impl Fn() -> bool) -> Duration {
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
    pub(crate) fn claims(&self) -> Vec<(String, String)> {
        let claim =
            |words: &str| words.split(' ').nth(1).filter(|action| action.ends_with("-route")).map(str::to_owned);
        self.cloud.asked().into_iter().filter_map(|asked| Some((asked.gateway, claim(&asked.words)?))).collect()
    }

    /// No double was called with arguments that it does not know.
    pub(crate) fn assert_no_unknown_call(&self) {
        assert_eq!(self.cloud.refused(), Vec::<String>::new());
        for watch in [&self.a, &self.b] {
            assert_eq!(watch.file("refused"), "", "{}", watch.name);
            assert!(!watch.log().contains("Traceback"), "{}", watch.log());
        }
    }
}

pub(crate) fn rounds(count: u32) {
    std::thread::sleep(ROUND * count);
}

pub(crate) fn claims(of: &str, action: &str) -> Vec<(String, String)> {
    vec![(of.to_owned(), action.to_owned()); TABLES.len()]
}
