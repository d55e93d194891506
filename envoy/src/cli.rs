//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::document::Desk;
use crate::explain::Explain;
use crate::gateway::{self, Options};
use crate::istio::{Image, Target};
use crate::paths::{self, PathSpec};
use crate::platform::Platform;
use crate::programs::Programs;
use crate::snapshot::{self, Saved};
use crate::{Error, check, document, installed, istio, up};
use filter_core::names::RegionName;

/// Runs the gateway, renders its configuration, and checks what an operator has written.
#[derive(Debug, Parser)]
#[command(name = "bedrock-gateway", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground; with no --path, against Amazon Bedrock itself.
    ///
    /// Credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or from
    /// AWS_BEARER_TOKEN_BEDROCK. One line on stdout says when and where it is ready; Ctrl-C ends it.
    Up(Box<Up>),
    /// Print configuration for Envoy or for Istio.
    #[command(subcommand)]
    Render(Render),
    /// Check files: the filter's document, Envoy's bootstrap, objects for Istio. Every fault is named by file, position and key.
    Check {
        /// The files, YAML or JSON.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// A bootstrap of Envoy that has to serve the document.
        #[arg(long, value_name = "BOOTSTRAP")]
        envoy: Option<PathBuf>,
        /// A path and its address, as for `up`: report classes that have no address, and paths that no class takes.
        #[arg(long = "path", value_name = "NAME[/SERVICE][@REGION]=HOST:PORT")]
        paths: Vec<PathSpec>,
        /// The files are templates: `@{…}` and digests of zeros may be left.
        #[arg(long)]
        placeholders: bool,
        /// The operating system of the machines that a bootstrap is for: report a CA bundle that they lack. Without it, one
        /// that this host lacks is noted.
        #[arg(long, value_enum)]
        platform: Option<Platform>,
        /// A region that AWS has and this version does not know yet. May be given more than once.
        #[arg(long = "known-region", value_name = "REGION")]
        known_regions: Vec<String>,
    },
    /// Explain what the gateway would do with a request. Sends nothing.
    ///
    /// Prints operation, model, route class, limits, the paths and regions in order, and how the first attempt is
    /// signed. Credentials come from the environment; without any, the attempt is signed with AWS's documented example
    /// key. With --error-body, it names the parts of the canonical request in which AWS and the gateway differ.
    Explain(Box<Explain>),
    /// What regions offer, for the document's `catalogue`.
    #[command(subcommand)]
    Catalogue(Catalogue),
    /// Print the JSON Schema of the filter's document.
    Schema,
    /// Print a whole document of the filter, commented: two classes, callers by certificate.
    Example,
}

#[derive(Debug, Subcommand)]
enum Catalogue {
    /// Print the lists of regions as `catalogue.snapshot`, for a gateway that starts without them, or cannot poll; those of GovCloud's
    /// regions as `gateway_api.govcloud`.
    Snapshot {
        /// A region, and its lists as files: what `aws bedrock list-foundation-models` and `aws bedrock list-inference-profiles`
        /// print. May be given for each region.
        #[arg(required = true, value_name = "REGION=MODELS.json,PROFILES.json")]
        regions: Vec<Saved>,
    },
}

#[derive(Debug, Subcommand)]
enum Render {
    /// The bootstrap of a machine: listeners and files are where infra/instance puts them, credentials come from the document,
    /// and the clusters that they are fetched from are added.
    Envoy {
        #[command(flatten)]
        policy: Policy,
        /// The machine's operating system, which decides where its CA bundle is.
        #[arg(long, value_enum, default_value = "amazon-linux")]
        platform: Platform,
        /// The CA (PEM) on the machine that upstreams are verified against, instead of the system's.
        #[arg(long, value_name = "FILE")]
        upstream_ca: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// What puts the filter into Istio's proxies.
    Istio {
        /// The proxies that run the filter.
        #[arg(long, value_enum, default_value = "egress")]
        target: Target,
        /// The module's image, for sidecars. The egress gateway's pods name it themselves (envoy/istio/egress/gateway.yaml).
        #[arg(long, value_name = "REGISTRY/NAME@sha256:DIGEST")]
        image: Option<Image>,
        #[command(flatten)]
        policy: Policy,
        #[command(flatten)]
        output: Output,
    },
}

/// Where the result is written.
#[derive(Debug, Args)]
struct Output {
    /// Write this file instead of stdout, whole or not at all: if the command fails, an old file stays as it is.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The filter's document, and the paths that the clusters are made for.
#[derive(Debug, Args)]
struct Policy {
    /// The filter's document (YAML or JSON, docs/configuration.md), instead of the example that this program carries.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A path (dx, vpn or internet) and the address at which it reaches Bedrock's services, or one service
    /// (bedrock-runtime, bedrock, bedrock-agent-runtime, sts, rolesanywhere), in one region or in all. May be given for each; `internet` alone means the public
    /// endpoints. BEDROCK_PATHS=vpn,dx in the environment changes their order.
    #[arg(long = "path", value_name = "NAME[/SERVICE][@REGION]=HOST:PORT")]
    paths: Vec<PathSpec>,
    /// A region to call, instead of the document's. May be given more than once: the first is tried first.
    #[arg(long = "region", value_name = "REGION")]
    regions: Vec<RegionName>,
    /// Call the FIPS endpoints.
    #[arg(long)]
    fips: bool,
    /// Envoy's configuration without clusters and document, instead of the one that this program carries (envoy/base.yaml).
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    policy: Policy,
    /// The CA (PEM) that upstreams are verified against, instead of the system's.
    #[arg(long, value_name = "FILE")]
    upstream_ca: Option<PathBuf>,
    /// The CA (PEM) that vouches for callers: the TLS listener verifies the certificates that clients show, and a certificate's
    /// URI SAN is the caller's name. A client without a certificate has no name.
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
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
    /// Where Envoy writes its access log [default: in the run's directory below --state].
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// A host name that clients call the gateway by, besides `localhost`, IP addresses, Bedrock's own names and the
    /// document's `hosts`. May be given more than once. Others are refused, because any web page can make this machine's browser call the gateway.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// A web page's origin (`https://app.example`) that may call, besides the document's `origins`. May be given more than once.
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// Print Envoy's bootstrap instead of running it.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    programs: Programs,
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// Whatever the command fails for, as one message.
    pub fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Up(up) => {
                let print_config = up.print_config;
                let options = up.options()?;
                if print_config {
                    print(&gateway::print_config(&options)?);
                    return Ok(());
                }
                up::run(&options)
            }
            Command::Render(Render::Envoy { policy, platform, upstream_ca, output }) => {
                let options = Options { upstream_ca, ..policy.options()? };
                output.write(&installed::print_config(&options, platform)?)
            }
            Command::Render(Render::Istio { target, image, policy, output }) => {
                if target == Target::Egress && image.is_some() {
                    return Err(Error::Failed("--image is for --target plugin and --target sidecar".to_owned()));
                }
                output.write(istio::render(target, &policy.options()?, image.as_ref())?.trim_end())
            }
            Command::Check { files, envoy, paths, placeholders, platform, known_regions } => {
                let paths = paths::in_order(paths)?;
                Ok(check::run(&check::Options { files, envoy, paths, placeholders, platform, known_regions })?)
            }
            Command::Explain(explain) => {
                print(&explain.run(&|name| std::env::var(name).ok())?);
                Ok(())
            }
            Command::Catalogue(Catalogue::Snapshot { regions }) => {
                print(snapshot::print(&regions)?.trim_end());
                Ok(())
            }
            Command::Schema => {
                print(include_str!("../../docs/configuration.schema.json").trim_end());
                Ok(())
            }
            Command::Example => {
                print(document::EXAMPLE.trim_end());
                Ok(())
            }
        }
    }
}

/// A reader that has seen enough (`| head`) is not a failure.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

impl Output {
    fn write(&self, text: &str) -> Result<(), Error> {
        let Some(file) = &self.output else {
            print(text);
            return Ok(());
        };
        let mut part = file.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        std::fs::write(&part, format!("{text}\n")).map_err(Error::file("cannot write", &part))?;
        std::fs::rename(&part, file).map_err(Error::file("cannot write", file))
    }
}

impl Policy {
    fn options(self) -> Result<Options, Error> {
        Ok(Options {
            paths: paths::in_order(self.paths)?,
            policy: self.policy,
            regions: self.regions,
            fips: self.fips,
            base: self.base,
            ..Options::default()
        })
    }
}

impl Up {
    fn options(self) -> Result<Options, Error> {
        Ok(Options {
            programs: self.programs,
            upstream_ca: self.upstream_ca,
            client_ca: self.client_ca,
            listen: Some(self.listen),
            listen_tls: self.listen_tls,
            concurrency: self.concurrency,
            audit: self.audit,
            access_log: self.access_log,
            desk: Desk { hosts: self.hosts, origins: self.origins },
            ..self.policy.options()?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_render_that_fails_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let (file, rules) = (dir.path().join("envoyfilter.yaml"), dir.path().join("rules.yaml"));
        std::fs::write(&file, "old\n").unwrap();
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        let render = |document: &str| {
            std::fs::write(&rules, document).unwrap();
            let words = ["bedrock-gateway", "render", "istio", "--policy", &text(&rules), "--output", &text(&file)];
            Cli::try_parse_from(words).unwrap().run()
        };
        assert!(render("regions: {}").is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old\n");
        render("auth: sigv4\nregions: { us-east-1: {} }\nroute_classes: [{ name: any, paths: [internet] }]\n").unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("kind: EnvoyFilter"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
