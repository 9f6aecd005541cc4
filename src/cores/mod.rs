//! Several cores on one device: a thread with a library OS for each.

mod config;
mod seat;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub(crate) use config::CoresConfig;
use libos::{Config, LibOs, SetupError};
pub use seat::CoreSeat;

/// A device that was opened once for all cores: a seat for each, on which its thread builds its library OS.
///
/// [`Cores::run`] starts the threads. A program that has threads of its own hands out the seats
/// ([`Cores::into_seats`]).
#[derive(Debug)]
pub struct Cores {
    seats: Vec<CoreSeat>,
}

impl Cores {
    /// Opens the device that `config` describes for as many cores as `count` in the table `[cores]` says.
    ///
    /// A device with queues gets one for each core, unless its table says how many. With fewer queues than cores, the
    /// cores without one receive and send through those that have. In which core's queue a frame arrives does not matter: it is
    /// handed to the core that its flow belongs to.
    ///
    /// # Errors
    /// [`SetupError`]: a mistake in the configuration, or what the machine does not provide.
    pub fn open(config: &Config) -> Result<Self, SetupError> {
        crate::open::check_tables(config)?;
        Ok(Self { seats: seat::open_seats(config)? })
    }

    /// How many cores there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seats.len()
    }

    /// A seat for each core, in order, to be sent to the core's thread.
    #[must_use]
    pub fn into_seats(self) -> Vec<CoreSeat> {
        self.seats
    }

    /// Runs `main` on a thread for each core, with the core's library OS and number, and returns what each
    /// returned. The threads begin when all library OSes are there.
    ///
    /// # Errors
    /// [`SetupError`] of the first core whose library OS could not be built; `main` then ran on none.
    ///
    /// # Panics
    /// When `main` does, once all threads have ended.
    pub fn run<T: Send>(self, main: impl Fn(LibOs, usize) -> T + Sync) -> Result<Vec<T>, SetupError> {
        let all_built = Barrier::new(self.seats.len());
        let failed = AtomicBool::new(false);
        let work = |seat: CoreSeat| {
            let core = seat.core();
            let opened = seat.open();
            failed.fetch_or(opened.is_err(), Ordering::AcqRel);
            all_built.wait();
            match opened {
                Ok(libos) if !failed.load(Ordering::Acquire) => Ok(Some(main(libos, core))),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let ended: Vec<_> = thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                self.seats.into_iter().map(|seat| scope.spawn(move || work(seat))).collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        let mut results = Vec::with_capacity(ended.len());
        for result in ended {
            match result {
                Ok(result) => results.extend(result?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(results)
    }
}

/// Opens what `config` describes on all cores that it names and runs `main` on a thread for each; see [`Cores`].
///
/// ```no_run
/// use catnip_os::libos::{Config, net::TcpListener};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new()
///     .set("runtime.kind", "tap")
///     .set("stack.addresses", vec!["10.1.0.2/24".to_owned()])
///     .set("cores.count", 2);
/// catnip_os::open_cores(&config, |libos, core| {
///     libos.block_on(async {
///         let mut listener = TcpListener::bind(&libos, "0.0.0.0:7".parse().unwrap())?;
///         loop {
///             let (stream, peer) = listener.accept().await?;
///             println!("{peer} is served by core {core}");
///             libos.spawn(async move {
///                 while let Ok(data) = stream.pop().await && !data.is_empty() && stream.push(data).await.is_ok() {}
///             });
///         }
///     })?
/// })?
/// .into_iter()
/// .collect::<Result<Vec<()>, catnip_os::libos::Error>>()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Cores::open`] and [`Cores::run`].
///
/// # Panics
/// As [`Cores::run`].
pub fn open_cores<T: Send>(
    config: &Config,
    main: impl Fn(LibOs, usize) -> T + Sync,
) -> Result<Vec<T>, SetupError> {
    Cores::open(config)?.run(main)
}

#[cfg(test)]
mod tests;
