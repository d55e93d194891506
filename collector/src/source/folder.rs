//! The parts of a log in its folder: the live file and the rotated ones.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::content::Packing;

/// What this program writes next to a log. The database may be there too.
const OWN: [&str; 10] = [
    ".checkpoint.json",
    ".checkpoint.json.tmp",
    ".rejected.jsonl",
    ".rejected.jsonl.retry",
    ".db-wal",
    ".db-shm",
    ".ledger.db",
    ".ledger.db-wal",
    ".ledger.db-shm",
    ".ledger.db.lock",
];
/// Extensions of files that share a log's name, and that do not belong to it or cannot be read.
const NOT_READ: [&str; 14] =
    ["Z", "bz2", "csv", "db", "json", "jsonl", "lz4", "lzma", "part", "sqlite", "swp", "tmp", "xz", "zip"];

/// A file that is a part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: PathBuf,
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) len: u64,
    /// Nanoseconds since 1970.
    pub(super) mtime: i64,
    pub(super) packing: Option<Packing>,
    /// The log's own name, not that of a rotated part.
    pub(super) live: bool,
}

#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Oldest first, as the times of the last writes say; the live file last.
    pub(super) entries: Vec<Entry>,
    /// Files that share the name and are not read.
    pub(super) ignored: Vec<PathBuf>,
    /// The log's own name is that of a folder, say.
    pub(super) not_a_file: bool,
}

/// Lists the live file, `LOG.anything` and `LOG-anything`.
pub(super) fn list(log: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let folder = match log.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let log_name = log.file_name().unwrap_or_default().as_encoded_bytes();
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
        files => files?,
    };
    for file in files {
        let path = folder.join(file?.file_name());
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let Some(suffix) = name.strip_prefix(log_name) else { continue };
        let suffix = String::from_utf8_lossy(suffix);
        if !(suffix.is_empty() || suffix.starts_with(['.', '-'])) || OWN.contains(&suffix.as_ref()) {
            continue;
        }
        let data = match fs::metadata(&path) {
            Ok(data) if data.is_file() => data,
            Ok(_) => {
                listing.not_a_file |= suffix.is_empty();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let live = suffix.is_empty();
        let extension = suffix.rsplit('.').next().filter(|_| suffix.contains('.')).unwrap_or_default();
        let packing = match extension {
            "gz" if !live => Some(Packing::Gzip),
            "zst" if !live => Some(Packing::Zstd),
            _ => None,
        };
        if NOT_READ.contains(&extension) || suffix.ends_with('~') {
            listing.ignored.push(path);
            continue;
        }
        let mtime = data.mtime().saturating_mul(1_000_000_000).saturating_add(data.mtime_nsec());
        let (dev, ino, len) = (data.dev(), data.ino(), data.len());
        // The live file keeps the path that the caller gave.
        let name = if live { log.to_owned() } else { path };
        listing.entries.push(Entry { name, dev, ino, len, mtime, packing, live });
    }
    listing.entries.sort_by(|a, b| (a.live, a.mtime, &a.name).cmp(&(b.live, b.mtime, &b.name)));
    listing.ignored.sort();
    Ok(listing)
}
