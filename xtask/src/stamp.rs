//! Steps that need not run again: a stamp keeps the digest of a step's inputs from when it passed.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::dirs;
use crate::error::Error;

/// A step with its inputs as they are now.
pub(crate) struct Stamp {
    file: PathBuf,
    digest: String,
}

impl Stamp {
    /// Reads the inputs: a text, files, and directories with all that is below them.
    pub(crate) fn of(step: &str, text: &str, inputs: &[&Path]) -> Result<Stamp, Error> {
        let mut hash = Sha256::new_with_prefix(text);
        for input in inputs {
            add(input, &mut hash)?;
        }
        let file = dirs::target().join("tmp").join(format!("{step}.passed"));
        Ok(Stamp { file, digest: hex::encode(hash.finalize()) })
    }

    /// Whether the step passed with the same inputs. Never in CI, which sets `CI`.
    pub(crate) fn is_current(&self) -> bool {
        std::env::var_os("CI").is_none() && std::fs::read_to_string(&self.file).is_ok_and(|kept| kept == self.digest)
    }

    /// Keeps that the step passed.
    pub(crate) fn keep(&self) -> Result<(), Error> {
        std::fs::write(&self.file, &self.digest).map_err(Error::file("cannot write", &self.file))
    }
}

fn add(path: &Path, hash: &mut Sha256) -> Result<(), Error> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(Error::file("cannot read", path))?;
        let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        below.retain(|path| path.file_name().is_none_or(|name| name != "__pycache__"));
        below.sort();
        return below.iter().try_for_each(|path| add(path, hash));
    }
    let content = std::fs::read(path).map_err(Error::file("cannot read", path))?;
    hash.update(path.to_string_lossy().as_bytes());
    hash.update(Sha256::digest(content));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_input_has_another_digest() {
        let dir = std::env::temp_dir().join(format!("stamp-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("below")).unwrap();
        let digest = |text: &str| {
            std::fs::write(dir.join("below/file"), text).unwrap();
            Stamp::of("test", "", &[&dir]).unwrap().digest
        };
        assert_eq!(digest("one"), digest("one"));
        assert_ne!(digest("one"), digest("two"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
