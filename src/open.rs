//! Putting a library OS together as a configuration describes it.

use libos::{Config, LibOs, MemoryQueues, SetupError};

/// The tables that the parts put together here read.
const TABLES: [&str; 4] = ["runtime", "libos", "memory", "memory_queue"];

/// Builds the library OS that `config` describes, with all its modules installed: in-memory queues always,
/// and what the table `[runtime]` asks for.
///
/// | key | value | default |
/// |---|---|---|
/// | `kind` | `"none"`: in-memory queues alone | `"none"` |
///
/// # Errors
/// [`SetupError`]: a mistake in the configuration, or what the machine does not provide.
pub fn open(config: &Config) -> Result<LibOs, SetupError> {
    config.check_sections(&TABLES)?;
    let mut section = config.section("runtime");
    section.choice("kind", &["none"], "none")?;
    section.finish()?;
    let libos = LibOs::builder().config(config).build()?;
    install(&libos, MemoryQueues::from_config(config)?)?;
    Ok(libos)
}

/// Installs a module into a library OS that nobody else uses yet.
fn install(libos: &LibOs, module: impl libos::Module + 'static) -> Result<(), SetupError> {
    libos.install(module).map(drop).map_err(|error| SetupError::Device {
        device: "library OS".to_owned(),
        call: "install",
        reason: error.to_string(),
    })
}
