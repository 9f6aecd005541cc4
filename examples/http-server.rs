//! A small HTTP/1.1 server: one page, held in memory and sent without copying.
//!
//! ```text
//! CATNIP_CONFIG=tap.toml cargo run --release --example http-server -- 10.1.0.2:80
//! curl http://10.1.0.2/
//! ```
//!
//! What `tap.toml` may look like stands in `echo-tokens.rs`. The server keeps connections alive, answers requests
//! that were sent ahead in their order, reads at most [`MAX_REQUEST_BYTES`] of a request's head, takes no request
//! with a body, and gives up on clients that say nothing for [`IDLE_LIMIT`].

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use catnip_os::libos::net::{TcpListener, TcpStream};
use catnip_os::libos::{Arena, Buffer, Config, Error, LibOs, ScatterGather};
use futures_util::AsyncReadExt;
use futures_util::future::{Either, select};

/// Longest head of a request, request line and all headers.
const MAX_REQUEST_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;
const IDLE_LIMIT: Duration = Duration::from_secs(30);

const PAGE: &str = "<!doctype html>\n<title>Catnip</title>\n<p>This page came out of a library OS.\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:80".to_owned());
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let libos = catnip_os::open(&Config::load()?)?;
    let page = libos.arena().copy_from(PAGE.as_bytes()).ok_or(Error::NoBuffers)?.freeze();
    let mut listener = TcpListener::bind(&libos, address)?;
    println!("listening on {address}");
    libos.block_on(async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (server, page) = (libos.clone(), page.clone());
                    libos.spawn(async move {
                        if let Err(error) = serve(&server, stream, &page).await {
                            eprintln!("{peer}: {error}");
                        }
                    });
                }
                Err(error) => eprintln!("accepting: {error}"),
            }
        }
    })?
}

/// Answers one client's requests until it or the server has had enough.
async fn serve(libos: &LibOs, mut stream: TcpStream, page: &Buffer) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        let answer = match Answer::to(&request) {
            Some((answer, head_bytes)) => {
                request.drain(..head_bytes);
                answer
            }
            None if request.len() >= MAX_REQUEST_BYTES => Answer::refusal(Status::TooLarge),
            None => {
                let read = pin!(stream.read(&mut chunk));
                let bytes = match select(read, libos.sleep(IDLE_LIMIT)).await {
                    Either::Left((bytes, _)) => bytes?,
                    Either::Right(_) => 0,
                };
                if bytes == 0 {
                    return Ok(stream.close().await?);
                }
                request.extend_from_slice(&chunk[..bytes]);
                continue;
            }
        };
        stream.push(answer.compose(libos.arena(), page)?).await?;
        if !answer.keep_alive {
            return Ok(stream.close().await?);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    BodyNotTaken,
    TooLarge,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed\r\nAllow: GET, HEAD",
            Self::BodyNotTaken => "413 Content Too Large",
            Self::TooLarge => "431 Request Header Fields Too Large",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    status: Status,
    /// The answer to `HEAD` says how long the page is and leaves it out.
    with_body: bool,
    keep_alive: bool,
}

impl Answer {
    /// An answer after which nothing the client says can be understood.
    const fn refusal(status: Status) -> Self {
        Self { status, with_body: true, keep_alive: false }
    }

    /// The answer to the request at the start of `bytes`, and how many of them it has; `None` while it is
    /// not complete.
    fn to(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let head_bytes = match request.parse(bytes) {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) => return None,
            Err(httparse::Error::TooManyHeaders) => {
                return Some((Self::refusal(Status::TooLarge), bytes.len()));
            }
            Err(_) => return Some((Self::refusal(Status::BadRequest), bytes.len())),
        };
        let header = |name: &str| {
            let mut found = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            found.next().map(|header| header.value.trim_ascii())
        };
        let has_body = header("Transfer-Encoding").is_some()
            || header("Content-Length").is_some_and(|length| length != b"0");
        if has_body {
            return Some((Self::refusal(Status::BodyNotTaken), bytes.len()));
        }
        // RFC 9112, section 9.3: HTTP/1.1 keeps connections unless told otherwise, 1.0 the other way round.
        let connection = header("Connection").unwrap_or_default();
        let keep_alive = match request.version {
            Some(1) => !connection.eq_ignore_ascii_case(b"close"),
            _ => connection.eq_ignore_ascii_case(b"keep-alive"),
        };
        let status = match (request.method, request.path) {
            (Some("GET" | "HEAD"), Some("/" | "/index.html")) => Status::Ok,
            (Some("GET" | "HEAD"), _) => Status::NotFound,
            _ => Status::MethodNotAllowed,
        };
        Some((Self { status, with_body: request.method != Some("HEAD"), keep_alive }, head_bytes))
    }

    /// Head and body. The page itself is shared by all answers; only the head is written.
    fn compose(self, arena: &Arena, page: &Buffer) -> Result<ScatterGather, Error> {
        let found = self.status == Status::Ok;
        let (kind, length) = match found {
            true => ("text/html", page.len()),
            false => ("text/plain", 0),
        };
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n",
            self.status.line(),
        );
        let head = arena.copy_from(head.as_bytes()).ok_or(Error::NoBuffers)?.freeze();
        let body = (found && self.with_body).then(|| page.clone());
        Ok(std::iter::once(head).chain(body).collect())
    }
}
