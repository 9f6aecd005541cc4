//! Meeting the other end at a Unix socket.

use std::io;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Link;
use crate::system;

/// Between two tries to connect.
const TRY_EVERY: Duration = Duration::from_millis(10);
/// Between two looks at whether anybody is still interested.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A socket of ours in the file system, which goes away with this.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket. One that nobody listens at any more gives way.
    pub fn bind(path: &Path) -> Result<Self, String> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if is_in_use(path) {
                    return Err(
                        "another program listens at the socket; set vhost.socket to another place".to_owned()
                    );
                }
                std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
            }
            result => result,
        };
        let listener = listener.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                "bind: there is no such folder for the socket; set vhost.socket".to_owned()
            }
            _ => format!("bind: {error}; set vhost.socket to another place"),
        })?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Waits for a connection; None when the link closes first.
    pub fn accept(&self, link: &Link) -> Result<Option<UnixStream>, String> {
        while !link.is_closing() {
            system::wait_readable([&self.listener, &link.control], LOOK_EVERY);
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(|error| error.to_string())?;
                    return Ok(Some(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(format!("accept: {error}")),
            }
        }
        Ok(None)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody else may have removed it before.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// True when some program has the socket open. Asked by a socket of another kind, which whoever listens there never hears of: a connection
/// might be taken for the other end.
fn is_in_use(path: &Path) -> bool {
    let refused = UnixDatagram::unbound().and_then(|stranger| stranger.connect(path));
    !refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Connects to a socket as soon as somebody listens there; None when the link closes first.
pub(crate) fn connect(path: &Path, link: &Link) -> Result<Option<UnixStream>, String> {
    while !link.is_closing() {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted => std::thread::sleep(TRY_EVERY),
                _ => return Err(format!("connect: {error}")),
            },
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_listener_is_refused_and_the_first_one_hears_nothing_of_it() {
        let path = std::env::temp_dir().join(format!("catnip-listener-{}", std::process::id()));
        let first = Listener::bind(&path).unwrap();
        let line = Listener::bind(&path).map(drop).unwrap_err();
        assert!(line.starts_with("another program listens at the socket"), "{line}");
        assert!(first.listener.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        UnixStream::connect(&path).unwrap();
        first.listener.accept().unwrap();
    }

    #[test]
    fn a_socket_that_nobody_listens_at_any_more_gives_way() {
        let path = std::env::temp_dir().join(format!("catnip-left-behind-{}", std::process::id()));
        drop(UnixListener::bind(&path).unwrap());
        drop(Listener::bind(&path).unwrap());
        assert!(!path.exists());
    }
}
