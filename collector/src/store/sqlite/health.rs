//! Whether the file is whole, and still in its place.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{SqliteError, SqliteStore};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    Whole,
    /// The time was over before all was read.
    Unfinished,
}

/// Where a file was when it was opened.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

#[derive(Debug)]
pub(crate) enum PlaceError {
    /// The file was deleted, or another one has its name.
    Replaced,
    Io(io::Error),
}

impl Place {
    pub(crate) fn of(path: &Path) -> Result<Self, PlaceError> {
        Ok(Self { path: path.to_owned(), id: id(path)? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn check(&self) -> Result<(), PlaceError> {
        if id(&self.path)? == self.id { Ok(()) } else { Err(PlaceError::Replaced) }
    }
}

fn id(path: &Path) -> Result<(u64, u64), PlaceError> {
    match fs::metadata(path) {
        Ok(data) => Ok((data.dev(), data.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(PlaceError::Replaced),
        Err(error) => Err(PlaceError::Io(error)),
    }
}

impl SqliteStore {
    /// Fails if the file was deleted or replaced since it was opened: what is written then is lost.
    pub fn check_place(&self) -> Result<(), SqliteError> {
        match self.place.check() {
            Err(PlaceError::Replaced) => Err(SqliteError::Replaced(self.path().to_owned())),
            // Not known; the next look may be.
            Ok(()) | Err(PlaceError::Io(_)) => Ok(()),
        }
    }

    /// Reads every page by SQLite's `quick_check`, on a connection of its own.
    pub fn check_pages(&self, limit: Option<Duration>) -> Result<Checked, SqliteError> {
        let damaged = |reason: String| SqliteError::Damaged { path: self.path().to_owned(), reason };
        let connection = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY);
        let connection = connection.map_err(|cause| self.failed(cause))?;
        if let Some(limit) = limit {
            let interrupt = connection.get_interrupt_handle();
            std::thread::spawn(move || {
                std::thread::sleep(limit);
                interrupt.interrupt();
            });
        }
        let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match found {
            Ok(found) if found == "ok" => Ok(Checked::Whole),
            Ok(found) => Err(damaged(found)),
            Err(cause) => match cause.sqlite_error_code() {
                Some(ErrorCode::OperationInterrupted) => Ok(Checked::Unfinished),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Err(damaged(cause.to_string())),
                _ => Err(self.failed(cause)),
            },
        }
    }
}
