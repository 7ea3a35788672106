//! What a browser does at a gateway, without one: pages, cookies, sign-in, WebSocket, raw bytes.

mod connection;
mod http;
mod trust;
mod websocket;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::ClientConfig;

pub use http::Response;
pub use trust::{Anything, provider};
pub use websocket::{Frame, Opened, WebSocket};

/// Nothing that a gateway is asked may take longer.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Cookie of an application's token.
pub const APPLICATION_COOKIE: &str = "__Secure-postern-app";
/// Cookie of the organisation token.
pub const ORGANISATION_COOKIE: &str = "__Host-postern-org";

/// One person's browser at one gateway. Every request is a connection of its own.
#[derive(Debug, Clone)]
pub struct Browser {
    gateway: SocketAddr,
    /// Host name in TLS and `Host`, and with the port in `Origin`.
    pub host: String,
    /// The host belongs to one application, which is at its root.
    own_host: bool,
    /// The kernel chooses where there is none.
    source: Option<IpAddr>,
    tls: Arc<ClientConfig>,
    cookies: BTreeMap<(String, String), String>,
}

/// What came back on a connection that was fed raw bytes.
#[derive(Debug, Clone)]
pub struct Answer {
    /// This end of the connection, as audit records name it.
    pub source: SocketAddr,
    pub bytes: Vec<u8>,
    /// The gateway ended the connection by itself, in time.
    pub ended: bool,
}

impl Answer {
    /// The status of the first HTTP answer in it; 0 when there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        http::status(&self.bytes).unwrap_or(0)
    }
}

impl Browser {
    /// # Panics
    /// The cryptography is built in: it can't be missing.
    #[must_use]
    pub fn new(gateway: SocketAddr, host: &str) -> Self {
        Self {
            gateway,
            host: host.to_owned(),
            own_host: false,
            source: None,
            tls: trust::anything(),
            cookies: BTreeMap::new(),
        }
    }

    /// The same person on another host name of the gateway.
    #[must_use]
    pub fn on(&self, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            ..self.clone()
        }
    }

    /// What the same person's browser has for the own host of an application: no cookie yet, since
    /// it keeps every host's cookies apart.
    #[must_use]
    pub fn on_own_host(&self, host: &str) -> Self {
        Self {
            own_host: true,
            cookies: BTreeMap::new(),
            ..self.on(host)
        }
    }

    /// The same browser by another address of the gateway.
    #[must_use]
    pub fn by(&self, gateway: SocketAddr) -> Self {
        Self {
            gateway,
            ..self.clone()
        }
    }

    /// The same browser at another address of its own machine, of this family.
    #[must_use]
    pub fn at(&self, source: IpAddr) -> Self {
        Self {
            source: Some(source),
            ..self.clone()
        }
    }

    /// The gateway's address.
    #[must_use]
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// Where `application` is on this host.
    #[must_use]
    pub fn home(&self, application: &str) -> String {
        if self.own_host {
            "/".to_owned()
        } else {
            format!("/app/{application}/")
        }
    }

    /// `https://host:port`, as a browser sends it.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("https://{}", self.authority())
    }

    fn authority(&self) -> String {
        match self.gateway.port() {
            443 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// Sends `bytes` on a fresh connection and reads until the gateway ends it, or for `patience`.
    ///
    /// # Errors
    /// No TLS connection comes about.
    pub fn raw(&self, bytes: &[u8], patience: Duration) -> Result<Answer> {
        let (stream, source) = self.connect()?;
        // A gateway that refuses early need not read to the end.
        let _ = stream.send(bytes);
        let mut answer = Answer {
            source,
            bytes: Vec::new(),
            ended: false,
        };
        stream.set_patience(patience)?;
        let mut buffer = [0; 4096];
        loop {
            match stream.receive(&mut buffer) {
                Ok(0) => answer.ended = true,
                Ok(read) => {
                    answer.bytes.extend_from_slice(&buffer[..read]);
                    continue;
                }
                Err(error) => answer.ended = error.kind() != ErrorKind::WouldBlock,
            }
            return Ok(answer);
        }
    }

    /// # Errors
    /// No answer.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.request("GET", path, &[], None)
    }

    /// As the page's script asks.
    ///
    /// # Errors
    /// No answer.
    pub fn script(&mut self, method: &str, path: &str) -> Result<Response> {
        let headers = [("X-Requested-With", "XMLHttpRequest")];
        let body = (method == "POST").then_some("");
        self.request(method, path, &headers, body)
    }

    /// # Errors
    /// No answer.
    pub fn post_form(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Response> {
        let form: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", http::encode(name), http::encode(value)))
            .collect();
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        self.request("POST", path, &headers, Some(&form.join("&")))
    }

    /// # Errors
    /// No answer, or not an HTTP answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Response> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.authority()
        );
        if method != "GET" {
            head.push_str(&format!("Origin: {}\r\n", self.origin()));
        }
        if let Some(cookies) = self.cookie_header(path) {
            head.push_str(&format!("Cookie: {cookies}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head.push_str(body.unwrap_or_default());
        let answer = self.raw(head.as_bytes(), PATIENCE)?;
        let response = Response::parse(&answer)
            .with_context(|| format!("{method} {path}: {} bytes came", answer.bytes.len()))?;
        self.keep_cookies(&response);
        Ok(response)
    }

    /// Signs in by the form of the login page.
    ///
    /// # Errors
    /// There is no form, or no answer to it.
    pub fn submit_login(&mut self, user: &str, password: &str) -> Result<Response> {
        let page = self.get("/login")?;
        ensure!(page.status == 200, "the login page answers {}", page.status);
        let csrf = page
            .field("csrf")
            .context("the login form has no csrf field")?;
        let next = page.field("next").unwrap_or_default();
        let fields = [
            ("csrf", csrf.as_str()),
            ("next", next.as_str()),
            ("user", user),
            ("password", password),
        ];
        self.post_form("/login", &fields)
    }

    /// Signs in, which must succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn sign_in(&mut self, user: &str, password: &str) -> Result<()> {
        let answer = self.submit_login(user, password)?;
        ensure!(
            answer.status == 303 && self.cookie(ORGANISATION_COOKIE).is_some(),
            "{user} can't sign in: {} {}",
            answer.status,
            answer.text()
        );
        Ok(())
    }

    /// Opens an application's page, which gives the application's cookie.
    ///
    /// # Errors
    /// The page is refused.
    pub fn open(&mut self, application: &str) -> Result<()> {
        let path = self.home(application);
        let page = self.get(&path)?;
        if page.status != 200 {
            bail!(
                "the page of {application} answers {}: {}",
                page.status,
                page.text()
            );
        }
        ensure!(
            self.cookies
                .contains_key(&(path.clone(), APPLICATION_COOKIE.to_owned())),
            "the page of {application} sets no cookie for {path}"
        );
        Ok(())
    }

    /// The value of a cookie, whatever its path.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let mut found = self.cookies.iter().filter(|((_, of), _)| of == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// The names of all cookies that it keeps.
    pub fn cookie_names(&self) -> impl Iterator<Item = &str> {
        self.cookies.keys().map(|(_, name)| name.as_str())
    }

    /// The token of one application.
    #[must_use]
    pub fn token(&self, application: &str) -> Option<&str> {
        let key = (self.home(application), APPLICATION_COOKIE.to_owned());
        self.cookies.get(&key).map(String::as_str)
    }

    /// Keeps a cookie as if the gateway had set it.
    pub fn set_cookie(&mut self, path: &str, name: &str, value: &str) {
        let key = (path.to_owned(), name.to_owned());
        self.cookies.insert(key, value.to_owned());
    }

    pub fn forget_cookies(&mut self) {
        self.cookies.clear();
    }

    fn cookie_header(&self, path: &str) -> Option<String> {
        let pairs: Vec<String> = self
            .cookies
            .iter()
            .filter(|((of, _), _)| path.starts_with(of.as_str()))
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn keep_cookies(&mut self, response: &Response) {
        for set in response.all("set-cookie") {
            let mut parts = set.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            let attributes: Vec<&str> = parts.collect();
            let path = attributes
                .iter()
                .find_map(|part| part.strip_prefix("Path="))
                .unwrap_or("/");
            let key = (path.to_owned(), name.to_owned());
            if value.is_empty() || attributes.contains(&"Max-Age=0") {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
    }

    /// The headers of a faultless upgrade to `application`, in order; tests spoil them.
    #[must_use]
    pub fn upgrade_headers(&self, application: &str) -> Vec<(String, String)> {
        let mut headers = vec![
            ("Host", self.authority()),
            ("Connection", "Upgrade".to_owned()),
            ("Upgrade", "websocket".to_owned()),
            ("Sec-WebSocket-Version", "13".to_owned()),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==".to_owned()),
            ("Origin", self.origin()),
        ];
        if let Some(token) = self.token(application) {
            headers.push(("Cookie", format!("{APPLICATION_COOKIE}={token}")));
        }
        headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The head of an upgrade to `application` with these headers.
    #[must_use]
    pub fn upgrade_head(application: &str, headers: &[(String, String)]) -> String {
        Self::upgrade_head_at(&format!("/app/{application}/rdp"), headers)
    }

    /// The head of an upgrade at any path.
    #[must_use]
    pub fn upgrade_head_at(path: &str, headers: &[(String, String)]) -> String {
        let mut head = format!("GET {path} HTTP/1.1\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head
    }

    /// Opens `application`'s WebSocket, which must succeed.
    ///
    /// # Errors
    /// The upgrade is refused.
    pub fn upgrade(&self, application: &str) -> Result<WebSocket> {
        match self.try_upgrade(application)? {
            Opened::WebSocket(websocket) => Ok(*websocket),
            Opened::Refused(response) => {
                bail!(
                    "{application}: upgrade refused: {} {}",
                    response.status,
                    response.text()
                )
            }
        }
    }

    /// Asks for `application`'s WebSocket.
    ///
    /// # Errors
    /// No answer.
    pub fn try_upgrade(&self, application: &str) -> Result<Opened> {
        let path = format!("{}rdp", self.home(application));
        let head = Self::upgrade_head_at(&path, &self.upgrade_headers(application));
        let (stream, source) = self.connect()?;
        WebSocket::open(stream, source, head.as_bytes())
    }

    /// Signs nothing, opens nothing: upgrade and `RDCleanPath`, up to a live desktop.
    ///
    /// # Errors
    /// Anything less than a live desktop.
    pub fn desktop(&self, application: &str) -> Result<WebSocket> {
        let mut websocket = self.upgrade(application)?;
        websocket.ask_for_desktop(application)?;
        Ok(websocket)
    }
}
