//! Whether the file is whole, and still in its place.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{SqliteError, SqliteStore};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    Whole,
    /// The time was over before all was read.
    Unfinished,
}

/// Device and inode. None if the file does not exist.
pub(super) fn place(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(data) => Ok(Some((data.dev(), data.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl SqliteStore {
    /// Fails if the file was deleted or replaced since it was opened: what is written then is lost.
    pub fn check_place(&self) -> Result<(), SqliteError> {
        match place(&self.path) {
            Ok(Some(place)) if place == self.place => Ok(()),
            // Not known; the next look may be.
            Err(_) => Ok(()),
            Ok(_) => Err(SqliteError::Replaced(self.path.clone())),
        }
    }

    /// Reads every page by SQLite's `quick_check`, on a connection of its own.
    pub fn check_pages(&self, limit: Option<Duration>) -> Result<Checked, SqliteError> {
        let damaged = |reason: String| SqliteError::Damaged { path: self.path.clone(), reason };
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY);
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
