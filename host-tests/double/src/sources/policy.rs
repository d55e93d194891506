//! The part of IAM's policy language that the gateway's policies use.
//!
//! Sources: IAM User Guide, "IAM JSON policy elements: Condition operators"
//! (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html) and "Multivalued
//! context keys" (…/reference_policies_condition-single-vs-multi-valued-context-keys.html). An element or operator that is
//! not known here is an error, so that no condition is passed over.

use std::collections::BTreeMap;

use serde_json::Value;

use super::jwt::member;

/// The outcome for one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed,
    /// No statement allows it.
    ImplicitDeny,
    /// A statement denies it.
    ExplicitDeny,
}

/// A request's context: values by key. IAM compares keys without case.
#[derive(Debug, Clone, Default)]
pub(super) struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    pub(super) fn with(mut self, key: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.insert(key.to_ascii_lowercase(), values.into_iter().map(Into::into).collect());
        self
    }

    fn get(&self, key: &str) -> &[String] {
        self.0.get(&key.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }
}

/// Who asks, in a trust policy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Principal<'a> {
    /// `Federated` or `Service`.
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
}

/// Decides on an action by a policy's text. A trust policy names principals and no resources; an identity's policy is the
/// other way round, and these actions have no resource but `*`.
pub(super) fn decide(
    policy: &str,
    action: &str,
    principal: Option<Principal<'_>>,
    context: &Context,
) -> Result<Decision, String> {
    let document: Value = serde_json::from_str(policy).map_err(|error| format!("a policy is not JSON: {error}"))?;
    let mut decision = Decision::ImplicitDeny;
    for statement in list(member(&document, "Statement")) {
        if !applies(statement, action, principal, context)? {
            continue;
        }
        match member(statement, "Effect").as_str() {
            Some("Allow") => decision = Decision::Allowed,
            Some("Deny") => return Ok(Decision::ExplicitDeny),
            other => return Err(format!("a statement has the effect {other:?}")),
        }
    }
    Ok(decision)
}

fn applies(
    statement: &Value,
    action: &str,
    principal: Option<Principal<'_>>,
    context: &Context,
) -> Result<bool, String> {
    let members = statement.as_object().ok_or("a statement is not an object")?;
    let known = ["Sid", "Effect", "Action", "Principal", "Resource", "Condition"];
    if let Some(unknown) = members.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("a statement has {unknown}, which these doubles do not know"));
    }
    let acts = texts(member(statement, "Action")).any(|pattern| like(&pattern.to_lowercase(), &action.to_lowercase()));
    let concerns = match principal {
        Some(principal) => {
            *member(statement, "Principal") == "*"
                || texts(member(member(statement, "Principal"), principal.kind)).any(|name| name == principal.name)
        }
        None => texts(member(statement, "Resource")).any(|resource| resource == "*"),
    };
    Ok(acts && concerns && holds(member(statement, "Condition"), context)?)
}

/// Whether every condition holds.
fn holds(condition: &Value, context: &Context) -> Result<bool, String> {
    let Some(operators) = condition.as_object() else { return Ok(condition.is_null()) };
    for (operator, keys) in operators {
        let keys = keys.as_object().ok_or_else(|| format!("the condition {operator} is not an object"))?;
        for (key, wanted) in keys {
            let wanted: Vec<String> = list(wanted).map(plain).collect();
            if !compare(operator, &wanted, context.get(key))? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn compare(operator: &str, wanted: &[String], given: &[String]) -> Result<bool, String> {
    let (set, rest) = operator.split_once(':').map_or(("", operator), |(set, rest)| (set, rest));
    let (if_exists, name) = rest.strip_suffix("IfExists").map_or((false, rest), |name| (true, name));
    let matches = matcher(name)?;
    let one = |value: &String| wanted.iter().any(|wanted| matches(wanted, value));
    Ok(match set {
        // True for a key without values.
        "ForAllValues" => given.iter().all(one),
        "ForAnyValue" | "" => (if_exists && given.is_empty()) || given.iter().any(one),
        _ => return Err(format!("the condition {operator} is not known to these doubles")),
    })
}

/// Compares a policy's value with a request's.
type Matcher = fn(&str, &str) -> bool;

fn matcher(operator: &str) -> Result<Matcher, String> {
    Ok(match operator {
        "StringEquals" => |wanted, given| wanted == given,
        "StringLike" | "ArnEquals" | "ArnLike" => like,
        "NumericLessThanEquals" => {
            |wanted, given| matches!((wanted.parse::<f64>(), given.parse::<f64>()), (Ok(wanted), Ok(given)) if given <= wanted)
        }
        _ => return Err(format!("the condition operator {operator} is not known to these doubles")),
    })
}

/// Whether a text matches a pattern with `*` and `?`.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = pattern.get(1..).unwrap_or_default();
            like(rest, text)
                || text.char_indices().any(|(at, c)| like(rest, text.get(at + c.len_utf8()..).unwrap_or_default()))
        }
        Some(first) => text.chars().next().is_some_and(|c| {
            (first == '?' || first == c)
                && like(
                    pattern.get(first.len_utf8()..).unwrap_or_default(),
                    text.get(c.len_utf8()..).unwrap_or_default(),
                )
        }),
    }
}

/// One value, or those of a list.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(several) => several.as_slice(),
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
    .iter()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

/// A condition's value as text: numbers and booleans may be written without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(effect: &str, condition: &str) -> String {
        format!(
            r#"{{"Statement":[{{"Effect":"{effect}","Action":"sts:Get*","Resource":"*","Condition":{condition}}}]}}"#
        )
    }

    #[test]
    fn conditions_decide_as_iam_says() {
        let context = Context::default().with("sts:DurationSeconds", ["300"]).with("Aud", ["a", "b"]);
        let allowed = |condition: &str| decide(&one("Allow", condition), "sts:GetX", None, &context).unwrap();
        for (condition, expected) in [
            ("{}", Decision::Allowed),
            (r#"{"NumericLessThanEquals":{"STS:durationseconds":300}}"#, Decision::Allowed),
            (r#"{"NumericLessThanEquals":{"sts:DurationSeconds":"299"}}"#, Decision::ImplicitDeny),
            (r#"{"NumericLessThanEquals":{"missing":300}}"#, Decision::ImplicitDeny),
            (r#"{"NumericLessThanEqualsIfExists":{"missing":300}}"#, Decision::Allowed),
            (r#"{"ForAllValues:StringEquals":{"aud":["a","b","c"]}}"#, Decision::Allowed),
            (r#"{"ForAllValues:StringEquals":{"aud":"a"}}"#, Decision::ImplicitDeny),
            (r#"{"ForAllValues:StringEquals":{"missing":"a"}}"#, Decision::Allowed),
            (r#"{"ForAnyValue:StringLike":{"aud":"?"}}"#, Decision::Allowed),
            (r#"{"StringEquals":{"aud":"A"}}"#, Decision::ImplicitDeny),
        ] {
            assert_eq!(allowed(condition), expected, "{condition}");
        }
        assert_eq!(decide(&one("Deny", "{}"), "sts:GetX", None, &context), Ok(Decision::ExplicitDeny));
        assert_eq!(decide(&one("Allow", "{}"), "sts:PutX", None, &context), Ok(Decision::ImplicitDeny));
        assert!(decide(&one("Allow", r#"{"IpAddress":{"a":"b"}}"#), "sts:GetX", None, &context).is_err());
    }
}
