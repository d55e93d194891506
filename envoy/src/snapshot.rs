//! `bedrock-gateway catalogue snapshot`: the lists of regions as the document's `catalogue.snapshot` and, of GovCloud's regions, its
//! `gateway_api.govcloud`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use filter_core::catalogue::lists::{ListError, Lists};
use filter_core::config::Snapshot;
use filter_core::names::Partition;
use serde_json::json;

use crate::{Error, yaml};

/// The files of a region: `us-east-1=models.json,profiles.json`.
#[derive(Debug, Clone)]
pub struct Saved {
    region: String,
    partition: Partition,
    models: PathBuf,
    profiles: PathBuf,
}

impl FromStr for Saved {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let want = || format!("want REGION=MODELS.json,PROFILES.json, not {text:?}");
        let (region, files) = text.split_once('=').ok_or_else(want)?;
        let (models, profiles) = files.split_once(',').ok_or_else(want)?;
        let partition = Partition::of_region(region).ok_or_else(|| format!("{region:?} is not a region's name"))?;
        Ok(Saved { region: region.to_owned(), partition, models: models.into(), profiles: profiles.into() })
    }
}

/// Reads the lists, and prints the key of each partition.
///
/// # Errors
/// A file cannot be read, or is not a list.
pub fn print(saved: &[Saved]) -> Result<String, Error> {
    let mut snapshots: BTreeMap<&str, BTreeMap<&str, Snapshot>> = BTreeMap::new();
    for Saved { region, partition, models, profiles } in saved {
        let mut lists = Lists::of_models(&read(models)?).map_err(wrong(models))?;
        if lists.add_profiles(&read(profiles)?).map_err(wrong(profiles))?.is_some() {
            let problem = "has a nextToken, so profiles are missing: let the AWS CLI read all pages";
            return Err(Error::Failed(format!("{}: {problem}", profiles.display())));
        }
        let (on_demand, profiles) = lists.ids();
        let key = match partition {
            Partition::Commercial => "snapshot:",
            Partition::GovCloud => "govcloud:",
        };
        snapshots.entry(key).or_default().insert(region, Snapshot { on_demand, profiles });
    }
    let texts = snapshots.iter().map(|(key, snapshot)| {
        let mut text = (*key).to_owned();
        yaml::write(&mut text, &json!(snapshot), 2, key.len() + 1);
        text
    });
    Ok(texts.collect::<Vec<_>>().join("\n"))
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(Error::file("cannot read", file))
}

fn wrong(file: &Path) -> impl Fn(ListError) -> Error {
    move |problem| Error::Failed(format!("{}: {problem}", file.display()))
}

#[cfg(test)]
mod tests {
    use filter_core::config::Config;
    use filter_core::policy::Policy;

    use super::*;
    use crate::document::from_yaml;

    #[test]
    fn a_snapshot_is_the_documents_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            file.display().to_string()
        };
        let models = json!({ "modelSummaries": [
            { "modelId": "a.b", "inferenceTypesSupported": ["ON_DEMAND"] }, { "modelId": "c.d-v1:0" },
        ] });
        let profiles = json!({ "inferenceProfileSummaries": [
            { "inferenceProfileId": "us.c.d-v1:0", "status": "ACTIVE", "type": "SYSTEM_DEFINED" },
            { "inferenceProfileId": "abc", "status": "ACTIVE", "type": "APPLICATION" },
        ] });
        let (models, profiles) =
            (file("models.json", &models.to_string()), file("profiles.json", &profiles.to_string()));
        let of = |region: &str| format!("{region}={models},{profiles}").parse::<Saved>().unwrap();
        let text = print(&[of("us-east-1"), of("eu-west-1")]).unwrap();
        let mut catalogue = from_yaml(&text).unwrap();
        let wanted = json!({ "on_demand": ["a.b"], "profiles": ["us.c.d-v1:0"] });
        assert_eq!(catalogue, json!({ "snapshot": { "eu-west-1": wanted, "us-east-1": wanted } }), "{text}");
        catalogue["refresh_seconds"] = json!(0);
        let document = json!({
            "role": "gateway", "regions": { "us-east-1": {}, "eu-west-1": {} }, "catalogue": catalogue,
            "route_classes": [{ "name": "any", "paths": ["dx"] }],
        });
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        assert!(Policy::compile(&config, None).is_ok());

        // GovCloud's are another key.
        let both = from_yaml(&print(&[of("us-gov-west-1"), of("us-east-1")]).unwrap()).unwrap();
        assert_eq!(both, json!({ "govcloud": { "us-gov-west-1": wanted }, "snapshot": { "us-east-1": wanted } }));
        let mut document = document;
        document["gateway_api"] = json!({ "govcloud": both["govcloud"] });
        let config = Config::parse(document.to_string().as_bytes()).unwrap();
        assert!(Policy::compile(&config, None).is_ok());

        let page = json!({ "inferenceProfileSummaries": [], "nextToken": "t" });
        let page = file("page.json", &page.to_string());
        let error = print(&[format!("us-east-1={models},{page}").parse().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("page.json: has a nextToken"), "{error}");

        let swapped = format!("us-east-1={profiles},{models}").parse::<Saved>().unwrap();
        let error = print(&[swapped]).unwrap_err().to_string();
        assert!(error.contains("profiles.json: the answer is not a list"), "{error}");
        for text in ["us-east-1", "us-east-1=a", "cn-north-1=a,b", "us-east=a,b"] {
            assert!(text.parse::<Saved>().is_err(), "{text}");
        }
    }
}
