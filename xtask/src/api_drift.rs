//! `cargo xtask api-drift`: compares AWS's service models with the gateway's tables. `host-tests/api` compares; this fetches
//! the models and starts it.

use std::process::ExitCode;

use crate::artifacts::{self, Workspace};
use crate::error::Error;
use crate::{dirs, progress, tools};

/// The models could not be compared. `api-drift` itself exits with 0 if nothing differs, 1 if something does, and with this.
const FAILED: u8 = 2;
/// The file that pins botocore for the tests.
const PINS: &str = "host-tests/clients/requirements.txt";

/// Which botocore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    /// The newest on PyPI.
    Newest,
    /// The one that the tests use.
    Pinned,
    Exact(String),
}

impl std::str::FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "newest" => Ok(Self::Newest),
            "pinned" => Ok(Self::Pinned),
            _ if is_version(text) => Ok(Self::Exact(text.to_owned())),
            _ => Err("want newest, pinned or a version, such as 1.44.8".to_owned()),
        }
    }
}

/// Prints what differs. The exit code tells a difference from a failure.
pub(crate) fn run(version: &Version) -> ExitCode {
    compare(version).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(FAILED)
    })
}

fn compare(version: &Version) -> Result<ExitCode, Error> {
    let version = match version {
        Version::Newest => None,
        Version::Pinned => Some(pinned()?),
        Version::Exact(version) => Some(version.clone()),
    };
    let models = tools::botocore::find(&dirs::tools(), version.as_deref())?;
    let mut workspace = Workspace::default();
    workspace.build(&[artifacts::API_DRIFT])?;
    let mut command = workspace.command(artifacts::API_DRIFT)?;
    let program = command.get_program().to_owned();
    let status = command.arg(&models.data).status().map_err(Error::file("cannot run", program))?;
    // Killed by a signal: nothing was compared.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED);
    let outcome = match code {
        0 => "nothing differs from the tables",
        1 => "this differs from the tables; docs/development.md says what to do",
        _ => "not compared",
    };
    progress::say(&format!("botocore {}: {outcome}", models.version));
    Ok(ExitCode::from(code))
}

fn pinned() -> Result<String, Error> {
    let file = dirs::root().join(PINS);
    let text = std::fs::read_to_string(&file).map_err(Error::file("cannot read", &file))?;
    let pin = text.lines().find_map(|line| line.strip_prefix("botocore=="));
    pin.map(|version| version.trim().to_owned()).ok_or_else(|| Error::Failed(format!("{PINS} does not pin botocore")))
}

/// Digits and dots: nothing that pip could take for an option.
fn is_version(text: &str) -> bool {
    text.split('.').count() > 1
        && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_names_or_numbers() {
        assert_eq!("newest".parse(), Ok(Version::Newest));
        assert_eq!("pinned".parse(), Ok(Version::Pinned));
        assert_eq!("1.44.8".parse(), Ok(Version::Exact("1.44.8".to_owned())));
        for text in ["", "1", "1.", "1.44.8 --index-url x", "-r", "1.x", "latest"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_tests_pin_a_version() {
        assert!(is_version(&pinned().unwrap()));
    }
}
