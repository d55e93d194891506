//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum as _};

use crate::chaos::{self, Scenario};
use crate::{Error, vpn};

/// Runs the gateway in network namespaces. Needs root.
#[derive(Debug, Parser)]
#[command(name = "lab", bin_name = "cargo xtask soak")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Break the gateway's paths under load and report how its calls ended. Needs root, `ip`, `tc` and `nft`.
    ///
    /// Direct Connect is cut, then the VPN too, then both are restored, for each kind of fault. A class without the
    /// internet loses both of its paths, regions throttle, weights move calls to another path, and uploads run next to
    /// interactive calls.
    Chaos(Chaos),
    /// Run the VPN's machines: strongSwan and FRR at both ends, calls across, one tunnel cut and restored under load.
    /// Needs Linux, root, `ip`, `tc`, /dev/net/tun, and `apt-get`.
    Vpn(Vpn),
}

#[derive(Debug, Args)]
struct Chaos {
    /// Converse calls in a second.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// The length of each run, in seconds.
    #[arg(long, value_name = "N", default_value = "40", value_parser = clap::value_parser!(u64).range(20..=3600))]
    seconds: u64,
    /// The scenario; repeat for more [default: all].
    #[arg(long = "fault", value_enum, value_name = "NAME")]
    faults: Vec<Scenario>,
    /// Concurrent streams.
    #[arg(long, value_name = "N", default_value = "10")]
    streams: u32,
    /// Seconds that the models of two calls think before their first byte; 0 for no such calls.
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
    /// Seconds that the tunnel is cut. IKE and BGP sessions end after 30, the other gateway takes the routes after some 6,
    /// and Envoy checks the path again within 10.
    #[arg(long, value_name = "N", default_value = "18", value_parser = clap::value_parser!(u64).range(18..=600))]
    cut: u64,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// A namespace cannot be made, or a check of the result fails.
    pub fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Chaos(chaos) => chaos.run(),
            Command::Vpn(Vpn { rate, cut }) => vpn::run(&vpn::Options { rate, cut }),
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
