//! The policies of `infra/policies` are valid JSON and allow no more than their task.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use filter_core::operation::{Operation, OperationGroup};
use infra_checks::CFN_LINT_PYTHON;
use infra_checks::policy_files::{self, PolicyFile};
use infra_checks::rules::operations;
use lab::tools::{required, root};
use serde_json::{Value, json};

fn policies() -> Vec<(String, Value)> {
    PolicyFile::all().unwrap().into_iter().map(|file| (file.name, file.policy)).collect()
}

/// The strings of a value that is a string or a list.
fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .map_or_else(|| value.as_str().into_iter().collect(), |all| all.iter().filter_map(Value::as_str).collect())
}

#[test]
fn no_wildcard_but_where_an_action_needs_it() {
    let policies = policies();
    assert_eq!(policies.len(), 16);
    for (name, policy) in policies {
        assert_eq!(policy["Version"], "2012-10-17", "{name}");
        for statement in policy["Statement"].as_array().unwrap() {
            let actions = texts(&statement["Action"]);
            assert!(!actions.is_empty() && actions.iter().all(|action| !action.contains('*')), "{name}: {actions:?}");
            // A service control policy allows nothing: it limits what an account's own policies allow.
            assert_eq!(statement["Effect"], if name.ends_with("-scp.json") { "Deny" } else { "Allow" }, "{name}");
            let any = texts(&statement["Resource"]).contains(&"*");
            // Neither a token nor Bedrock's List operations and reranking have a resource type, nor all stacks at once, a new key and EC2's
            // descriptions.
            let has_none = [
                "sts:GetWebIdentityToken",
                "sts:TagGetWebIdentityToken",
                "bedrock:GetFoundationModelAvailability",
                "bedrock:ListFoundationModels",
                "bedrock:ListModelInvocationJobs",
                "bedrock:Rerank",
                "cloudformation:ListStacks",
                "kms:CreateKey",
                "ec2:DescribeVpcs",
            ]
            .iter()
            .any(|action| actions.contains(action));
            assert_eq!(any, has_none, "{name}: {statement}");
            assert!(!any || statement["Condition"].is_object(), "{name}");
        }
    }
}

#[test]
fn trust_checks_audience_and_subject() {
    let all: BTreeMap<String, Value> = policies().into_iter().collect();
    let trust = &all["commercial-trust.json"]["Statement"][0];
    let wanted = &trust["Condition"]["StringEquals"];
    let asked = &all["govcloud-gateway.json"]["Statement"][0]["Condition"]["ForAllValues:StringEquals"];
    assert_eq!(wanted["ISSUER:aud"], asked["sts:IdentityTokenAudience"]);
    assert!(wanted["ISSUER:sub"].as_str().unwrap().starts_with("arn:aws-us-gov:iam::"));
    assert!(trust["Principal"]["Federated"].as_str().unwrap().starts_with("arn:aws:iam::"));
}

/// As EKS's own example: https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
#[test]
fn a_pods_trust_checks_audience_and_subject() {
    let all: BTreeMap<String, Value> = policies().into_iter().collect();
    let trust = &all["commercial-trust-kubernetes.json"]["Statement"][0];
    assert_eq!(texts(&trust["Action"]), ["sts:AssumeRoleWithWebIdentity"]);
    let wanted = &trust["Condition"]["StringEquals"];
    assert_eq!(wanted["ISSUER:aud"], "bedrock-gateway");
    assert_eq!(wanted["ISSUER:sub"], "system:serviceaccount:NAMESPACE:NAME");
    let provider = &trust["Principal"]["Federated"];
    assert_eq!(provider, &all["commercial-trust.json"]["Statement"][0]["Principal"]["Federated"]);
}

/// A condition on a key that an action does not have denies the action: sts:TagGetWebIdentityToken has no audience, duration
/// or algorithm. https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecuritytokenservice.html
#[test]
fn tags_are_allowed_in_their_own_statement() {
    let all: BTreeMap<String, Value> = policies().into_iter().collect();
    let template = std::fs::read_to_string(root().join("infra/templates/govcloud/gateway.yaml")).unwrap();
    assert!(
        template.contains("Action: sts:GetWebIdentityToken\n")
            && template.contains("Action: sts:TagGetWebIdentityToken\n")
    );
    for statement in all["govcloud-gateway.json"]["Statement"].as_array().unwrap() {
        let tags = texts(&statement["Action"]).contains(&"sts:TagGetWebIdentityToken");
        let keys: Vec<&str> = statement["Condition"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|tests| tests.as_object().unwrap().keys().map(String::as_str))
            .collect();
        assert!(keys.iter().all(|key| key.starts_with("sts:") != tags), "{statement}");
    }
}

/// The operations that the filter carries, the policies of a caller, and the page's table agree.
#[test]
fn each_operation_has_its_action_and_its_row() {
    let all: BTreeMap<String, Value> = policies().into_iter().collect();
    let statements = |name: &str| all[name]["Statement"].as_array().unwrap().clone();
    let together = [statements("commercial-bedrock.json"), statements("commercial-operations.json")].concat();
    assert_eq!(operations::faults(&json!({ "Statement": together }), None), []);
    for (name, group) in [
        ("commercial-batch-jobs.json", OperationGroup::BatchJobs),
        ("commercial-agent-runtime.json", OperationGroup::AgentRuntime),
    ] {
        assert_eq!(operations::faults(&all[name], Some(group)), [], "{name}");
    }

    let page = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let section = page.split("\n## Operations\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let carried: Vec<Operation> = operations::carried().collect();
    assert_eq!(rows.len(), carried.len());
    for (row, operation) in rows.iter().zip(carried) {
        let action = operation.iam_action();
        let named = row.starts_with(&format!("| `{operation}` |")) && row.contains(&format!("`{action}`"));
        assert!(named, "want a row of {operation} with {action}, in the filter's order; found {row}");
    }
}

/// The IAM action of a command of the AWS CLI; `None` if it needs no right. Source: Service Authorization Reference,
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html>;
/// of `HeadObject` and `HeadBucket`: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>, `API_HeadBucket.html`.
fn action_of(service: &str, verb: &str) -> Option<String> {
    match (service, verb) {
        ("sts", "get-caller-identity") => return None,
        ("s3", "cp") => return Some("s3:PutObject".to_owned()),
        ("s3api", "head-object") => return Some("s3:GetObject".to_owned()),
        ("iam", "get-open-id-connect-provider") => return Some("iam:GetOpenIDConnectProvider".to_owned()),
        ("s3api", "head-bucket") => return Some("s3:ListBucket".to_owned()),
        _ => {}
    }
    let prefix = match service {
        "elbv2" => "elasticloadbalancing",
        "service-quotas" => "servicequotas",
        other => other,
    };
    let words = verb.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
    Some(format!("{prefix}:{}", words.collect::<String>()))
}

/// The calls of `infra/deploy` and its parts: partition (or the variable that has it) and action.
fn calls_of_deploy() -> BTreeSet<(String, String)> {
    let infra = root().join("infra");
    let mut files = vec![infra.join("deploy")];
    files.extend(std::fs::read_dir(infra.join("lib")).unwrap().map(|entry| entry.unwrap().path()));
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|file| file.extension().is_none_or(|extension| extension == "sh")) {
        let text = std::fs::read_to_string(file).unwrap();
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        for rest in code.join("\n").split("aws_in ").skip(1) {
            let words: Vec<&str> = rest.split([' ', '\n', ')', ';']).collect();
            let [partition, service, verb, ..] = words.as_slice() else { panic!("{}: {rest}", file.display()) };
            let plain = |word: &str| {
                word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            };
            assert!(plain(service) && plain(verb), "{}: aws_in {partition} {service} {verb}", file.display());
            if let Some(action) = action_of(service, verb) {
                found.insert((partition.trim_matches('"').to_owned(), action));
            }
        }
    }
    assert!(found.len() > 30, "found only {} calls", found.len());
    found
}

/// What the deployers need besides their scripts' own calls, and for what.
const BESIDES: &[&str] = &[
    // CloudFormation's service role, the change sets' tags, and all stacks at once (API_DescribeStacks.html).
    "iam:PassRole",
    "cloudformation:TagResource",
    "cloudformation:ListStacks",
    // Secrets and the table are under keys of the stacks; `evidence` reads the table with the collector.
    "kms:Decrypt",
    "kms:GenerateDataKey",
    "dynamodb:Query",
];

/// Commercial's templates give no name to a table, a bucket or a secret, so nothing asks for one there.
const NOT_COMMERCIAL: &[&str] = &["dynamodb:DescribeTable", "s3:ListBucket", "secretsmanager:DescribeSecret"];

/// A deployer may make the calls of `infra/deploy`, and no others.
#[test]
fn deployers_may_what_deploy_calls() {
    let all: BTreeMap<String, Value> = policies().into_iter().collect();
    let calls = calls_of_deploy();
    for own in ["govcloud", "commercial"] {
        let file = format!("{own}-deployer.json");
        let allowed: BTreeSet<String> = all[&file]["Statement"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|statement| texts(&statement["Action"]).into_iter().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let wanted: BTreeSet<String> = calls
            .iter()
            .filter(|(partition, _)| partition == own || partition.starts_with('$'))
            .map(|(_, action)| action.clone())
            .filter(|action| own != "commercial" || !NOT_COMMERCIAL.contains(&action.as_str()))
            .collect();
        let missing: Vec<_> = wanted.difference(&allowed).collect();
        assert!(missing.is_empty(), "{file} lacks {missing:?}");
        let spare: Vec<_> = allowed.difference(&wanted).filter(|action| !BESIDES.contains(&action.as_str())).collect();
        assert!(spare.is_empty(), "{file} allows {spare:?}, which infra/deploy does not call");
    }
}

/// What a service role needs besides the calls of its resources' schemas: Secrets Manager makes a secret's value under the stack's
/// key, <https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html>.
const BESIDES_SCHEMAS: &[&str] = &["kms:Decrypt", "kms:GenerateDataKey"];

/// A service role may create each resource of its partition's templates, and make no call that none of them has.
#[test]
fn service_roles_may_what_the_templates_need() {
    let all: BTreeMap<String, Value> = policies().into_iter().collect();
    let table = std::fs::read_to_string(root().join("infra/lib/rights.tsv")).unwrap();
    let python = required(CFN_LINT_PYTHON).unwrap();
    let schemas = python.parent().unwrap().join("../site/cfnlint/data/schemas");
    let read = |file: &str| -> Value { serde_json::from_slice(&std::fs::read(schemas.join(file)).unwrap()).unwrap() };
    let names = read("providers/us-east-1.json");
    for own in ["govcloud", "commercial"] {
        let allowed: BTreeSet<String> = ["", "-network"]
            .iter()
            .flat_map(|part| all[&format!("{own}-service-role{part}.json")]["Statement"].as_array().unwrap().clone())
            .flat_map(|statement| texts(&statement["Action"]).into_iter().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let mut known: BTreeSet<String> = BESIDES_SCHEMAS.iter().map(|&action| action.to_owned()).collect();
        for entry in std::fs::read_dir(root().join("infra/templates").join(own)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let (_, resources) = text.split_once("\nResources:").unwrap();
            for kind in resources.lines().filter_map(|line| line.strip_prefix("    Type: ")) {
                let row = table.lines().find_map(|line| line.strip_prefix(&format!("{kind}\t"))).unwrap();
                for action in row.split('\t').next().unwrap().split(' ') {
                    assert!(allowed.contains(action), "{own}: {kind} needs {action}");
                }
                let schema = read(&format!("resources/{}.json", names[kind].as_str().unwrap()));
                let handlers = schema["handlers"].as_object().unwrap().values();
                known.extend(handlers.flat_map(|handler| texts(&handler["permissions"])).map(str::to_owned));
            }
        }
        let spare: Vec<_> = allowed.difference(&known).collect();
        assert!(spare.is_empty(), "{own}: no resource has the calls {spare:?}");
    }
}

/// A deployer with a service role gives that role to CloudFormation alone.
#[test]
fn deployers_pass_one_role() {
    let all: BTreeMap<String, Value> = policies().into_iter().collect();
    for (file, role) in [
        ("govcloud-deployer.json", "arn:aws-us-gov:iam::444455556666:role/bedrock-gateway-cloudformation"),
        ("commercial-deployer.json", "arn:aws:iam::111122223333:role/bedrock-gateway-cloudformation"),
    ] {
        let statements = all[file]["Statement"].as_array().unwrap();
        let passes: Vec<&Value> =
            statements.iter().filter(|statement| texts(&statement["Action"]).contains(&"iam:PassRole")).collect();
        let [pass] = passes.as_slice() else { panic!("{file}: {passes:?}") };
        assert_eq!(texts(&pass["Resource"]), [role], "{file}");
        assert_eq!(
            pass["Condition"],
            json!({ "StringEquals": { "iam:PassedToService": "cloudformation.amazonaws.com" } }),
            "{file}"
        );
    }
}

/// File, place of a value, its wrong value, and the fault that `cfn-lint` names.
type Planted = (&'static str, &'static str, Value, &'static str);

#[test]
fn cfn_lint_judges_each_policy() {
    let python = required(CFN_LINT_PYTHON).unwrap();
    let good = PolicyFile::all().unwrap();
    assert_eq!(policy_files::cfn_lint(&python, &good).unwrap(), Vec::<String>::new());
    let planted: [Planted; 5] = [
        ("commercial-bedrock.json", "/Statement/0/Action/0", json!("bedrock:InvokeModels"), "W3037"),
        ("commercial-trust.json", "/Statement/0/Resource", json!("*"), "E3530"),
        ("govcloud-secret.json", "/Statement/1/Condition", json!({ "StringIs": { "kms:ViaService": "x" } }), "E3510"),
        ("govcloud-gateway.json", "/Statement/0/Effect", json!("Permit"), "E3510"),
        ("govcloud-scp.json", "/Statement/0/Resources", json!("*"), "E3510"),
    ];
    // All at once: the linter takes seconds to start.
    let faulty: Vec<PolicyFile> = planted
        .iter()
        .map(|(name, place, value, _)| {
            let mut file = good.iter().find(|file| file.name == *name).unwrap().clone();
            let (parent, key) = place.rsplit_once('/').unwrap();
            match file.policy.pointer_mut(parent).unwrap() {
                Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
                parent => parent[key] = value.clone(),
            }
            file
        })
        .collect();
    let found = policy_files::cfn_lint(&python, &faulty).unwrap();
    for (name, place, _, rule) in planted {
        assert!(found.iter().any(|fault| fault.contains(rule) && fault.contains(name)), "{name} {place}: {found:#?}");
    }
}

#[test]
fn refuses_policies_that_are_too_long() {
    for file in PolicyFile::all().unwrap() {
        assert_eq!(file.oversize(), None);
        let limit = match file.name.as_str() {
            name if name.contains("-trust") => 2048,
            "govcloud-scp.json" => 5120,
            _ => 6144,
        };
        let empty = json!({ "Statement": "" }).to_string().len();
        let of =
            |length: usize| PolicyFile { policy: json!({ "Statement": "x".repeat(length - empty) }), ..file.clone() };
        assert_eq!(of(limit).oversize(), None);
        assert!(of(limit + 1).oversize().is_some_and(|fault| fault.contains(&file.name)), "{}", file.name);
    }
}
