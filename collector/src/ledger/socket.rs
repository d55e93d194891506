//! The Unix socket that the gateway's Envoy connects to.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The owner and its group: Envoy may run as another user of the same pod.
const MODE: u32 = 0o660;
/// `sun_path` with its NUL (unix(7)).
const MAX_PATH: usize = 107;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("--intents {path}: the path has {length} bytes, a Unix socket's at most {MAX_PATH}")]
    TooLong { path: PathBuf, length: usize },
    #[error("--intents {0}: its folder does not exist")]
    NoFolder(PathBuf),
    #[error("--intents {0}: another process serves this socket")]
    InUse(PathBuf),
    #[error("--intents {0}: a file that is not a socket has this name")]
    NotASocket(PathBuf),
    #[error("--intents {path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
}

/// Listens. Replaces the socket of a process that ended.
pub(super) fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let (name, length) = (path.to_owned(), path.as_os_str().as_bytes().len());
    if length > MAX_PATH {
        return Err(SocketError::TooLong { path: name, length });
    }
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(SocketError::NoFolder(name));
    }
    let failed = |cause| SocketError::Io { path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Ok(data) if !data.file_type().is_socket() => return Err(SocketError::NotASocket(name)),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => return Err(SocketError::InUse(name)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    Ok(listener)
}
