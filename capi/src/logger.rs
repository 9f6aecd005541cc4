//! Where the library's rare words go in a C program: standard error, from warnings on.
//!
//! `CATNIP_LOG` is `off`, `error`, `warn`, `info`, `debug` or `trace`.

use std::fmt;
use std::io::{self, Write};
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            say(format_args!("{}: {}", record.level().as_str().to_ascii_lowercase(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// Writes a line to standard error. Nobody may be there to read it, and that is no reason to panic, as `eprintln!` does.
pub fn say(line: fmt::Arguments<'_>) {
    // One write, so that lines of threads do not mix.
    let _ = io::stderr().write_all(format!("catnip: {line}\n").as_bytes());
}

/// Installs the logger, once in a process.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let wanted = std::env::var("CATNIP_LOG").ok().and_then(|name| name.parse().ok());
        // Another logger is there when a Rust program links the static library: it stays.
        if log::set_logger(&StandardError).is_ok() {
            log::set_max_level(wanted.unwrap_or(LevelFilter::Warn));
        }
    });
}
