//! Which requests are answered.
//!
//! A console without a token listens on loopback, and answers only requests that name loopback as
//! their host: a page of another site cannot have its own name resolve to this machine and read the
//! console. A console with a token answers requests that carry it: as a bearer token, or as a
//! cookie that the browser gets for it.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use hyper::Uri;
use hyper::header::{self, HeaderMap};
use subtle::ConstantTimeEq;

/// The name of the cookie. The browser shows cookies to all ports of a host, so it must tell them
/// apart.
const COOKIE: &str = "futurepool-console";

/// What a request may get.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Granted,
    /// The address has the token: the browser gets a cookie for it, and the address without it.
    SetCookie(String),
    NeedsToken,
    WrongHost,
}

/// The token of a console, and the secret of its cookie.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Option<Secret>,
    port: u16,
}

struct Secret {
    token: String,
    /// Not the token itself: other programs of the host see the cookie. It is of use for this
    /// console, and until it ends.
    cookie: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Guard {
    pub(crate) fn new(token: Option<String>, port: u16) -> Self {
        // The keys of the two hashes are random, 128 bits each, and are never shown.
        let random = |part: u8| RandomState::new().hash_one((part, token.as_deref()));
        let cookie = format!("{:016x}{:016x}", random(0), random(1));
        let token = token.map(|token| Secret { token, cookie });
        Self { token, port }
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Access {
        let Some(secret) = &self.token else {
            return match is_loopback_host(headers) {
                true => Access::Granted,
                false => Access::WrongHost,
            };
        };
        if has_bearer(headers, &secret.token) || self.has_cookie(headers, &secret.cookie) {
            return Access::Granted;
        }
        match query_token(uri) {
            Some(token)
                if uri.path() == "/" && is_equal(&decode(token), secret.token.as_bytes()) =>
            {
                Access::SetCookie(format!(
                    "{}={}; Path=/; HttpOnly; SameSite=Strict",
                    self.cookie_name(),
                    secret.cookie
                ))
            }
            _ => Access::NeedsToken,
        }
    }

    fn cookie_name(&self) -> String {
        format!("{COOKIE}-{}", self.port)
    }

    fn has_cookie(&self, headers: &HeaderMap, cookie: &str) -> bool {
        let name = self.cookie_name();
        let lines = headers.get_all(header::COOKIE).into_iter();
        let texts = lines.filter_map(|line| line.to_str().ok());
        let mut pairs = texts
            .flat_map(|text| text.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(key, value)| key == name && is_equal(value.as_bytes(), cookie.as_bytes()))
    }
}

fn has_bearer(headers: &HeaderMap, token: &str) -> bool {
    let value = headers.get(header::AUTHORIZATION);
    let text = value.and_then(|value| value.to_str().ok());
    let Some((scheme, rest)) = text.and_then(|text| text.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer") && is_equal(rest.trim().as_bytes(), token.as_bytes())
}

fn query_token(uri: &Uri) -> Option<&str> {
    let mut parts = uri.query()?.split('&');
    parts.find_map(|part| part.strip_prefix("token="))
}

/// Decodes `%41` and `+` of a query.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        let pair = (digit(bytes.get(place + 1)), digit(bytes.get(place + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push((high * 16 + low) as u8);
                place += 3;
                continue;
            }
            (b'+', _) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        place += 1;
    }
    decoded
}

/// Compares in a time that depends on the lengths alone.
fn is_equal(given: &[u8], secret: &[u8]) -> bool {
    given.ct_eq(secret).into()
}

/// Returns whether the request names loopback as its host.
fn is_loopback_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const TOKEN: &str = "a-token of decent+length";

    fn check(guard: &Guard, path: &str, headers: &[(&str, &str)]) -> Access {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        guard.check(&path.parse().unwrap(), &map)
    }

    #[test]
    fn without_a_token_only_the_names_of_loopback_are_answered() {
        let guard = Guard::new(None, 6670);
        let answer = |host| check(&guard, "/", &[("host", host)]);
        for host in [
            "localhost:6670",
            "LOCALHOST",
            "127.0.0.1:6670",
            "127.1.2.3",
            "[::1]:6670",
        ] {
            assert_eq!(answer(host), Access::Granted, "{host}");
        }
        for host in [
            "evil.example",
            "10.0.0.1",
            "[2001:db8::1]:1",
            "",
            "localhost.evil.example",
        ] {
            assert_eq!(answer(host), Access::WrongHost, "{host}");
        }
        assert_eq!(check(&guard, "/", &[]), Access::WrongHost);
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(check(&guard, "/", &two), Access::WrongHost);
    }

    #[test]
    fn a_token_is_needed_for_everything() {
        let guard = Guard::new(Some(TOKEN.to_owned()), 6670);
        let bearer = format!("Bearer {TOKEN}");
        for value in [&bearer, &bearer.replace("Bearer", "bearer")] {
            assert_eq!(
                check(&guard, "/x", &[("authorization", value)]),
                Access::Granted
            );
        }
        let bad = [
            "Bearer ".to_owned(),
            bearer[..bearer.len() - 1].to_owned(),
            format!("{bearer}x"),
            TOKEN.to_owned(),
            bearer.replace("Bearer", "Basic"),
        ];
        for value in &bad {
            let headers = [("host", "localhost"), ("authorization", value.as_str())];
            assert_eq!(check(&guard, "/", &headers), Access::NeedsToken, "{value}");
        }
        assert_eq!(
            check(&guard, "/", &[("host", "localhost")]),
            Access::NeedsToken
        );
    }

    #[test]
    fn the_address_with_the_token_sets_a_cookie_that_is_not_the_token() {
        let guard = Guard::new(Some(TOKEN.to_owned()), 6670);
        let address = "/?token=a-token+of%20decent%2Blength";
        let Access::SetCookie(cookie) = check(&guard, address, &[]) else {
            panic!("no cookie");
        };
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict") && !cookie.contains(TOKEN));
        let pair = cookie.split(';').next().unwrap();
        for line in [pair.to_owned(), format!("a=b; {pair}; c=d")] {
            assert_eq!(
                check(&guard, "/snapshot.json", &[("cookie", &line)]),
                Access::Granted
            );
        }
        // Neither another console's cookie, nor the token in the wrong place.
        let other = Guard::new(Some(TOKEN.to_owned()), 6670);
        for line in [&pair[..pair.len() - 1], "futurepool-console-6670=", TOKEN] {
            assert_eq!(check(&guard, "/", &[("cookie", line)]), Access::NeedsToken);
        }
        assert_eq!(check(&other, "/", &[("cookie", pair)]), Access::NeedsToken);
        let elsewhere = address.replace('?', "snapshot.json?");
        assert_eq!(check(&guard, &elsewhere, &[]), Access::NeedsToken);
        assert_eq!(check(&guard, "/?token=", &[]), Access::NeedsToken);
        assert_eq!(check(&guard, "/?token=%", &[]), Access::NeedsToken);
    }
}
