//! What is asked for, and of whom.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::{Result, SpallocError};
use super::geometry::BoardPlace;

/// TCP port of a classic server.
const CLASSIC_PORT: u16 = 22244;
/// Boards of the largest machine: 256 x 256 chips in triads of 12 x 12, with three boards each.
const BOARDS_MAX: u32 = 1323;

/// Who allocates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// The classic server: lines of JSON over TCP.
    Classic {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The newer service: HTTP and WebSocket.
    Service {
        /// `http://` or `https://`, without user and password.
        url: String,
        /// Who comes.
        login: Login,
    },
}

/// How a user shows who they are to the newer service.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// By name and password.
    Password {
        /// Name.
        user: String,
        /// Password.
        password: String,
    },
    /// By a bearer token.
    Token(String),
}

impl fmt::Debug for Login {
    /// Without the secrets, so that they are in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?}, .. }}"),
            Self::Token(_) => f.write_str("Token(..)"),
        }
    }
}

impl Login {
    /// Who comes, for messages.
    pub(super) fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } => user,
            Self::Token(_) => "the bearer of this token",
        }
    }
}

impl Server {
    /// A classic server at its usual port, 22244.
    pub fn classic(host: impl Into<String>) -> Self {
        Self::Classic { host: host.into(), port: CLASSIC_PORT }
    }

    /// The newer service at a URL. User and password come from the URL (`https://USER:PASSWORD@HOST/PATH`) or, where it has none, from the
    /// environment: `SPALLOC_TOKEN`, or `SPALLOC_USER` and `SPALLOC_PASSWORD`.
    ///
    /// # Errors
    /// [`SpallocError::Request`] if it is no such URL, or if there is nothing to log in with.
    pub fn service(url: &str) -> Result<Self> {
        let wrong =
            || SpallocError::Request(format!("`{}` is not http://HOST/PATH or https://HOST/PATH", without_secret(url)));
        let (scheme, rest) =
            url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme)).ok_or_else(wrong)?;
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
        if host.is_empty() || path.contains(['?', '#']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let given =
            user.and_then(|user| user.split_once(':')).map(|(user, password)| (decoded(user), decoded(password)));
        let login = match given {
            Some((user, password)) => Login::Password { user, password },
            None => match (variable("SPALLOC_TOKEN"), variable("SPALLOC_USER"), variable("SPALLOC_PASSWORD")) {
                (Some(token), ..) => Login::Token(token),
                (None, Some(user), Some(password)) => Login::Password { user, password },
                _ => {
                    return Err(SpallocError::Request(format!(
                        "the service at {scheme}://{host} wants to know who comes. Give user and password in the URL or in SPALLOC_USER and SPALLOC_PASSWORD, or a token in SPALLOC_TOKEN"
                    )));
                }
            },
        };
        Ok(Self::Service { url: format!("{scheme}://{host}/{path}"), login })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classic { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Classic { host, port } => write!(f, "{host}:{port}"),
            Self::Service { url, .. } => f.write_str(url),
        }
    }
}

/// A URL as it may be shown.
fn without_secret(url: &str) -> String {
    let shown = match (url.find("://"), url.rfind('@')) {
        (Some(start), Some(end)) if start < end => format!("{}://...{}", &url[..start], &url[end..]),
        _ => url.to_owned(),
    };
    shown.chars().take(80).collect()
}

/// `%40` and the like of a part of a URL; what is wrongly escaped stays as it is.
fn decoded(text: &str) -> String {
    // A query's decoder, in which `+` would be a space.
    let escaped = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// How many boards, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// So many boards at least. More than one come as whole triads in a rectangle, so there may be more: 4 wanted are 6.
    Boards(u32),
    /// A rectangle of triads (three boards each).
    Triads {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// This one board.
    Board(BoardPlace),
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boards(1) => f.write_str("1 board"),
            Self::Boards(count) => write!(f, "{count} boards"),
            Self::Triads { width, height } => write!(f, "{width} x {height} triads"),
            Self::Board(place) => write!(f, "board {place}"),
        }
    }
}

/// A request for boards.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRequest {
    /// How many boards, and which.
    pub want: Want,
    /// In whose name; the newer service goes by its login instead.
    pub owner: String,
    /// How long the server keeps the job without hearing of the client: for so long it survives a lost connection, and for so
    /// long the boards are lost to others after a crash. `None` is for ever, and then only the classic server has it, and nobody releases
    /// the boards of a killed process. 60 s unless set; the newer service takes 30 s to 300 s.
    pub keepalive: Option<Duration>,
    /// On this machine only. Excludes `tags`.
    pub machine: Option<String>,
    /// On machines with all of these tags; where there are none, and no `machine`, those with the tag `default`.
    pub tags: Vec<String>,
    /// How square a rectangle has to be: the ratio of its shorter to its longer side, 0.333 unless set. Classic server.
    pub min_ratio: f64,
    /// Dead boards among them at most; `None` for any number. 0 unless set.
    pub max_dead_boards: Option<u32>,
    /// Dead links between them at most; `None`, as unless set, for any number. Classic server.
    pub max_dead_links: Option<u32>,
    /// Only what wraps around in both directions, which is a whole machine. Classic server.
    pub require_torus: bool,
    /// For how long to wait for boards to become free. 10 minutes unless set.
    pub queue_timeout: Duration,
    /// For how long to wait for boards to be switched on or off. 3 minutes unless set: the server tries more than once.
    pub power_timeout: Duration,
}

impl JobRequest {
    /// A request in the name of who is logged in.
    ///
    /// # Errors
    /// [`SpallocError::Request`] if the operating system does not know who that is.
    pub fn new(want: Want) -> Result<Self> {
        let owner = whoami::username().map_err(|_| {
            SpallocError::Request("this computer does not know who is logged in. Give the owner's name".to_owned())
        })?;
        Ok(Self::for_owner(want, owner))
    }

    /// A request in somebody's name.
    pub fn for_owner(want: Want, owner: impl Into<String>) -> Self {
        Self {
            want,
            owner: owner.into(),
            keepalive: Some(Duration::from_secs(60)),
            machine: None,
            tags: Vec::new(),
            min_ratio: 0.333,
            max_dead_boards: Some(0),
            max_dead_links: None,
            require_torus: false,
            queue_timeout: Duration::from_secs(600),
            power_timeout: Duration::from_secs(180),
        }
    }

    /// Whether it makes sense at all.
    ///
    /// # Errors
    /// [`SpallocError::Request`].
    pub fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(SpallocError::Request(text));
        match self.want {
            Want::Boards(count) if !(1..=BOARDS_MAX).contains(&count) => {
                return wrong(format!("{count} boards; a machine has 1 to {BOARDS_MAX}"));
            }
            Want::Triads { width, height } if !(1..=21).contains(&width) || !(1..=21).contains(&height) => {
                return wrong(format!("{width} x {height} triads; a machine has 1 to 21 each way"));
            }
            Want::Board(place) if place.z > 2 || place.x > 20 || place.y > 20 => {
                return wrong(format!(
                    "board {place}; a board is x,y,z: column and row of its triad (0 to 20) and 0, 1 or 2"
                ));
            }
            _ => {}
        }
        if self.owner.is_empty() {
            return wrong("the owner has no name".to_owned());
        }
        if self.machine.is_some() && !self.tags.is_empty() {
            return wrong("a machine's name and tags exclude each other".to_owned());
        }
        if self.keepalive.is_some_and(|keepalive| !(0.5..=86_400.0).contains(&keepalive.as_secs_f64())) {
            return wrong("the keepalive is half a second to a day".to_owned());
        }
        if !(0.0..=1.0).contains(&self.min_ratio) {
            return wrong(format!("a ratio of {}; it is 0 to 1", self.min_ratio));
        }
        if self.require_torus && (self.want == Want::Boards(1) || matches!(self.want, Want::Board(_))) {
            return wrong("one board has no wrap-around links".to_owned());
        }
        Ok(())
    }

    /// Arguments of the classic `create_job`.
    pub(super) fn classic_arguments(&self) -> (Vec<Value>, Map<String, Value>) {
        let positional = match self.want {
            Want::Boards(count) => vec![json!(count)],
            Want::Triads { width, height } => vec![json!(width), json!(height)],
            Want::Board(place) => vec![json!(place.x), json!(place.y), json!(place.z)],
        };
        let mut named = Map::new();
        named.insert("owner".to_owned(), json!(self.owner));
        named.insert("keepalive".to_owned(), json!(self.keepalive.map(|keepalive| keepalive.as_secs_f64())));
        named.insert("machine".to_owned(), json!(self.machine));
        named.insert("tags".to_owned(), if self.tags.is_empty() { Value::Null } else { json!(self.tags) });
        named.insert("min_ratio".to_owned(), json!(self.min_ratio));
        named.insert("max_dead_boards".to_owned(), json!(self.max_dead_boards));
        named.insert("max_dead_links".to_owned(), json!(self.max_dead_links));
        named.insert("require_torus".to_owned(), json!(self.require_torus));
        (positional, named)
    }

    /// The body by which a job is created at the newer service.
    pub(super) fn service_body(&self) -> Result<Value> {
        let wrong = |text: &str| Err(SpallocError::Request(format!("the HTTP service {text}")));
        if self.require_torus || self.max_dead_links.is_some() {
            return wrong("knows neither `require_torus` nor `max_dead_links`");
        }
        let Some(keepalive) = self.keepalive.filter(|keepalive| (30..=300).contains(&keepalive.as_secs())) else {
            return wrong("keeps jobs alive for 30 s to 300 s");
        };
        let mut body = Map::new();
        match self.want {
            Want::Boards(count) => body.insert("num-boards".to_owned(), json!(count)),
            Want::Triads { width, height } => {
                body.insert("dimensions".to_owned(), json!({ "width": width, "height": height }))
            }
            Want::Board(place) => body.insert("board".to_owned(), json!({ "x": place.x, "y": place.y, "z": place.z })),
        };
        body.insert("owner".to_owned(), json!(self.owner));
        match &self.machine {
            Some(machine) => body.insert("machine-name".to_owned(), json!(machine)),
            None if self.tags.is_empty() => body.insert("tags".to_owned(), json!(["default"])),
            None => body.insert("tags".to_owned(), json!(self.tags)),
        };
        if let Some(count) = self.max_dead_boards {
            body.insert("max-dead-boards".to_owned(), json!(count));
        }
        body.insert("keepalive-interval".to_owned(), json!(format!("PT{}S", keepalive.as_secs())));
        Ok(Value::Object(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_services_are_taken_apart() {
        let service = Server::service("https://me:p%40ss+1@spinnaker.example.org:8443/spalloc").expect("valid");
        let login = Login::Password { user: "me".to_owned(), password: "p@ss+1".to_owned() };
        let url = "https://spinnaker.example.org:8443/spalloc".to_owned();
        assert_eq!(service, Server::Service { url, login });
        assert!(!format!("{service:?} {service}").contains("p@ss"));
        for text in ["ftp://a", "http://", "host", "http://a/b?c=d", "http://a b/"] {
            assert!(Server::service(text).is_err(), "{text}");
        }
        let error = Server::service("gopher://me:secret@host/").expect_err("wrong").to_string();
        assert!(error.contains("host") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn requests_that_make_no_sense_are_named() {
        let check = |change: fn(&mut JobRequest), part: &str| {
            let mut request = JobRequest::for_owner(Want::Boards(1), "me");
            change(&mut request);
            let error = request.check().expect_err(part).to_string();
            assert!(error.contains(part), "{error} lacks {part}");
        };
        check(|r| r.want = Want::Boards(0), "0 boards");
        check(|r| r.want = Want::Boards(2000), "1 to 1323");
        check(|r| r.want = Want::Triads { width: 0, height: 1 }, "0 x 1 triads");
        check(|r| r.want = Want::Board(BoardPlace { x: 0, y: 0, z: 3 }), "board 0,0,3");
        check(|r| r.owner.clear(), "no name");
        check(|r| (r.machine, r.tags) = (Some("m".to_owned()), vec!["t".to_owned()]), "exclude");
        check(|r| r.keepalive = Some(Duration::ZERO), "keepalive");
        check(|r| r.min_ratio = f64::NAN, "ratio");
        check(|r| r.require_torus = true, "wrap-around");
        let mut torus = JobRequest::for_owner(Want::Boards(3), "me");
        torus.require_torus = true;
        assert!(torus.check().is_ok());
        assert!(torus.service_body().expect_err("unknown there").to_string().contains("require_torus"));
    }

    #[test]
    fn a_login_has_a_name() {
        assert!(!JobRequest::new(Want::Boards(1)).expect("somebody runs this").owner.is_empty());
    }
}
