//! A snapshot of the metrics as a C program reads it.

use std::ffi::{CStr, CString};

use catnip_os::libos::metrics::Snapshot;

/// Names and values, sorted by name.
pub struct Metrics(Vec<(CString, u64)>);

impl Metrics {
    pub fn new(snapshot: &Snapshot) -> Self {
        let mut metrics: Vec<_> = snapshot
            .iter()
            .filter_map(|(name, metric)| Some((CString::new(name).ok()?, metric.value())))
            .collect();
        metrics.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self(metrics)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn at(&self, index: usize) -> Option<(&CStr, u64)> {
        self.0.get(index).map(|(name, value)| (name.as_c_str(), *value))
    }

    pub fn get(&self, name: &CStr) -> Option<u64> {
        let place = self.0.binary_search_by(|(other, _)| other.as_c_str().cmp(name)).ok()?;
        self.0.get(place).map(|(_, value)| *value)
    }
}
