//! Where a server listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;

use crate::Error;

/// Where a server listens: `http://HOST[:PORT]` (port 7411 unless given) or `unix:///PATH`.
///
/// Over a Unix socket the kernel tells the server who calls, so that [`Owner::this_process`](crate::Owner::this_process)
/// works there and only there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(pub(crate) Target);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Scheme and authority; the authority has a port.
    Tcp(Uri),
    Unix(PathBuf),
}

impl Default for Endpoint {
    /// `http://127.0.0.1:7411`, where a server listens by default.
    fn default() -> Self {
        let uri = format!("http://127.0.0.1:{}", holdfast_proto::DEFAULT_PORT);
        Self(Target::Tcp(uri.parse().expect("an address and a port make a URI")))
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |what: &str| {
            Err(Error::Usage(format!(
                "endpoint {text:?}: {what}; expected http://HOST:PORT, such as http://127.0.0.1:7411, \
                 or unix:///PATH, such as unix:///run/holdfast/holdfast.sock"
            )))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Self(Target::Unix(path.into()))),
                false => refuse("the path of the socket must be absolute"),
            };
        }
        let Ok(uri) = text.parse::<Uri>() else { return refuse("this is not a URI") };
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return refuse("TLS is not supported"),
            _ => return refuse("the scheme must be http or unix"),
        }
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
            return refuse("nothing may follow the port");
        }
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return refuse("the host is missing");
        };
        if authority.as_str().contains('@') {
            return refuse("a user name has no place here");
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => holdfast_proto::DEFAULT_PORT,
            Some(rest) => match rest.strip_prefix(':').and_then(|port| port.parse().ok()) {
                Some(port) => port,
                None => return refuse("the port must be a number up to 65535"),
            },
            None => return refuse("this is not a URI"),
        };
        match format!("http://{}:{port}", authority.host()).parse() {
            Ok(uri) => Ok(Self(Target::Tcp(uri))),
            Err(_) => refuse("this is not a URI"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::Tcp(uri) => write!(f, "http://{}", uri.authority().map_or("", |authority| authority.as_str())),
            Target::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_print_as_they_are_written() {
        for text in ["http://127.0.0.1:7411", "http://node-1.example:80", "http://[::1]:9", "unix:///run/h/h.sock"] {
            assert_eq!(text.parse::<Endpoint>().expect(text).to_string(), text);
        }
        assert_eq!(Endpoint::default().to_string(), "http://127.0.0.1:7411");
    }

    #[test]
    fn port_and_short_forms_are_filled_in() {
        for (short, long) in [
            ("http://node-1", "http://node-1:7411"),
            ("http://[::1]", "http://[::1]:7411"),
            ("http://node-1:80/", "http://node-1:80"),
            ("unix:/run/h.sock", "unix:///run/h.sock"),
        ] {
            assert_eq!(short.parse::<Endpoint>().expect(short).to_string(), long);
        }
    }

    #[test]
    fn a_refused_endpoint_is_quoted_and_says_what_is_expected() {
        for (text, what) in [
            ("", "not a URI"),
            ("127.0.0.1:7411", "scheme"),
            ("localhost", "scheme"),
            ("https://127.0.0.1:7411", "TLS"),
            ("tcp://127.0.0.1:7411", "scheme"),
            ("http://127.0.0.1:99999", "port"),
            ("http://127.0.0.1:", "port"),
            ("http://:7411", "host"),
            ("http://me@host:1", "user name"),
            ("http://127.0.0.1:7411/path", "follow"),
            ("http://127.0.0.1:7411/?q", "follow"),
            ("unix://relative.sock", "absolute"),
            ("unix:", "absolute"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(what), "{text:?}: {error}");
            assert!(error.contains(&format!("{text:?}")) && error.contains("unix:///"), "{error}");
        }
    }
}
