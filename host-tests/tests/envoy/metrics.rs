//! What Envoy's Prometheus page shows of the calls.

use bedrock_double::PathFault;

use crate::harness::{Harness, Keys, eventually};

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[test]
fn calls_are_counted_with_labels() {
    let harness = Harness::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    assert_eq!(harness.gateway.raw(GET).0, 200);
    harness.doubles[0].set_fault(PathFault::Reset);
    assert_eq!(harness.gateway.raw(GET).0, 200);
    assert_eq!(harness.gateway.raw(b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").0, 404);
    let page = harness.gateway.admin("/stats/prometheus");
    for line in [
        r#"bedrock_requests{class="any",path="dx",region="us-east-1",model="none"} 1"#,
        r#"bedrock_requests{class="any",path="vpn",region="us-east-1",model="none"} 1"#,
        r#"bedrock_errors{class="none",path="none",region="none",model="none",type="UnknownOperationException"} 1"#,
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    assert!(page.contains(r#"bedrock_failovers{class="any",path="vpn""#), "{page}");
    // Histograms show after Envoy's flush.
    let count = r#"bedrock_latency_ms_count{class="any",path="dx",region="us-east-1",model="none"} 1"#;
    eventually("the histogram", || harness.gateway.admin("/stats/prometheus").contains(count).then_some(()));
}
