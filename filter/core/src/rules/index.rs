//! Finds the rules that may match a call, without a look at all of them.
//!
//! A rule is filed under one of its conditions with patterns, by the text before the first `*` of each. A pattern matches only
//! names that begin with this head.

use super::{Rule, Subject};
use crate::config::Effect;
use crate::model::{self, Pattern};
use std::collections::BTreeMap;

/// Rules by the heads of their patterns.
#[derive(Debug, Default)]
pub(super) struct Index {
    principals: Heads,
    groups: Heads,
    models: Heads,
    /// Rules that are filed under models, for calls whose model is not known: those that deny, and those that allow.
    by_model: [Vec<usize>; 2],
    /// Rules without any pattern.
    others: Vec<usize>,
    /// How many rules there are.
    rules: usize,
}

/// The heads, sorted.
#[derive(Debug, Default)]
struct Heads(Vec<Head>);

#[derive(Debug)]
struct Head {
    text: String,
    /// The longest other head that this one begins with.
    parent: Option<usize>,
    rules: Filed,
}

/// The rules of a head.
#[derive(Debug, Default)]
struct Filed {
    /// Those of patterns without a `*`.
    exact: Vec<usize>,
    others: Vec<usize>,
}

/// A condition that a rule may be filed under.
#[derive(Debug, Clone, Copy)]
enum Key {
    Principals,
    Groups,
    Models,
}

const KEYS: [Key; 3] = [Key::Principals, Key::Groups, Key::Models];

impl Key {
    fn patterns(self, rule: &Rule) -> Option<&[Pattern]> {
        match self {
            Self::Principals => rule.principals.as_deref(),
            Self::Groups => rule.groups.as_deref(),
            Self::Models => rule.models.as_deref(),
        }
    }
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        // How many patterns have a head: a rule is filed where it shares its heads with the fewest others.
        let uses = KEYS.map(|key| {
            let mut uses = BTreeMap::<&str, usize>::new();
            for pattern in rules.iter().filter_map(|rule| key.patterns(rule)).flatten() {
                *uses.entry(pattern.head()).or_default() += 1;
            }
            uses
        });
        let mut filed = KEYS.map(|_| BTreeMap::<String, Filed>::new());
        let (mut denying, mut allowing, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (nth, rule) in rules.iter().enumerate() {
            let shared = |uses: &BTreeMap<&str, usize>, pattern: &Pattern| match pattern.head() {
                "" => usize::MAX,
                head => uses.get(head).copied().unwrap_or_default(),
            };
            let choices = KEYS.into_iter().zip(&uses).zip(&mut filed).filter_map(|((key, uses), filed)| {
                let patterns = key.patterns(rule)?;
                let most = patterns.iter().map(|pattern| shared(uses, pattern)).max().unwrap_or_default();
                Some((most, key, patterns, filed))
            });
            let Some((_, key, patterns, filed)) = choices.min_by_key(|(most, ..)| *most) else {
                others.push(nth);
                continue;
            };
            if matches!(key, Key::Models) {
                if rule.effect == Effect::Deny { &mut denying } else { &mut allowing }.push(nth);
            }
            for pattern in patterns {
                let filed = filed.entry(pattern.head().to_owned()).or_default();
                if pattern.is_exact() { &mut filed.exact } else { &mut filed.others }.push(nth);
            }
        }
        let [principals, groups, models] = filed.map(Heads::new);
        Self { principals, groups, models, by_model: [denying, allowing], others, rules: rules.len() }
    }

    /// Gives every rule that may match a call, each once, however many names of the call lead to it.
    pub(super) fn candidates(&self, call: &Subject<'_>, mut take: impl FnMut(usize)) {
        let mut seen = vec![0_u64; self.rules / 64 + 1];
        let mut take = |nth: usize| {
            let (Some(word), bit) = (seen.get_mut(nth / 64), 1 << (nth % 64)) else { return };
            if *word & bit == 0 {
                *word |= bit;
                take(nth);
            }
        };
        self.others.iter().copied().for_each(&mut take);
        call.principal.iter().for_each(|name| self.principals.find(name, &mut take));
        call.groups.iter().for_each(|group| self.groups.find(group, &mut take));
        let models = call.models;
        let [denying, allowing] = &self.by_model;
        if models.hidden || models.named.iter().any(|model| !model.is_known()) {
            denying.iter().copied().for_each(&mut take);
        }
        if models.hidden {
            allowing.iter().copied().for_each(&mut take);
        }
        let runs = models.named.iter().flat_map(|model| model.runs).map(String::as_str);
        let ids = models.named.iter().map(|model| model.id).chain(runs).chain(models.profiles.iter().copied());
        ids.flat_map(model::names).for_each(|name| self.models.find(name, &mut take));
    }
}

impl Heads {
    fn new(filed: BTreeMap<String, Filed>) -> Self {
        let mut heads: Vec<Head> = Vec::with_capacity(filed.len());
        for (text, rules) in filed {
            let mut parent = heads.len().checked_sub(1);
            while let Some(head) = parent.and_then(|nth| heads.get(nth)) {
                if text.starts_with(&head.text) {
                    break;
                }
                parent = head.parent;
            }
            heads.push(Head { text, parent, rules });
        }
        Self(heads)
    }

    /// Gives the rules of each head that a name begins with. Between such a head and the name only texts sort that begin with the
    /// head too. So it is the last head up to the name, or one that this begins with.
    fn find(&self, name: &str, take: &mut impl FnMut(usize)) {
        let after = self.0.partition_point(|head| head.text.as_str() <= name);
        let mut next = after.checked_sub(1);
        while let Some(head) = next.and_then(|nth| self.0.get(nth)) {
            if name.starts_with(&head.text) {
                head.rules.others.iter().copied().for_each(&mut *take);
            }
            if name == head.text {
                head.rules.exact.iter().copied().for_each(&mut *take);
            }
            next = head.parent;
        }
    }
}
