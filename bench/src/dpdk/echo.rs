//! The UDP echo on the library OS.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use catnip_os::libos::{Domain, Outcome, SocketKind};

use super::{Figures, Link, MEASURED_CPU, config, cycles, generate, output, pin, server_device, start_part};
use crate::scenario::Failure;

pub const ADDRESS: [u8; 4] = [10, 9, 0, 1];
pub const PORT: u16 = 7;

/// The first byte of a datagram that ends the server.
pub const STOP: u8 = 0xff;

/// Pops outstanding at a time: what one burst brings.
const POPS: usize = 64;

/// Times that nothing came after which the server looks at how long it has been idle.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn measure(payload_bytes: usize) -> Result<Figures, Failure> {
    let link = Link::new()?;
    let server = start_part("echo", &link.socket(), payload_bytes)?;
    let (packets_per_second, _generator) = generate(&link.socket(), payload_bytes)?;
    let cycles_per_packet = output(server)?.trim().parse()?;
    Ok(Figures { packets_per_second, cycles_per_packet })
}

/// Echoes until told to stop, then prints the cycles that a packet took.
pub fn serve(socket: &Path) -> Result<(), Failure> {
    pin(MEASURED_CPU)?;
    let libos = catnip_os::open(&config(&server_device(socket), "10.9.0.1/24"))?;
    let queue = libos.socket(Domain::Ipv4, SocketKind::Datagram)?;
    libos.bind(queue, SocketAddr::from((ADDRESS, PORT)))?;
    for _ in 0..POPS {
        libos.pop(queue)?;
    }
    let mut completions = Vec::with_capacity(2 * POPS);
    let (mut packets, mut busy_cycles) = (0_u64, 0_u64);
    let mut idle_since = std::time::Instant::now();
    loop {
        let begin = cycles();
        // No time to wait: an idle poll ends at once and is not counted.
        let _ = libos.wait_next(&mut completions, 2 * POPS, Some(Duration::ZERO));
        if completions.is_empty() {
            if idle_since.elapsed() > PATIENCE {
                return Err("the generator is gone".into());
            }
            continue;
        }
        let before = packets;
        for completion in completions.drain(..) {
            match completion.outcome {
                Outcome::Popped { data, from: Some(from) } => {
                    if data.iter().next().is_some_and(|part| part.first() == Some(&STOP)) {
                        println!("{}", busy_cycles as f64 / packets.max(1) as f64);
                        return Ok(());
                    }
                    packets += 1;
                    libos.pushto(queue, data, from)?;
                    libos.pop(queue)?;
                }
                Outcome::Pushed => {}
                other => return Err(format!("{other:?}").into()),
            }
        }
        busy_cycles += cycles() - begin;
        if packets > before {
            idle_since = std::time::Instant::now();
        }
    }
}
