//! What the child of a fork takes along: nothing. Descriptors of devices are shared with it, and two processes that both
//! receive from one would each see half of a connection.

use std::sync::Once;

use crate::instance;

/// Has the child of every fork leave the library OS to the parent.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler is a function of this library, which takes it back when it is unloaded.
        let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if failed != 0 {
            log::warn!("pthread_atfork: error {failed}: the child of a fork must not call the library");
        }
    });
}

extern "C" fn in_child() {
    instance::leave_to_the_parent();
}
