//! What `models` and the route classes say of an id, by the model that it names or the models that it runs.

use super::{ModelRefusal, Policy};
use crate::model::{self, Pattern, is_resolved, vouches};
use crate::residency::ResidencyRefusal;
use crate::route::{RouteClass, Subject};

/// The key of a rule that depends on the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dependence {
    /// The key.
    pub(crate) rule: &'static str,
    /// Whether a call is refused of whose models nothing is known. Otherwise the rules decide, for which it runs any model.
    pub(crate) refuses: bool,
}

impl Policy {
    /// Resolves what the client named to the id that crosses (up to the region's inference profile): alias, then
    /// partition, then policy, by what the document alone knows.
    ///
    /// # Errors
    /// [`ModelRefusal`] if it may not cross.
    pub fn resolve_model(&self, asked: &str) -> Result<String, ModelRefusal> {
        let id = self.model_id(asked)?;
        self.check_model(id, self.entry(id))?;
        Ok(id.to_owned())
    }

    /// The id that a name stands for, in the Commercial partition.
    pub(crate) fn model_id<'a>(&'a self, asked: &'a str) -> Result<&'a str, ModelRefusal> {
        Ok(self.to_commercial(self.aliases.get(asked).map_or(asked, String::as_str))?)
    }

    /// What the operator says that an id runs.
    pub fn entry(&self, id: &str) -> Option<&[String]> {
        self.resolve.as_ref()?.entry(id)
    }

    /// Whether an alias may stand for an id. What a resource runs may be known only when it is called.
    pub(super) fn check_alias(&self, id: &str) -> Result<(), ModelRefusal> {
        match self.resolve_model(id) {
            Err(
                ModelRefusal::Unresolved { .. }
                | ModelRefusal::Policy(_)
                | ModelRefusal::Residency(ResidencyRefusal::Hidden(_)),
            ) if self.depends_on(id).is_some() && self.resolve.as_ref().is_some_and(|rules| rules.asks(id)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Whether an id may cross: by its own model or, if it does not name one, by those that it `runs`, as far as they are known.
    pub(crate) fn check_model(&self, id: &str, runs: Option<&[String]>) -> Result<(), ModelRefusal> {
        let Some(runs) = runs.filter(|runs| !is_resolved(id) && !runs.is_empty()) else {
            if !self.allows(id) {
                return Err(ModelRefusal::Policy(id.to_owned()));
            }
            self.check_residency(id)?;
            return match self.depends_on(id).filter(|dependence| dependence.refuses) {
                Some(Dependence { rule, .. }) => Err(ModelRefusal::Unresolved { id: id.to_owned(), rule }),
                None => Ok(()),
            };
        };
        if self.denies(id) {
            return Err(ModelRefusal::Policy(id.to_owned()));
        }
        let by_residency = self.residency_asks(id);
        if !by_residency {
            self.check_residency(id)?;
        }
        let (by_models, by_classes) = (self.models_ask(id), self.classes_ask(id));
        for model in runs {
            if by_residency {
                self.residency.check(model)?;
            }
            if by_models && !self.allows(model) {
                return Err(ModelRefusal::Runs { id: id.to_owned(), model: model.clone() });
            }
            // A model of the Marketplace has a name that patterns of Bedrock's ids do not match.
            let asks = [
                (by_models && self.models_ask(model), "`models.allow`"),
                (by_classes && self.classes_ask(model), "`models` of a route class"),
            ];
            if let Some((_, rule)) = asks.into_iter().find(|(asks, _)| *asks) {
                return Err(ModelRefusal::Unresolved { id: model.clone(), rule });
            }
        }
        Ok(())
    }

    /// The rule that depends on what an id runs, if it does not name its model and the rule does not name the id itself. Without this,
    /// such an id would pass every `deny`, and fall through the classes that its model is confined to.
    pub(crate) fn depends_on(&self, id: &str) -> Option<Dependence> {
        if is_resolved(id) || self.denies(id) {
            return None;
        }
        let rule = match (self.models_ask(id), self.classes_ask(id)) {
            (true, _) => "`models.allow`",
            (false, true) => "`models` of a route class",
            (false, false) if self.residency_asks(id) => "`residency`",
            (false, false) if self.rules.enforce_models() => {
                return Some(Dependence { rule: "`models` of a rule", refuses: false });
            }
            (false, false) => return None,
        };
        Some(Dependence { rule, refuses: true })
    }

    /// The first class that takes a call. A call to a resource is bound by the classes of all models that it runs: it gets the one that
    /// binds it as much as each of them.
    pub(crate) fn class_of(
        &self,
        subject: Subject<'_>,
        runs: Option<&[String]>,
    ) -> Result<Option<&RouteClass>, ModelRefusal> {
        let (Some(id), Some(runs)) = (subject.model, runs) else { return Ok(self.route_class(subject)) };
        if !self.classes_ask(id) {
            return Ok(self.route_class(subject));
        }
        let mut classes: Vec<&RouteClass> = Vec::new();
        for model in runs {
            let Some(class) = self.route_class(Subject { model: Some(model), ..subject }) else { return Ok(None) };
            if classes.iter().all(|known| known.name() != class.name()) {
                classes.push(class);
            }
        }
        let strictest = classes.iter().find(|class| classes.iter().all(|other| class.binds_like(other)));
        match (strictest, classes.as_slice()) {
            (Some(class), _) => Ok(Some(class)),
            (None, [first, second, ..]) => Err(ModelRefusal::Classes {
                id: id.to_owned(),
                first: first.name().to_owned(),
                second: second.name().to_owned(),
            }),
            (None, _) => Ok(None),
        }
    }

    fn denies(&self, id: &str) -> bool {
        model::names(id).any(|name| self.deny.iter().any(|pattern| pattern.matches(name)))
    }

    /// Whether `models` depends on what an id runs that does not name its model.
    fn models_ask(&self, id: &str) -> bool {
        let restricts = !self.deny.is_empty() || !self.allow.iter().any(Pattern::takes_all);
        !is_resolved(id) && restricts && !self.allow.iter().any(|pattern| vouches(pattern, id))
    }

    /// Whether `residency` depends on it, because the id does not say where it runs.
    fn residency_asks(&self, id: &str) -> bool {
        matches!(self.check_residency(id), Err(ResidencyRefusal::Hidden(_)))
    }

    /// Whether the choice of the class depends on it.
    pub(crate) fn classes_ask(&self, id: &str) -> bool {
        let takes_all = |patterns: &&[Pattern]| patterns.iter().any(Pattern::takes_all);
        let confined = || self.classes.iter().filter_map(RouteClass::models).filter(|patterns| !takes_all(patterns));
        let named = |patterns: &[Pattern]| patterns.iter().any(|pattern| vouches(pattern, id));
        !is_resolved(id) && confined().next().is_some() && !confined().any(named)
    }
}

#[cfg(test)]
#[path = "opaque_tests.rs"]
mod tests;
