//! One HTTP exchange at a time, with bounds on time and size.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The longest answer that is read. The longest that there is describes a machine's boards.
const BODY_BYTES_MAX: usize = 8 << 20;
/// For how long a connection is tried, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long an exchange may take, connection included.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A stream of bytes, in the clear or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a service is.
#[derive(Clone)]
pub struct Site {
    /// Whether by TLS.
    tls: Option<TlsConnector>,
    host: String,
    port: u16,
    /// Ends with `/`.
    path: String,
}

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Site {
    /// The site that a URL names; `None` if it names none.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if this computer has no certificates to trust.
    pub fn new(url: &str) -> io::Result<Option<Self>> {
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (place, None),
        };
        let usual = if scheme == "https" { 443 } else { 80 };
        let Some(port) = port.map_or(Some(usual), |port| port.parse().ok()) else { return Ok(None) };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let path = format!("/{}{}", path, if path.is_empty() || path.ends_with('/') { "" } else { "/" });
        let tls = if scheme == "https" { Some(connector()?) } else { None };
        Ok(Some(Self { tls, host: host.to_owned(), port, path }))
    }

    /// The path that everything is under; ends with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `HOST` or `HOST:PORT`, as a request has it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls.is_some() { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// A connection.
    ///
    /// # Errors
    /// The operating system's, and those of TLS as [`io::ErrorKind::InvalidData`].
    pub async fn open(&self) -> io::Result<Box<dyn Stream>> {
        let open = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &self.tls else { return Ok(Box::new(stream) as Box<dyn Stream>) };
            let name = ServerName::try_from(self.host.clone()).map_err(invalid)?;
            Ok(Box::new(tls.connect(name, stream).await?) as Box<dyn Stream>)
        };
        timeout(CONNECT_TIMEOUT, open).await.unwrap_or_else(|_| Err(late("no connection within 5 s")))
    }

    /// Sends a request on a connection of its own and reads the answer.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`]; [`io::ErrorKind::InvalidData`] for what is no HTTP; the operating system's.
    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> io::Result<Answer> {
        let exchange = async {
            let stream = TokioIo::new(self.open().await?);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(broken)?;
            let answer = async {
                let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
                let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(invalid)?.to_bytes();
                Ok(Answer { status: parts.status, headers: parts.headers, body })
            };
            // The connection has to be driven for the answer to come; what it ends with, the answer ends with, too.
            let drive = async {
                let _ = connection.await;
                std::future::pending().await
            };
            tokio::select! {
                biased;
                answer = answer => answer,
                never = drive => never,
            }
        };
        timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(late("no answer within 15 s")))
    }
}

/// TLS by the certificates that this computer trusts.
fn connector() -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("this computer trusts no certificate authority{why}"),
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn broken(error: hyper::Error) -> io::Error {
    if error.is_parse() { invalid(error) } else { io::Error::new(io::ErrorKind::ConnectionAborted, error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_sites() {
        let check = |url: &str, authority: &str, path: &str| {
            let site = Site::new(url).expect("no TLS in it").expect(url);
            assert_eq!((site.authority().as_str(), site.path()), (authority, path), "{url}");
        };
        check("http://host", "host", "/");
        check("http://host:80/spalloc", "host", "/spalloc/");
        check("http://host:8080/a/b/", "host:8080", "/a/b/");
        check("http://[::1]:8080/", "[::1]:8080", "/");
        check("http://[::1]", "[::1]", "/");
        assert!(Site::new("http://host:port/").expect("no TLS").is_none());
        assert!(Site::new("host").expect("no TLS").is_none());
    }
}
