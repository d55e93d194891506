//! PEM blocks (RFC 7468), one after the other. Texts around them are refused: the file may not be what its owner thinks.

use x509_cert::der::pem::Decoder;
use zeroize::Zeroizing;

/// Longest text that is read: a chain of certificates has some 2 KB each.
const MAX_LENGTH: usize = 64 * 1024;
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// What is wrong with a PEM text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemProblem {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Too long.
    #[error("is longer than 64 KiB")]
    Long,
    /// Text before, between or after the blocks.
    #[error("is not PEM, or has text outside of its BEGIN and END lines")]
    Outside,
    /// A block without its end.
    #[error("has a PEM block without the END line of its label")]
    Unterminated,
    /// A block of another kind.
    #[error("has a PEM block with another label than {0}")]
    Label(&'static str),
    /// A block that is not Base64.
    #[error("has a PEM block that is not Base64 in lines of one length")]
    Base64,
    /// Headers inside of a block.
    #[error("has a PEM block with headers")]
    Headers,
    /// More blocks than one.
    #[error("has more than one PEM block")]
    Several,
}

/// A block, not decoded yet.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    text: &'a str,
}

impl Block<'_> {
    /// The contents, wiped when they are dropped.
    pub(super) fn decode(&self) -> Result<Zeroizing<Vec<u8>>, PemProblem> {
        if self.text.contains(':') {
            return Err(PemProblem::Headers);
        }
        let mut decoder = Decoder::new_detect_wrap(self.text.as_bytes()).map_err(|_| PemProblem::Base64)?;
        let mut contents = Zeroizing::new(vec![0; decoder.remaining_len()]);
        decoder.decode(&mut contents).map_err(|_| PemProblem::Base64)?;
        Ok(contents)
    }
}

/// All blocks of a text: one at least.
pub(super) fn blocks(text: &str) -> Result<Vec<Block<'_>>, PemProblem> {
    if text.len() > MAX_LENGTH {
        return Err(PemProblem::Long);
    }
    let mut blocks = Vec::new();
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return Err(PemProblem::Empty);
    }
    while !rest.is_empty() {
        let (label, _) = rest
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.split_once(DASHES))
            .filter(|(label, _)| !label.is_empty() && !label.contains(['\n', '-']))
            .ok_or(PemProblem::Outside)?;
        let end = format!("\n{END}{label}{DASHES}");
        let until = rest.find(&end).map(|at| at + end.len()).ok_or(PemProblem::Unterminated)?;
        let (text, after) = rest.split_at(until);
        // A second block that begins before this one's end.
        if text.matches(BEGIN).count() > 1 {
            return Err(PemProblem::Unterminated);
        }
        if !after.is_empty() && !after.starts_with(['\r', '\n', ' ', '\t']) {
            return Err(PemProblem::Outside);
        }
        blocks.push(Block { label, text });
        rest = after.trim_start();
    }
    Ok(blocks)
}
