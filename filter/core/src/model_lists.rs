//! Bedrock's lists of models and inference profiles, cut to what their caller may use.

use crate::json_object::{Object, ObjectProblem};
use crate::operation::Operation;
use crate::policy::Policy;
use serde_json::value::RawValue;

/// A list that names models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelList {
    FoundationModels,
    InferenceProfiles,
}

impl ModelList {
    /// The list that an operation answers with, if the policy hides models and bodies can be held. Otherwise all is shown.
    pub(crate) fn of(operation: Operation, policy: &Policy) -> Option<Self> {
        let list = match operation {
            Operation::ListFoundationModels => Self::FoundationModels,
            Operation::ListInferenceProfiles => Self::InferenceProfiles,
            _ => return None,
        };
        (policy.hides_models() && policy.holds_bodies()).then_some(list)
    }

    /// The member with the entries.
    fn member(self) -> &'static str {
        match self {
            Self::FoundationModels => "modelSummaries",
            Self::InferenceProfiles => "inferenceProfileSummaries",
        }
    }

    /// An entry's members with the ids by which it is called.
    fn ids(self) -> [&'static str; 2] {
        match self {
            Self::FoundationModels => ["modelId", "modelArn"],
            Self::InferenceProfiles => ["inferenceProfileId", "inferenceProfileArn"],
        }
    }

    /// The list without the entries that may not be used; `None` if all may. The others keep their bytes.
    /// `may_use` is asked once for an entry, by its id and its ARN.
    pub(crate) fn cut(
        self,
        body: &[u8],
        may_use: impl Fn(&[String]) -> bool,
    ) -> Result<Option<Vec<u8>>, ObjectProblem> {
        let list = Object::parse(body, &[self.member()])?;
        let not_a_list = || ObjectProblem::Member(self.member(), "a list");
        let value = list.get(self.member())?.ok_or_else(not_a_list)?;
        let entries: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| not_a_list())?;
        let stays = |entry: &&&RawValue| self.is_usable(entry, &may_use);
        let kept: Vec<&str> = entries.iter().filter(stays).map(|entry| entry.get()).collect();
        if kept.len() == entries.len() {
            return Ok(None);
        }
        Ok(Some(list.with(value, &format!("[{}]", kept.join(","))).into_bytes()))
    }

    /// An entry whose ids cannot be read is left out.
    fn is_usable(self, entry: &RawValue, may_use: impl Fn(&[String]) -> bool) -> bool {
        let Ok(entry) = Object::parse(entry.get().as_bytes(), &self.ids()) else { return false };
        let ids: Result<Vec<_>, _> = self.ids().into_iter().map(|name| entry.text(name)).collect();
        ids.is_ok_and(|ids| may_use(&ids.into_iter().flatten().collect::<Vec<_>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(list: ModelList, body: &str) -> Result<Option<String>, ObjectProblem> {
        let may_use = |ids: &[String]| ids.iter().any(|id| id.contains("good"));
        list.cut(body.as_bytes(), may_use).map(|body| body.map(|body| String::from_utf8(body).unwrap()))
    }

    #[test]
    fn entries_that_stay_keep_their_bytes() {
        let good = r#"{ "modelId" : "good.a", "new": [1.10, 1e400, {"x":"\u00e4"}], "modelArn":"arn:x/good.a"}"#;
        let bad = r#"{"modelId":"bad.b","modelArn":"arn:x/bad.b"}"#;
        let other = r#"{"modelArn":"arn:x/good.c","modelLifecycle":{"status":"ACTIVE"}}"#;
        let body = format!("{{\"before\":0.10 ,\"modelSummaries\": [\n{good} ,{bad},\n{other}] , \"after\":null}}\n");
        let wanted = format!("{{\"before\":0.10 ,\"modelSummaries\": [{good},{other}] , \"after\":null}}\n");
        assert_eq!(cut(ModelList::FoundationModels, &body), Ok(Some(wanted)));

        let profiles = r#"{"inferenceProfileSummaries":[{"inferenceProfileId":"us.bad","inferenceProfileArn":"a/us.bad"}],"nextToken":"t"}"#;
        let wanted = r#"{"inferenceProfileSummaries":[],"nextToken":"t"}"#;
        assert_eq!(cut(ModelList::InferenceProfiles, profiles), Ok(Some(wanted.to_owned())));
    }

    #[test]
    fn a_list_that_may_be_used_is_left_alone() {
        for body in [r#"{"modelSummaries":[]}"#, r#" { "modelSummaries" : [ {"modelId":"good.a"} ] } "#] {
            assert_eq!(cut(ModelList::FoundationModels, body), Ok(None), "{body}");
        }
    }

    #[test]
    fn refuses_entries_whose_ids_cannot_be_read() {
        for entry in [
            "1",
            "null",
            "[]",
            "{}",
            r#"{"modelId":1,"modelArn":"good"}"#,
            r#"{"modelId":null}"#,
            r#"{"modelId":"good","modelId":"bad"}"#,
            r#"{"modelId":"good","model\u0041rn":"a","modelArn":"b"}"#,
            r#"{"modelid":"good"}"#,
            r#"{"modelId":"\ud800good"}"#,
        ] {
            let body = format!(r#"{{"modelSummaries":[{entry}]}}"#);
            let wanted = r#"{"modelSummaries":[]}"#.to_owned();
            assert_eq!(cut(ModelList::FoundationModels, &body), Ok(Some(wanted)), "{entry}");
        }
    }

    #[test]
    fn refuses_lists_that_cannot_be_read() {
        let member = |name| ObjectProblem::Member(name, "a list");
        for (body, wanted) in [
            ("", ObjectProblem::NotAnObject),
            (r#"{"modelSummaries":[{"modelId":"good"}"#, ObjectProblem::NotAnObject),
            ("{}", member("modelSummaries")),
            (r#"{"modelSummaries":null}"#, member("modelSummaries")),
            (r#"{"modelSummaries":{}}"#, member("modelSummaries")),
            (r#"{"models":[]}"#, member("modelSummaries")),
            (r#"{"modelSummaries":[],"modelSummaries":[]}"#, ObjectProblem::Repeated("modelSummaries")),
        ] {
            assert_eq!(cut(ModelList::FoundationModels, body), Err(wanted), "{body}");
        }
    }
}
