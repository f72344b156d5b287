//! Which proxy requests go through: the configured one, one that the environment names, or none. It opens no connection,
//! and no message or `Debug` shows a user name or a password.

use crate::secret::Secret;
use reqwest::Url;
use std::fmt;
use std::net::IpAddr;

/// What `influxdb.proxy` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProxyChoice {
    /// The one that the environment names for the server, if any.
    #[default]
    Environment,
    Off,
    Address(ProxyAddress),
}

/// `http://[user:password@]host:port`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ProxyAddress {
    url: Secret,
    /// Without user and password.
    shown: String,
}

impl ProxyAddress {
    /// Without a scheme it is taken for `http://`, as the environment's are; what is wrong is said without the text.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let wrong = "is no address of a proxy that speaks HTTP; write http://HOST:PORT, or off";
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&full).map_err(|_| wrong)?;
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !is_bare {
            return Err(wrong);
        }
        let host = url.host_str().filter(|h| !h.is_empty()).ok_or(wrong)?;
        let shown = format!("http://{host}:{}", url.port_or_known_default().unwrap_or(80));
        Ok(Self { shown, url: Secret(url.into()) })
    }

    /// As the HTTP library takes it.
    pub(crate) fn url(&self) -> &str {
        &self.url.0
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The proxy of a server, and who named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) address: ProxyAddress,
    /// The variable of the environment; `None`: it is configured.
    variable: Option<&'static str>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.address.shown;
        match self.variable {
            Some(variable) => write!(f, "the proxy {shown} (environment variable {variable})"),
            None => write!(f, "the proxy {shown} (influxdb.proxy)"),
        }
    }
}

/// The variables that name proxies, each in upper and in lower case.
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const NO: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The proxy that requests to a server go through.
///
/// One of the environment is not used for this machine itself, nor for what `NO_PROXY` names.
pub(crate) fn choose(
    choice: &ProxyChoice,
    server: &Url,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, String> {
    match choice {
        ProxyChoice::Off => return Ok(None),
        ProxyChoice::Address(address) => {
            return Ok(Some(Proxy { address: address.clone(), variable: None }));
        }
        ProxyChoice::Environment => {}
    }
    // An empty variable is none.
    let set = |names: [&'static str; 2]| {
        let value = |name: &'static str| Some((name, environment(name).filter(|v| !v.trim().is_empty())?));
        names.into_iter().find_map(value)
    };
    let host = server.host_str().unwrap_or_default();
    if is_this_machine(host)
        || set(NO).is_some_and(|(_, list)| is_excepted(host, server.port_or_known_default(), &list))
    {
        return Ok(None);
    }
    let of_scheme = if server.scheme() == "https" {
        set(HTTPS)
    } else {
        // Of a CGI program, HTTP_PROXY is whatever a visitor sends as the header Proxy.
        set(HTTP).filter(|(name, _)| *name != HTTP[0] || environment("REQUEST_METHOD").is_none())
    };
    let Some((variable, text)) = of_scheme.or_else(|| set(ALL)) else { return Ok(None) };
    match ProxyAddress::parse(&text) {
        Ok(address) => Ok(Some(Proxy { address, variable: Some(variable) })),
        Err(why) => Err(format!("environment variable {variable} {why}, into influxdb.proxy")),
    }
}

/// An address of the host's, without the brackets of a URL.
fn ip(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || ip(host).is_some_and(|ip| ip.is_loopback())
}

/// Whether a list, as `NO_PROXY` has it, names a host: `*`, a domain with all below it, an address, or a network; with a
/// port behind it, that one only.
fn is_excepted(host: &str, port: Option<u16>, list: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let names = |entry: &str| {
        let (entry, only) = without_port(entry);
        if only.is_some() && only != port {
            return false;
        }
        if entry == "*" {
            return true;
        }
        match (ip(&host), entry.split_once('/')) {
            (Some(host), Some((network, bits))) => is_in(host, ip(network), bits.parse().ok()),
            (Some(host), None) => ip(entry) == Some(host),
            (None, _) => {
                let domain = entry.trim_matches('.').to_ascii_lowercase();
                let below = host.strip_suffix(&domain);
                !domain.is_empty() && below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    };
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(names)
}

/// An entry of a list and its port. Colons of an address are none before a port, unless it stands in brackets.
fn without_port(entry: &str) -> (&str, Option<u16>) {
    let parts = entry.rsplit_once(':').filter(|(name, _)| name.ends_with(']') || !name.contains(':'));
    match parts.map(|(name, port)| (name, port.parse())) {
        Some((name, Ok(port))) => (name, Some(port)),
        _ => (entry, None),
    }
}

fn is_in(host: IpAddr, network: Option<IpAddr>, bits: Option<u32>) -> bool {
    match (host, network, bits) {
        (IpAddr::V4(host), Some(IpAddr::V4(network)), Some(bits @ 0..=32)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            host.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(host), Some(IpAddr::V6(network)), Some(bits @ 0..=128)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            host.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_proxy_is_right_or_refused_without_being_shown() {
        for (text, expected) in [
            ("http://proxy:3128", Some("http://proxy:3128")),
            ("http://proxy", Some("http://proxy:80")),
            ("proxy:3128", Some("http://proxy:3128")),
            ("10.0.0.1:3128/", Some("http://10.0.0.1:3128")),
            ("http://[fd00::1]:3128", Some("http://[fd00::1]:3128")),
            ("http://me:hunter2@proxy:3128", Some("http://proxy:3128")),
            ("me:hunter%402@proxy:3128", Some("http://proxy:3128")),
            ("https://me:hunter2@proxy:3128", None),
            ("socks5://me:hunter2@proxy:1080", None),
            ("http://me:hunter2@proxy:3128/path", None),
            ("http://me:hunter2@proxy:3128?a=b", None),
            ("http://me:hunter2@proxy:99999", None),
            ("http://me:hunter2@", None),
            ("", None),
        ] {
            let parsed = ProxyAddress::parse(text);
            assert_eq!(parsed.as_ref().ok().map(|p| p.shown.as_str()), expected, "{text}");
            assert!(!format!("{parsed:?}").contains("hunter"), "{parsed:?}");
        }
    }

    #[test]
    fn the_environment_names_proxies_and_exceptions() {
        let check = |server: &str, set: &[(&str, &str)], expected: Option<&str>| {
            let environment = |name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            let server = Url::parse(server).unwrap();
            let found = choose(&ProxyChoice::Environment, &server, environment).unwrap();
            assert_eq!(found.map(|p| p.to_string()).as_deref(), expected, "{server} {set:?}");
            assert_eq!(choose(&ProxyChoice::Off, &server, environment), Ok(None));
            let ours = ProxyChoice::Address(ProxyAddress::parse("ours:1").unwrap());
            let found = choose(&ours, &server, environment).unwrap().unwrap();
            assert_eq!(found.to_string(), "the proxy http://ours:1 (influxdb.proxy)");
        };
        let (plain, secure) = ("http://influx.house:8086", "https://influx.house");
        let by = |host: &str, variable: &str| {
            Some(format!("the proxy http://{host} (environment variable {variable})"))
        };
        let a = [("HTTP_PROXY", "a:1"), ("https_proxy", "http://u:p@b:2"), ("ALL_PROXY", "c:3")];
        check(plain, &[], None);
        check(plain, &a, by("a:1", "HTTP_PROXY").as_deref());
        check(secure, &a, by("b:2", "https_proxy").as_deref());
        check(plain, &a[1..], by("c:3", "ALL_PROXY").as_deref());
        check(secure, &[("HTTPS_PROXY", ""), ("all_proxy", "c:3")], by("c:3", "all_proxy").as_deref());
        check(plain, &[("HTTP_PROXY", "a:1"), ("REQUEST_METHOD", "GET")], None);
        check(plain, &[("http_proxy", "a:1"), ("REQUEST_METHOD", "GET")], by("a:1", "http_proxy").as_deref());
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"] {
            check(&format!("http://{host}:8086"), &a, None);
        }
        for (host, list, excepted) in [
            ("influx.house", "*", true),
            ("influx.house", "house", true),
            ("influx.house", ".house", true),
            ("influx.house", "other, INFLUX.house", true),
            ("influx.house", "x.influx.house", false),
            ("influx.house", "flux.house", false),
            ("influx.house", "", false),
            ("influx.house", ", .", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.3", "10.1.0.0/16", true),
            ("10.2.2.3", "10.1.0.0/16", false),
            ("10.2.2.3", "0.0.0.0/0", true),
            ("10.1.2.3", "10.1.2.3/32", true),
            ("10.1.2.3", "10.1.0.0/33", false),
            ("10.1.2.3", "2.3", false),
            ("[fd00::1]", "fd00::/8", true),
            ("[fd00::1]", "fd00::1", true),
            ("[fe00::1]", "fd00::/8", false),
            ("[fe00::1]", "::/0", true),
            ("influx.house", "influx.house:8086", true),
            ("influx.house", "influx.house:8087", false),
            ("influx.house", "influx.house:none", false),
            ("influx.house", "*:8086", true),
            ("10.1.2.3", "10.1.2.3:8086", true),
            ("10.1.2.3", "10.1.2.3:80", false),
            ("[fd00::1]", "[fd00::1]:8086", true),
            ("[fd00::1]", "[fd00::1]:80", false),
            ("[fd00::1]", "[fd00::1]", true),
            // An address that ends like a port.
            ("[fd00::8086]", "fd00::8086", true),
        ] {
            let expected = if excepted { None } else { by("a:1", "HTTP_PROXY") };
            check(
                &format!("http://{host}:8086"),
                &[("HTTP_PROXY", "a:1"), ("NO_PROXY", list)],
                expected.as_deref(),
            );
        }
        let server = Url::parse(secure).unwrap();
        let socks = |name: &str| (name == "ALL_PROXY").then(|| "socks5://me:hunter2@proxy:1080".to_owned());
        let why = choose(&ProxyChoice::Environment, &server, socks).unwrap_err();
        assert!(
            why.contains("ALL_PROXY") && why.contains("influxdb.proxy") && !why.contains("hunter2"),
            "{why}"
        );
    }
}
