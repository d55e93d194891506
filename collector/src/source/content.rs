//! The bytes of one part of a log, plain or compressed.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// How a part is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
}

pub(super) enum Content {
    Plain(File),
    Packed { file: File, reader: Box<dyn Read + Send>, at: u64 },
}

impl Content {
    pub(super) fn open(name: &Path, packing: Option<Packing>) -> io::Result<Self> {
        let file = File::open(name)?;
        let packed = |reader: Box<dyn Read + Send>, file| Self::Packed { file, reader, at: 0 };
        Ok(match packing {
            None => Self::Plain(file),
            Some(Packing::Gzip) => packed(Box::new(MultiGzDecoder::new(file.try_clone()?)), file),
            Some(Packing::Zstd) => packed(Box::new(Zstd::Between(io::BufReader::new(file.try_clone()?))), file),
        })
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        match self {
            Self::Plain(file) | Self::Packed { file, .. } => file.metadata(),
        }
    }

    /// Reads at an offset; of a compressed part, at the end of the last read.
    pub(super) fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            let result = match self {
                Self::Plain(file) => file.read_at(buffer, offset),
                Self::Packed { reader, at, .. } if *at == offset => reader.read(buffer).inspect(|count| {
                    *at += *count as u64;
                }),
                Self::Packed { .. } => Err(io::Error::other("a compressed part is read in order")),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Fills the buffer from an offset of a plain part. None if the part is shorter, or compressed.
    pub(super) fn exact(&self, count: usize, offset: u64) -> io::Result<Option<Vec<u8>>> {
        let Self::Plain(file) = self else { return Ok(None) };
        let mut buffer = vec![0; count];
        match file.read_exact_at(&mut buffer, offset) {
            Ok(()) => Ok(Some(buffer)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a stream, which may be compressed: its first bytes say so.
pub(crate) fn unpacked(mut stream: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    stream.by_ref().take(ZSTD.len() as u64).read_to_end(&mut head)?;
    let (gzip, zstd) = (head.starts_with(&GZIP), head == ZSTD);
    let whole = io::BufReader::new(io::Cursor::new(head).chain(stream));
    Ok(match (gzip, zstd) {
        (true, _) => Box::new(MultiGzDecoder::new(whole)),
        (_, true) => Box::new(Zstd::Between(whole)),
        _ => Box::new(whole),
    })
}

/// RFC 1952, section 2.3.1.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878, section 3.1.1.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The frames of a stream, one after the other.
enum Zstd<R: BufRead> {
    Between(R),
    Frame(Box<StreamingDecoder<R, FrameDecoder>>),
    Failed,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Self::Failed) {
                Self::Between(mut file) => {
                    if file.fill_buf()?.is_empty() {
                        *self = Self::Between(file);
                        return Ok(0);
                    }
                    *self = Self::Frame(Box::new(StreamingDecoder::new(file).map_err(io::Error::other)?));
                }
                Self::Frame(mut frame) => match frame.read(buffer)? {
                    0 => *self = Self::Between(frame.into_inner()),
                    count => {
                        *self = Self::Frame(frame);
                        return Ok(count);
                    }
                },
                Self::Failed => return Err(io::Error::other("the part is damaged")),
            }
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Packed { .. } => "Packed",
        })
    }
}
