//! Catnip: a library OS. This facade is what programs depend on.
//!
//! [`open`] makes the calling thread's library OS as a [`libos::Config`] says; `open_cores` makes one for each of several
//! threads on one device. From there on everything is a method of [`libos::LibOs`] or a type of [`libos::net`]:
//!
//! ```
//! use catnip_os::libos::net::{TcpListener, TcpStream};
//! use catnip_os::libos::{Config, Shutdown};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let libos = catnip_os::open(&Config::new())?; // no device: sockets of this thread reach each other
//! let mut listener = TcpListener::bind(&libos, "127.0.0.1:7".parse()?)?;
//! let echo = libos.spawn(async move {
//!     let (stream, _peer) = listener.accept().await?;
//!     let data = stream.pop().await?;
//!     stream.push(data).await?;
//!     stream.close().await
//! });
//! let answer = libos.block_on(async {
//!     let stream = TcpStream::connect(&libos, "127.0.0.1:7".parse()?).await?;
//!     stream.push(libos.arena().copy_from(b"hello").ok_or("no memory")?.freeze()).await?;
//!     stream.shutdown(Shutdown::Write)?;
//!     Ok::<_, Box<dyn std::error::Error>>(stream.pop().await?.to_vec())
//! })??;
//! assert_eq!(answer, b"hello");
//! libos.block_on(echo)??;
//! # Ok(())
//! # }
//! ```
//!
//! A program that ends calls [`libos::LibOs::shut_down`] before, so that its connections end in order.
//!
//! Below it, for programs that put a library OS together by themselves: `catnip`, the protocol engine, and the runtimes, each of
//! the devices in a crate of its own (`runtime_linux`, `runtime_vhost`, `runtime_sim`, `runtime_dpdk`). The features of this crate,
//! one for each kind of device, say which are there; all but DPDK are by default. Modules, devices and congestion
//! controls of one's own: `docs/extending.md`.

/// The README's program in Rust, compiled as its readers would. That in C is run by `capi/tests/examples.rs`.
#[cfg(all(doctest, feature = "catnip"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The page about modules, devices and congestion controls of a program's own, whose examples have to compile and run.
#[cfg(all(doctest, feature = "catnip"))]
#[doc = include_str!("../docs/extending.md")]
struct ExtendingPage;

#[cfg(feature = "catnip")]
mod cores;
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
mod device;
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
mod gathered;
#[cfg(feature = "catnip")]
mod loopback;
mod open;

#[cfg(feature = "catnip")]
pub use catnip;
#[cfg(feature = "catnip")]
pub use cores::{CoreSeat, Cores, open_cores};
pub use libos;
pub use open::open;
#[cfg(feature = "dpdk")]
pub use runtime_dpdk;
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp"))]
pub use runtime_linux;
#[cfg(feature = "sim")]
pub use runtime_sim;
#[cfg(feature = "vhost")]
pub use runtime_vhost;
