//! Base64 (RFC 4648, standard alphabet, padded) decoded piece by piece, in constant memory.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Characters decoded at once: whole groups of four.
const BLOCK: usize = 1024;

/// Decodes a base64 text that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    group: Vec<u8>,
    broken: bool,
}

impl Decoder {
    /// Decodes all complete groups into `out` and keeps the rest. Stops for good at a bad character.
    pub(crate) fn feed(&mut self, mut text: &[u8], mut out: impl FnMut(&[u8])) {
        while !text.is_empty() && !self.broken {
            let (piece, rest) = text.split_at(text.len().min(BLOCK - self.group.len()));
            text = rest;
            self.group.extend_from_slice(piece);
            let whole = self.group.len() & !3;
            let mut decoded = [0; BLOCK / 4 * 3];
            match STANDARD.decode_slice(self.group.get(..whole).unwrap_or_default(), &mut decoded) {
                Ok(len) => out(decoded.get(..len).unwrap_or_default()),
                Err(_) => self.broken = true,
            }
            self.group.drain(..whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let plain: Vec<u8> = (0..5000_u32).map(|n| (n * 7) as u8).collect();
        for len in [0, 1, 2, 3, 4, 767, 768, 769, 5000] {
            let text = STANDARD.encode(&plain[..len]);
            for cut in [1, 3, 5, 1023, 1024, 1025, 10_000] {
                let (mut decoder, mut out) = (Decoder::default(), Vec::new());
                for piece in text.as_bytes().chunks(cut) {
                    decoder.feed(piece, |bytes| out.extend_from_slice(bytes));
                }
                assert_eq!(out, &plain[..len], "{len} bytes in pieces of {cut}");
            }
        }
    }

    #[test]
    fn a_bad_character_ends_it() {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        decoder.feed(b"AAAA!!!!AAAA", |bytes| out.extend_from_slice(bytes));
        decoder.feed(b"AAAA", |bytes| out.extend_from_slice(bytes));
        assert_eq!(out, b"");
    }
}
