//! Whether the file is whole, and still in its place.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{SqliteError, SqliteStore};
use crate::store::paths::with_suffix;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    Whole,
    /// The time was over before all was read.
    Unfinished,
}

/// Where a database and its WAL were when it was opened.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    path: PathBuf,
    /// The file itself, its WAL and the WAL's index. They exist as long as a connection is open.
    files: Vec<(PathBuf, Id)>,
    /// The file's largest size so far. SQLite makes it smaller by `VACUUM` only.
    size: Arc<AtomicU64>,
}

/// Device and inode.
type Id = (u64, u64);

#[derive(Debug)]
pub(crate) enum PlaceError {
    /// A file was deleted or made smaller, or another one has its name.
    Replaced,
    Io(io::Error),
}

impl Place {
    pub(crate) fn of(path: &Path) -> Result<Self, PlaceError> {
        let data = metadata(path)?;
        let mut files = vec![(path.to_owned(), (data.dev(), data.ino()))];
        // SQLite makes them next to the file that a link leads to.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        for name in ["-wal", "-shm"].map(|suffix| with_suffix(&target, suffix)) {
            match metadata(&name) {
                Ok(data) => files.push((name, (data.dev(), data.ino()))),
                // Of a connection that only reads.
                Err(PlaceError::Replaced) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { path: path.to_owned(), files, size: Arc::new(data.len().into()) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn check(&self) -> Result<(), PlaceError> {
        for (name, id) in &self.files {
            let data = metadata(name)?;
            let shorter = || data.len() < self.size.fetch_max(data.len(), Ordering::Relaxed);
            if (data.dev(), data.ino()) != *id || (*name == self.path && shorter()) {
                return Err(PlaceError::Replaced);
            }
        }
        Ok(())
    }
}

fn metadata(path: &Path) -> Result<Metadata, PlaceError> {
    fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PlaceError::Replaced,
        _ => PlaceError::Io(error),
    })
}

impl SqliteStore {
    /// Fails if the file or its WAL was deleted, replaced or made smaller since it was opened: what is written then is lost.
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
