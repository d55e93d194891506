//! The filter's operations and the double's are the same.

use bedrock_double::operation::{Operation as Doubled, recognise};
use filter_core::operation::{OPERATIONS, Operation};

/// The gateway refuses it by name, so no upstream gets it.
const REFUSED: Operation = Operation::InvokeModelWithBidirectionalStream;

fn is_doubled(operation: Operation) -> bool {
    let path = operation.path(&["a".to_owned(), "b".to_owned()], "");
    recognise(operation.method().as_str(), &path).is_ok_and(|call| format!("{:?}", call.operation) == operation.name())
}

#[test]
fn the_double_answers_every_operation() {
    let carried = OPERATIONS.iter().copied().filter(|operation| *operation != REFUSED);
    let missing: Vec<Operation> = carried.filter(|operation| !is_doubled(*operation)).collect();
    assert!(missing.is_empty(), "add these to host-tests/double/src/operation.rs and control.rs: {missing:?}");
}

#[test]
fn the_double_answers_no_other_operation() {
    let known = |doubled: &Doubled| OPERATIONS.iter().any(|operation| operation.name() == format!("{doubled:?}"));
    let extra: Vec<Doubled> = Doubled::all().filter(|doubled| !known(doubled)).collect();
    assert!(
        extra.is_empty(),
        "remove these from host-tests/double/src/operation.rs, or add them to filter-core: {extra:?}"
    );
}
