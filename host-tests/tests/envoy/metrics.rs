//! What Envoy's Prometheus page shows of the calls.

use std::io::{Read, Write};
use std::net::TcpStream;

use host_tests::double::PathFault;

use crate::stand::{Keys, Stand, eventually, required};

const GET: &[u8] = b"GET /foundation-models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// The page, from the admin address that the run keeps in its directory.
fn page(stand: &Stand) -> String {
    let target = required("XTASK_BIN").parent().unwrap().parent().unwrap().to_owned();
    let admin = std::fs::read_to_string(target.join(format!("up/{}/admin", stand.gateway.pid()))).unwrap();
    let mut stream = TcpStream::connect(admin.trim()).unwrap();
    stream.write_all(b"GET /stats/prometheus HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn calls_are_counted_with_labels() {
    let stand = Stand::new(Keys::LongLived, &["dx", "vpn"], |double| double, &[]);
    assert_eq!(stand.gateway.raw(GET).0, 200);
    stand.doubles[0].set_fault(PathFault::Reset);
    assert_eq!(stand.gateway.raw(GET).0, 200);
    assert_eq!(stand.gateway.raw(b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").0, 404);
    let page = page(&stand);
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
    eventually("the histogram", || self::page(&stand).contains(count).then_some(()));
}
