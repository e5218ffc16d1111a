//! The newer service: jobs by HTTP, and UDP through a WebSocket.
//!
//! A [`Session`] logs in and carries the cookie and the token against forged requests; a [`ServiceJob`] is one job. Answers refer to
//! each other by URL. Of these only the path is taken: the credentials go nowhere but to the site that the user named.

mod http;
pub mod proxy;

use std::io;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderValue, LOCATION, ORIGIN, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::classic::JobState;
use super::error::{Result, SpallocError, excerpt};
use super::geometry::{MachineAnswer, MachineInfo};
use super::keeper::Status;
use super::request::{JobRequest, Login};
use http::{ANSWER_TIMEOUT, Answer, Site};
use proxy::Proxy;

/// The cookie that is the session.
const COOKIE_NAME: &str = "JSESSIONID";

/// A user who is logged in.
pub struct Session {
    site: Site,
    /// The URL, for messages.
    server: String,
    login: Login,
    cookie: Option<String>,
    /// Header and token against forged requests.
    csrf: Option<(String, String)>,
    jobs: String,
    machines: String,
}

/// The service's description of itself.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Root {
    jobs_ref: String,
    machines_ref: String,
    csrf_header: String,
    csrf_token: String,
}

/// What is sent with a request.
type Content = Option<(&'static str, Vec<u8>)>;

impl Session {
    /// Logs in and asks for where things are.
    pub async fn log_in(url: &str, login: &Login) -> Result<Self> {
        let unreachable = |error| SpallocError::unreachable(url, error);
        let no_site = || SpallocError::Request(format!("`{url}` is not http://HOST/PATH or https://HOST/PATH"));
        let site = Site::new(url).map_err(unreachable)?.ok_or_else(no_site)?;
        let mut session = Self {
            site,
            server: url.to_owned(),
            login: login.clone(),
            cookie: None,
            csrf: None,
            jobs: String::new(),
            machines: String::new(),
        };
        session.renew().await?;
        Ok(session)
    }

    /// Logs in, again where the session has expired.
    async fn renew(&mut self) -> Result<()> {
        self.cookie = None;
        self.csrf = None;
        let form = format!("{}system/login.html", self.site.path());
        let answer = self.exchange(Method::GET, &form, None).await?;
        if let Login::Password { user, password } = self.login.clone() {
            let page = String::from_utf8_lossy(&answer.body).into_owned();
            let Some(token) = form_token(&page) else {
                return Err(SpallocError::protocol(&self.server, &form, &answer.body, "a form to log in with"));
            };
            let fields =
                [("_csrf", token.as_str()), ("username", &user), ("password", &password), ("submit", "submit")];
            let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            let before = self.cookie.take();
            let submit = format!("{}system/perform_login", self.site.path());
            self.cookie = before;
            let content = Some(("application/x-www-form-urlencoded", body.into_bytes()));
            let answer = self.exchange(Method::POST, &submit, content).await?;
            let renewed = answer.headers.get_all(SET_COOKIE).iter().any(|value| session_cookie(value).is_some());
            if !renewed {
                return Err(self.not_let_in(&answer));
            }
        } else if !answer.status.is_success() && !answer.status.is_redirection() {
            return Err(self.not_let_in(&answer));
        }
        let path = format!("{}srv/spalloc/", self.site.path());
        let answer = self.exchange(Method::GET, &path, None).await?;
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::FOUND) {
            return Err(self.not_let_in(&answer));
        }
        let root: Root = self.parsed(&path, &self.accepted(&path, answer)?, "the service's description")?;
        self.jobs = self.path_of(&root.jobs_ref, &path)?;
        self.machines = self.path_of(&root.machines_ref, &path)?;
        self.csrf = Some((root.csrf_header, root.csrf_token));
        Ok(())
    }

    /// A request, and once more after a new login where the session has expired.
    async fn request(&mut self, method: Method, path: &str, content: Content) -> Result<Answer> {
        let answer = self.exchange(method.clone(), path, content.clone()).await?;
        // Where the service does not say so plainly, it leads to its form to log in with.
        if answer.status != StatusCode::UNAUTHORIZED && !answer.status.is_redirection() {
            return Ok(answer);
        }
        self.renew().await?;
        self.exchange(method, path, content).await
    }

    async fn exchange(&mut self, method: Method, path: &str, content: Content) -> Result<Answer> {
        let command = format!("{method} {path}");
        let command = command.split('?').next().unwrap_or_default();
        let mut request = Request::builder().uri(path).header(HOST, self.site.authority());
        if method != Method::GET
            && let Some((name, token)) = &self.csrf
        {
            request = request.header(name, token);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, format!("{COOKIE_NAME}={cookie}"));
        }
        if let Login::Token(token) = &self.login {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let (kind, body) = content.unzip();
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        let request =
            request.method(method).body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(|error| {
                SpallocError::protocol(&self.server, command, error.to_string(), "what can be sent back")
            })?;
        let answer = self.site.exchange(request).await.map_err(|error| self.failed(command, error))?;
        if let Some(cookie) = answer.headers.get_all(SET_COOKIE).iter().find_map(session_cookie) {
            self.cookie = Some(cookie);
        }
        Ok(answer)
    }

    fn failed(&self, command: &str, error: io::Error) -> SpallocError {
        let (server, command) = (self.server.clone(), command.to_owned());
        match error.kind() {
            io::ErrorKind::TimedOut => SpallocError::Silent { server, command, waited: ANSWER_TIMEOUT },
            io::ErrorKind::ConnectionAborted => SpallocError::Closed { server, command },
            io::ErrorKind::InvalidData => {
                SpallocError::protocol(&server, &command, error.to_string(), "an answer by HTTP that can be trusted")
            }
            _ => SpallocError::unreachable(&server, error),
        }
    }

    /// An answer that is no error.
    fn accepted(&self, command: &str, answer: Answer) -> Result<Answer> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let code = answer.status.as_u16();
        // A server that is overloaded or restarted is one that is not reached.
        if answer.status.is_server_error() {
            return Err(SpallocError::unreachable(
                &self.server,
                io::Error::other(format!("HTTP {code}, {}", words(&answer))),
            ));
        }
        let (server, command) = (self.server.clone(), command.to_owned());
        Err(SpallocError::Refused { server, command, message: format!("HTTP {code}, {}", words(&answer)) })
    }

    fn not_let_in(&self, answer: &Answer) -> SpallocError {
        SpallocError::Login {
            server: self.server.clone(),
            user: self.login.user().to_owned(),
            message: format!("HTTP {}, {}", answer.status.as_u16(), words(answer)),
        }
    }

    fn parsed<T: DeserializeOwned>(&self, command: &str, answer: &Answer, expected: &str) -> Result<T> {
        serde_json::from_slice(&answer.body)
            .map_err(|_| SpallocError::protocol(&self.server, command, &answer.body, expected))
    }

    /// The path of a URL of this service, ending with `/`; the rest of the URL is not trusted, see the module.
    fn path_of(&self, url: &str, command: &str) -> Result<String> {
        path_of(url)
            .map(|path| if path.ends_with('/') { path.to_owned() } else { format!("{path}/") })
            .ok_or_else(|| SpallocError::protocol(&self.server, command, url, "a URL"))
    }
}

/// A job at the service.
pub struct ServiceJob {
    session: Session,
    /// Its path, ending with `/`.
    path: String,
    /// The way to the boards, once somebody asked for it.
    proxy: Option<Proxy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StateAnswer {
    state: Value,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    proxy_ref: Option<String>,
}

impl ServiceJob {
    pub async fn create(mut session: Session, request: &JobRequest) -> Result<Self> {
        let body = request.service_body()?;
        if let Some(machine) = &request.machine {
            let known: Vec<String> = session.machine_sizes().await?.into_iter().map(|machine| machine.name).collect();
            if !known.contains(machine) {
                return Err(SpallocError::NoSuchMachine { server: session.server, machine: machine.clone(), known });
            }
        }
        let command = format!("POST {}", session.jobs);
        let jobs = session.jobs.clone();
        let content = Some(("application/json", body.to_string().into_bytes()));
        let answer = session.request(Method::POST, &jobs, content).await?;
        let answer = session.accepted(&command, answer)?;
        let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = session.path_of(location, &command)?;
        Ok(Self { session, path, proxy: None })
    }

    pub fn url(&self) -> String {
        format!("{}://{}{}", self.session.site.scheme(), self.session.site.authority(), self.path)
    }

    /// Keeps the job alive and asks for its state.
    pub async fn status(&mut self) -> Result<Status> {
        let path = format!("{}keepalive", self.path);
        let answer =
            self.session.request(Method::PUT, &path, Some(("text/plain; charset=UTF-8", b"alive".to_vec()))).await?;
        // A job that is over cannot be kept alive, and its state says why.
        if answer.status.is_server_error() {
            self.session.accepted(&path, answer)?;
        }
        let state = self.state().await?;
        let Some(state) = state else { return Ok(Status { state: JobState::Unknown, power: None, reason: None }) };
        let known = match &state.state {
            Value::String(name) => match name.as_str() {
                "QUEUED" => Some(JobState::Queued),
                "POWER" => Some(JobState::Power),
                "READY" => Some(JobState::Ready),
                "DESTROYED" => Some(JobState::Destroyed),
                "UNKNOWN" => Some(JobState::Unknown),
                _ => None,
            },
            Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()).map(JobState::from),
            _ => None,
        };
        let odd = || SpallocError::protocol(&self.session.server, &self.path, state.state.to_string(), "a job's state");
        Ok(Status { state: known.ok_or_else(odd)?, power: None, reason: state.reason })
    }

    /// `None` if there is no such job.
    async fn state(&mut self) -> Result<Option<StateAnswer>> {
        let path = self.path.clone();
        let answer = self.session.request(Method::GET, &path, None).await?;
        if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        let answer = self.session.accepted(&path, answer)?;
        self.session.parsed(&path, &answer, "a job's state").map(Some)
    }

    pub async fn machine(&mut self) -> Result<Option<MachineInfo>> {
        let path = format!("{}machine", self.path);
        let answer = self.session.request(Method::GET, &path, None).await?;
        let answer = self.session.accepted(&path, answer)?;
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let machine: MachineAnswer = self.session.parsed(&path, &answer, "a job's machine")?;
        let sizes = self.session.machine_sizes().await?;
        let whole =
            sizes.iter().find(|size| Some(size.name.as_str()) == machine.name()).map(|size| (size.width, size.height));
        machine
            .info(whole)
            .map_err(|found| SpallocError::protocol(&self.session.server, &path, found, "a job's machine"))
    }

    pub async fn power(&mut self, on: bool) -> Result<()> {
        let path = format!("{}machine/power", self.path);
        let body = json!({ "power": if on { "ON" } else { "OFF" } }).to_string().into_bytes();
        let answer = self.session.request(Method::PUT, &path, Some(("application/json", body))).await?;
        self.session.accepted(&path, answer).map(drop)
    }

    pub async fn destroy(&mut self, reason: &str) -> Result<()> {
        self.proxy = None;
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("reason", reason).finish();
        let path = format!("{}?{query}", self.path);
        let answer = self.session.request(Method::DELETE, &path, None).await?;
        if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(());
        }
        self.session.accepted(&self.path, answer).map(drop)
    }

    /// The way to the boards through the service; `None` if it has none.
    pub async fn proxy(&mut self) -> Result<Option<Proxy>> {
        if let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.is_open()) {
            return Ok(Some(proxy.clone()));
        }
        let Some(url) = self.state().await?.and_then(|state| state.proxy_ref) else { return Ok(None) };
        let failed = |message: String| SpallocError::Proxy { server: self.session.server.clone(), message };
        let site = &self.session.site;
        let path = path_of(&url).ok_or_else(|| failed(format!("{} is no URL", excerpt(url.as_bytes()))))?;
        let scheme = if site.scheme() == "https" { "wss" } else { "ws" };
        let mut request = format!("{scheme}://{}{path}", site.authority())
            .into_client_request()
            .map_err(|error| failed(error.to_string()))?;
        let mut headers = vec![(ORIGIN.to_string(), format!("{}://{}", site.scheme(), site.authority()))];
        headers.extend(self.session.csrf.clone());
        headers
            .extend(self.session.cookie.as_ref().map(|cookie| (COOKIE.to_string(), format!("{COOKIE_NAME}={cookie}"))));
        if let Login::Token(token) = &self.session.login {
            headers.push((AUTHORIZATION.to_string(), format!("Bearer {token}")));
        }
        for (name, value) in headers {
            let name = hyper::header::HeaderName::try_from(name).map_err(|error| failed(error.to_string()))?;
            let value = HeaderValue::try_from(value).map_err(|error| failed(error.to_string()))?;
            request.headers_mut().insert(name, value);
        }
        let stream = site.open().await.map_err(|error| failed(error.to_string()))?;
        let proxy = Proxy::start(self.session.server.clone(), request, stream).await?;
        self.proxy = Some(proxy.clone());
        Ok(Some(proxy))
    }
}

/// A machine's name and its size in triads.
#[derive(Deserialize)]
struct MachineSize {
    name: String,
    width: u32,
    height: u32,
}

impl Session {
    async fn machine_sizes(&mut self) -> Result<Vec<MachineSize>> {
        #[derive(Deserialize)]
        struct Machines {
            machines: Vec<MachineSize>,
        }
        let path = self.machines.clone();
        let answer = self.request(Method::GET, &path, None).await?;
        let answer = self.accepted(&path, answer)?;
        Ok(self.parsed::<Machines>(&path, &answer, "a list of machines")?.machines)
    }
}

/// Path and query of a URL, or the path itself.
fn path_of(url: &str) -> Option<&str> {
    if url.starts_with('/') {
        return Some(url);
    }
    let (_, rest) = url.split_once("://")?;
    rest.find('/').map(|at| &rest[at..])
}

/// The session, if this cookie is it.
fn session_cookie(value: &HeaderValue) -> Option<String> {
    let (name, rest) = value.to_str().ok()?.split_once('=')?;
    let value = rest.split(';').next().unwrap_or_default().trim();
    (name.trim() == COOKIE_NAME && !value.is_empty()).then(|| value.to_owned())
}

/// The token in the form to log in with.
fn form_token(page: &str) -> Option<String> {
    let (_, after) = page.split_once("name=\"_csrf\"")?;
    let (tag, _) = after.split_once('>')?;
    let (_, value) = tag.split_once("value=\"")?;
    value.split_once('"').map(|(token, _)| token.to_owned())
}

/// What an answer says in words.
fn words(answer: &Answer) -> String {
    let said = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|value| Some(value.get("message")?.as_str()?.chars().take(200).collect()));
    said.unwrap_or_else(|| excerpt(&answer.body))
}
