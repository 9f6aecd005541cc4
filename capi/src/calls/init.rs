//! `demi_init`: what a program hands over, and the library OS that the configuration describes.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use catnip_os::libos::{Config, LibOs};

use crate::abi::{Args, Callback};
use crate::arrays::Arrays;
use crate::instance::{self, Instance, Member};
use crate::{errno, fork, logger};

/// The option that names a configuration file; all other arguments are the program's.
const CONFIG_OPTION: &str = "--config";

/// Completions that a wait makes room for at the start.
const INITIAL_COMPLETIONS: usize = 64;

/// Counts instances, so that a mark of one means nothing to the next.
static INSTANCES: AtomicU8 = AtomicU8::new(1);

/// `demi_init`.
///
/// # Safety
/// `args` is null or can be read; its `argv` is null or an array of `argc` strings that end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_init(args: *const Args) -> c_int {
    // SAFETY: the caller vouches for the arguments.
    let arguments = match unsafe { Arguments::read(args) } {
        Ok(arguments) => arguments,
        Err(number) => return number,
    };
    let begin = Instant::now();
    instance::create(|| {
        let config = arguments.config()?;
        let libos = catnip_os::open(&config).map_err(|error| (errno::of_setup(&error), error.to_string()))?;
        Ok(instance(libos, arguments.callback, None, begin))
    })
}

/// What a program hands over when it begins.
pub struct Arguments {
    argc: usize,
    argv: *const *const c_char,
    pub callback: Option<Callback>,
}

impl Arguments {
    /// # Errors
    /// `EINVAL` for no arguments at all, and for a number of them without a list.
    ///
    /// # Safety
    /// `args` is null or can be read; its `argv` is null or an array of `argc` strings that end with NUL.
    pub unsafe fn read(args: *const Args) -> Result<Self, c_int> {
        if args.is_null() {
            return Err(libc::EINVAL);
        }
        // SAFETY: not null, so the caller vouches for it.
        let args = unsafe { args.read_unaligned() };
        let (argc, argv, callback) = (args.argc, args.argv, args.callback);
        match usize::try_from(argc) {
            Ok(argc) if argc == 0 || !argv.is_null() => Ok(Self { argc, argv, callback }),
            _ => Err(libc::EINVAL),
        }
    }

    /// The configuration that the arguments and the environment name.
    ///
    /// # Errors
    /// An error number, and a line that says what is wrong.
    pub fn config(&self) -> Result<Config, (c_int, String)> {
        logger::install();
        fork::install();
        // SAFETY: whoever made this vouched for the list.
        let file = unsafe { config_file(self.argc, self.argv) }.map_err(|message| (libc::EINVAL, message))?;
        let config = match file {
            Some(file) => Config::from_file(file).map(Config::with_environment),
            None => Config::load(),
        };
        config.map_err(|error| (errno::of_setup(&error), error.to_string()))
    }
}

/// A thread's instance on its library OS; reports how long it took.
pub fn instance(
    libos: LibOs,
    callback: Option<Callback>,
    member: Option<Member>,
    begin: Instant,
) -> Instance {
    let instance = Instance {
        libos,
        _member: member,
        arrays: Arrays::new(INSTANCES.fetch_add(1, Ordering::Relaxed)),
        completions: Vec::with_capacity(INITIAL_COMPLETIONS),
        tokens: Vec::new(),
        metrics: None,
        failure: None,
        callback,
        late_polls: 0,
    };
    instance.report(c"init_ns", u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
    instance
}

/// The file that the arguments name, the last one when there are several.
///
/// # Errors
/// A line that says what is wrong.
///
/// # Safety
/// `argv` is an array of `argc` strings that end with NUL, or null when `argc` is 0.
unsafe fn config_file(argc: usize, argv: *const *const c_char) -> Result<Option<PathBuf>, String> {
    let mut arguments = (0..argc).map_while(|index| {
        // SAFETY: `index` is below `argc`, for which the caller vouches.
        let argument = unsafe { argv.add(index).read_unaligned() };
        // SAFETY: not null, so the caller vouches for it. A null pointer ends the list, as in `main`.
        (!argument.is_null()).then(|| OsStr::from_bytes(unsafe { CStr::from_ptr(argument) }.to_bytes()))
    });
    let mut file = None;
    while let Some(argument) = arguments.next() {
        let argument = argument.as_bytes();
        if argument == CONFIG_OPTION.as_bytes() {
            let name =
                arguments.next().ok_or_else(|| format!("{CONFIG_OPTION}: the name of a file must follow"))?;
            file = Some(PathBuf::from(name));
        } else if let Some(name) =
            argument.strip_prefix(CONFIG_OPTION.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        {
            file = Some(PathBuf::from(OsStr::from_bytes(name)));
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr;

    use super::*;

    fn find(arguments: &[&str]) -> Result<Option<PathBuf>, String> {
        let strings: Vec<CString> = arguments.iter().map(|text| CString::new(*text).unwrap()).collect();
        let mut argv: Vec<*const c_char> = strings.iter().map(|string| string.as_ptr()).collect();
        argv.push(ptr::null());
        // SAFETY: the strings live until the end of this function.
        unsafe { config_file(strings.len(), argv.as_ptr()) }
    }

    #[test]
    fn the_configuration_file_is_found_among_a_programs_own_arguments() {
        let table: [(&[&str], Option<&str>); 6] = [
            (&[], None),
            (&["program", "--port", "7"], None),
            (&["program", "--config", "a.toml", "--port", "7"], Some("a.toml")),
            (&["program", "--config=a.toml"], Some("a.toml")),
            (&["program", "--config", "a.toml", "--config=b.toml"], Some("b.toml")),
            (&["program", "--configuration", "a.toml"], None),
        ];
        for (arguments, expected) in table {
            assert_eq!(find(arguments), Ok(expected.map(PathBuf::from)), "{arguments:?}");
        }
    }

    #[test]
    fn an_option_without_its_file_is_a_mistake() {
        assert!(find(&["program", "--config"]).is_err());
    }
}
