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

/// What a part's name has besides the log's. `-20261126` of `access.jsonl-20261126`; as logrotate's `extension` makes them,
/// of `access-20261126.jsonl` and `access.1.jsonl.gz`, too, where only a number or a date may be: `access-admin.jsonl` is
/// another log.
fn suffix(name: &[u8], log: &[u8]) -> Option<String> {
    if let Some(suffix) = name.strip_prefix(log) {
        let suffix = String::from_utf8_lossy(suffix).into_owned();
        return (suffix.is_empty() || suffix.starts_with(['.', '-'])).then_some(suffix);
    }
    let dot = log.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0)?;
    let (stem, extension) = log.split_at(dot);
    let rest = name.strip_prefix(stem).filter(|rest| rest.starts_with(b".") || rest.starts_with(b"-"))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit() || b".-_".contains(byte));
    let end = digits.count();
    // The dot of the extension is among them.
    let number =
        end.checked_sub(1).and_then(|end| rest.get(..end)).filter(|text| text.iter().any(u8::is_ascii_digit))?;
    let packing = rest.get(number.len()..)?.strip_prefix(extension)?;
    (packing.is_empty() || packing.starts_with(b"."))
        .then(|| String::from_utf8_lossy(&[number, packing].concat()).into_owned())
}

/// Lists the live file, `LOG.anything` and `LOG-anything`, and the forms of [`suffix`].
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
        let Some(suffix) = suffix(name, log_name).filter(|suffix| !OWN.contains(&suffix.as_str())) else { continue };
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
