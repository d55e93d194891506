//! Envoy's heap is full: its overload manager refuses before any filter.

use crate::harness::{Harness, Keys, base, eventually};

use super::{MODEL, converse, path_of, records, send};

#[test]
fn a_full_heap_refuses_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = base(dir.path(), "threshold: { value: 0.95 }", "threshold: { value: 0.0001 }");
    let harness = Harness::new(Keys::LongLived, &["internet"], |double| double, &["--base", &file]);
    let call = converse(&path_of(MODEL), "content-type: application/json\r\n");
    let others = eventually("the heap is looked at", || {
        let refused = send(&harness, &call).status == 503;
        refused.then(|| harness.received().len())
    });
    for path in ["converse", "converse-stream"] {
        let path = path_of(MODEL).replace("converse", path);
        let answer = send(&harness, &converse(&path, "content-type: application/json\r\n"));
        let error = answer.header("x-amzn-errortype");
        assert_eq!((answer.status, error), (503, "serviceunavailableexception"), "{answer:?}");
        assert!(answer.body.contains("no memory left for this call"), "{answer:?}");
    }
    for (facts, line) in records(&harness, others + 3).split_off(others) {
        assert!(facts.is_null(), "no filter saw it: {facts}");
        assert_eq!((&line["status"], &line["details"]), (&503.into(), &"overload".into()), "{line}");
    }
    assert_eq!(harness.received().len(), others);
}
