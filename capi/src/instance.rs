//! The library OS of each thread, and the border that every call crosses: one borrow, one `catch_unwind`.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_int};
use std::hint;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use catnip_os::libos::{Completion, LibOs, Token};

use crate::abi::Callback;
use crate::arrays::Arrays;
use crate::logger;
use crate::metrics::Metrics;

/// Belongs to each library OS of a group of cores: the group is over when nobody has it any more.
pub type Member = Arc<()>;

/// What a thread has after `demi_init`.
pub struct Instance {
    pub libos: LibOs,
    /// Dropped behind the library OS.
    pub _member: Option<Member>,
    /// Memory that the program holds.
    pub arrays: Arrays,
    /// Completions on their way to the program; empty between calls, kept for its memory.
    pub completions: Vec<Completion>,
    /// Tokens that a wait looks at; kept for its memory.
    pub tokens: Vec<Token>,
    /// The snapshot that the program reads.
    pub metrics: Option<Metrics>,
    /// Why a device failed, as the program reads it.
    pub failure: Option<CString>,
    /// What the program wants to be told numbers with.
    pub callback: Option<Callback>,
    /// Late polls that the callback was told of.
    pub late_polls: u64,
}

impl Instance {
    /// Tells the program's callback a number. The instance is borrowed meanwhile: calls back into the
    /// library get `EBUSY`.
    pub fn report(&self, name: &CStr, value: u64) {
        if let Some(callback) = self.callback {
            // SAFETY: the program gave the function for this purpose; the name outlives the call.
            unsafe { callback(name.as_ptr(), name.count_bytes() as u32, value) };
        }
    }

    /// Tells the callback of polls that came late because the program stayed away.
    pub fn report_late_polls(&mut self) {
        if self.callback.is_none() {
            return;
        }
        let late_polls = self.libos.late_polls();
        if late_polls != self.late_polls {
            self.late_polls = late_polls;
            self.report(c"late_polls", late_polls);
        }
    }
}

enum State {
    /// Before `demi_init` and after `demi_ext_fini`.
    Absent,
    Ready(Box<Instance>),
    /// A call has panicked: what it left behind is not to be trusted, nor dropped.
    Broken,
}

struct Thread {
    state: RefCell<State>,
    /// Why the last `demi_init` failed.
    init_error: RefCell<Option<CString>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        let state = mem::replace(self.state.get_mut(), State::Broken);
        guard(move || drop(state)).ok();
    }
}

thread_local! {
    static THREAD: Thread =
        const { Thread { state: RefCell::new(State::Absent), init_error: RefCell::new(None) } };
}

/// The library OS that the thread had before the last fork: kept, so that what looks for leaks finds it in use.
static PARENTS: AtomicPtr<Instance> = AtomicPtr::new(ptr::null_mut());

/// In the child of a fork: the library OS is the parent's, which goes on using the device. Here it is neither used nor
/// taken down, which its peers and other processes would notice.
pub fn leave_to_the_parent() {
    // Without the state the fork happened in the midst of a call, in a callback or a signal handler, and the state stays
    // with that call.
    let _ = THREAD.try_with(|thread| {
        let Ok(mut state) = thread.state.try_borrow_mut() else { return };
        if let State::Ready(instance) = mem::replace(&mut *state, State::Absent) {
            PARENTS.store(Box::into_raw(instance), Ordering::Relaxed);
            // Nobody reads it, so else it would be optimised away.
            hint::black_box(&PARENTS);
        }
    });
}

/// Runs one call of the program on the thread's instance. Returns 0 or what `work` failed with; `ENOSYS` without
/// an instance, `EBUSY` when another call is under way, `ENOTRECOVERABLE` after a panic, and `EIO` for the panic itself.
pub fn call(work: impl FnOnce(&mut Instance) -> Result<(), c_int>) -> c_int {
    with_state(|state| match state {
        State::Absent => Err(libc::ENOSYS),
        State::Broken => Err(libc::ENOTRECOVERABLE),
        State::Ready(instance) => match guard(|| work(instance)) {
            Ok(result) => result,
            Err(Panicked) => {
                mem::forget(mem::replace(state, State::Broken));
                Err(libc::EIO)
            }
        },
    })
}

/// Makes the thread's instance. The message of a failure is printed and kept for `demi_ext_init_error`.
pub fn create(build: impl FnOnce() -> Result<Instance, (c_int, String)>) -> c_int {
    with_state(|state| {
        match state {
            State::Absent => {}
            State::Broken => return Err(libc::ENOTRECOVERABLE),
            State::Ready(_) => return Err(libc::EEXIST),
        }
        *state = State::Ready(Box::new(reported(build)?));
        Ok(())
    })
}

/// Does what comes before a thread's instance, with the same words when it fails.
pub fn set_up(work: impl FnOnce() -> Result<(), (c_int, String)>) -> c_int {
    with_state(|_| reported(work))
}

/// The message of a failure is printed and kept for `demi_ext_init_error`.
fn reported<T>(work: impl FnOnce() -> Result<T, (c_int, String)>) -> Result<T, c_int> {
    match guard(work) {
        Ok(Ok(result)) => {
            set_init_error(None);
            Ok(result)
        }
        Ok(Err((number, message))) => {
            logger::say(format_args!("{message}"));
            set_init_error(CString::new(message).ok());
            Err(number)
        }
        Err(Panicked) => Err(libc::EIO),
    }
}

/// How long connections have to end in order when the program takes its library OS down.
const LONGEST_SHUT_DOWN: Duration = Duration::from_secs(1);

/// Takes the thread's instance down, once its connections have ended or were reset.
pub fn destroy() -> c_int {
    with_state(|state| match state {
        State::Absent => Err(libc::ENOSYS),
        State::Broken => Err(libc::ENOTRECOVERABLE),
        State::Ready(_) => {
            // The state stays borrowed meanwhile, and is broken if that panics.
            let ending = mem::replace(state, State::Broken);
            let end = move || {
                if let State::Ready(instance) = &ending {
                    // What cannot be ended in order goes all the same.
                    let _ = instance.libos.shut_down(LONGEST_SHUT_DOWN);
                }
                drop(ending);
            };
            guard(end).map_err(|Panicked| libc::EIO)?;
            *state = State::Absent;
            Ok(())
        }
    })
}

/// The thread's message about its last `demi_init`, valid until the next one.
pub fn init_error() -> *const std::ffi::c_char {
    let message =
        THREAD.try_with(|thread| thread.init_error.borrow().as_ref().map(|message| message.as_ptr()));
    message.ok().flatten().unwrap_or(c"".as_ptr())
}

fn set_init_error(message: Option<CString>) {
    THREAD.with(|thread| thread.init_error.replace(message));
}

fn with_state(work: impl FnOnce(&mut State) -> Result<(), c_int>) -> c_int {
    let result = THREAD.try_with(|thread| match thread.state.try_borrow_mut() {
        Ok(mut state) => work(&mut state),
        Err(_) => Err(libc::EBUSY),
    });
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(number)) => number,
        // The thread is ending, and its instance is gone.
        Err(_) => libc::ENOSYS,
    }
}

struct Panicked;

/// Runs `work`; a panic ends here. What it was about was printed by the panic hook.
fn guard<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload: Box<dyn Any + Send>| {
        // Dropping a foreign payload may panic again.
        mem::forget(payload);
        Panicked
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn build() -> Result<Instance, (c_int, String)> {
        let libos = LibOs::builder().build().map_err(|error| (libc::ENOMEM, error.to_string()))?;
        Ok(Instance {
            libos,
            _member: None,
            arrays: Arrays::new(1),
            completions: Vec::new(),
            tokens: Vec::new(),
            metrics: None,
            failure: None,
            callback: None,
            late_polls: 0,
        })
    }

    /// Each test in a thread of its own, whose instance nobody else has seen.
    fn in_fresh_thread(body: impl FnOnce() + Send + 'static) {
        thread::spawn(body).join().unwrap();
    }

    #[test]
    fn a_panic_ends_at_the_border_and_leaves_the_thread_without_service() {
        in_fresh_thread(|| {
            assert_eq!(create(build), 0);
            assert_eq!(call(|_| Ok(())), 0);
            assert_eq!(call(|_| panic!("on purpose")), libc::EIO);
            assert_eq!(call(|_| Ok(())), libc::ENOTRECOVERABLE);
            assert_eq!(create(build), libc::ENOTRECOVERABLE);
            assert_eq!(destroy(), libc::ENOTRECOVERABLE);
            in_fresh_thread(|| assert_eq!(create(build), 0));
        });
    }

    #[test]
    fn a_panic_while_setting_up_leaves_nothing_behind() {
        in_fresh_thread(|| {
            assert_eq!(create(|| panic!("on purpose")), libc::EIO);
            assert_eq!(call(|_| Ok(())), libc::ENOSYS);
            assert_eq!(create(build), 0);
        });
    }

    #[test]
    fn a_call_inside_a_call_is_refused() {
        in_fresh_thread(|| {
            assert_eq!(create(build), 0);
            let mut inner = 0;
            let outer = call(|_| {
                inner = call(|_| Ok(()));
                Ok(())
            });
            assert_eq!((outer, inner), (0, libc::EBUSY));
        });
    }
}
