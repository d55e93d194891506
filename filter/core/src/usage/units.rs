//! Counts that are in lists, or spread over a response: cache writes by their time, and a guardrail's units.

use crate::scanner::Path;
use audit::{GuardrailUnits, Usage};

/// An entry of Converse's `usage.cacheDetails`, which has a time (`5m`, `1h`) and a count in any order
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CacheDetail.html>). Both are required.
#[derive(Debug, Default, Clone)]
pub(super) struct CacheDetail {
    time: [u8; 2],
    /// Bytes of the time that came.
    length: usize,
    tokens: Option<u64>,
}

impl CacheDetail {
    pub(super) fn tokens(&mut self, tokens: u64, usage: &mut Usage) {
        self.tokens = Some(tokens);
        self.close(usage);
    }

    /// Takes a piece of the time.
    pub(super) fn time(&mut self, piece: &[u8], usage: &mut Usage) {
        for byte in piece {
            if let Some(slot) = self.time.get_mut(self.length) {
                *slot = *byte;
            }
            self.length = self.length.saturating_add(1);
        }
        self.close(usage);
    }

    /// Both came: the next entry begins.
    fn close(&mut self, usage: &mut Usage) {
        let (Some(tokens), 2..) = (self.tokens, self.length) else { return };
        let field = match &self.time {
            b"5m" => Some(&mut usage.cache_write_5m),
            b"1h" => Some(&mut usage.cache_write_1h),
            _ => None,
        };
        if let Some(sum) = field {
            *sum = Some(sum.unwrap_or_default().saturating_add(tokens));
        }
        *self = Self::default();
    }
}

/// Adds a count of `GuardrailUsage`
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GuardrailUsage.html>): of the trace in Converse's
/// response or a model's own, where input and outputs have one each, or of ApplyGuardrail's `usage`.
pub(super) fn add_units(path: &Path, key: Option<&str>, value: u64, units: &mut GuardrailUnits) {
    if !matches!(path.first(), Some("trace" | "amazon-bedrock-trace" | "usage")) {
        return;
    }
    let sum = match key {
        Some("contentPolicyUnits") => &mut units.content,
        Some("contentPolicyImageUnits") => &mut units.image,
        Some("topicPolicyUnits") => &mut units.topic,
        Some("sensitiveInformationPolicyUnits") => &mut units.sensitive,
        Some("contextualGroundingPolicyUnits") => &mut units.grounding,
        Some("automatedReasoningPolicyUnits") => &mut units.reasoning,
        _ => return,
    };
    *sum = Some(sum.unwrap_or_default().saturating_add(value));
}
