//! Weighted choice by rendezvous hashing.

use sha2::{Digest, Sha256};

/// Weighted rendezvous hashing: each candidate draws a point for the key, and weight moves it ahead. A change of one weight
/// moves only keys to or from that candidate. Those of weight 0 are left out.
pub(super) fn in_order_of_weight<T: Copy>(
    candidates: impl Iterator<Item = (T, u32)>,
    draw: impl Fn(T) -> f64,
) -> Vec<T> {
    let drawn = candidates.filter(|(_, weight)| *weight > 0);
    let mut drawn: Vec<(T, f64)> = drawn.map(|(one, weight)| (one, -draw(one).ln() / f64::from(weight))).collect();
    drawn.sort_by(|(_, left), (_, right)| left.total_cmp(right));
    drawn.into_iter().map(|(one, _)| one).collect()
}

/// A number between 0 and 1, both excluded, that depends on the texts only.
pub(crate) fn point(texts: &[&str]) -> f64 {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let digest = hasher.finalize();
    let head = digest.first_chunk().map_or(0, |head| u32::from_le_bytes(*head));
    (f64::from(head) + 0.5) / (f64::from(u32::MAX) + 1.0)
}
