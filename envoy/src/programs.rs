//! The programs and files that a run needs, and the directory that it writes to. Nothing is fetched or built.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::Error;
use crate::process::on_path;

/// The module's file name, as Cargo builds it and the release archive has it.
pub const MODULE: &str = "bedrock_filter.wasm";

/// Where the binaries are. What is not given is looked for next to this program, and then on `PATH`.
#[derive(Debug, Clone, Default, Args)]
pub struct Programs {
    /// Envoy 1.40 [default: `envoy` next to this program, else on PATH].
    #[arg(long, value_name = "FILE", env = "ENVOY_BIN")]
    pub envoy: Option<PathBuf>,
    /// The filter [default: bedrock_filter.wasm next to this program].
    #[arg(long, value_name = "FILE", env = "BEDROCK_FILTER_WASM")]
    pub module: Option<PathBuf>,
    /// The audit collector, for --audit [default: `audit-collector` next to this program, else on PATH].
    #[arg(long, value_name = "FILE", env = "AUDIT_COLLECTOR_BIN")]
    pub collector: Option<PathBuf>,
    /// Where logs, Envoy's configuration and the development certificate are kept
    /// [default: bedrock-gateway in $XDG_STATE_HOME, else in ~/.local/state].
    #[arg(long, value_name = "DIR", env = "BEDROCK_GATEWAY_STATE")]
    pub state: Option<PathBuf>,
}

impl Programs {
    /// Envoy.
    ///
    /// # Errors
    /// There is none.
    pub fn envoy(&self) -> Result<PathBuf, Error> {
        program(self.envoy.as_deref(), "envoy", "--envoy")
    }

    /// The audit collector.
    ///
    /// # Errors
    /// There is none.
    pub fn collector(&self) -> Result<PathBuf, Error> {
        program(self.collector.as_deref(), "audit-collector", "--collector")
    }

    /// The module.
    ///
    /// # Errors
    /// It is not where it was said to be, or not next to this program.
    pub fn module(&self) -> Result<PathBuf, Error> {
        program(self.module.as_deref(), MODULE, "--module")
    }

    /// The directory for a run's files.
    ///
    /// # Errors
    /// Neither an option nor the environment names one.
    pub fn state(&self) -> Result<PathBuf, Error> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let default = || {
            let base = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
            Some(base.join("bedrock-gateway"))
        };
        let state = self.state.clone().or_else(default).ok_or_else(|| {
            Error::Failed("neither HOME nor XDG_STATE_HOME is set: say by --state where to keep logs".to_owned())
        })?;
        std::path::absolute(&state).map_err(Error::file("cannot use", state))
    }
}

fn program(given: Option<&Path>, name: &str, option: &str) -> Result<PathBuf, Error> {
    if let Some(file) = given {
        // Opened, so that a missing or unreadable file is named before anything starts.
        std::fs::File::open(file).map_err(Error::file(&format!("{option}: cannot open"), file))?;
        return std::path::absolute(file).map_err(Error::file("cannot use", file));
    }
    let own = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    own.filter(|file| file.is_file()).or_else(|| on_path(name)).ok_or_else(|| {
        Error::Failed(format!("{name} is neither next to this program nor on PATH; name it by {option} FILE"))
    })
}

/// `path` as a person would name it: relative to the current directory where it lies inside.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_option_for_what_is_missing() {
        let none = Programs { module: Some("/nowhere/x.wasm".into()), ..Programs::default() };
        let error = none.module().unwrap_err().to_string();
        assert!(error.starts_with("--module: cannot open /nowhere/x.wasm: "), "{error}");
        let error = program(None, "no-such-program", "--envoy").unwrap_err().to_string();
        assert!(error.ends_with("on PATH; name it by --envoy FILE"), "{error}");
    }
}
