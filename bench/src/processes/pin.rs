//! Which core a process runs on.

use std::io;
use std::mem;

/// The client's core.
pub const CLIENT: usize = 0;
/// The server's core, where there are two.
pub const SERVER: usize = 1;

/// What the thread was allowed before, to which it goes back.
pub struct Pinned(libc::cpu_set_t);

/// Keeps the calling thread on one of the cores it may use.
///
/// # Errors
/// What the system answers.
pub fn to(which: usize) -> io::Result<Pinned> {
    // SAFETY: a set of cores is plain integers, for which all zeros are a valid value.
    let (mut allowed, mut one): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { mem::zeroed() };
    let bytes = size_of::<libc::cpu_set_t>();
    // SAFETY: writes one set.
    if unsafe { libc::sched_getaffinity(0, bytes, &raw mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: reads within the set.
    let cores = (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &allowed) });
    let cores: Vec<usize> = cores.collect();
    if let Some(core) = cores.get(which).or(cores.last()) {
        // SAFETY: writes within the set.
        unsafe { libc::CPU_SET(*core, &mut one) };
        set(&one)?;
    }
    Ok(Pinned(allowed))
}

fn set(cores: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: reads one set.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cores) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What was allowed before is allowed.
        let _ = set(&self.0);
    }
}
