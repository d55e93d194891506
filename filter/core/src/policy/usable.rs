//! Which models a caller may use: what lists show, and what may be described.

use super::{ModelRefusal, Policy};
use crate::config::{Auth, Role};
use crate::inventory::{Entry, Names};
use crate::operation::{Call, OPERATIONS, Operation};
use crate::request_body::has_model;
use crate::route::{RouteClass, Subject};

impl Policy {
    /// Whether a caller may use the model that an id names: some operation that runs a model would be carried.
    pub fn may_use(&self, principal: Option<&str>, id: &str) -> bool {
        self.resolve_model(id).is_ok_and(|id| self.takes_model(principal, &id))
    }

    /// Refuses to describe a model that the caller may not use, as the lists do not show it.
    pub(crate) fn check_described(&self, call: &Call, principal: Option<&str>) -> Result<(), ModelRefusal> {
        let describes = call.operation.describes_model() || call.operation == Operation::GetInferenceProfile;
        let id = call.labels.first().filter(|_| describes && self.depends_on_model());
        let Some(id) = id.map(|id| self.resolve_model(id)).transpose()? else { return Ok(()) };
        if self.takes_model(principal, &id) { Ok(()) } else { Err(ModelRefusal::NoClass(id)) }
    }

    /// Whether an operation names its model where the rules for models do not see it: the class is chosen before the body
    /// arrives, and role `combined` does not hold a body that it does not sign.
    pub(crate) fn hides_model(&self, operation: Operation) -> bool {
        let streams = self.role == Role::Combined && self.auth == Auth::Bearer;
        let too_late = || self.classes.iter().any(RouteClass::depends_on_model) || (streams && self.depends_on_model());
        has_model(operation) && too_late()
    }

    /// Whether a class takes a call of the caller that runs the model.
    fn takes_model(&self, principal: Option<&str>, id: &str) -> bool {
        let running = OPERATIONS.iter().copied().filter(|operation| runs_model(*operation));
        let mut carried =
            running.filter(|operation| self.check_operation(*operation).is_ok() && !self.hides_model(*operation));
        carried.any(|operation| {
            let model = operation.names_model().then_some(id);
            let subject = Subject { operation, model, principal, body_bytes: None };
            // A call has some length: the condition that is looked at last does not count.
            self.classes.iter().any(|class| matches!(class.mismatch(subject), None | Some("body_bytes")))
        })
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
            assert_eq!(policy.may_use(principal, id), wanted, "{models} {classes} {principal:?} {id}");
        }
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
            assert!(denied.check_described(&get(path), None).is_err(), "{path}");
            assert_eq!(policy(json!({}), any()).check_described(&get(path), None), Ok(()), "{path}");
        }
        assert_eq!(denied.check_described(&get("/foundation-models/amazon.nova-lite-v1:0"), None), Ok(()));
        assert_eq!(denied.check_described(&get("/custom-models/a1b2c3d4e5f6"), None), Ok(()));
        let confined = json!([
            {"name": "claude", "models": ["anthropic.*"], "principals": ["app"], "paths": ["dx"]},
            {"name": "lists", "operations": ["GetFoundationModel"], "paths": ["dx"]},
        ]);
        let confined = policy(json!({}), confined);
        let get = get("/foundation-models/anthropic.claude-v2");
        assert_eq!(confined.check_described(&get, Some("app")), Ok(()));
        assert_eq!(confined.check_described(&get, None), Err(ModelRefusal::NoClass(CLAUDE.to_owned())));
    }
}
