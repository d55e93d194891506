//! Which models a caller may use: what lists show, and what may be described.

use super::{ModelRefusal, Policy};
use crate::config::{Auth, Role};
use crate::inventory::{Entry, Names};
use crate::model;
use crate::operation::{Call, OPERATIONS, Operation};
use crate::request_body::has_model;
use crate::route::{RouteClass, Subject};
use crate::rules::{self, Body, Decision, ModelId, Models};
use std::time::SystemTime;

/// Who asks what may be used, and when.
#[derive(Debug, Clone, Copy)]
pub struct Viewer<'a> {
    /// The caller's name.
    pub principal: Option<&'a str>,
    /// The caller's groups.
    pub groups: &'a [String],
    /// The time.
    pub now: SystemTime,
}

impl Policy {
    /// Whether callers may use some models only.
    pub fn hides_models(&self) -> bool {
        self.depends_on_model() || self.rules.enforce()
    }

    /// Whether bodies can be held until they are complete. A WasmPlugin of Istio cannot: Envoy gives it no body while it holds headers.
    pub fn holds_bodies(&self) -> bool {
        self.role != Role::Combined || self.auth != Auth::Bearer
    }

    /// Whether a caller may use the model that an id names: some operation that runs a model would be carried.
    pub fn may_use(&self, viewer: Viewer<'_>, id: &str) -> bool {
        self.resolve_model(id).is_ok_and(|id| self.takes_model(viewer, &id))
    }

    /// The same of what has several names: its id first, then its ARN. The ARN is asked only where it may tell more than the id.
    pub(crate) fn may_use_by(&self, viewer: Viewer<'_>, names: &[String]) -> bool {
        let Some((id, others)) = names.split_first() else { return false };
        let asks = || self.names_arns || !model::is_resolved(id);
        self.may_use(viewer, id) || (asks() && others.iter().any(|arn| self.may_use(viewer, arn)))
    }

    /// Refuses to describe a model that the caller may not use, as the lists do not show it.
    pub(crate) fn check_described(&self, call: &Call, viewer: Viewer<'_>) -> Result<(), ModelRefusal> {
        let describes = call.operation.describes_model() || call.operation == Operation::GetInferenceProfile;
        let id = call.labels.first().filter(|_| describes && self.hides_models());
        let Some(id) = id.map(|id| self.resolve_model(id)).transpose()? else { return Ok(()) };
        if self.takes_model(viewer, &id) { Ok(()) } else { Err(ModelRefusal::NoClass(id)) }
    }

    /// Whether an operation names its model where the rules for models do not see it: the class is chosen before the body
    /// arrives, and role `combined` does not hold a body that it does not sign.
    pub(crate) fn hides_model(&self, operation: Operation) -> bool {
        let streams = !self.holds_bodies();
        let too_late = || self.classes.iter().any(RouteClass::depends_on_model) || (streams && self.depends_on_model());
        has_model(operation) && too_late()
    }

    /// Whether a class takes a call of the caller that runs the model, and the rules allow it.
    fn takes_model(&self, viewer: Viewer<'_>, id: &str) -> bool {
        if let Some(runs) = self.entry(id) {
            return runs.iter().all(|model| self.takes_model(viewer, model));
        }
        self.operations_with_model().any(|operation| {
            let classes = self.classes_for(viewer, operation, id);
            classes.into_iter().any(|class| self.rules_admit(viewer, (operation, id, &[]), class))
        })
    }

    /// The route classes that take calls of the caller which run the model, if the rules allow one; in order. `profiles` gives the
    /// inference profiles by which a class's calls may go.
    pub(crate) fn classes_of_model<'a, 'p>(
        &'a self,
        viewer: Viewer<'_>,
        id: &str,
        profiles: impl Fn(&RouteClass) -> Vec<&'p str>,
    ) -> Vec<&'a RouteClass> {
        let most = self.classes.iter().filter(|class| class.takes_caller(viewer.principal)).count();
        let mut found: Vec<&RouteClass> = Vec::new();
        for operation in self.operations_with_model() {
            if found.len() == most {
                break;
            }
            for class in self.classes_for(viewer, operation, id) {
                if found.iter().any(|known| known.name() == class.name()) {
                    continue;
                }
                if self.rules_admit(viewer, (operation, id, &profiles(class)), class) {
                    found.push(class);
                }
            }
        }
        let is_found = |class: &&RouteClass| found.iter().any(|known| known.name() == class.name());
        self.classes.iter().filter(is_found).collect()
    }

    /// The operations that are carried, and run a model that is judged.
    fn operations_with_model(&self) -> impl Iterator<Item = Operation> {
        let running = OPERATIONS.iter().copied().filter(|operation| runs_model(*operation));
        running.filter(|operation| self.check_operation(*operation).is_ok() && !self.hides_model(*operation))
    }

    /// The classes that take a call, by the length of its body.
    fn classes_for(&self, viewer: Viewer<'_>, operation: Operation, id: &str) -> Vec<&RouteClass> {
        let model = operation.names_model().then_some(id);
        let subject = Subject { operation, model, principal: viewer.principal, body_bytes: None };
        // A call has some length: the condition that is looked at last does not count.
        let takes = |class: &&RouteClass| matches!(class.mismatch(subject), None | Some("body_bytes"));
        let mut over = false;
        // Behind a class that takes any length, none gets a call.
        let reached = |class: &&RouteClass| !std::mem::replace(&mut over, !class.depends_on_length());
        self.classes.iter().filter(takes).take_while(reached).collect()
    }

    /// Whether the rules do not refuse every call of a class to the model.
    fn rules_admit(
        &self,
        viewer: Viewer<'_>,
        (operation, id, profiles): (Operation, &str, &[&str]),
        class: &RouteClass,
    ) -> bool {
        let Viewer { principal, groups, now } = viewer;
        let named = [ModelId::new(id)];
        // What a body may decide is not refused here.
        let body = Body { awaited: true, ..Body::default() };
        let models = Models { named: &named, profiles, ..Models::default() };
        let (class, regions) = (class.name(), class.regions());
        let call = rules::Subject { operation, principal, groups, models, class, regions, body, now };
        !matches!(self.rules.decide(&call), Decision::Denied(_))
    }
}

/// Whether the operation is carried, and needs a model that its caller names.
fn runs_model(operation: Operation) -> bool {
    Entry::of(operation).is_some_and(|entry| {
        let names = entry.members.iter().any(|member| member.names == Names::Model);
        entry.carried() && names && (operation.names_model() || !entry.read_only)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const CLAUDE: &str = "anthropic.claude-v2";
    const PROFILE: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6";

    fn policy(models: Value, classes: Value) -> Policy {
        let document = json!({
            "role": "gateway", "regions": {"us-east-1": {}}, "models": models, "route_classes": classes,
            "optional_operations": ["batch_jobs"],
        });
        Policy::parse(document.to_string().as_bytes(), None).unwrap()
    }

    fn viewer(principal: Option<&str>) -> Viewer<'_> {
        Viewer { principal, groups: &[], now: SystemTime::UNIX_EPOCH }
    }

    fn any() -> Value {
        json!([{"name": "any", "paths": ["dx"]}])
    }

    #[test]
    fn a_model_is_usable_if_a_class_takes_it() {
        let class = |conditions: Value| {
            let mut class = json!({"name": "one", "paths": ["dx"]});
            class.as_object_mut().unwrap().extend(conditions.as_object().unwrap().clone());
            json!([class])
        };
        for (models, classes, principal, id, wanted) in [
            (json!({}), any(), None, CLAUDE, true),
            (json!({"deny": ["anthropic.*"]}), any(), None, CLAUDE, false),
            (json!({"deny": ["anthropic.*"]}), any(), None, "us.anthropic.claude-v2", false),
            (json!({"deny": ["global.*"]}), any(), None, "us.anthropic.claude-v2", true),
            (json!({"allow": ["amazon.*"]}), any(), None, CLAUDE, false),
            (json!({"allow": ["amazon.*"]}), any(), None, "amazon.nova-lite-v1:0", true),
            // What only AWS knows is usable where the operator lists it.
            (json!({"deny": ["meta.*"]}), any(), None, PROFILE, false),
            (json!({"deny": ["meta.*"], "allow": ["*", PROFILE]}), any(), None, PROFILE, true),
            (json!({"deny": ["meta.*"], "allow": ["*", PROFILE]}), any(), None, "a1b2c3d4e5f6", false),
            (json!({}), class(json!({"models": ["amazon.*"]})), None, CLAUDE, false),
            (json!({}), class(json!({"models": ["anthropic.*"]})), None, CLAUDE, true),
            (json!({}), class(json!({"models": ["*"], "principals": ["app-*"]})), Some("app-1"), CLAUDE, true),
            (json!({}), class(json!({"models": ["*"], "principals": ["app-*"]})), Some("other"), CLAUDE, false),
            (json!({}), class(json!({"models": ["*"], "principals": ["app-*"]})), None, CLAUDE, false),
            (json!({}), class(json!({"models": ["*"], "streaming": true})), None, CLAUDE, true),
            (json!({}), class(json!({"models": ["*"], "body_bytes": {"max": 9}})), None, CLAUDE, true),
            (json!({}), class(json!({"models": ["*"], "operations": ["Converse"]})), None, CLAUDE, true),
            (json!({}), class(json!({"models": ["*"], "operations": ["ListFoundationModels"]})), None, CLAUDE, false),
            // Its model is in the body, and a class depends on the model.
            (json!({}), class(json!({"models": ["*"], "operations": ["StartAsyncInvoke"]})), None, CLAUDE, false),
            (json!({}), class(json!({"operations": ["StartAsyncInvoke"]})), None, CLAUDE, true),
            (json!({}), class(json!({"operations": ["CreateModelInvocationJob"]})), None, CLAUDE, true),
            (json!({}), class(json!({"operations": ["Rerank"]})), None, "amazon.rerank-v1:0", false),
        ] {
            let policy = policy(models.clone(), classes.clone());
            assert_eq!(policy.may_use(viewer(principal), id), wanted, "{models} {classes} {principal:?} {id}");
        }
    }

    #[test]
    fn a_model_is_usable_by_the_class_it_reaches() {
        let deny = json!([{"id": "no", "effect": "deny", "classes": ["first"]}]);
        for (first, wanted) in [
            // Every call goes there, and is denied.
            (json!({}), false),
            (json!({"body_bytes": {"max": 9}}), true),
            (json!({"operations": ["Converse"]}), true),
            (json!({"models": ["amazon.*"]}), true),
        ] {
            let mut class = json!({"name": "first", "paths": ["dx"]});
            class.as_object_mut().unwrap().extend(first.as_object().unwrap().clone());
            let document = json!({
                "role": "gateway", "regions": {"us-east-1": {}}, "rules": deny,
                "route_classes": [class, {"name": "second", "paths": ["dx"]}],
            });
            let policy = Policy::parse(document.to_string().as_bytes(), None).unwrap();
            assert_eq!(policy.may_use(viewer(None), CLAUDE), wanted, "{first}");
            let classes = policy.classes_of_model(viewer(None), CLAUDE, |_| Vec::new());
            let names: Vec<&str> = classes.iter().map(|class| class.name()).collect();
            assert_eq!(names, if wanted { &["second"][..] } else { &[] }, "{first}");
        }
    }

    #[test]
    fn an_arn_is_asked_where_it_may_tell_more() {
        let arn = format!("arn:aws:bedrock:us-east-1::foundation-model/{CLAUDE}");
        let by_arn = "arn:aws:bedrock:*::foundation-model/anthropic.*";
        let class = json!([{"name": "any", "paths": ["dx"], "models": [by_arn]}]);
        for (models, classes, names, wanted) in [
            (json!({"deny": ["meta.*"]}), any(), [CLAUDE, arn.as_str()], true),
            // The id decides.
            (json!({"deny": ["arn:*"]}), any(), [CLAUDE, &arn], true),
            (json!({"allow": ["*::foundation-model/*"]}), any(), [CLAUDE, &arn], false),
            // A pattern of ARNs.
            (json!({"allow": [by_arn]}), any(), [CLAUDE, &arn], true),
            (json!({}), class, [CLAUDE, &arn], true),
            // An id that does not say which model it is.
            (json!({"deny": ["meta.*"], "allow": ["*", PROFILE]}), any(), ["a1b2c3d4e5f6", PROFILE], true),
            (json!({"deny": ["meta.*"]}), any(), ["a1b2c3d4e5f6", PROFILE], false),
        ] {
            let policy = policy(models.clone(), classes.clone());
            let names = names.map(str::to_owned);
            assert_eq!(policy.may_use_by(viewer(None), &names), wanted, "{models} {classes} {names:?}");
        }
        assert!(!policy(json!({}), any()).may_use_by(viewer(None), &[]));
    }

    #[test]
    fn refuses_to_describe_what_may_not_be_used() {
        let get = |path: &str| Call::recognise("GET", path).unwrap();
        let denied = policy(json!({"deny": ["anthropic.*"]}), any());
        for path in [
            "/foundation-models/anthropic.claude-v2",
            "/foundation-model-availability/anthropic.claude-v2",
            "/inference-profiles/us.anthropic.claude-v2",
            "/inference-profiles/a1b2c3d4e5f6",
        ] {
            assert!(denied.check_described(&get(path), viewer(None)).is_err(), "{path}");
            assert_eq!(policy(json!({}), any()).check_described(&get(path), viewer(None)), Ok(()), "{path}");
        }
        assert_eq!(denied.check_described(&get("/foundation-models/amazon.nova-lite-v1:0"), viewer(None)), Ok(()));
        assert_eq!(denied.check_described(&get("/custom-models/a1b2c3d4e5f6"), viewer(None)), Ok(()));
        let confined = json!([
            {"name": "claude", "models": ["anthropic.*"], "principals": ["app"], "paths": ["dx"]},
            {"name": "lists", "operations": ["GetFoundationModel"], "paths": ["dx"]},
        ]);
        let confined = policy(json!({}), confined);
        let get = get("/foundation-models/anthropic.claude-v2");
        assert_eq!(confined.check_described(&get, viewer(Some("app"))), Ok(()));
        assert_eq!(confined.check_described(&get, viewer(None)), Err(ModelRefusal::NoClass(CLAUDE.to_owned())));
    }

    #[test]
    fn rules_hide_what_they_refuse() {
        let mut document = json!({
            "role": "gateway", "regions": {"us-east-1": {}}, "route_classes": any(), "principal": [{"from": "mtls"}],
            "rules": [
                {"id": "all", "effect": "allow", "principals": ["app"]},
                {"id": "no-opus", "effect": "deny", "models": ["*opus*"]},
                {"id": "team", "effect": "allow", "groups": ["team"], "models": ["anthropic.*"], "max_tokens": 9},
            ],
        });
        let load = |document: &Value| Policy::parse(document.to_string().as_bytes(), None).unwrap();
        let policy = load(&document);
        let team = ["team".to_owned()];
        let in_team = Viewer { groups: &team, ..viewer(None) };
        for (viewer, id, wanted) in [
            (viewer(Some("app")), CLAUDE, true),
            (viewer(Some("app")), "amazon.nova-lite-v1:0", true),
            (viewer(Some("app")), "us.anthropic.claude-opus-5", false),
            (viewer(Some("other")), CLAUDE, false),
            (viewer(None), CLAUDE, false),
            // A limit may be met.
            (in_team, CLAUDE, true),
            (in_team, "amazon.nova-lite-v1:0", false),
            (in_team, "anthropic.claude-opus-5", false),
        ] {
            assert_eq!(policy.may_use(viewer, id), wanted, "{viewer:?} {id}");
        }
        let get = Call::recognise("GET", "/foundation-models/anthropic.claude-v2").unwrap();
        assert_eq!(policy.check_described(&get, viewer(Some("app"))), Ok(()));
        assert!(policy.check_described(&get, viewer(Some("other"))).is_err());
        // Rules that are only tried hide nothing.
        for rule in document["rules"].as_array_mut().unwrap() {
            rule["mode"] = json!("dry_run");
        }
        assert!(load(&document).may_use(viewer(None), CLAUDE));
    }
}
