//! The models of the double, and the ids under which they can be called.

use thiserror::Error;

use super::fault::ModelFault;
use super::planted::Planted;

/// The default list: ids, providers and the profile prefixes seen for them.
const DEFAULT: &str = include_str!("../../vectors/models.csv");

/// The prefixes that make a model id a system inference profile.
const PREFIXES: &[&str] = &["us-gov", "us", "eu", "apac", "au", "jp", "in", "global"];

/// Providers whose newer models are reached through a profile only.
const PROFILE_ONLY_PROVIDERS: &[&str] = &["anthropic.", "meta.", "deepseek.", "writer."];

/// The prefix of model ids that ask for a fault.
pub(crate) const FAULT: &str = "fault.";

/// The account that all of the double's ARNs name.
pub const ACCOUNT: &str = "123456789012";

/// One foundation model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The bare id.
    pub id: String,
    /// The provider, in lower case.
    pub provider: String,
    /// Its use: `chat`, `embedding`, `image_generation` …
    pub mode: String,
    /// Prefixes of its inference profiles.
    pub prefixes: Vec<String>,
    /// Whether the bare id can be called.
    pub on_demand: bool,
    /// The day of its end (`2026-09-30`), if its list says it.
    pub end: Option<String>,
    /// Whether the list says so.
    pub listed_on_demand: bool,
}

/// A list of models.
#[derive(Debug, Clone)]
pub struct Catalogue {
    models: Vec<Model>,
    /// The account's own resources.
    resources: Vec<Planted>,
}

/// Why a list of models is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogueError {
    /// A column is not in the head line.
    #[error("models: no column {0:?}")]
    Column(&'static str),
    /// Only a head line.
    #[error("models: the list is empty")]
    Empty,
}

/// The target of a `modelId`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A model, by its bare id.
    Model(String),
    /// A fault.
    Fault(ModelFault),
}

/// Why a `modelId` cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelRefusal {
    /// The bare id of a model that needs a profile. The words: <https://github.com/anthropics/anthropic-sdk-python/issues/894>.
    #[error(
        "Invocation of model ID {0} with on-demand throughput isn\u{2019}t supported. Retry your request with the ID or ARN of an inference \
         profile that contains this model."
    )]
    NeedsProfile(String),
    /// No such model or profile here.
    #[error("Could not resolve the foundation model from the provided model identifier.")]
    Unknown,
    /// An ARN of another partition, region or service, or a malformed identifier.
    #[error("The provided model identifier is invalid.")]
    Invalid,
}

impl ModelRefusal {
    /// Status and error type.
    #[must_use]
    pub fn answer(&self) -> (u16, &'static str) {
        match self {
            Self::NeedsProfile(_) | Self::Invalid => (400, "ValidationException"),
            Self::Unknown => (404, "ResourceNotFoundException"),
        }
    }
}

impl Catalogue {
    /// The list that comes with the double.
    ///
    /// # Errors
    /// Never; a test reads the shipped list.
    pub fn shipped() -> Result<Self, CatalogueError> {
        Self::from_csv(DEFAULT)
    }

    /// Reads a list with the columns `model_id`, `provider`, `mode`, `profile_prefixes_seen` (`|` between them) and, if the
    /// list decides it itself, `on_demand` (`yes`, `no`, or `listed`: the list says `yes`, and calls are refused) and
    /// `deprecation_date`. Cells hold no commas.
    ///
    /// # Errors
    /// A column is missing, or the list is empty.
    pub fn from_csv(text: &str) -> Result<Self, CatalogueError> {
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let column =
            |name: &'static str| head.iter().position(|cell| *cell == name).ok_or(CatalogueError::Column(name));
        let (id, provider, mode, prefixes) =
            (column("model_id")?, column("provider")?, column("mode")?, column("profile_prefixes_seen")?);
        let (on_demand, end) = (column("on_demand").ok(), column("deprecation_date").ok());
        let models: Vec<Model> = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let cells: Vec<&str> = line.split(',').collect();
                let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
                let seen: Vec<String> =
                    cell(prefixes).split('|').filter(|prefix| !prefix.is_empty()).map(str::to_owned).collect();
                let by_rule = || {
                    !(seen.iter().any(|prefix| prefix == "us")
                        && PROFILE_ONLY_PROVIDERS.iter().any(|of| cell(id).starts_with(of)))
                };
                let is_on_demand = on_demand.map_or_else(by_rule, |at| cell(at) == "yes");
                Model {
                    id: cell(id).to_owned(),
                    provider: cell(provider).to_owned(),
                    mode: cell(mode).to_owned(),
                    on_demand: is_on_demand,
                    end: end.map(|at| cell(at).to_owned()).filter(|day| !day.is_empty()),
                    listed_on_demand: is_on_demand || on_demand.is_some_and(|at| cell(at) == "listed"),
                    prefixes: seen,
                }
            })
            .collect();
        if models.is_empty() { Err(CatalogueError::Empty) } else { Ok(Self { models, resources: Vec::new() }) }
    }

    /// The same with these resources.
    #[must_use]
    pub fn with_resources(self, resources: Vec<Planted>) -> Self {
        Self { resources, ..self }
    }

    /// The account's own resources.
    #[must_use]
    pub fn resources(&self) -> &[Planted] {
        &self.resources
    }

    /// The models, in the list's order.
    #[must_use]
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// A model by its bare id or its foundation-model ARN.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Model> {
        let bare = id.rsplit_once("foundation-model/").map_or(id, |(_, bare)| bare);
        self.models.iter().find(|model| model.id == bare)
    }

    /// The inference profiles that a region offers, as prefix and model.
    pub fn profiles<'a>(&'a self, region: &'a str) -> impl Iterator<Item = (&'a str, &'a Model)> {
        self.models
            .iter()
            .flat_map(|model| model.prefixes.iter().map(move |prefix| (prefix.as_str(), model)))
            .filter(move |(prefix, _)| serves(prefix, region))
    }

    /// Resolves a `modelId` as Bedrock does in `region`. `bare_is_enough`: the operation takes the bare id (CountTokens).
    ///
    /// # Errors
    /// Why it cannot be called.
    pub fn resolve(&self, model_id: &str, region: &str, bare_is_enough: bool) -> Result<Target, ModelRefusal> {
        let Some(rest) = model_id.strip_prefix("arn:") else {
            if self.resources.iter().any(|planted| planted.is(model_id, region)) {
                return Ok(Target::Model(model_id.to_owned()));
            }
            return self.resolve_id(model_id, region, bare_is_enough);
        };
        // aws:bedrock:REGION:ACCOUNT:KIND/NAME; a foundation model's ARN has no account.
        let parts: Vec<&str> = rest.splitn(5, ':').collect();
        let ["aws", "bedrock" | "sagemaker", arn_region, _, resource] = parts[..] else {
            return Err(ModelRefusal::Invalid);
        };
        if arn_region != region {
            return Err(ModelRefusal::Invalid);
        }
        match resource.split_once('/') {
            Some(("inference-profile", id)) if split_profile(id).is_some() => self.resolve_id(id, region, false),
            Some(("foundation-model", id)) if split_profile(id).is_none() => {
                self.resolve_id(id, region, bare_is_enough)
            }
            Some((
                "application-inference-profile"
                | "provisioned-model"
                | "imported-model"
                | "custom-model-deployment"
                | "prompt-router"
                | "prompt"
                | "default-prompt-router"
                | "endpoint",
                name,
            )) if !name.is_empty() => Ok(Target::Model(model_id.to_owned())),
            _ => Err(ModelRefusal::Invalid),
        }
    }

    fn resolve_id(&self, id: &str, region: &str, bare_is_enough: bool) -> Result<Target, ModelRefusal> {
        let (prefix, bare) = split_profile(id).map_or((None, id), |(prefix, bare)| (Some(prefix), bare));
        if bare.starts_with(FAULT) {
            return ModelFault::from_name(bare).map(Target::Fault).ok_or(ModelRefusal::Unknown);
        }
        let model = self.models.iter().find(|model| model.id == bare).ok_or(ModelRefusal::Unknown)?;
        match prefix {
            Some(prefix) if !serves(prefix, region) => Err(ModelRefusal::Invalid),
            Some(prefix) if !model.prefixes.iter().any(|seen| seen == prefix) => Err(ModelRefusal::Unknown),
            None if !model.on_demand && !bare_is_enough => Err(ModelRefusal::NeedsProfile(id.to_owned())),
            _ => Ok(Target::Model(model.id.clone())),
        }
    }
}

/// `us.anthropic.…` → (`us`, `anthropic.…`).
fn split_profile(id: &str) -> Option<(&str, &str)> {
    let (prefix, rest) = id.split_once('.')?;
    PREFIXES.contains(&prefix).then_some((prefix, rest))
}

/// Whether a region knows the profiles of a prefix.
fn serves(prefix: &str, region: &str) -> bool {
    match prefix {
        "us" => (region.starts_with("us-") && !region.starts_with("us-gov-")) || region.starts_with("ca-"),
        "us-gov" => region.starts_with("us-gov-"),
        "eu" => region.starts_with("eu-"),
        "apac" => region.starts_with("ap-"),
        "jp" => matches!(region, "ap-northeast-1" | "ap-northeast-3"),
        "au" => matches!(region, "ap-southeast-2" | "ap-southeast-4"),
        "in" => matches!(region, "ap-south-1" | "ap-south-2"),
        "global" => !region.starts_with("us-gov-"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(id: &str) -> Result<Target, ModelRefusal> {
        Catalogue::shipped().unwrap().resolve(id, "us-east-1", false)
    }

    fn model(id: &str) -> Result<Target, ModelRefusal> {
        Ok(Target::Model(id.to_owned()))
    }

    #[test]
    fn resolves_as_the_table_says() {
        let sonnet = "anthropic.claude-3-5-sonnet-20241022-v2:0";
        let needs = |id: &str| Err(ModelRefusal::NeedsProfile(id.to_owned()));
        for (id, want) in [
            ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", model(sonnet)),
            ("global.anthropic.claude-sonnet-4-20250514-v1:0", model("anthropic.claude-sonnet-4-20250514-v1:0")),
            (
                "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-5-sonnet-20241022-v2:0",
                model(sonnet),
            ),
            ("amazon.nova-lite-v1:0", model("amazon.nova-lite-v1:0")),
            ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0", model("amazon.nova-lite-v1:0")),
            (
                "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
                model("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"),
            ),
            (sonnet, needs(sonnet)),
            ("meta.llama4-scout-17b-instruct-v1:0", needs("meta.llama4-scout-17b-instruct-v1:0")),
            ("eu.anthropic.claude-3-5-sonnet-20241022-v2:0", Err(ModelRefusal::Invalid)),
            ("us.amazon.titan-text-express-v1", Err(ModelRefusal::Unknown)),
            ("us.unknown.nothing-v1:0", Err(ModelRefusal::Unknown)),
            (
                "arn:aws:bedrock:us-west-2:123456789012:inference-profile/us.anthropic.claude-3-5-sonnet-20241022-v2:0",
                Err(ModelRefusal::Invalid),
            ),
            (
                "arn:aws-us-gov:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama4-scout-17b-instruct-v1:0",
                Err(ModelRefusal::Invalid),
            ),
            ("us.fault.silent", Ok(Target::Fault(ModelFault::Silent))),
            ("fault.silent", Ok(Target::Fault(ModelFault::Silent))),
            ("fault.nonsense", Err(ModelRefusal::Unknown)),
        ] {
            assert_eq!(resolve(id), want, "{id}");
        }
    }

    #[test]
    fn a_list_of_its_own_decides() {
        let own = Catalogue::from_csv("model_id,provider,mode,profile_prefixes_seen,on_demand\nx.y-v1,x,chat,us,no\n")
            .unwrap();
        assert!(matches!(own.resolve("x.y-v1", "us-east-1", false), Err(ModelRefusal::NeedsProfile(_))));
        assert!(own.resolve("x.y-v1", "us-east-1", true).is_ok());
        assert_eq!(Catalogue::from_csv("model_id\n").unwrap_err(), CatalogueError::Column("provider"));
    }
}
