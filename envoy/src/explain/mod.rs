//! `bedrock-gateway explain`: what the gateway would do with a request, and why. Where AWS refuses the signature, it
//! compares AWS's texts with the gateway's. It sends nothing.

pub mod aws;
pub mod build_report;
pub mod compare;
mod curl;
pub mod dry_run;
pub mod error;
mod handoff;
mod http;
mod lists;
pub mod mask;
pub mod path_choice;
pub mod reasons;
pub mod record;
pub mod report;
pub mod request;
pub mod retention;
pub mod routes;
pub mod rules;
mod shell;
pub mod signature;
pub mod subject;
mod text;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use audit::text::{visible_json, visible_lines};
use filter_core::config::{Auth, Config, RouteClass};
use filter_core::names::RegionName;
use filter_core::policy::Policy;
use filter_core::route::environment_order;
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::credentials;
use crate::document::Choices;
use crate::gateway::{self, Options};
use build_report::Choice;
use dry_run::{DryRun, Lookup};
use error::ExplainError;
use path_choice::PathChoice;
use report::Report;
use retention::RegionMode;
use subject::Subject;

const AMZ_DATE: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// What to explain.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Explain {
    /// A curl command line, a file with a raw HTTP/1.1 request, or an audit record as JSON (itself or in a file).
    pub request: String,
    /// The filter's document (YAML or JSON, docs/configuration.md), instead of the example that this program carries.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// A path that the gateway has, by name or as `up` takes it. May be given for each [default: all paths].
    #[arg(long = "path", value_name = "NAME[=HOST:PORT]")]
    pub paths: Vec<PathChoice>,
    /// The caller's name, as the mesh would prove it.
    #[arg(long, value_name = "NAME")]
    pub principal: Option<String>,
    /// A group of the caller, as the mesh would prove it. May be given for each.
    #[arg(long = "group", value_name = "NAME")]
    pub groups: Vec<String>,
    /// Explain the first attempt in this region.
    #[arg(long, value_name = "REGION")]
    pub region: Option<RegionName>,
    /// The data retention mode of the account in a region, for classes with `retention`. May be given for each [default: what is
    /// demanded].
    #[arg(long = "retention", value_name = "REGION=MODE")]
    pub retention: Vec<RegionMode>,
    /// Sign for this time, instead of the time in AWS's answer or the current time.
    #[arg(long, value_name = "YYYYMMDDTHHMMSSZ")]
    pub time: Option<AmzDate>,
    /// The body of AWS's 403, to compare with.
    #[arg(long, value_name = "FILE")]
    pub error_body: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A time in the form of `x-amz-date`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmzDate(pub SystemTime);

/// A text is not an [`AmzDate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time of the form YYYYMMDDTHHMMSSZ, such as 20260102T030405Z")]
pub struct AmzDateError;

impl FromStr for AmzDate {
    type Err = AmzDateError;

    fn from_str(text: &str) -> Result<Self, AmzDateError> {
        let time = PrimitiveDateTime::parse(text, AMZ_DATE).map_err(|_| AmzDateError)?;
        Ok(Self(time.assume_utc().into()))
    }
}

impl Explain {
    /// Explains the request, as text or JSON without a line break at the end. `environment` reads a variable.
    ///
    /// # Errors
    /// One line: what is wrong with the request, the document or an option, and where.
    pub fn run(&self, environment: Lookup<'_>) -> Result<String, crate::Error> {
        let report = self.report(environment)?;
        if self.json {
            let json =
                serde_json::to_string_pretty(&report).map_err(|error| crate::Error::Failed(error.to_string()))?;
            return Ok(visible_json(&json));
        }
        // The record or the request may hold text that a client chose.
        Ok(visible_lines(report.to_string().trim_end()).into_owned())
    }

    /// The report as data.
    ///
    /// # Errors
    /// As [`Explain::run`].
    pub fn report(&self, environment: Lookup<'_>) -> Result<Report, crate::Error> {
        let subject = Subject::read(&self.request).map_err(ExplainError::from)?;
        let aws = self.refused()?;
        let options = Options { policy: self.policy.clone(), ..Options::default() };
        let (_, written, _) = gateway::written(&options)?;
        let auth = match written.auth() {
            Some(auth) => auth,
            None if written.fetches() => Auth::Sigv4,
            None => credentials::find(None, environment)?.auth,
        };
        let paths = environment("BEDROCK_PATHS").filter(|paths| !paths.is_empty());
        let choices =
            Choices { auth, fips: false, regions: Vec::new(), paths: paths.clone(), audited: true, desk: None };
        let document = written.compile(&choices)?;
        // The filter reads BEDROCK_PATHS too, and refuses the calls of a class that it leaves without a path.
        let order = environment_order(paths.as_deref()).map_err(ExplainError::from)?;
        let policy = Policy::compile(&without_ages(document.config()), order.as_deref()).map_err(ExplainError::from)?;

        let aws_time = aws.as_ref().and_then(|refused| refused.time()?.parse::<AmzDate>().ok());
        let now = self.time.or(aws_time).map_or_else(SystemTime::now, |time| time.0);
        let recorded = match &subject {
            Subject::Record(record) => record.record.principal.clone(),
            Subject::Request(_) => None,
        };
        let principal = self.principal.clone().or(recorded);
        let unnamed = principal.is_none();
        let run = DryRun::new(document.config(), &policy, principal, now, environment).map_err(ExplainError::from)?;
        let run = run.in_groups(&self.groups).with_retention(&self.retention);
        let choice = Choice { paths: self.paths.clone(), region: self.region.clone(), aws };
        let mut report = Report::build(&run, &subject, &choice).map_err(ExplainError::from)?;
        if unnamed {
            report.notes.extend(policy.warnings().into_iter().map(|warning| warning.to_string()));
        }
        if self.time.is_none() && aws_time.is_some() {
            report.notes.push("signed for the time in AWS's answer; give --time to compare the time too".to_owned());
        }
        Ok(report)
    }

    fn refused(&self) -> Result<Option<aws::Refused>, ExplainError> {
        let Some(file) = &self.error_body else { return Ok(None) };
        let body = std::fs::read_to_string(file).map_err(|error| ExplainError::File { file: file.clone(), error })?;
        aws::parse(&body).map(Some).ok_or_else(|| ExplainError::ErrorBody(file.clone()))
    }
}

/// The document for a gateway that has read no list: by their age all would be refused.
fn without_ages(config: &Config) -> Config {
    let unaged = |class: &RouteClass| RouteClass { catalogue_max_age_seconds: None, ..class.clone() };
    Config { route_classes: config.route_classes.iter().map(unaged).collect(), ..config.clone() }
}
