//! Plans, parameters and references: what they deploy, and that a mistake is named before anything changes.

use filter_core::names::Partition::{Commercial, GovCloud};
use infra_checks::release::{AARCH64, X86_64, placeholder};

use crate::deployment::{Deployment, SETTINGS, TOPIC};

#[test]
fn outputs_feed_parameters() {
    let deployment = Deployment::start("twice");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.file("templates/commercial/topic.yaml", TOPIC);
    deployment.environment("govcloud/topic.params", "Name=first\n");
    deployment.environment("commercial/second.params", "# fed\nName=of-@{govcloud/topic.TopicName}-x\n");
    deployment.environment("1.plan", "govcloud topic   # the one\ncommercial topic second\n");

    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("+ add      Topic") && text.ends_with("twice is at 1\n"), "{text}");
    assert!(deployment.topics().contains("us-gov-west-1:444455556666:twice-first"));
    let topics = deployment.aws.call(Commercial, &["sns", "list-topics"]).unwrap().to_string();
    assert!(topics.contains("us-east-1:111122223333:twice-of-twice-first-x"), "{topics}");

    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("govcloud/topic: no change\ncommercial/second: no change\n"), "{text}");

    // Another label is a change in place. Without a terminal and --yes it is refused.
    deployment.environment("govcloud/topic.params", "Name=first\nLabel=new\n");
    deployment.fails(&["1"], "No terminal to ask on");
    let text = deployment.succeeds(&["1", "--yes"]);
    assert!(text.contains("~ change   Topic"), "{text}");
    assert_eq!(deployment.stacks(GovCloud), ["topic UPDATE_COMPLETE"]);

    let text = deployment.succeeds(&["status"]);
    assert!(text.contains("commercial/second ") && text.contains("UPDATE_COMPLETE"), "{text}");
    deployment
        .fails(&["remove", "govcloud/second", "--yes"], ": no such stack; there are: commercial/second govcloud/topic");
    let text = deployment.succeeds(&["remove", "commercial/second", "--yes"]);
    assert!(text.contains("- remove   Topic") && text.contains("commercial/second: removed"), "{text}");
    assert_eq!(deployment.stacks(Commercial), [""; 0]);
}

#[test]
fn names_each_mistake_before_any_change() {
    let deployment = Deployment::start("mistyped");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    let constraints = "Parameters:
  Kind:
    Type: String
    Default: slow
    AllowedValues: [slow, \"slower\"]
  Address:
    Type: String
    Default: 10.0.0.0/8
    AllowedPattern: \"([0-9]{1,3}\\\\.){3}[0-9]{1,3}/([0-9]|[12][0-9]|3[0-2])\"
    ConstraintDescription: an IPv4 range
  Words:
    Type: CommaDelimitedList
    Default: one
    AllowedPattern: '([a-z]+)'
";
    deployment.file("templates/commercial/topic.yaml", &TOPIC.replace("Parameters:\n", constraints));
    let (plan, params) = ("1.plan", "commercial/topic.params");
    deployment.environment("govcloud/topic.params", "Name=first\n");
    deployment.environment(plan, "govcloud topic\ncommercial topic\n");
    // A file of parameters that one plan does not use is another's.
    deployment.environment("9.plan", "govcloud topic\ncommercial topic\n");
    deployment.environment("empty.pem", "");
    deployment.environment("long.pem", &"x".repeat(4097));
    deployment.environment("key.pem", "-----BEGIN EC PRIVATE KEY-----\n");
    deployment.environment("ca.der", "0\u{1}");
    for (text, part) in [
        (
            "Naem=second\n",
            "has no parameter Naem; did you mean Name? There are: Kind Address Words Environment Name Label",
        ),
        ("Label=second\n", "Name is missing"),
        ("Name=a\nName=b\n", "Name is given twice"),
        ("Name=a\nKind=fast\n", "topic.params: Kind is fast; want one of: slow slower"),
        ("Name=a\nKind=\n", "topic.params: Kind is empty; want one of: slow slower"),
        ("Name=a\nAddress=10.0.0.0/33\n", "topic.params: Address is 10.0.0.0/33; want an IPv4 range"),
        ("Name=a\nWords=one,2\n", "topic.params: Words is one,2; want ([a-z]+)"),
        ("Name: second\n", "topic.params:1: want KEY=VALUE"),
        ("Name=\"second\"\n", "topic.params:1: write the value of Name without quotes"),
        ("Name=second \n", "topic.params:1: the value of Name ends in a blank"),
        ("Name=\n", "Name is empty"),
        ("Environment=x\nName=a\n", "remove Environment; it is always the directory's name"),
        (
            "Name=@{govcloud/topic.TopicNaem}\n",
            "has no output TopicNaem; did you mean TopicName? There are: TopicName TopicArn",
        ),
        ("Name=@{govcloud/tpoic.TopicName}\n", "1.plan; did you mean govcloud/topic? There are: govcloud/topic"),
        ("Name=@{govcloud/queue.TopicName}\n", "no stack govcloud/queue comes before it in "),
        ("Name=@{govcloud.topic/TopicName}\n", "or outbound-issuer; did you mean govcloud/topic.TopicName?"),
        ("Name=@{enviroment}\n", "or outbound-issuer; did you mean environment?"),
        ("Name=@{commercial/topic.TopicName}\n", "no stack commercial/topic comes before it"),
        ("Name=@{topic}\n", "want PARTITION/STACK.Output"),
        ("Name=a\nAddress=10.0.0.0/8,10.1.0.0/16\n", "Address is 10.0.0.0/8,10.1.0.0/16; want an IPv4 range"),
        ("Name=@{config.Key}\n", "before the plan's config"),
        ("Name=@{base64:infra/nothing}\n", ": no such file"),
        ("Name=@{file:nothing.pem}\n", "@{file:nothing.pem}: no file"),
        ("Name=@{file:empty.pem}\n", "empty.pem is empty"),
        ("Name=@{file:long.pem}\n", "long.pem has over 4,096 bytes"),
        ("Name=@{file:key.pem}\n", "key.pem has a private key"),
        ("Name=@{file:ca.der}\n", "ca.der is not text"),
        (
            "Name=@{base64:infra/deploy}\n",
            "over 3,072 bytes without its comments; in base64 a parameter takes 4,096 characters",
        ),
        ("Name=@{govcloud/topic.TopicName\n", "not closed"),
    ] {
        deployment.environment(params, text);
        deployment.fails(&["1", "--yes"], part);
    }
    deployment.environment(params, "Name=second\n");
    for (text, part) in [
        ("govcloud topic\ngovcloud tpoic\n", "templates/govcloud/tpoic.yaml; did you mean topic? There are: topic"),
        ("govcloud topic\ngovcloud topic\n", "govcloud/topic is given twice"),
        (
            "govcloud topic\ngvocloud topic\n",
            "unknown step gvocloud; did you mean govcloud? There are: govcloud commercial release",
        ),
        ("govcloud topic\nconfig\n", "want config POLICY PATH"),
        ("govcloud topic\nrelease\n", "RELEASE is missing"),
        ("govcloud topic\nsmoke\n", "SMOKE_URL is missing"),
        ("# nothing\n", "it is empty"),
    ] {
        deployment.environment(plan, text);
        deployment.fails(&["1", "--yes"], part);
    }
    deployment.fails(&["2", "--yes"], "no such plan; there are: 1 9");
    deployment.fails(&["1", "--yess"], "unknown option --yess");
    deployment.fails(&["preflight"], "want preflight and a version");
    deployment.fails(&["1", "preflight"], "or preflight, evidence, status or remove; found: 1 preflight");
    deployment.environment(plan, "govcloud topic\n");
    deployment.environment("govcloud/topics.params", "Name=first\n");
    deployment.fails(
        &["1", "--yes"],
        " has a stack govcloud/topics; did you mean govcloud/topic? There are: commercial/topic govcloud/topic",
    );
    std::fs::remove_file(deployment.dir.join("infra/environments/mistyped/govcloud/topics.params")).unwrap();
    for (from, to, part) in [
        ("GOVCLOUD_ACCOUNT=444455556666", "GOVCLOUD_ACCOUNT=444455556667", "belong to arn:aws-us-gov:"),
        ("COMMERCIAL_PROFILE=commercial", "COMMERCIAL_PROFILE=govcloud", "for commercial are not valid in its region"),
        ("GOVCLOUD_REGION=us-gov-west-1", "GOVCLOUD_REGION=us-east-1", "not a GovCloud region"),
        ("GOVCLOUD_REGION=us-gov-west-1", "GOVCLOUD_REGION=us-gov-wset-1", "not a GovCloud region"),
        ("COMMERCIAL_REGION=us-east-1", "COMMERCIAL_REGION=us-esat-1", "us-esat-1, which is not a region"),
        ("GOVCLOUD_ACCOUNT=444455556666", "GOVCLOUD_ACCOUNT=44445555666", "want 12 digits"),
        (
            "COMMERCIAL_ACCOUNT=",
            "COMMERCIAL_ACOUNT=",
            "unknown setting COMMERCIAL_ACOUNT; did you mean COMMERCIAL_ACCOUNT? There are: GOVCLOUD_PROFILE",
        ),
    ] {
        deployment.environment("settings", &SETTINGS.replace(from, to));
        deployment.fails(&["1", "--yes"], part);
    }
    assert_eq!((deployment.stacks(GovCloud), deployment.stacks(Commercial)), (vec![], vec![]));
    // Only CloudFormation knows this one.
    deployment.environment("settings", SETTINGS);
    deployment.environment("govcloud/topic.params", "Name=First\n");
    deployment.fails(&["1", "--yes"], "lower-case letters and hyphens");
}

#[test]
fn asks_on_the_terminal_before_a_change() {
    let deployment = Deployment::start("asks");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.environment("govcloud/topic.params", "Name=asked\n");
    deployment.environment("1.plan", "govcloud topic\n");
    let question = "Make this change to govcloud/topic? [y/N] ";
    let (status, text) = deployment.on_terminal(&["1"], "n");
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(question) && text.contains("govcloud/topic is left as it was"), "{text}");
    assert!(!deployment.topics().contains("asks-asked"));
    let (status, text) = deployment.on_terminal(&["1"], "y");
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains(question) && text.ends_with("asks is at 1\n"), "{text}");
    let (status, text) = deployment.on_terminal(&["remove", "govcloud/topic"], "y");
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("Remove govcloud/topic? Stacks that use its outputs lose these resources. [y/N] "), "{text}");
}

/// Before any change: a machine would refuse the archive after minutes.
#[test]
fn names_a_release_that_is_not_one() {
    let deployment = Deployment::start("release");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.environment("govcloud/topic.params", "Name=released\n");
    deployment.environment("1.plan", "govcloud topic\nrelease\n");
    let archive = deployment.dir.join("release.tar.gz");
    deployment.environment("settings", &format!("{SETTINGS}BUCKET=artifacts\nRELEASE={}\n", archive.display()));
    let refused = |part: &str| {
        deployment.fails(&["1", "--yes"], part);
        assert_eq!(deployment.stacks(GovCloud), Vec::<String>::new());
    };
    refused("RELEASE: no file ");
    std::fs::write(&archive, "not an archive").unwrap();
    refused("release.tar.gz is not a whole tar.gz archive");
    placeholder(&archive, X86_64, "bedrock_filter.wasm", "").unwrap();
    refused("release.tar.gz is not a release archive of this project: it has no bedrock_filter.wasm");
    placeholder(&archive, AARCH64, "", "").unwrap();
    refused("release.tar.gz is not for x86-64, which the machines have");
    placeholder(&archive, X86_64, "", "").unwrap();
    let whole = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &whole[..whole.len() - 9]).unwrap();
    refused("release.tar.gz is not a whole tar.gz archive");

    let sums = format!("{}  infra/deploy\n", "0".repeat(64));
    placeholder(&archive, X86_64, "", &sums).unwrap();
    let text = deployment.fails(&["1", "--yes"], "note: ");
    assert!(text.contains("is not the release of this infra/deploy"), "{text}");
}

/// CloudFormation creates the resources with a role of its own, so the deployer needs no rights for them.
#[test]
fn stacks_get_the_service_role() {
    let deployment = Deployment::start("service-role");
    deployment.file("templates/govcloud/topic.yaml", TOPIC);
    deployment.environment("govcloud/topic.params", "Name=serviced\n");
    deployment.environment("1.plan", "govcloud topic\n");
    let role = |arn: &str| deployment.environment("settings", &format!("{SETTINGS}GOVCLOUD_SERVICE_ROLE={arn}\n"));
    role("arn:aws:iam::111122223333:role/deploy");
    deployment.fails(&["1", "--yes"], "want arn:aws-us-gov:iam::444455556666:role/NAME");
    let arn = "arn:aws-us-gov:iam::444455556666:role/deploy";
    role(arn);
    deployment.fails(&["1", "--yes"], "is invalid or cannot be assumed");
    let trust = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Service": "cloudformation.amazonaws.com"}}]}"#;
    let create = ["iam", "create-role", "--role-name", "deploy", "--assume-role-policy-document", trust];
    deployment.aws.call(GovCloud, &create).unwrap();
    deployment.succeeds(&["1", "--yes"]);
    let stack = ["--stack-name", "bedrock-gateway-service-role-topic", "--query", "Stacks[0].RoleARN"];
    let query = [["cloudformation", "describe-stacks"].as_slice(), &stack].concat();
    assert_eq!(deployment.aws.call(GovCloud, &query).unwrap(), arn);
}

/// A certificate has several lines, which a line of KEY=VALUE cannot.
#[test]
fn a_pem_file_becomes_a_parameter() {
    let deployment = Deployment::start("pem");
    let anchor = "\
Parameters:
  Certificate: { Type: String }
Resources:
  Anchor:
    Type: AWS::SSM::Parameter
    Properties: { Name: /pem, Type: String, Value: !Ref Certificate }
";
    deployment.file("templates/commercial/anchor.yaml", anchor);
    deployment.environment("commercial/anchor.params", "Certificate=@{file:ca.pem}\n");
    deployment.environment("1.plan", "commercial anchor\n");
    let pem = "-----BEGIN CERTIFICATE-----\nMIIB \"quoted\" \\ back\n-----END CERTIFICATE-----";
    deployment.environment("ca.pem", &format!("{}\n", pem.replace('\n', "\r\n")));
    deployment.succeeds(&["1", "--yes"]);
    let read = ["ssm", "get-parameter", "--name", "/pem", "--query", "Parameter.Value"];
    assert_eq!(deployment.aws.call(Commercial, &read).unwrap(), pem);
}

#[test]
fn the_issuer_is_read_from_govcloud() {
    let deployment = Deployment::start("issuer");
    deployment.file("templates/commercial/topic.yaml", &TOPIC.replace("'[a-z-]+'", "'[a-z0-9.-]+'"));
    deployment.environment("commercial/topic.params", "Name=a\nLabel=@{outbound-issuer}\n");
    deployment.environment("1.plan", "commercial topic\n");
    deployment.fails(
        &["1", "--yes"],
        "account 444455556666 issues no web identity tokens; run: aws --profile govcloud iam enable-outbound-web-identity-federation",
    );
    assert_eq!(deployment.stacks(Commercial), [""; 0]);

    let enabled = deployment.aws.call(GovCloud, &["iam", "enable-outbound-web-identity-federation"]).unwrap();
    deployment.succeeds(&["1", "--yes"]);
    let topic = deployment.output(Commercial, "topic", "TopicArn");
    let attributes = deployment.aws.call(Commercial, &["sns", "get-topic-attributes", "--topic-arn", &topic]).unwrap();
    let issuer = format!("https://{}", attributes["Attributes"]["DisplayName"].as_str().unwrap());
    assert_eq!(enabled["IssuerIdentifier"], issuer);
}
