//! The programs that run in the hosts.

use std::path::PathBuf;

use crate::{Error, tools};

/// What runs in the hosts. They are built before: the hosts have no network to fetch anything by.
#[derive(Debug)]
pub struct Programs {
    /// The module.
    pub module: PathBuf,
    /// Envoy.
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
