//! `logs.py` sends the journal to CloudWatch.

use crate::support::{Scratch, cloud, infra, python, text};

#[test]
fn sends_the_journal_and_repeats_what_failed() {
    let scratch = Scratch::new("logs");
    let cloud = cloud();
    let bin = scratch.0.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    cloud.serve("a", &bin, &scratch.0.join("cloud")).unwrap();
    let entry = |nth: u32, message: &str| {
        format!(
            "{{\"__CURSOR\":\"c{nth}\",\"__REALTIME_TIMESTAMP\":\"{nth}000000\",\"SYSLOG_IDENTIFIER\":\"watch\",\"MESSAGE\":{message}}}\n"
        )
    };
    let all = scratch.write("journal", &(entry(1, "\"one\"") + &entry(2, "[116, 119, 255]")));
    // After cursor c2 the journal has the third entry only.
    let rest = scratch.write("journal.c2", &entry(3, "\"three\""));
    scratch.program(
        "bin/journalctl",
        &format!(
            "#!/bin/sh\ncase \"$*\" in\n*'--after-cursor c2') cat '{}' ;;\n*--after-cursor*) exit 1 ;;\n*--boot) cat '{}' ;;\n*) exit 1 ;;\nesac\n",
            rest.display(),
            all.display()
        ),
    );
    let logs = || {
        let mut command = python(&infra("logs.py"), &scratch);
        command.env("BEDROCK_GATEWAY_LOG_GROUP", "/bedrock-gateway/prod/vpn").env("BEDROCK_GATEWAY_INSTANCE", "i-0");
        command.env("BEDROCK_GATEWAY_CURSOR", scratch.0.join("cursor")).output().unwrap()
    };
    let events = || -> Vec<String> {
        let asked = cloud.asked().into_iter().filter_map(|asked| asked.words.strip_prefix("event ").map(str::to_owned));
        asked.collect()
    };
    cloud.fail(Some("ServiceUnavailableException"));
    let failed = logs();
    assert!(!failed.status.success() && text(&failed).contains("ServiceUnavailableException"), "{}", text(&failed));
    cloud.fail(None);
    assert!(logs().status.success());
    assert_eq!(events(), ["watch: one", "watch: tw\u{fffd}"]);
    assert!(logs().status.success());
    assert_eq!(events(), ["watch: one", "watch: tw\u{fffd}", "watch: three"]);
}
