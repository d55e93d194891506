//! Files that only their owner may read: they hold callers' names and addresses.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

const MODE: u32 = 0o600;

/// Creates or empties the file.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().write(true).truncate(true))
}

/// Creates the file or opens it to append.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().append(true))
}

/// Sets the mode of a file that may exist.
pub(crate) fn close_to_others(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(data) if data.permissions().mode() & 0o077 != 0 => fs::set_permissions(path, Permissions::from_mode(MODE)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.create(true).mode(MODE).open(path)?;
    // An older release let everyone read it.
    close_to_others(path)?;
    Ok(file)
}
