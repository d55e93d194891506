//! A machine reads its settings, an SSM parameter, once: a change of a value in it has to replace the machine.

use std::collections::BTreeSet;

use infra_checks::template::Template;
use infra_checks::templates;
use serde_json::Value;

/// Values that need no tag of their own.
const FIXED: [(&str, &str); 7] = [
    ("AWS::StackName", "a stack keeps its name"),
    ("ArtifactBucket", "a bucket is replaced only with --replace, and its name is the environment's"),
    ("ArtifactKey", "it has the archive's SHA-256"),
    ("ConfigKey", "it has the configuration's SHA-256"),
    ("Environment", "it is in the name of each stack"),
    ("Log", "its name is the stack's"),
    ("Tables", "they are PrivateRouteTableIds"),
];

/// The parameters and resources that a value refers to.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            found.extend(
                text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name.to_owned()),
            );
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(map) => {
            for (key, item) in map {
                if let ("Ref", Some(name)) = (key.as_str(), item.as_str()) {
                    found.insert(name.to_owned());
                }
                references(item, found);
            }
        }
        _ => {}
    }
}

#[test]
fn changed_settings_replace_the_machines() {
    let mut checked = 0;
    for template in Template::all(&templates()).unwrap() {
        let settings: Vec<_> = template.resources().filter(|one| one.id.starts_with("Settings")).collect();
        for settings in settings {
            let (mut values, mut seen) = (BTreeSet::new(), BTreeSet::new());
            references(settings.property("/Value"), &mut values);
            references(settings.property("/Name"), &mut seen);
            let machine =
                template.resources().find(|one| one.id == settings.id.replace("Settings", "Template")).unwrap();
            references(machine.property("/LaunchTemplateData/TagSpecifications"), &mut seen);
            seen.extend(FIXED.iter().map(|(name, _)| (*name).to_owned()));
            let unseen: Vec<_> = values.difference(&seen).collect();
            assert!(unseen.is_empty(), "{} {}: {unseen:?} changes, and the machines stay", template.file, settings.id);
            checked += 1;
        }
    }
    assert_eq!(checked, 3, "the machines' settings; this test may no longer recognise them");
}
