//! Names of models, and the patterns that match them.

use crate::config::{ConfigError, at};
use std::collections::BTreeSet;

/// Prefixes of system-defined inference profiles (`us.anthropic.…`).
const GEOGRAPHIES: &[&str] = &["us-gov", "us", "eu", "apac", "au", "jp", "global", "in", "ca"];

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

/// An id of the GovCloud partition that has no counterpart in the Commercial one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' belongs to the partition aws-us-gov and has no counterpart in Commercial Bedrock")]
pub struct GovOnly(pub String);

/// Translates an id of the GovCloud partition: `us-gov.X`, a foundation model's ARN and a system-defined inference
/// profile's ARN become the bare model id, which is in both. Other ids stay as they are.
///
/// # Errors
/// [`GovOnly`] for resources of a GovCloud account, which the Commercial partition cannot know.
pub fn to_commercial(id: &str) -> Result<&str, GovOnly> {
    if let Some(bare) = id.strip_prefix("us-gov.") {
        return Ok(bare);
    }
    let Some(arn) = id.strip_prefix("arn:aws-us-gov:") else { return Ok(id) };
    let resource = arn.splitn(4, ':').last().unwrap_or_default();
    match resource.split_once('/') {
        Some(("foundation-model", model)) => Ok(model),
        Some(("inference-profile", profile)) => profile.strip_prefix("us-gov.").ok_or_else(|| GovOnly(id.to_owned())),
        _ => Err(GovOnly(id.to_owned())),
    }
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
