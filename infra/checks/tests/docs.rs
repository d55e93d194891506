//! The operators' pages name every alarm, parameter and command, and none that does not exist.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use infra_checks::template::Template;
use infra_checks::templates;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// README and every page of `docs`: path and text.
fn pages() -> Vec<(String, String)> {
    let mut found = vec!["README.md".to_owned()];
    let pages = names(&root().join("docs")).into_iter().filter(|name| name.ends_with(".md"));
    found.extend(pages.map(|name| format!("docs/{name}")));
    found.sort();
    found.into_iter().map(|page| (page.clone(), read(&page))).collect()
}

/// The texts between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The alarms' names without the prefix of the environment.
fn alarms() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for template in Template::all(&templates()).unwrap() {
        let stem = template.file.rsplit('/').next().unwrap().trim_end_matches(".yaml");
        for alarm in template.of_type("AWS::CloudWatch::Alarm") {
            let name = alarm.property("/AlarmName/Fn::Sub").as_str().unwrap_or_default();
            // A stack is named after its environment and, unless the plan says otherwise, its template.
            let name = name.replace("${AWS::StackName}", &format!("bedrock-gateway-${{Environment}}-{stem}"));
            let own = name.strip_prefix("bedrock-gateway-${Environment}-");
            found.insert(own.unwrap_or_else(|| panic!("{}: {name:?}", alarm.id)).to_owned());
        }
    }
    found
}

#[test]
fn each_alarm_has_one_runbook() {
    let text = read("docs/operations.md");
    let headings: Vec<&str> = text.lines().filter(|line| line.starts_with("### ")).flat_map(spans).collect();
    let found: BTreeSet<String> = headings.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(headings.len(), found.len(), "two runbooks of one alarm: {headings:?}");
    assert_eq!(found, alarms());
}

#[test]
fn each_runbook_has_every_part() {
    let text = read("docs/operations.md");
    for runbook in text.split("\n### ").skip(1) {
        let runbook = runbook.split("\n## ").next().unwrap();
        let title = runbook.lines().next().unwrap();
        for part in ["**Means.**", "**Callers see.**", "**Look.**", "**Do.**", "**Over.**"] {
            assert_eq!(runbook.matches(part).count(), 1, "{title}: {part}");
        }
    }
}

/// The parameters of a template that have a default, or that have none.
fn parameters(template: &Template, default: bool) -> BTreeSet<&str> {
    let all = template.document.get("Parameters").and_then(Value::as_object).into_iter().flatten();
    let wanted = all.filter(|(name, body)| *name != "Environment" && body.get("Default").is_some() == default);
    wanted.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn the_guide_names_every_parameter() {
    let text = read("docs/deployment.md");
    let all = Template::all(&templates()).unwrap();
    for template in &all {
        let name = template.file.trim_end_matches(".yaml");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("| `{name}` |"))).collect();
        let [row] = rows.as_slice() else { panic!("{name} has {} rows in the guide's table", rows.len()) };
        let named: BTreeSet<&str> = spans(row).skip(1).filter(|span| !span.contains(['/', '@', '=', '.'])).collect();
        let (wanted, optional) = (parameters(template, false), parameters(template, true));
        let missing: Vec<_> = wanted.difference(&named).collect();
        assert!(missing.is_empty(), "{name}: the guide does not name {missing:?}");
        let unknown: Vec<_> =
            named.iter().filter(|name| !wanted.contains(*name) && !optional.contains(*name)).collect();
        assert!(unknown.is_empty(), "{name} has no parameter {unknown:?}");
    }
}

/// A VPC that exists takes the place of the network stack: the page says what has to be in its outputs' places.
#[test]
fn the_guide_says_what_a_network_must_have() {
    let text = read("docs/deployment.md");
    let section = text.split("**A VPC that exists.**").nth(1).unwrap().split("\n## ").next().unwrap();
    let named: BTreeSet<&str> = spans(section).collect();
    let all = Template::all(&templates()).unwrap();
    let network = all.iter().find(|template| template.file == "govcloud/network.yaml").unwrap();
    for output in network.document["Outputs"].as_object().unwrap().keys() {
        assert!(section.contains(&format!("\n| `{output}` |")), "no row of {output}");
    }
    for endpoint in network.of_type("AWS::EC2::VPCEndpoint") {
        let service = endpoint.property("/ServiceName/Fn::Sub").as_str().unwrap().rsplit('.').next().unwrap();
        assert!(named.contains(service), "no endpoint of {service}");
    }
}

/// The anchors that GitHub gives to headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let anchor = |title: String| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(anchor).collect()
}

#[test]
fn each_link_has_a_target() {
    for (page, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if file.is_empty() { root().join(&page) } else { root().join(&page).parent().unwrap().join(file) };
            assert!(path.exists(), "{page}: {target}: no such file");
            if !anchor.is_empty() {
                let there = anchors(&std::fs::read_to_string(&path).unwrap());
                assert!(there.contains(anchor), "{page}: {target}: no such heading");
            }
        }
    }
}

#[test]
fn pages_named_in_infra_exist() {
    let mut folders = vec![root().join("infra")];
    while let Some(folder) = folders.pop() {
        for name in names(&folder) {
            let path = folder.join(&name);
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            for rest in text.split("docs/").skip(1) {
                let page: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
                let page = page.trim_end_matches('.');
                if page.ends_with(".md") {
                    assert!(root().join("docs").join(page).exists(), "{}: no page docs/{page}", path.display());
                }
            }
        }
    }
}

/// A price of the page's own table. A row may have several: symbols and prices are in the same order.
fn price(page: &str, symbol: &str) -> f64 {
    let symbol = format!("`{symbol}`");
    let found = page.lines().filter_map(|line| -> Option<f64> {
        let mut columns = line.strip_prefix("| ")?.split(" | ");
        let place = columns.next()?.split(", ").position(|one| one == symbol)?;
        columns.nth(1)?.split("; ").nth(place)?.parse().ok()
    });
    found.take(1).sum()
}

/// AWS does not say whether traffic between the partitions is billed as transfer to the internet or between Regions.
#[test]
fn the_way_is_priced_both_ways() {
    let page = read("docs/costs.md");
    let [o, r, gd, id, z] = ["o", "r", "gd", "id", "z"].map(|symbol| price(&page, symbol));
    let vpn = 120.0 * id + 120.0 * 2.0 / 3.0 * z;
    for (path, as_internet, as_region) in
        [("internet", 120.0 * gd + 80.0 * o, 120.0 * gd + 80.0 * r), ("vpn", 120.0 * o + vpn, 120.0 * r + vpn)]
    {
        let start = format!("| {path} | {as_internet:.2} | ");
        let row = page.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
        assert!(row.ends_with(&format!("**{as_region:.2}** |")), "want {start}… {as_region:.2}; found: {row}");
    }
    let guide = read("docs/deployment.md");
    assert!(guide.contains("costs.md#internet-or-between-regions"));
}

/// The words of a command, up to a comment or to the end of its code span.
fn words(command: &str) -> Vec<&str> {
    let line = command.lines().next().unwrap_or_default();
    let line = line.split(['`', '#', '|', ';', ')', ',', ':']).next().unwrap_or_default();
    line.split_whitespace().collect()
}

#[test]
fn each_deploy_command_names_a_plan_or_stack() {
    let example = root().join("infra/environments/example");
    let plans: BTreeSet<String> =
        names(&example).iter().filter_map(|name| name.strip_suffix(".plan").map(str::to_owned)).collect();
    let mut stacks = BTreeSet::new();
    for plan in &plans {
        for line in std::fs::read_to_string(example.join(format!("{plan}.plan"))).unwrap().lines() {
            if let [partition @ ("govcloud" | "commercial"), rest @ ..] = words(line).as_slice() {
                stacks.insert(format!("{partition}/{}", rest.last().unwrap()));
            }
        }
    }
    let mut found = 0;
    for (page, text) in pages() {
        for command in text.split("infra/deploy ").skip(1) {
            let words = words(command);
            let ["example" | "ENVIRONMENT", what, rest @ ..] = words.as_slice() else { continue };
            found += 1;
            match (*what, rest) {
                ("status", []) => {}
                ("evidence", [plan, "--break", "vpn"] | [plan]) => {
                    assert!(plans.contains(*plan), "{page}: no plan {plan}");
                }
                ("preflight", [plan]) => assert!(*plan == "VERSION" || plans.contains(*plan), "{page}: no plan {plan}"),
                ("remove", [stack, ..]) => {
                    assert!(
                        *stack == "PARTITION/STACK" || stacks.contains(*stack),
                        "{page}: no plan has a stack {stack}"
                    );
                }
                (plan, rest) => {
                    assert!(plan == "VERSION" || plans.contains(plan), "{page}: no plan {plan}");
                    let known = |word: &&&str| **word != "--yes" && **word != "--replace" && !word.contains('/');
                    assert!(!rest.iter().any(|word| known(&word)), "{page}: infra/deploy {}", words.join(" "));
                }
            }
        }
    }
    assert!(found > 5, "found only {found} deploy commands; this test may no longer recognise them");
}

/// The guide's reader has a profile for each partition, and no default one.
#[test]
fn each_aws_command_of_the_guide_has_a_profile() {
    let guide = read("docs/deployment.md");
    let lines = guide
        .lines()
        .filter(|line| (line.starts_with("aws ") && !line.starts_with("aws awk ")) || line.starts_with("   aws "));
    let commands: Vec<&str> = spans(&guide).filter(|span| span.starts_with("aws ")).chain(lines).collect();
    assert!(commands.len() > 15, "found only {} commands", commands.len());
    let without: Vec<_> = commands.iter().filter(|command| !command.contains("--profile ")).collect();
    assert!(without.is_empty(), "{without:#?}");
}

/// Where the page's paths begin: the repository, or one of the two folders that it names.
fn file_of(path: &str) -> Option<String> {
    let places = ["", "host-tests/tests", "filter/core/src"].map(|folder| root().join(folder).join(path));
    places.iter().find(|place| place.is_file()).map(|place| std::fs::read_to_string(place).unwrap())
}

/// Whether a file has this test: the attribute is in the lines before the function, which may have comments.
fn has_test(file: &str, name: &str) -> bool {
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    let is_it = |line: &&str| {
        let rest = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with('('))
    };
    let Some(place) = lines.iter().position(is_it) else { return false };
    let before = lines.iter().take(place).rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    before.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

#[test]
fn the_pages_of_controls_name_tests_that_exist() {
    let page = read("docs/security.md") + &read("docs/audit.md");
    let (mut tests, mut wrong) = (0, Vec::new());
    for span in spans(&page).filter(|span| span.contains(".rs")) {
        let (path, test) = span.split_once("::").unwrap_or((span, ""));
        tests += usize::from(!test.is_empty());
        match file_of(path) {
            None => wrong.push(format!("{span}: no such file")),
            Some(file) if !test.is_empty() && !has_test(&file, test) => wrong.push(format!("{span}: no such test")),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tests > 80, "found only {tests} tests; this test may no longer recognise them");
    let own = read("infra/checks/tests/docs.rs");
    assert!(has_test(&own, "each_link_has_a_target") && !has_test(&own, "has_test") && !has_test(&own, "each_link"));
}

#[test]
fn each_threat_has_a_control_and_a_test() {
    let page = read("docs/security.md");
    let section = page.split("\n## Threats, controls, tests\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
    let rows: Vec<&&str> = rows.iter().filter(|row| !row.starts_with("| threat |")).collect();
    assert!(rows.len() > 30, "{}", rows.len());
    for row in rows {
        let columns: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, control, tests] = columns.as_slice() else { panic!("not three columns: {row}") };
        assert!(!control.is_empty(), "no control: {row}");
        assert!(spans(tests).any(|span| span.contains(".rs::")), "no test: {row}");
    }
}
