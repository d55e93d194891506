use crate::catalogue::lists::Lists;
use crate::catalogue::offers::Offers;
use crate::catalogue::tests::{at, models, profiles, store};
use crate::gateway_api::tests::{answered, ask, client, document};
use serde_json::{Value, json};

/// The list for a caller, whose gateway knows what regions offer.
fn list(document: &Value, principal: Option<&str>, known: &[(&str, Offers)]) -> Value {
    let mut client = client(document);
    client.catalogue = store(known);
    client.now = at(10);
    answered(ask(&mut client, "/gateway/v1/models", principal, &[])).1
}

/// The models without a catalogue.
fn named(document: &Value, principal: Option<&str>) -> Value {
    list(document, principal, &[])["models"].clone()
}

/// A region's lists: of a model by its bare id, of one by a profile that is at its end, and of a profile alone.
fn offers() -> Offers {
    let mut summaries: Value = serde_json::from_str(&models(&[
        ("e.bare", &["ON_DEMAND"]),
        ("e.old", &["INFERENCE_PROFILE"]),
        ("e.deaf", &[]),
    ]))
    .unwrap();
    let old = &mut summaries["modelSummaries"][1];
    old["inputModalities"] = json!(["TEXT", "IMAGE"]);
    old["responseStreamingSupported"] = json!(false);
    old["modelLifecycle"] = json!({"status": "LEGACY", "endOfLifeTime": "2027-03-01T00:00:00Z"});
    let mut lists = Lists::of_models(summaries.to_string().as_bytes()).unwrap();
    lists.add_profiles(profiles(&["us.e.old", "us.f.new", "global.g.far"], None).as_bytes()).unwrap();
    lists.offers()
}

/// A document with polls, and a class of another region for some models.
fn polling() -> Value {
    let mut document = document();
    document["catalogue"] = json!({"cluster": "polls"});
    document["route_classes"] = json!([
        {"name": "secret", "principals": ["secret"], "models": ["e.*"], "paths": ["vpn"], "regions": ["us-east-1"]},
        {"name": "any", "paths": ["dx", "internet"], "regions": ["us-east-1", "us-west-2"]},
    ]);
    document
}

#[test]
fn models_are_those_that_may_be_used() {
    let mut document = document();
    // In the regions of the caller's classes.
    let entry = |sent: &str, paths: Value| json!({"sent": sent, "paths": paths});
    let a_b = |commercial: Value| json!({"id": "a.b", "aliases": ["team", "x"], "commercial": commercial});
    let any = entry("us.a.b", json!(["dx", "internet"]));
    assert_eq!(named(&document, None), json!([a_b(json!({ "us-east-1": any }))]));
    // A call of this caller goes by its own class only.
    let private = entry("us.a.b", json!(["dx"]));
    assert_eq!(named(&document, Some("secret")), json!([a_b(json!({ "us-east-2": private }))]));
    document["route_classes"][1]["regions"] = json!(["us-west-2"]);
    let c_d =
        json!({"id": "c.d", "aliases": [], "commercial": {"us-west-2": entry("us.c.d", json!(["dx", "internet"]))}});
    assert_eq!(named(&document, None), json!([a_b(json!({ "us-west-2": any })), c_d]));
    document["models"] = json!({"allow": ["c.*"]});
    document.as_object_mut().unwrap().remove("aliases");
    assert_eq!(named(&document, None), json!([c_d]));
}

#[test]
fn models_are_those_that_regions_list() {
    let mut document = polling();
    let all = list(&document, None, &[("us-east-1", offers())]);
    assert_eq!(all["unlisted_regions"], json!(["us-west-2"]));
    let find = |list: &Value, id: &str| {
        list["models"].as_array().unwrap().iter().find(|model| model["id"] == id).cloned().unwrap_or_default()
    };
    let ids: Vec<&str> = all["models"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    // The document's are called whatever is listed; `e.deaf` has no profile, and global ones are not chosen.
    assert_eq!(ids, ["a.b", "c.d", "e.bare", "e.old", "f.new"]);
    let paths = json!(["dx", "internet"]);
    assert_eq!(
        find(&all, "e.old"),
        json!({
            "id": "e.old", "aliases": [], "input_modalities": ["TEXT", "IMAGE"], "output_modalities": ["TEXT"], "streaming": false,
            "commercial": {"us-east-1": {"sent": "us.e.old", "paths": paths, "status": "LEGACY", "end_of_life": "2027-03-01T00:00:00Z"}},
        })
    );
    let bare = find(&all, "e.bare");
    assert_eq!(bare["commercial"], json!({"us-east-1": {"sent": "e.bare", "paths": paths, "status": "ACTIVE"}}));
    assert_eq!((&bare["streaming"], bare.get("govcloud")), (&json!(true), None));
    // Of a model that only its profile names, no more is known.
    let new = json!({"id": "f.new", "aliases": [], "commercial": {"us-east-1": {"sent": "us.f.new", "paths": paths}}});
    assert_eq!(find(&all, "f.new"), new);

    let secret = list(&document, Some("secret"), &[("us-east-1", offers())]);
    assert_eq!(find(&secret, "e.bare")["commercial"]["us-east-1"]["paths"], json!(["vpn"]));
    assert_eq!(find(&secret, "f.new")["commercial"]["us-east-1"]["paths"], paths);

    document["models"] = json!({"deny": ["us.e.*"]});
    let cut = list(&document, None, &[("us-east-1", offers())]);
    assert_eq!((find(&cut, "e.old"), find(&cut, "e.bare").is_null()), (Value::Null, false));
    document["rules"] = json!([{"id": "no-us", "effect": "deny", "models": ["us.f.*"]}]);
    let cut = list(&document, None, &[("us-east-1", offers())]);
    assert_eq!((find(&cut, "f.new"), find(&cut, "e.bare").is_null()), (Value::Null, false));
}

#[test]
fn govcloud_is_what_the_document_says() {
    let mut document = polling();
    document["gateway_api"] = json!({"govcloud": {
        "us-gov-west-1": {"on_demand": ["e.bare", "e.old"], "profiles": ["us-gov.e.old"]},
        "us-gov-east-1": {"profiles": ["us-gov.e.old"]},
    }});
    let arn = "arn:aws:bedrock:us-east-1::foundation-model/e.old";
    document["aliases"]["arn"] = json!(arn);
    document["aliases"]["profile"] = json!("us.e.old");
    let all = list(&document, None, &[("us-east-1", offers())]);
    let find = |id: &str| all["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap();
    let govcloud = |id: &str| find(id)["govcloud"].clone();
    let old = json!({"us-gov-east-1": ["us-gov.e.old"], "us-gov-west-1": ["e.old", "us-gov.e.old"]});
    assert_eq!((govcloud("e.old"), govcloud("us.e.old")), (old.clone(), old));
    assert_eq!(find(arn).get("govcloud"), None, "what it runs is not known");
    assert_eq!(govcloud("e.bare"), json!({"us-gov-west-1": ["e.bare"]}));
    assert_eq!(govcloud("f.new"), json!({}), "said to be offered nowhere");
}

#[test]
fn refuses_what_govcloud_is_not() {
    for (govcloud, key, problem) in [
        (json!({"us-east-1": {}}), "gateway_api.govcloud.us-east-1", "not a region of GovCloud"),
        (
            json!({"us-gov-west-1": {"profiles": ["a.b"]}}),
            "gateway_api.govcloud.us-gov-west-1.profiles[0]",
            "not an id of this kind",
        ),
    ] {
        let mut document = polling();
        document["gateway_api"] = json!({ "govcloud": govcloud });
        let error = crate::policy::Policy::parse(document.to_string().as_bytes(), None).unwrap_err();
        assert_eq!(error.key, key);
        assert!(error.to_string().contains(problem), "{error}");
    }
}
