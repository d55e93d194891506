//! `cargo xtask reproducible`: whether the module of this commit is the same, wherever it is built.

use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::artifacts::{self, Place};
use crate::dirs;
use crate::error::Error;

/// Builds the module in two clean clones in two places, with Cargo's own files in two places too. Returns its SHA-256 in hex.
pub(crate) fn run() -> Result<String, Error> {
    artifacts::add_target(artifacts::WASM_TARGET)?;
    let dir = std::env::temp_dir().join(format!("bedrock-gateway-{}", std::process::id()));
    let built = in_two_places(&dir);
    let removed = std::fs::remove_dir_all(&dir).map_err(Error::file("cannot remove", &dir));
    let hash = built?;
    removed.map(|()| hash)
}

fn in_two_places(dir: &Path) -> Result<String, Error> {
    let (one, other) = (dir.join("a"), dir.join("another place/with a longer path"));
    let cargo_home = other.join("cargo");
    copy_cargo_home(&cargo_home)?;
    let first = hash(&Place { root: one.join("clone"), target: one.join("out"), cargo_home: dirs::cargo_home() })?;
    println!("{first}  the first place");
    let second = hash(&Place { root: other.join("clone"), target: other.join("its target"), cargo_home })?;
    println!("{second}  the second place");
    if first == second { Ok(first) } else { Err(Error::Failed("the two modules differ".to_owned())) }
}

/// Clones the commit, builds the module there, and hashes it.
fn hash(place: &Place) -> Result<String, Error> {
    let mut clone = Command::new("git");
    clone.args(["clone", "--quiet", "--no-hardlinks"]).arg(dirs::root()).arg(&place.root);
    done(&mut clone)?;
    artifacts::build("the module", artifacts::module_build(artifacts::cargo(), place)?)?;
    let file = place.target.join(artifacts::MODULE_FILE);
    let module = std::fs::read(&file).map_err(Error::file("cannot read", &file))?;
    Ok(hex::encode(Sha256::digest(module)))
}

/// Copies what Cargo has downloaded, so that nothing is downloaded twice, and where it downloads from.
fn copy_cargo_home(to: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(to).map_err(Error::file("cannot make", to))?;
    for name in ["config.toml", "registry"] {
        let from = dirs::cargo_home().join(name);
        if from.exists() {
            done(Command::new("cp").arg("-r").arg(from).arg(to))?;
        }
    }
    Ok(())
}

fn done(command: &mut Command) -> Result<(), Error> {
    let program = command.get_program().to_owned();
    let status = command.status().map_err(Error::file("cannot run", &program))?;
    if status.success() { Ok(()) } else { Err(Error::Failed(format!("{} failed", program.display()))) }
}
