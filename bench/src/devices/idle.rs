//! What waiting costs: processor time of a library OS with idle connections.

use std::io::{Read, Write};
use std::net::TcpStream as KernelStream;
use std::thread;
use std::time::Duration;

use catnip_os::libos::net::TcpListener;
use catnip_os::libos::{Error, LibOs};

use super::link::{self, Device, OURS};
use crate::scenario::Failure;

/// What idling may take: a hundredth of a core.
pub const GOAL_NS_PER_SECOND: f64 = 1e7;

const PORT: u16 = 7000;
/// Established, used once and then idle, each with a pop outstanding.
const CONNECTIONS: usize = 100;
/// Until everything has calmed down, and how long is measured then.
const CALM: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

/// Nanoseconds of processor time that a second takes in which there is nothing to do.
///
/// # Errors
/// [`Failure`] when the connections cannot be made.
pub fn processor_ns_per_second(device: Device) -> Result<f64, Failure> {
    let libos = link::open(device)?;
    let mut listener = TcpListener::bind(&libos, format!("{OURS}:{PORT}").parse()?)?;
    let client = thread::spawn(connect_all);
    let used = libos.block_on(async {
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await?;
            libos.spawn(async move {
                while let Ok(data) = stream.pop().await
                    && !data.is_empty()
                    && stream.push(data).await.is_ok()
                {}
            });
        }
        while !client.is_finished() {
            libos.sleep(Duration::from_millis(10)).await;
        }
        idle(&libos).await
    })?;
    let held = client.join().map_err(|_| "the kernel's side failed")?;
    libos.abort_tasks();
    drop(held?);
    Ok(used?.as_nanos() as f64 / MEASURED.as_secs_f64())
}

async fn idle(libos: &LibOs) -> Result<Duration, Error> {
    libos.sleep(CALM).await;
    let before = processor_time();
    libos.sleep(MEASURED).await;
    Ok(processor_time() - before)
}

fn connect_all() -> std::io::Result<Vec<KernelStream>> {
    (0..CONNECTIONS)
        .map(|_| {
            let mut stream = KernelStream::connect((OURS, PORT))?;
            stream.write_all(b"hello")?;
            stream.read_exact(&mut [0; 5])?;
            Ok(stream)
        })
        .collect()
}

/// Processor time that this thread has used, user's and system's.
fn processor_time() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes one `rusage`, which zeros are a valid value of.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    [usage.ru_utime, usage.ru_stime]
        .iter()
        .map(|time| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000))
        .sum()
}
