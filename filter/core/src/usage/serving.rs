//! Service tier and latency mode, as a request asks for them and a response names them, and the model of a prompt router.
//!
//! Sources: botocore 1.44.5 (`ConverseRequest`, `ConverseResponse`, `ConverseStreamMetadataEvent`, `InvokeModelRequest`,
//! `InvokeModelResponse`, `PromptRouterTrace`);
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html>,
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseTrace.html>.

use crate::headers::Headers;
use crate::scanner::{Path, Sink};
use audit::Serving;

/// Longest name of a tier or mode that is kept.
const MAX_NAME: usize = 32;
/// Longest model id that is kept. Those of AWS's pattern are shorter.
const MAX_MODEL: usize = 256;

/// Of a JSON body.
#[derive(Debug, Default, Clone)]
pub struct Served {
    tier: Text<MAX_NAME>,
    latency: Text<MAX_NAME>,
    invoked: Text<MAX_MODEL>,
}

/// A text that comes in pieces. One that is too long is none.
#[derive(Debug, Default, Clone)]
struct Text<const MAX: usize>(Vec<u8>);

/// InvokeModel has both in headers, of the request and of the response.
pub(crate) fn of_headers(headers: &Headers) -> Serving {
    let text = |name| headers.get(name).and_then(|value| name_of(value, MAX_NAME));
    Serving { tier: text("x-amzn-bedrock-service-tier"), latency: text("x-amzn-bedrock-performanceconfig-latency") }
}

impl Served {
    /// What it says of tier and mode.
    pub fn serving(&self) -> Serving {
        Serving { tier: name_of(&self.tier.0, MAX_NAME), latency: name_of(&self.latency.0, MAX_NAME) }
    }

    pub(super) fn invoked(&self) -> Option<String> {
        name_of(&self.invoked.0, MAX_MODEL)
    }

    pub(super) fn merge(&mut self, later: &Self) {
        fn take<const MAX: usize>(to: &mut Text<MAX>, from: &Text<MAX>) {
            if !from.0.is_empty() {
                to.0.clone_from(&from.0);
            }
        }
        take(&mut self.tier, &later.tier);
        take(&mut self.latency, &later.latency);
        take(&mut self.invoked, &later.invoked);
    }
}

impl Sink for Served {
    fn number(&mut self, _path: &Path, _value: u64) {}

    fn string(&mut self, path: &Path, piece: &[u8]) {
        if path.is(&["serviceTier", "type"]) {
            self.tier.push(piece);
        } else if path.is(&["performanceConfig", "latency"]) {
            self.latency.push(piece);
        } else if path.is(&["trace", "promptRouter", "invokedModelId"]) {
            self.invoked.push(piece);
        }
    }
}

impl<const MAX: usize> Text<MAX> {
    /// One byte more than is kept says that it is too long.
    fn push(&mut self, piece: &[u8]) {
        let room = (MAX + 1).saturating_sub(self.0.len());
        self.0.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }
}

fn name_of(bytes: &[u8], max: usize) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b);
    ((1..=max).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
}
