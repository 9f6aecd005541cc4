//! Which processors a thread may run on.

use crate::{SetupError, sys};

/// The processors that the calling thread may run on, by number, in order.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    sys::allowed_cpus()
}

/// Binds the calling thread to a processor.
///
/// # Errors
/// [`SetupError::Device`] when there is no such processor, or the process may not use it.
pub fn pin_to(cpu: usize) -> Result<(), SetupError> {
    sys::pin_to(cpu).map_err(|error| SetupError::Device {
        device: format!("processor {cpu}"),
        call: "sched_setaffinity",
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_is_bound_to_one_processor_and_others_are_not() {
        let before = allowed_cpus();
        let last = *before.last().unwrap();
        let bound = thread::spawn(move || {
            pin_to(last).unwrap();
            allowed_cpus()
        });
        assert_eq!(bound.join().unwrap(), [last]);
        assert_eq!(allowed_cpus(), before);
        assert!(matches!(pin_to(8000), Err(SetupError::Device { call: "sched_setaffinity", .. })));
        assert!(pin_to(1 << 40).is_err());
    }
}
