//! How a token, or a user and a password, is shown to a server: one header of a request, which no message shows. Pure.

use crate::error::{Error, Kind};
use crate::secret::Secret;
use crate::server::exchange::{NoAnswer, Scheme};
use reqwest::header::HeaderValue;

/// What shows a user and a password to a server.
pub(crate) fn basic(user: &str, password: &Secret) -> Result<HeaderValue, Error> {
    let text = format!("Basic {}", base64(format!("{user}:{}", password.0).as_bytes()));
    let mut value = HeaderValue::try_from(text)
        .map_err(|e| Error::because(Kind::InvalidConfig, "prepare HTTP Basic authentication", e))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What shows a token to a server.
pub(crate) fn authorization(token: &str, scheme: Scheme) -> Result<Option<HeaderValue>, NoAnswer> {
    if token.is_empty() {
        return Ok(None);
    }
    let text = match scheme {
        Scheme::Token => format!("Token {token}"),
        Scheme::BasicOrBearer if token.contains(':') => format!("Basic {}", base64(token.as_bytes())),
        Scheme::Bearer | Scheme::BasicOrBearer => format!("Bearer {token}"),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        let reason = "the token holds a line feed or another character that no request can carry; give \
                      influxdb.token without it";
        NoAnswer::Unusable { reason: reason.to_owned(), setting: "token" }
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= three.len() { digit as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_shown_as_each_server_wants_them() {
        for (token, scheme, expected) in [
            ("", Scheme::Token, None),
            ("t", Scheme::Token, Some("Token t")),
            ("t:x", Scheme::Token, Some("Token t:x")),
            ("t:x", Scheme::Bearer, Some("Bearer t:x")),
            ("t", Scheme::BasicOrBearer, Some("Bearer t")),
            ("Aladdin:open sesame", Scheme::BasicOrBearer, Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
            (":", Scheme::BasicOrBearer, Some("Basic Og==")),
            ("a:b", Scheme::BasicOrBearer, Some("Basic YTpi")),
        ] {
            let shown = authorization(token, scheme).unwrap();
            assert_eq!(shown.as_ref().map(|v| v.to_str().unwrap()), expected);
            assert!(!format!("{shown:?}").contains("Aladdin"));
        }
        assert!(matches!(
            authorization("a\nb", Scheme::Token),
            Err(NoAnswer::Unusable { setting: "token", .. })
        ));
    }

    #[test]
    fn a_user_is_shown_with_the_password_whatever_is_in_it() {
        let shown = basic("Aladdin", &Secret("open sesame".to_owned())).unwrap();
        assert_eq!(shown.to_str().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(shown.is_sensitive() && !format!("{shown:?}").contains("QWx"));
        basic("ü", &Secret("ä:\n\u{0}".to_owned())).unwrap();
    }
}
