//! The programs that run in the namespaces, and the line by which the gateway says that it is ready.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{Error, tools};

/// The programs. They are built before the run, since the namespaces have no network.
#[derive(Debug)]
pub struct Programs {
    pub module: PathBuf,
    pub envoy: PathBuf,
    /// The Bedrock double.
    pub double: PathBuf,
    /// The load generator.
    pub load: PathBuf,
    /// The operator's program.
    pub gateway: PathBuf,
}

impl Programs {
    /// Those that the environment names.
    ///
    /// # Errors
    /// A variable is not set.
    pub fn find() -> Result<Programs, Error> {
        Ok(Programs {
            module: tools::required(tools::MODULE)?,
            envoy: tools::required(tools::ENVOY)?,
            double: tools::required(tools::DOUBLE)?,
            load: tools::required(tools::LOAD)?,
            gateway: tools::required(tools::GATEWAY)?,
        })
    }
}

/// The error of a run that a signal ended.
pub fn interrupted() -> Error {
    Error::Failed("interrupted; its namespaces and processes are removed".into())
}

/// The plain listener of `http://ADDRESS:PORT https://…`.
pub fn listener(ready: &str) -> Option<SocketAddr> {
    ready.split(' ').find_map(|word| word.strip_prefix("http://"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_listener_from_the_ready_line() {
        let line = "http://127.0.0.1:4711 https://127.0.0.1:4712 (CA x) region us-east-1 auth sigv4 paths dx,vpn";
        assert_eq!(listener(line), Some(SocketAddr::from(([127, 0, 0, 1], 4711))));
        assert_eq!(listener("https://127.0.0.1:4712"), None);
    }
}
