//! `audit-collector import`: stores what a store lacks of old logs.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{BATCH_LINES, Batch, Rejected, Written};
use crate::hash::fnv1a;
use crate::query::Progress;
use crate::source::content::unpacked;
use crate::source::file::decode_into;
use crate::source::log_file::{BadLine, Line, MAX_LINE};
use crate::stderr;
use crate::store::{Store, StoreError};

/// Between batches.
const PAUSE: Duration = Duration::from_millis(3);
/// The records of an import expire over this many seconds, not all at once: a purge refuses that.
const SPREAD: u64 = 86_400;

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {cause}; what was read before, up to offset {offset}, is stored", file.display())]
    Read { file: PathBuf, offset: u64, cause: io::Error },
}

/// What became of the lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Records that the store lacked.
    pub stored: u64,
    /// Records that it had.
    pub repeated: u64,
    /// Lines that cannot be decoded, and records that the store refused.
    pub rejected: u64,
    /// Of the stored and repeated records, those of calls so old that a collector would delete them.
    pub expired: u64,
    /// Calls of a class that keeps no records.
    pub not_audited: u64,
}

/// When the records are imported, and how long they stay.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Seconds since 1970.
    pub now: u64,
    /// At least so many seconds.
    pub keep: u64,
}

/// Reads each file, plain or compressed, and `-` as standard input. Stops at the first that cannot be read.
pub async fn import(
    store: &Store,
    files: &[PathBuf],
    terms: Terms,
    progress: &mut Progress,
) -> Result<Imported, ImportError> {
    let mut import = Import { store, terms, imported: Imported::default(), rejected: None, batch: Batch::default() };
    for file in files {
        let name = Arc::new(file.clone());
        let failed = |offset, cause| ImportError::Read { file: file.clone(), offset, cause };
        let stream = open(file).map_err(|cause| failed(0, cause))?;
        let mut lines = Lines { reader: BufReader::with_capacity(256 * 1024, stream), offset: 0 };
        loop {
            match lines.next() {
                Ok(Some((offset, content))) => {
                    decode_into(&mut import.batch, Line { file: Arc::clone(&name), offset, content });
                }
                Ok(None) => break,
                Err(cause) => {
                    import.write().await?;
                    return Err(failed(lines.offset, cause));
                }
            }
            if import.is_full() {
                import.write().await?;
                if progress.is_due() {
                    let Imported { stored, repeated, rejected, .. } = import.imported;
                    let name = name.display();
                    stderr::line(format!(
                        "audit-collector: {name} offset {}: stored {stored}, repeated {repeated}, rejected {rejected}\n",
                        lines.offset
                    ));
                }
            }
        }
        import.write().await?;
    }
    Ok(import.imported)
}

fn open(file: &Path) -> io::Result<Box<dyn Read + Send>> {
    if file == Path::new("-") { unpacked(io::stdin()) } else { unpacked(File::open(file)?) }
}

struct Import<'s> {
    store: &'s Store,
    terms: Terms,
    imported: Imported,
    /// The entries that are among the rejected ones already, once the first is rejected.
    rejected: Option<HashSet<u64>>,
    batch: Batch,
}

impl Import<'_> {
    fn is_full(&self) -> bool {
        self.batch.seen().count() + self.batch.rejected.len() >= BATCH_LINES
    }

    /// An import that is repeated does not reject a line again.
    async fn write(&mut self) -> Result<(), StoreError> {
        let mut batch = std::mem::take(&mut self.batch);
        self.imported.not_audited += std::mem::take(&mut batch.off).len() as u64;
        let Terms { now, keep } = self.terms;
        for record in &mut batch.records {
            self.imported.expired += u64::from(record.expires_at <= now);
            let kept_until = now + keep + fnv1a(record.request_id.as_bytes()) % SPREAD;
            record.expires_at = record.expires_at.max(kept_until);
        }
        self.imported.rejected += batch.rejected.len() as u64;
        if !batch.rejected.is_empty() {
            let seen = match &mut self.rejected {
                Some(seen) => seen,
                none => {
                    let mut seen = HashSet::new();
                    self.store.rejected(|entry| {
                        seen.insert(hash(entry));
                    })?;
                    none.insert(seen)
                }
            };
            batch.rejected.retain(|entry| seen.insert(hash(entry)));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let Written { stored, repeated, refused, lost } = self.store.import(&batch).await?;
        // A collector may wait to write.
        tokio::time::sleep(PAUSE).await;
        self.imported.stored += stored - repeated;
        self.imported.repeated += repeated;
        self.imported.rejected += refused.len() as u64;
        if let Some((count, error)) = lost {
            stderr::line(format!("audit-collector warn {count} rejected entries are not kept: {error}\n"));
        }
        Ok(())
    }
}

fn hash(entry: &Rejected) -> u64 {
    let Rejected { source, file, offset, content, .. } = entry;
    fnv1a(&[source.as_bytes(), b"\0", file.as_bytes(), b"\0", &offset.to_le_bytes(), content].concat())
}

/// The lines of a stream.
struct Lines<R> {
    reader: R,
    /// Behind the last line.
    offset: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line that is not blank, with its offset.
    #[expect(clippy::type_complexity, reason = "a line, or why it is none")]
    fn next(&mut self) -> io::Result<Option<(u64, Result<Vec<u8>, BadLine>)>> {
        loop {
            let start = self.offset;
            let mut line = Vec::new();
            let mut reader = self.reader.by_ref().take(MAX_LINE as u64 + 1);
            self.offset += reader.read_until(b'\n', &mut line)? as u64;
            if line.is_empty() {
                return Ok(None);
            }
            let ended = line.pop_if(|last| *last == b'\n').is_some();
            if !ended && line.len() > MAX_LINE {
                self.offset += self.skip_line()?;
                return Ok(Some((start, Err(BadLine::TooLong))));
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some((start, Ok(line))));
            }
        }
    }

    /// Reads to the end of a line, and counts its bytes.
    fn skip_line(&mut self) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let buffer = self.reader.fill_buf()?;
            let newline = buffer.iter().position(|byte| *byte == b'\n');
            let count = newline.map_or(buffer.len(), |at| at + 1);
            let ended = newline.is_some() || buffer.is_empty();
            self.reader.consume(count);
            skipped += count as u64;
            if ended {
                return Ok(skipped);
            }
        }
    }
}
