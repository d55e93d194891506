//! Searches Envoy's configuration: its objects, and the documents of its Wasm filters.

use serde_json::{Map, Value};

/// The documents of the Wasm filters in a configuration, as text.
pub fn plugins(config: &Value) -> Vec<&str> {
    let own = config.get("vm_config").and_then(|_| config.pointer("/configuration/value")).and_then(Value::as_str);
    let inner: Box<dyn Iterator<Item = &Value>> = match config {
        Value::Object(object) => Box::new(object.values()),
        Value::Array(values) => Box::new(values.iter()),
        _ => Box::new(std::iter::empty()),
    };
    own.into_iter().chain(inner.flat_map(plugins)).collect()
}

/// Calls `edit` on every object in `value`, the outer before the inner.
pub(crate) fn for_each_object(value: &mut Value, edit: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            edit(object);
            object.values_mut().for_each(|value| for_each_object(value, edit));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| for_each_object(value, edit)),
        _ => {}
    }
}
