//! Names of models, and the patterns that match them.

use crate::config::{ConfigError, at};
use crate::geography::GEOGRAPHIES;
use crate::operation::arn_region;
use std::collections::BTreeSet;

/// A pattern over names, in which `*` matches any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether the pattern matches everything.
    pub fn takes_all(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|b| b == b'*')
    }

    /// Whether this pattern certainly matches everything that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        // A `*` of `other` is a letter here that only a `*` of this pattern matches, and with it whatever it runs over.
        self.matches(&other.0)
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text before the first `*`: with it every name begins that the pattern matches.
    pub fn head(&self) -> &str {
        self.0.split_once('*').map_or(self.0.as_str(), |(head, _)| head)
    }

    /// Whether the pattern matches one name only.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether some model may match both patterns, by whichever of its [`names`].
    pub fn may_match_a_model_of(&self, other: &Self) -> bool {
        let longer = |pattern: &Self| {
            let with_geography = GEOGRAPHIES.iter().map(|prefix| format!("{prefix}.{}", pattern.0));
            let ids: Vec<String> = std::iter::once(pattern.0.clone()).chain(with_geography).collect();
            let arns: Vec<String> = ids.iter().map(|id| format!("arn:*/{id}")).collect();
            ids.into_iter().chain(arns).map(Self)
        };
        longer(self).any(|pattern| pattern.overlaps(other)) || longer(other).any(|pattern| pattern.overlaps(self))
    }

    /// Whether some text matches both patterns.
    fn overlaps(&self, other: &Self) -> bool {
        // How far into either pattern a common text leads: from each place on, a star takes nothing or the other's next letter.
        let (own, other) = (self.0.as_bytes(), other.0.as_bytes());
        let mut seen = BTreeSet::new();
        let mut next = vec![(0, 0)];
        while let Some(place @ (i, j)) = next.pop() {
            if !seen.insert(place) {
                continue;
            }
            match (own.get(i), other.get(j)) {
                (None, None) => return true,
                (Some(b'*'), right) => {
                    next.push((i + 1, j));
                    next.extend(right.map(|_| (i, j + 1)));
                }
                (left, Some(b'*')) => {
                    next.push((i, j + 1));
                    next.extend(left.map(|_| (i + 1, j)));
                }
                (left, right) if left == right => next.push((i + 1, j + 1)),
                _ => {}
            }
        }
        false
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let Some((head, tail)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut rest) = name.strip_prefix(head) else { return false };
        let mut parts = tail.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.split_once(part) {
                // The leftmost match leaves the most for the remaining parts.
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }
}

/// The names of a model id that a pattern is matched against: the id, an ARN's resource, and either without its geography.
/// So `anthropic.*` matches `us.anthropic.claude…` and its ARN too: no spelling slips past a rule.
pub fn names(id: &str) -> impl Iterator<Item = &str> {
    let resource = id.starts_with("arn:").then(|| id.rsplit('/').next()).flatten();
    [Some(id), without_geography(id), resource, resource.and_then(without_geography)].into_iter().flatten()
}

/// `us.anthropic.claude…` → `anthropic.claude…`.
pub fn without_geography(id: &str) -> Option<&str> {
    let (prefix, rest) = id.split_once('.')?;
    GEOGRAPHIES.contains(&prefix).then_some(rest)
}

/// `us.anthropic.claude…` → `us`.
pub(crate) fn geography(id: &str) -> Option<&str> {
    without_geography(id).and_then(|_| Some(id.split_once('.')?.0))
}

/// Whether the id says which model runs: a foundation model's id or ARN, or a system-defined inference profile's of a known
/// geography. All others stand for a model that only AWS knows: application inference profiles, provisioned, custom and
/// imported models, deployments, prompts, prompt routers, endpoints of SageMaker (botocore 1.44.5: `InvokeModelIdentifier`).
pub fn is_resolved(id: &str) -> bool {
    let Some(arn) = id.strip_prefix("arn:") else { return is_bare(without_geography(id).unwrap_or(id)) };
    let parts: Vec<&str> = arn.splitn(5, ':').collect();
    let ["aws", "bedrock", _, account, resource] = parts.as_slice() else { return false };
    match resource.split_once('/') {
        Some(("foundation-model", model)) => account.is_empty() && is_bare(model),
        Some(("inference-profile", profile)) => without_geography(profile).is_some_and(is_bare),
        _ => false,
    }
}

/// Whether it is the name of a resource without its ARN. In another region it is another resource.
pub(crate) fn is_name(id: &str) -> bool {
    !id.starts_with("arn:") && !id.contains('.')
}

/// Whether an id is `PROVIDER.MODEL`. A further dot is part of a version, between two digits (`openai.gpt-5.4`): before a letter
/// it follows a geography that is not known (`xx.anthropic.claude…`).
fn is_bare(id: &str) -> bool {
    let Some((provider, model)) = id.split_once('.') else { return false };
    let is_name =
        |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:".contains(&b));
    let ends_in_digit = |text: &str| text.bytes().next_back().is_some_and(|b| b.is_ascii_digit());
    let begins_with_digit = |text: &str| text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    let parts: Vec<&str> = model.split('.').collect();
    let versions = parts.windows(2).all(|pair| match pair {
        [before, after] => ends_in_digit(before) && begins_with_digit(after),
        _ => false,
    });
    // No provider is called as a geography is: `us.us.x` is not the model `us.x`. None has a colon: in `x:anthropic.claude…` it would
    // hide the provider from patterns.
    !provider.is_empty()
        && !provider.contains(':')
        && !model.is_empty()
        && is_name(id)
        && versions
        && !GEOGRAPHIES.contains(&provider)
}

/// Whether a pattern names ids that are not [resolved](is_resolved) on purpose: it has no `*`, or it is of ARNs.
pub fn vouches(pattern: &Pattern, id: &str) -> bool {
    (pattern.is_exact() || pattern.0.starts_with("arn:aws:")) && pattern.matches(id)
}

/// Compiles a list of patterns; `key` is the list's key in the document.
pub(crate) fn patterns(key: &str, texts: &[String]) -> Result<Vec<Pattern>, ConfigError> {
    let compile = |(index, text): (usize, &String)| {
        if text.is_empty() || text.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(at(
                format!("{key}[{index}]"),
                format!("{text:?} is not a pattern: want visible characters, with '*' for any run"),
            ));
        }
        Ok(Pattern::new(text.as_str()))
    };
    texts.iter().enumerate().map(compile).collect()
}

/// Why an id does not cross: it is GovCloud's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GovCloudId {
    /// It has no counterpart.
    #[error("'{0}' belongs to the partition aws-us-gov and has no counterpart in Commercial Bedrock")]
    NoCounterpart(String),
    /// Its account is one of `govcloud_accounts`.
    #[error("'{id}' is of account {account}, which `govcloud_accounts` names: Commercial Bedrock does not have it")]
    Account {
        /// The id.
        id: String,
        /// The account.
        account: String,
    },
    /// It stands where the gateway does not translate.
    #[error("'{id}' belongs to the partition aws-us-gov: write '{instead}', as it is called in Commercial Bedrock")]
    Untranslated {
        /// The id.
        id: String,
        /// The same in the Commercial partition.
        instead: String,
    },
}

/// Translates an id of the GovCloud partition: `us-gov.X`, a foundation model's ARN and a system-defined inference
/// profile's ARN become the bare model id, which is in both. Other ids stay as they are.
///
/// # Errors
/// [`GovCloudId::NoCounterpart`] for resources of a GovCloud account or region, which the Commercial partition cannot know.
pub fn to_commercial(id: &str) -> Result<&str, GovCloudId> {
    if let Some(bare) = id.strip_prefix("us-gov.") {
        return Ok(bare);
    }
    let none = || GovCloudId::NoCounterpart(id.to_owned());
    let Some(arn) = id.strip_prefix("arn:aws-us-gov:") else {
        let region = arn_region(id).unwrap_or_default();
        return if region.starts_with("us-gov-") { Err(none()) } else { Ok(id) };
    };
    let resource = arn.splitn(4, ':').last().unwrap_or_default();
    match resource.split_once('/') {
        Some(("foundation-model", model)) => Ok(model),
        Some(("inference-profile", profile)) => profile.strip_prefix("us-gov.").ok_or_else(none),
        _ => Err(none()),
    }
}

/// The foundation model of a system-defined inference profile's id or ARN; other ids stay as they are.
pub fn of_profile(id: &str) -> &str {
    let resource = id.strip_prefix("arn:aws:bedrock:").and_then(|arn| arn.split_once(":inference-profile/"));
    without_geography(resource.map_or(id, |(_, profile)| profile)).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, wanted) in [
            ("*", "", true),
            ("*", "x", true),
            ("", "", true),
            ("", "x", false),
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b", true),
            ("a.*", "ab", false),
            ("*.b", "a.b", true),
            ("*.b", "a.bc", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*claude*", "anthropic.claude-v2", true),
            ("a**b", "ab", true),
            ("*ab", "aab", true),
            ("*ab*ab", "xab", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), wanted, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_pattern_covers_narrower_ones() {
        for (wide, narrow, wanted) in [
            ("*", "*", true),
            ("*", "a*b", true),
            ("a*", "a*b", true),
            ("a*", "ab*", true),
            ("*b*", "a*b", true),
            ("a*c", "a*c", true),
            ("ab", "ab", true),
            ("ab*", "a*", false),
            ("a*b", "a*", false),
            ("ab", "a*", false),
            ("*ab*", "*a*b*", false),
        ] {
            assert_eq!(Pattern::new(wide).covers(&Pattern::new(narrow)), wanted, "{wide} {narrow}");
        }
    }

    /// Every pattern and text of a few letters is the oracle.
    #[test]
    fn patterns_overlap_where_a_text_matches_both() {
        let words = |letters: &[char]| {
            let mut words = vec![String::new()];
            for _ in 0..4 {
                let longer = words.iter().flat_map(|word| letters.iter().map(move |letter| format!("{word}{letter}")));
                words.extend(longer.collect::<Vec<_>>());
                words.sort();
                words.dedup();
            }
            words
        };
        // Two patterns of n letters that overlap share a text of at most 2n letters.
        let texts = words(&['a', 'b']);
        let short: Vec<String> = words(&['a', 'b', '*']).into_iter().filter(|word| word.len() <= 2).collect();
        for left in &short {
            for right in &short {
                let (one, two) = (Pattern::new(left.as_str()), Pattern::new(right.as_str()));
                let oracle = texts.iter().any(|text| one.matches(text) && two.matches(text));
                assert_eq!(one.overlaps(&two), oracle, "{left} {right}");
            }
        }
    }

    #[test]
    fn every_spelling_of_a_model_matches() {
        let pattern = Pattern::new("anthropic.claude-opus*");
        for id in [
            "anthropic.claude-opus-5",
            "us.anthropic.claude-opus-5",
            "global.anthropic.claude-opus-5",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-5",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5",
        ] {
            assert!(names(id).any(|name| pattern.matches(name)), "{id}");
        }
        assert!(!names("meta.llama4").any(|name| pattern.matches(name)));
    }

    #[test]
    fn only_visible_models_are_resolved() {
        for (id, wanted) in [
            ("anthropic.claude-v2", true),
            ("anthropic.claude-v2:0:18k", true),
            ("us.anthropic.claude-opus-5", true),
            ("global.anthropic.claude-opus-5", true),
            ("openai.gpt-5.4", true),
            ("us.openai.gpt-5.6-luna", true),
            ("ai21.jamba-1-5-large-v1:0", true),
            ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-5", true),
            ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5", true),
            // Geographies that are not in the table.
            ("sa.anthropic.claude-opus-5", false),
            ("us-iso.anthropic.claude-opus-5", false),
            ("sa.openai.gpt-5.4", false),
            ("sa.ai21.jamba-1-5-large-v1:0", false),
            ("us.sa.anthropic.claude-opus-5", false),
            ("us.us.anthropic.claude-opus-5", false),
            ("us.us.claude", false),
            ("x:anthropic.claude-opus-5", false),
            ("us.x:anthropic.claude-opus-5", false),
            ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/sa.anthropic.claude-opus-5", false),
            // Resources whose model only AWS knows.
            ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6", false),
            ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/meta.llama4", false),
            ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/a1b2c3d4e5f6", false),
            ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/meta.llama4", false),
            ("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/a1b2c3d4e5f6", false),
            ("arn:aws:bedrock:us-east-1:123456789012:custom-model/meta.llama4/a1b2c3d4e5f6", false),
            ("arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/a1b2c3d4e5f6", false),
            ("arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3d4e5f6", false),
            ("arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1", false),
            ("arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/meta.llama:1", false),
            ("arn:aws:bedrock:us-east-1:123456789012:prompt-router/a1b2c3d4e5f6", false),
            ("arn:aws:sagemaker:us-east-1:123456789012:endpoint/meta.llama4", false),
            // ARNs that are not what they look like.
            ("arn:aws:bedrock:us-east-1:123456789012:foundation-model/meta.llama4", false),
            ("arn:aws:bedrock:us-east-1::foundation-model/us.meta.llama4", false),
            ("arn:aws:bedrock:us-east-1::foundation-model/a/meta.llama4", false),
            ("arn:aws:sagemaker:us-east-1::foundation-model/meta.llama4", false),
            ("arn:aws-cn:bedrock:cn-north-1::foundation-model/meta.llama4", false),
            ("arn:aws:bedrock:us-east-1", false),
            // Names of an account's own resources, and other spellings.
            ("a1b2c3d4e5f6", false),
            ("my-model", false),
            ("meta.llama4/a1b2c3d4e5f6", false),
            ("Anthropic.Claude-v2", false),
            ("anthropic.claude_v2", false),
            (".claude", false),
            ("anthropic.", false),
            ("", false),
        ] {
            assert_eq!(is_resolved(id), wanted, "{id}");
        }
    }

    #[test]
    fn the_examples_models_are_resolved() {
        let example = include_str!("../../../envoy/example.yaml");
        let ids: Vec<&str> =
            example.split('"').filter(|id| id.contains('.') && !id.contains([' ', '/', '*'])).collect();
        assert!(ids.len() > 80, "{}", ids.len());
        ids.iter().for_each(|id| assert!(is_resolved(id), "{id}"));
    }

    #[test]
    fn a_pattern_vouches_on_purpose_only() {
        let arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";
        for (pattern, id, wanted) in [
            (arn, arn, true),
            ("arn:aws:bedrock:*:123456789012:application-inference-profile/*", arn, true),
            ("arn:aws:bedrock:*:210987654321:application-inference-profile/*", arn, false),
            ("*", arn, false),
            ("arn:*", arn, false),
            ("*a1b2c3d4e5f6", arn, false),
            ("a1b2c3d4e5f6", "a1b2c3d4e5f6", true),
            ("a1b2*", "a1b2c3d4e5f6", false),
        ] {
            assert_eq!(vouches(&Pattern::new(pattern), id), wanted, "{pattern}");
        }
    }

    #[test]
    fn govcloud_ids_become_commercial_ones() {
        for (id, wanted) in [
            ("anthropic.claude-v2:0", Some("anthropic.claude-v2:0")),
            ("us-gov.anthropic.claude-v2:0", Some("anthropic.claude-v2:0")),
            (
                "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/amazon.nova-pro-v1:0",
                Some("amazon.nova-pro-v1:0"),
            ),
            ("arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:inference-profile/us-gov.a.b-v1:0", Some("a.b-v1:0")),
            ("arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:application-inference-profile/abc", None),
            ("arn:aws-us-gov:bedrock:us-gov-west-1", None),
            (
                "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x",
                Some("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.x"),
            ),
        ] {
            assert_eq!(to_commercial(id).ok(), wanted, "{id}");
        }
    }
}
