//! TCP and UDP echo, written with `async`: a task for each connection.
//!
//! ```text
//! CATNIP_CONFIG=tap.toml cargo run --release --example echo-async -- 10.1.0.2:7
//! ```
//!
//! What `tap.toml` may look like stands in `echo-tokens.rs`.

use std::net::SocketAddr;

use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use catnip_os::libos::{Config, Error};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:7".to_owned());
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let libos = catnip_os::open(&Config::load()?)?;
    let mut listener = TcpListener::bind(&libos, address)?;
    let socket = UdpSocket::bind(&libos, address)?;
    println!("listening on {address}");
    libos.spawn(echo_datagrams(socket));
    libos.block_on(async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    libos.spawn(async move {
                        if let Err(error) = echo(stream).await {
                            eprintln!("{peer}: {error}");
                        }
                    });
                }
                Err(error) => eprintln!("accepting: {error}"),
            }
        }
    })?
}

/// Sends everything back, as the buffers in which it came, until the client ends its stream.
async fn echo(stream: TcpStream) -> Result<(), Error> {
    loop {
        let data = stream.pop().await?;
        if data.is_empty() {
            return stream.close().await;
        }
        stream.push(data).await?;
    }
}

async fn echo_datagrams(socket: UdpSocket) {
    loop {
        // Errors are about single datagrams: what ICMP said of an earlier reply, or no room for this one.
        if let Ok((data, Some(peer))) = socket.pop().await
            && let Err(error) = socket.push_to(data, peer).await
        {
            eprintln!("{peer}: {error}");
        }
    }
}
