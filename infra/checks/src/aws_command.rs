//! The mock's `aws` command: passes its arguments, environment and files on to the AWS CLI that `infra/checks/aws.py` has loaded. A
//! Python would take longer to start than the call takes.

use std::ffi::OsString;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;

use crate::Error;

/// The program of this command: this one, or that next to the tests' directory, which Cargo builds before them.
pub(crate) fn program() -> Result<PathBuf, Error> {
    let here = std::env::current_exe().map_err(Error::file("cannot find", "this program"))?;
    let name = env!("CARGO_PKG_NAME");
    if here.file_name().is_some_and(|file| file == name) {
        return Ok(here);
    }
    let next_to = here.parent().and_then(Path::parent).unwrap_or(&here).join(name);
    next_to.is_file().then_some(next_to).ok_or_else(|| Error::Failed(format!("{name} is not built")))
}

/// Calls the server on the socket that the first argument names, with the other arguments; exits with the call's status.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let socket = arguments.next().unwrap_or_default();
    match call(&socket, arguments) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {}: {error}", socket.display());
            ExitCode::from(255)
        }
    }
}

fn call(socket: &OsString, arguments: impl Iterator<Item = OsString>) -> std::io::Result<u8> {
    let text = |value: OsString| value.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value).into()));
    let what = json!({
        "arguments": arguments.map(text).collect::<Vec<_>>(),
        "environment": variables.collect::<serde_json::Map<_, _>>(),
        "directory": std::env::current_dir()?.to_string_lossy(),
    });
    let what = serde_json::to_vec(&what)?;
    let length = u32::try_from(what.len()).map_err(std::io::Error::other)?.to_be_bytes();
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let files: [BorrowedFd<'_>; 3] = [input.as_fd(), output.as_fd(), errors.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    let mut server = UnixStream::connect(socket)?;
    sendmsg(&server, &[IoSlice::new(&length)], &mut ancillary, SendFlags::empty())?;
    server.write_all(&what)?;
    let mut ended = [255];
    // Without an answer the call ended early.
    let _ = server.read(&mut ended)?;
    Ok(ended[0])
}
