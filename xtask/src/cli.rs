//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum as _};

use crate::chaos::Scenario;
use crate::gateway::{self, Options};
use crate::istio::{Image, Way};
use crate::paths::{self, PathSpec, Region};
use crate::{Error, chaos, demo, infra, installed, istio, release, test, up, vpn};

/// The gateway's commands. Each sets up what is missing under `target/`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it: SDK calls over three paths, then with Direct Connect cut, then the VPN; and what the audit has of them.
    Demo,
    /// Format, lints, and every test: unit, host and Envoy.
    Test {
        /// Unit tests only, with nothing downloaded.
        #[arg(long)]
        fast: bool,
        /// Only tests whose name holds this, and no lints.
        #[arg(last = true)]
        name: Option<String>,
    },
    /// Run the gateway in the foreground; with no --path, against Amazon Bedrock itself.
    ///
    /// Credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or from
    /// AWS_BEARER_TOKEN_BEDROCK. One line on stdout says when and where it is ready; Ctrl-C ends it.
    Up(Box<Up>),
    /// Break its paths under load, and tell what became of the calls. Needs root, and `ip`, `tc` and `nft`.
    ///
    /// Network namespaces stand for the hosts. Direct Connect is cut, then the VPN too, then both are restored, for each
    /// way of failing; a class without the internet loses both of its paths; regions throttle; calls move to another path
    /// by weights; uploads run beside calls of people.
    Chaos(Chaos),
    /// Run the VPN's machines for real: strongSwan and FRR at both ends, calls across, one tunnel cut and mended under load. Needs
    /// Linux, root, `ip`, `tc`, /dev/net/tun, and `apt-get`.
    Vpn(Vpn),
    /// Make the archive that machines of the gateway install: module, Envoy, collector, infra/instance, infra/vpn.
    Release {
        /// Where to put it.
        #[arg(long, value_name = "FILE.tar.gz", default_value = "target/release.tar.gz")]
        out: PathBuf,
    },
    /// Check the CloudFormation templates of infra/: cfn-lint, checkov, and the project's own rules.
    Infra,
    /// The gateway in an Istio mesh (docs/istio.md).
    #[command(subcommand)]
    Istio(Istio),
}

#[derive(Debug, Subcommand)]
enum Istio {
    /// Print what puts the filter into Istio's proxies: of envoy/standalone.yaml, or of a document and paths of one's own.
    Render(Render),
    /// Check files for Istio: its schemas and Kubernetes', and the project's rules.
    Check {
        /// The files [default: those of envoy/istio].
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Render {
    /// What is made.
    #[arg(long, value_enum, default_value = "egress")]
    way: Way,
    /// The module's image, for sidecars. The egress gateway's pods name it themselves (envoy/istio/egress/gateway.yaml).
    #[arg(long, value_name = "REGISTRY/NAME@sha256:DIGEST")]
    image: Option<Image>,
    /// The filter's document (JSON, docs/configuration.md), instead of the one in envoy/standalone.yaml.
    #[arg(long, value_name = "FILE.json", requires = "paths")]
    policy: Option<PathBuf>,
    /// A path and the address that it reaches Bedrock by, as for `up`; `internet` alone means the public endpoints.
    #[arg(long = "path", value_name = "NAME[/SERVICE][@REGION]=HOST:PORT")]
    paths: Vec<PathSpec>,
    /// A region to call, instead of the document's. May be given more than once: the first is tried first.
    #[arg(long = "region", value_name = "REGION", requires = "paths")]
    regions: Vec<Region>,
    /// Call the FIPS endpoints.
    #[arg(long, requires = "paths")]
    fips: bool,
}

#[derive(Debug, Args)]
struct Chaos {
    /// Converse calls in a second.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// The length of each run.
    #[arg(long, value_name = "N", default_value = "40", value_parser = clap::value_parser!(u64).range(20..=3600))]
    seconds: u64,
    /// What is done; may be given more than once [default: all of it].
    #[arg(long = "fault", value_enum, value_name = "NAME")]
    faults: Vec<Scenario>,
    /// Streams that run at any time.
    #[arg(long, value_name = "N", default_value = "10")]
    streams: u32,
    /// How long the models of two calls think before their first byte, in seconds; 0: there are none.
    #[arg(long, value_name = "N", default_value = "20")]
    think: u64,
    /// Upstreams offer HTTP/1.1 only.
    #[arg(long)]
    http1: bool,
}

#[derive(Debug, Args)]
struct Vpn {
    /// Converse calls in a second.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=500))]
    rate: u32,
    /// How long the tunnel is cut, in seconds; sessions of IKE and BGP end after 30. The other gateway takes the routes after
    /// some 6, and Envoy looks at the path again within 10.
    #[arg(long, value_name = "N", default_value = "18", value_parser = clap::value_parser!(u64).range(18..=600))]
    cut: u64,
}

#[derive(Debug, Args)]
struct Up {
    /// A path (dx, vpn or internet) and the address that it reaches both of Bedrock's services by, or one service
    /// (bedrock-runtime, bedrock, sts), in one region or in all. May be given for each; `internet` alone means the public
    /// endpoints. BEDROCK_PATHS=vpn,dx in the environment puts them in another order.
    #[arg(long = "path", value_name = "NAME[/SERVICE][@REGION]=HOST:PORT")]
    paths: Vec<PathSpec>,
    /// The CA (PEM) that upstreams are verified against, instead of the system's.
    #[arg(long, value_name = "FILE")]
    upstream_ca: Option<PathBuf>,
    /// Where to serve HTTP/1.1 and h2c; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10000")]
    listen: SocketAddr,
    /// Where to serve TLS [default: 443 ports above --listen, or a free one].
    #[arg(long, value_name = "ADDR")]
    listen_tls: Option<SocketAddr>,
    /// Envoy's worker threads, instead of one for each core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
    /// Run the collector too, and keep audit records in this SQLite file.
    #[arg(long, value_name = "FILE.db")]
    audit: Option<PathBuf>,
    /// Where Envoy writes its access log [default: in the run's directory under target/up].
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// The filter's document (JSON, docs/configuration.md), instead of the one in the configuration. It may be changed while
    /// the gateway runs.
    #[arg(long, value_name = "FILE.json")]
    policy: Option<PathBuf>,
    /// A region to call, instead of the document's. May be given more than once: the first is tried first.
    #[arg(long = "region", value_name = "REGION")]
    regions: Vec<Region>,
    /// Call the FIPS endpoints.
    #[arg(long)]
    fips: bool,
    /// A configuration of the form of envoy/standalone.yaml, instead of that.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print Envoy's bootstrap instead of running it.
    #[arg(long)]
    print_config: bool,
    /// Print it for an instance: listeners and files are where the configuration has them, credentials the document's, and
    /// the clusters that these are fetched from are put in.
    #[arg(long, requires = "print_config", requires = "policy", conflicts_with_all = ["listen", "listen_tls", "access_log", "audit"])]
    installed: bool,
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Demo => demo::run(),
            Command::Chaos(chaos) => chaos.run(),
            Command::Vpn(Vpn { rate, cut }) => vpn::run(&vpn::Options { rate, cut }),
            Command::Release { out } => {
                let made = release::make(&out)?;
                println!("{}  {}", made.sha256, made.file.display());
                Ok(())
            }
            Command::Infra => Ok(infra::run()?),
            Command::Istio(Istio::Check { files }) => Ok(istio::check::run(&files)?),
            Command::Istio(Istio::Render(render)) => {
                let (way, image) = (render.way, render.image.clone());
                if way == Way::Egress && image.is_some() {
                    return Err(Error::Failed("--image is for --way plugin and --way sidecar".to_owned()));
                }
                let _ = write!(std::io::stdout(), "{}", istio::render(way, &render.options()?, image.as_ref())?);
                Ok(())
            }
            Command::Test { fast, name } => test::run(fast, name.as_deref()),
            Command::Up(up) => {
                let (print_config, installed) = (up.print_config, up.installed);
                let options = up.options()?;
                if print_config {
                    // A reader that has seen enough (`| head`) is no failure.
                    let _ = writeln!(
                        std::io::stdout(),
                        "{}",
                        if installed { installed::print_config(&options)? } else { gateway::print_config(&options)? }
                    );
                    return Ok(());
                }
                up::run(&options)
            }
        }
    }
}

impl Chaos {
    fn run(self) -> Result<(), Error> {
        let options = chaos::Options {
            rate: self.rate,
            seconds: self.seconds,
            streams: self.streams,
            think: self.think,
            http1: self.http1,
        };
        let all = Scenario::value_variants();
        chaos::run(&options, if self.faults.is_empty() { all } else { &self.faults })
    }
}

impl Render {
    fn options(self) -> Result<Options, Error> {
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Options {
            paths: paths::in_order(self.paths)?,
            upstream_ca: None,
            listen: none,
            listen_tls: None,
            concurrency: None,
            audit: None,
            access_log: None,
            policy: self.policy,
            regions: self.regions,
            fips: self.fips,
            config: None,
            environment: Vec::new(),
        })
    }
}

impl Up {
    fn options(self) -> Result<Options, Error> {
        Ok(Options {
            paths: paths::in_order(self.paths)?,
            upstream_ca: self.upstream_ca,
            listen: self.listen,
            listen_tls: self.listen_tls,
            concurrency: self.concurrency,
            audit: self.audit,
            access_log: self.access_log,
            policy: self.policy,
            regions: self.regions,
            fips: self.fips,
            config: self.config,
            environment: Vec::new(),
        })
    }
}
