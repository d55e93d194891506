//! A region's lists as Bedrock answers them, read within bounds.
//!
//! Forms: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListFoundationModels.html> and
//! <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_ListInferenceProfiles.html>.

use super::details::Written;
use super::offers::{Listed, Offers};
use crate::query::MAX_VALUE;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Longest answer that is read, in bytes. A model takes some 600, a profile some 1,000.
pub const MAX_BODY: usize = 4 << 20;
/// Most models, and most profiles of a page, that are read.
const MAX_ITEMS: usize = 4000;
/// Longest id that is kept, in bytes (`BedrockModelId` of the API Reference has at most 140).
const LONGEST_ID: usize = 140;
/// Longest geography that is kept, in bytes (`us-gov` is the longest known).
const MAX_GEOGRAPHY: usize = 16;
/// Most geographies of a model.
const MAX_GEOGRAPHIES: usize = 16;

/// What a region lists.
#[derive(Debug, Default)]
pub struct Lists {
    models: BTreeMap<String, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    listed: bool,
    on_demand: bool,
    /// Whether it can be called by a profile.
    by_profile: bool,
    geographies: Vec<String>,
    details: String,
}

/// Why an answer is not a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It is longer than [`MAX_BODY`].
    #[error("the answer has {0} bytes, of which at most {MAX_BODY} are read")]
    TooLong(usize),
    /// It has another form.
    #[error("the answer is not a list: {0}")]
    Form(String),
    /// It lists no model.
    #[error("the answer lists no model")]
    Empty,
    /// Its token for the next page is not one.
    #[error("the answer's `nextToken` is empty or too long")]
    Token,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Models<'a> {
    #[serde(borrow, deserialize_with = "bounded")]
    model_summaries: Vec<Model<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model<'a> {
    #[serde(borrow)]
    model_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "bounded")]
    inference_types_supported: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    input_modalities: Option<&'a RawValue>,
    #[serde(borrow)]
    output_modalities: Option<&'a RawValue>,
    #[serde(borrow)]
    response_streaming_supported: Option<&'a RawValue>,
    #[serde(borrow)]
    model_lifecycle: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profiles<'a> {
    #[serde(borrow, deserialize_with = "bounded")]
    inference_profile_summaries: Vec<Profile<'a>>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile<'a> {
    #[serde(borrow)]
    inference_profile_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

impl Model<'_> {
    fn details(&self) -> Written<'_> {
        Written {
            input: self.input_modalities,
            output: self.output_modalities,
            streaming: self.response_streaming_supported,
            lifecycle: self.model_lifecycle,
        }
    }
}

impl Lists {
    /// Reads the answer to ListFoundationModels.
    ///
    /// # Errors
    /// [`ListError`] says what is wrong with it.
    pub fn of_models(body: &[u8]) -> Result<Self, ListError> {
        let mut lists = Self::default();
        for model in parse::<Models<'_>>(body)?.model_summaries {
            if is_kept(&model.model_id) {
                let on_demand = model.inference_types_supported.iter().any(|kind| kind == "ON_DEMAND");
                let details = model.details().line();
                let entry = lists.models.entry(model.model_id.into_owned()).or_default();
                if !std::mem::replace(&mut entry.listed, true) {
                    entry.details = details;
                }
                entry.on_demand |= on_demand;
                entry.by_profile |= model.inference_types_supported.iter().any(|kind| kind == "INFERENCE_PROFILE");
            }
        }
        if lists.models.is_empty() { Err(ListError::Empty) } else { Ok(lists) }
    }

    /// Adds a page of ListInferenceProfiles. Returns the token of the next one.
    ///
    /// # Errors
    /// [`ListError`] says what is wrong with it.
    pub fn add_profiles(&mut self, body: &[u8]) -> Result<Option<String>, ListError> {
        let page = parse::<Profiles<'_>>(body)?;
        for profile in page.inference_profile_summaries {
            if profile.status != "ACTIVE" || profile.kind != "SYSTEM_DEFINED" {
                continue;
            }
            self.add_profile(&profile.inference_profile_id);
        }
        match page.next_token {
            Some(token) if token.is_empty() || token.len() > MAX_VALUE => Err(ListError::Token),
            token => Ok(token),
        }
    }

    /// From ids that were saved.
    ///
    /// # Errors
    /// The key, the index and the id that is not one of its kind.
    pub fn of_ids<'a>(on_demand: &'a [String], profiles: &'a [String]) -> Result<Self, (&'static str, usize, &'a str)> {
        let mut lists = Self::default();
        for (index, id) in on_demand.iter().enumerate() {
            if !is_kept(id) {
                return Err(("on_demand", index, id));
            }
            lists.models.insert(id.clone(), Entry { listed: true, on_demand: true, ..Entry::default() });
        }
        for (index, id) in profiles.iter().enumerate() {
            if !lists.add_profile(id) {
                return Err(("profiles", index, id));
            }
        }
        Ok(lists)
    }

    /// Whether models need a profile, and none has one: then the list of profiles is not the whole.
    pub fn lacks_profiles(&self) -> bool {
        self.models.values().any(|entry| entry.by_profile && !entry.on_demand)
            && self.models.values().all(|entry| entry.geographies.is_empty())
    }

    /// The ids of what can be called: models by their bare ids, and profiles.
    pub fn ids(&self) -> (Vec<String>, Vec<String>) {
        let on_demand = self.models.iter().filter(|(_, entry)| entry.on_demand).map(|(id, _)| id.clone());
        let profiles = self
            .models
            .iter()
            .flat_map(|(id, entry)| entry.geographies.iter().map(move |geography| format!("{geography}.{id}")));
        (on_demand.collect(), profiles.collect())
    }

    /// Adds a profile. Returns whether the id is one of a system-defined profile.
    fn add_profile(&mut self, profile: &str) -> bool {
        let Some((geography, id)) = profile.split_once('.') else { return false };
        let is_geography = (1..=MAX_GEOGRAPHY).contains(&geography.len())
            && geography.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if !is_geography
            || !id.contains('.')
            || !is_kept(id)
            || (self.models.len() >= MAX_ITEMS && !self.models.contains_key(id))
        {
            return false;
        }
        let geographies = &mut self.models.entry(id.to_owned()).or_default().geographies;
        if geographies.len() < MAX_GEOGRAPHIES && !geographies.iter().any(|known| known == geography) {
            geographies.push(geography.to_owned());
        }
        true
    }

    /// What the region offers by them.
    pub fn offers(mut self) -> Offers {
        self.models.values_mut().for_each(|entry| entry.geographies.sort());
        Offers::of(self.models.iter().map(|(id, entry)| Listed {
            id,
            listed: entry.listed,
            on_demand: entry.on_demand,
            geographies: &entry.geographies,
            details: &entry.details,
        }))
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ListError> {
    if body.len() > MAX_BODY {
        return Err(ListError::TooLong(body.len()));
    }
    serde_json::from_slice(body).map_err(|error| ListError::Form(error.to_string()))
}

/// Whether a client can name the id.
fn is_kept(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// Reads at most [`MAX_ITEMS`].
fn bounded<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Items<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_ITEMS}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while let Some(item) = items.next_element()? {
                if read.len() >= MAX_ITEMS {
                    return Err(A::Error::invalid_length(read.len() + 1, &self));
                }
                read.push(item);
            }
            Ok(read)
        }
    }
    deserializer.deserialize_seq(Items(PhantomData))
}
