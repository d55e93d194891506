//! The data retention of an account in a region, and of its projects.

use std::collections::BTreeMap;

/// The project of calls that name none.
const DEFAULT: &str = "default";

/// What is set. Any text may be a mode, so that a new one of AWS's can be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The account's mode.
    pub account: String,
    /// The projects' modes, by id; the default project's is always among them.
    pub projects: BTreeMap<String, String>,
    /// The status of every answer that says a mode, if it is an error.
    pub fault: Option<u16>,
}

impl Default for Retention {
    /// A new account: nothing is set.
    fn default() -> Self {
        Self::of("inherit", "inherit")
    }
}

impl Retention {
    /// The modes of the account and its default project.
    #[must_use]
    pub fn of(account: &str, project: &str) -> Self {
        Self {
            account: account.to_owned(),
            projects: BTreeMap::from([(DEFAULT.to_owned(), project.to_owned())]),
            fault: None,
        }
    }

    /// The same with one more project.
    #[must_use]
    pub fn project(mut self, id: &str, mode: &str) -> Self {
        self.projects.insert(id.to_owned(), mode.to_owned());
        self
    }

    /// The same, but its modes cannot be read.
    #[must_use]
    pub fn unreadable(self, status: u16) -> Self {
        Self { fault: Some(status), ..self }
    }

    /// The mode of a call that names this project, or none: the project's, then the account's, then the model's own (`default`),
    /// by <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ProjectDataRetention.html>.
    #[must_use]
    pub fn effective(&self, project: Option<&str>) -> &str {
        let own = self.projects.get(project.map_or(DEFAULT, id_of)).map_or("inherit", String::as_str);
        match (own, self.account.as_str()) {
            ("inherit", "inherit") => "default",
            ("inherit", account) => account,
            (own, _) => own,
        }
    }
}

/// The id of a project, which may be given as an ARN.
pub(crate) fn id_of(given: &str) -> &str {
    given.split_once(":project/").map_or(given, |(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::Retention;

    #[test]
    fn a_project_wins_over_its_account() {
        for (account, project, wanted) in [
            ("inherit", "inherit", "default"),
            ("none", "inherit", "none"),
            ("none", "provider_data_share", "provider_data_share"),
            ("none", "default", "default"),
            ("default", "inherit", "default"),
        ] {
            let retention = Retention::of(account, project).project("proj_a", "aws_review");
            assert_eq!(retention.effective(None), wanted, "{account} {project}");
            assert_eq!(
                retention.effective(Some("arn:aws:bedrock:us-east-1:111122223333:project/proj_a")),
                "aws_review"
            );
        }
    }
}
