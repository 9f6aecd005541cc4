//! `demi_ext_core_count` and `demi_ext_core_init`: one library OS for each thread on one device that the process opens once.

use std::ffi::c_int;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use catnip_os::libos::Config;
use catnip_os::{CoreSeat, Cores};

use super::init::{self, Arguments};
use crate::abi::Args;
use crate::errno;
use crate::instance::{self, Member};

/// The cores that a process has opened.
struct Group {
    process_id: u32,
    /// By core; `None` once a thread has taken it.
    seats: Vec<Option<CoreSeat>>,
    /// Counts the threads with a library OS of the group, and the group itself.
    members: Member,
}

/// The process's, and after a fork that of its parent, which is left alone.
static GROUPS: Mutex<Vec<Group>> = Mutex::new(Vec::new());

impl Group {
    /// True when every core was taken and all their threads have ended.
    fn is_over(&self) -> bool {
        self.seats.iter().all(Option::is_none) && Arc::strong_count(&self.members) == 1
    }
}

/// Runs `work` on the process's cores, which are opened when they are not, or when those opened before are over.
fn with_group<T>(
    config: impl FnOnce() -> Result<Config, (c_int, String)>,
    work: impl FnOnce(&mut Group) -> Result<T, (c_int, String)>,
) -> Result<T, (c_int, String)> {
    // Whoever panicked has left the groups as they were or as they are to be.
    let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    let process_id = process::id();
    groups.retain(|group| group.process_id != process_id || !group.is_over());
    let mut own = groups.iter().position(|group| group.process_id == process_id);
    if own.is_none() {
        let opened = Cores::open(&config()?).map_err(|error| (errno::of_setup(&error), error.to_string()))?;
        let seats = opened.into_seats().into_iter().map(Some).collect();
        own = Some(groups.len());
        groups.push(Group { process_id, seats, members: Member::default() });
    }
    match own.and_then(|own| groups.get_mut(own)) {
        Some(group) => work(group),
        None => Err((libc::EIO, "the cores are gone".to_owned())),
    }
}

/// `demi_ext_core_count`.
///
/// # Safety
/// `args` is null or can be read, with what it points to, as for `demi_init`; `count_out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_core_count(args: *const Args, count_out: *mut c_int) -> c_int {
    if count_out.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: the caller vouches for the arguments.
    let arguments = match unsafe { Arguments::read(args) } {
        Ok(arguments) => arguments,
        Err(number) => return number,
    };
    let mut count = 0;
    let failed = instance::set_up(|| {
        count = with_group(|| arguments.config(), |group| Ok(group.seats.len()))?;
        Ok(())
    });
    if failed == 0 {
        // SAFETY: not null, so the caller vouches for it.
        unsafe { count_out.write_unaligned(c_int::try_from(count).unwrap_or(c_int::MAX)) };
    }
    failed
}

/// `demi_ext_core_init`.
///
/// # Safety
/// `args` is null or can be read, with what it points to, as for `demi_init`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_core_init(args: *const Args, core: c_int) -> c_int {
    // SAFETY: the caller vouches for the arguments.
    let arguments = match unsafe { Arguments::read(args) } {
        Ok(arguments) => arguments,
        Err(number) => return number,
    };
    let begin = Instant::now();
    instance::create(|| {
        let take = |group: &mut Group| {
            let cores = group.seats.len();
            let seat =
                usize::try_from(core).ok().and_then(|core| group.seats.get_mut(core)).ok_or_else(|| {
                    (libc::EINVAL, format!("core {core}: allowed is 0 to {}", cores.saturating_sub(1)))
                })?;
            let seat =
                seat.take().ok_or((libc::EBUSY, format!("core {core} was taken by another thread")))?;
            Ok((seat, Arc::clone(&group.members)))
        };
        let (seat, member) = with_group(|| arguments.config(), take)?;
        // Outside the lock: threads wait for addresses side by side.
        let libos = seat.open().map_err(|error| (errno::of_setup(&error), error.to_string()))?;
        Ok(init::instance(libos, arguments.callback, Some(member), begin))
    })
}
