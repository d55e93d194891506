//! A log with many entries of a busy gateway.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use time::OffsetDateTime;

/// The id of a call.
pub(crate) fn id(number: u64) -> String {
    format!("{number:08x}-6ace-4206-b899-84ada5099041")
}

/// Appends an entry of each of these calls, as long as Envoy's are. Its VM is the same for all, and numbers them.
pub(crate) fn append(log: &Path, numbers: std::ops::Range<u64>, audit: Option<&str>) {
    let exchange = serde_json::json!({
        "id": "@ID", "principal": "spiffe://mesh.example/ns/team-7/sa/app-31", "operation": "ConverseStream",
        "model": "sonnet", "class": "private-only", "usage": {"input": 1871, "output": 412, "cache_read": 900},
        "upstream_request_id": "7f3c1c1a-5a0e-4a8e-9f7e-4f5f0b8a2c11", "stream_end": "complete", "audit": audit,
        "vm": {"id": "vm-1", "envoy": "envoy-1", "begun": 0, "logged": 0, "in_flight": 12},
    });
    let exchange =
        exchange.to_string().replace(r#""begun":0"#, r#""begun":@N"#).replace(r#""logged":0"#, r#""logged":@N"#);
    let attempt = serde_json::json!({
        "model": "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-4",
        "region": "us-east-1", "access_key_id": "ASIAIOSFODNN7EXAMPLE", "tried": ["dx/us-east-1"],
        "session": "arn:aws:sts::111122223333:assumed-role/bedrock-gateway/govcloud-gateway-0123456789",
    });
    let line = serde_json::json!({
        "start_time": "@TIME", "source_address": "10.20.3.217", "status": 200, "flags": "-", "bytes_in": 7411,
        "bytes_out": 21870, "duration_ms": 4102, "first_byte_ms": 611, "attempts": 1, "path": "dx",
        "stream_id": "41a5c7b5-e4de-4f18-ac50-125e8e7f2f36", "upstream": "10.9.1.4:443", "method": "POST",
        "details": "via_upstream", "exchange": exchange, "attempt": attempt.to_string(),
    });
    let line = line.to_string();
    let file = File::options().create(true).append(true).open(log).unwrap();
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let now = audit_collector::timestamp::timestamp(OffsetDateTime::now_utc()).unwrap();
    let line = line.replace("@TIME", &now);
    for number in numbers {
        let line = line.replace("@ID", &id(number)).replace("@N", &number.to_string());
        writeln!(file, "{line}").unwrap();
    }
    file.flush().unwrap();
}
