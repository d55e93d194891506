//! Series of Envoy's metrics, each defined once.

use crate::host::{self, HostError};
use filter_core::metrics::{Kind, Sample};
use proxy_wasm::types::{LogLevel, MetricType};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Enough for every model on every path of a large configuration. Envoy never forgets a metric, so their number is bounded.
const MAX_SERIES: usize = 10_000;

/// The ids of the series that this VM has used.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    ids: RefCell<HashMap<String, u32>>,
    /// Whether a failure has been logged.
    failed: Cell<bool>,
}

impl Metrics {
    /// Adds a sample. A failure must not fail the call, so it is logged, and only once.
    pub(crate) fn add(&self, sample: &Sample) {
        if let Err(error) = self.try_add(sample)
            && !self.failed.replace(true)
        {
            host::log(LogLevel::Error, &format!("metrics are incomplete: {} of {}", error, sample.name));
        }
    }

    fn try_add(&self, sample: &Sample) -> Result<(), HostError> {
        let kind = match sample.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Histogram => MetricType::Histogram,
            Kind::Gauge => MetricType::Gauge,
        };
        let mut ids = self.ids.borrow_mut();
        let id = match ids.get(&sample.name) {
            Some(id) => *id,
            None if ids.len() < MAX_SERIES => {
                let id = host::define_metric(kind, &sample.name)?;
                ids.insert(sample.name.clone(), id);
                id
            }
            None => return Ok(()),
        };
        match sample.kind {
            Kind::Counter => host::increment_metric(id, sample.value),
            Kind::Histogram | Kind::Gauge => host::record_metric(id, sample.value),
        }
    }
}
