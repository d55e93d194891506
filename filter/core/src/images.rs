//! How many images a body holds, for the limit of rules. Each model has its own form for them in InvokeModel: of a form that is not
//! known nothing is known.

use crate::model::{self, Pattern};
use crate::operation::Operation;
use crate::scanner::{Path, Scanner, Sink};

/// The image blocks of Converse
/// (<https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html> and the pages of its members), which are
/// Nova's own too (<https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html>).
const BLOCKS: &[&[&str]] = &[
    &["messages", "", "content", "", "image"],
    &["messages", "", "content", "", "toolResult", "content", "", "image"],
    &["messages", "", "content", "", "guardContent", "image"],
    &["system", "", "guardContent", "image"],
];
/// The types of content blocks of Anthropic's Messages, of which `image` is one
/// (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html>): those of a message, of a
/// tool's result, and of a document's content in either.
const TYPES: &[&[&str]] = &[
    &["messages", "", "content", "", "type"],
    &["messages", "", "content", "", "content", "", "type"],
    &["messages", "", "content", "", "source", "content", "", "type"],
    &["messages", "", "content", "", "content", "", "source", "content", "", "type"],
];
const IMAGE: &[u8] = b"image";
/// Where Converse has a model's own parameters, of which these would be another place of images.
const MODELS_OWN: &[&[&str]] = &[
    &["additionalModelRequestFields", "messages"],
    &["additionalModelRequestFields", "image"],
    &["additionalModelRequestFields", "images"],
];
/// Models that take Anthropic's Messages in InvokeModel.
const ANTHROPIC: &str = "anthropic.claude-*";
/// Models that take Nova's messages.
const NOVA: &[&str] = &[
    "amazon.nova-micro-*",
    "amazon.nova-lite-*",
    "amazon.nova-pro-*",
    "amazon.nova-premier-*",
    "amazon.nova-2-lite-*",
    "amazon.nova-2-pro-*",
];

/// Counts the images of a body as it passes.
#[derive(Debug, Default)]
pub(crate) struct Images {
    scanner: Scanner,
    found: Found,
}

#[derive(Debug, Default)]
struct Found {
    blocks: u32,
    typed: u32,
    /// Whether there is a place that may hold more.
    hidden: bool,
    /// How much of [`IMAGE`] the type at hand begins with; `None`: another value is read.
    matched: Option<usize>,
}

impl Images {
    pub(crate) fn feed(&mut self, chunk: &[u8]) {
        self.scanner.feed(chunk, &mut self.found);
    }

    /// The images of the complete body; `None` if it cannot be read, or the form of the model's images is not known.
    pub(crate) fn count(&self, operation: Operation, model: Option<&str>) -> Option<u32> {
        self.scanner.finish().ok()?;
        let is_one_of = |patterns: &[&str]| {
            let is = |name: &str| patterns.iter().any(|pattern| Pattern::new(*pattern).matches(name));
            model.is_some_and(|id| model::is_resolved(id) && model::names(id).any(is))
        };
        match operation {
            Operation::Converse | Operation::ConverseStream => (!self.found.hidden).then_some(self.found.blocks),
            Operation::InvokeModel | Operation::InvokeModelWithResponseStream => {
                if is_one_of(&[ANTHROPIC]) {
                    Some(self.found.typed)
                } else {
                    is_one_of(NOVA).then_some(self.found.blocks)
                }
            }
            _ => None,
        }
    }
}

impl Sink for Found {
    fn begin(&mut self, path: &Path, _: u64) {
        let is_in = |paths: &[&[&str]]| paths.iter().any(|keys| path.is(keys));
        self.blocks = self.blocks.saturating_add(is_in(BLOCKS).into());
        self.hidden |= is_in(MODELS_OWN);
        self.matched = is_in(TYPES).then_some(0);
    }

    fn string(&mut self, _: &Path, piece: &[u8]) {
        let Some(matched) = self.matched else { return };
        for (nth, byte) in piece.iter().enumerate() {
            let place = matched.saturating_add(nth);
            if IMAGE.get(place) != Some(byte) {
                self.matched = None;
                return;
            }
            // Whatever follows: a type that begins so holds one, too.
            if place + 1 == IMAGE.len() {
                self.typed = self.typed.saturating_add(1);
                self.matched = None;
                return;
            }
        }
        self.matched = Some(matched.saturating_add(piece.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAUDE: Option<&str> = Some("us.anthropic.claude-sonnet-4-20250514-v1:0");
    const NOVA_LITE: Option<&str> = Some("amazon.nova-lite-v1:0");

    fn count(operation: Operation, model: Option<&str>, body: &str) -> Option<u32> {
        let counts: Vec<_> = [1, 3, 1000]
            .into_iter()
            .map(|piece| {
                let mut images = Images::default();
                body.as_bytes().chunks(piece).for_each(|chunk| images.feed(chunk));
                images.count(operation, model)
            })
            .collect();
        assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "{counts:?} {body}");
        counts[0]
    }

    #[test]
    fn each_form_of_an_image_counts() {
        use Operation::{Converse, ConverseStream, InvokeModel, InvokeModelWithResponseStream};
        let block = r#"{"image":{"format":"png","source":{"bytes":"aGk="}}}"#;
        let typed = r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGk="}}"#;
        let message = |content: String| format!(r#"{{"messages":[{{"role":"user","content":[{content}]}}]}}"#);
        for (operations, model, content, wanted) in [
            ([Converse, ConverseStream], CLAUDE, format!("{block},{block}"), 2),
            ([Converse, ConverseStream], CLAUDE, r#"{"text":"an \"image\""}"#.to_owned(), 0),
            (
                [Converse, ConverseStream],
                CLAUDE,
                format!(r#"{{"toolResult":{{"toolUseId":"x","content":[{block},{block}]}}}}"#),
                2,
            ),
            ([Converse, ConverseStream], CLAUDE, format!(r#"{{"guardContent":{block}}}"#), 1),
            // What a model has asked a tool for is not an image.
            (
                [Converse, ConverseStream],
                CLAUDE,
                r#"{"toolUse":{"name":"x","toolUseId":"x","input":{"image":"cat"}}}"#.to_owned(),
                0,
            ),
            ([InvokeModel, InvokeModelWithResponseStream], CLAUDE, format!("{typed},{typed},{typed}"), 3),
            ([InvokeModel, InvokeModelWithResponseStream], CLAUDE, r#"{"type":"\u0069mage"}"#.to_owned(), 1),
            ([InvokeModel, InvokeModelWithResponseStream], CLAUDE, r#"{"type":"text","text":"image"}"#.to_owned(), 0),
            ([InvokeModel, InvokeModelWithResponseStream], CLAUDE, r#"{"type":"text","type":"image"}"#.to_owned(), 1),
            (
                [InvokeModel, InvokeModelWithResponseStream],
                CLAUDE,
                format!(r#"{{"type":"tool_result","content":[{typed}]}}"#),
                1,
            ),
            (
                [InvokeModel, InvokeModelWithResponseStream],
                CLAUDE,
                format!(
                    r#"{{"type":"tool_result","content":[{{"type":"document","source":{{"type":"content","content":[{typed}]}}}}]}}"#
                ),
                1,
            ),
            ([InvokeModel, InvokeModelWithResponseStream], NOVA_LITE, format!("{block},{block}"), 2),
        ] {
            for operation in operations {
                assert_eq!(count(operation, model, &message(content.clone())), Some(wanted), "{operation} {content}");
            }
        }
    }

    #[test]
    fn refuses_to_count_what_has_another_form() {
        use Operation::{Converse, InvokeModel, StartAsyncInvoke};
        let application = Some("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc");
        for (operation, model, body) in [
            (InvokeModel, Some("meta.llama4-scout-17b-instruct-v1:0"), "{}"),
            (InvokeModel, Some("amazon.nova-canvas-v1:0"), "{}"),
            (InvokeModel, Some("xx.anthropic.claude-v2"), "{}"),
            (InvokeModel, application, "{}"),
            (InvokeModel, None, "{}"),
            (InvokeModel, CLAUDE, "{"),
            (InvokeModel, CLAUDE, ""),
            (StartAsyncInvoke, NOVA_LITE, "{}"),
            (Converse, CLAUDE, "not JSON"),
            (Converse, CLAUDE, r#"{"additionalModelRequestFields":{"messages":[]}}"#),
        ] {
            assert_eq!(count(operation, model, body), None, "{operation} {model:?} {body}");
        }
        assert_eq!(count(Converse, application, "{}"), Some(0), "Converse has one form for all");
    }
}
