//! Which service a request is for: by its host and its path.

use std::str::FromStr;

use overlay_core::Port;

use crate::pool::Target;

/// A rule: requests for this host whose path begins so are for this service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// In small letters; any if `None`.
    host: Option<String>,
    /// Without a `/` at its end: whole segments of the path.
    path: String,
    pub(crate) service: String,
    pub(crate) target: Target,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no route: HOST/PATH=SERVICE:PORT, as shop.example/api=api:8080, or *=web:http");
        let (from, to) = text.split_once('=').ok_or_else(wrong)?;
        let (service, port) =
            to.rsplit_once(':').filter(|(service, port)| !service.is_empty() && !port.is_empty()).ok_or_else(wrong)?;
        let (host, path) = from.split_once('/').unwrap_or((from, ""));
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let number = || Port::new(port.parse().ok()?).ok();
        let target = match is_number {
            true => Target::Number(number().ok_or_else(wrong)?),
            false => Target::Named(port.to_owned()),
        };
        Ok(Self {
            host: (!matches!(host, "" | "*")).then(|| host.to_ascii_lowercase()),
            path: format!("/{path}").trim_end_matches('/').to_owned(),
            service: service.to_owned(),
            target,
        })
    }
}

impl Route {
    fn takes(&self, host: &str, path: &str) -> bool {
        let rest = path.strip_prefix(&self.path);
        let is_path = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_path && self.host.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(name(host)))
    }
}

/// The place among these of the one that a request is for: that of its host before one of any, and then the longest path. Of several `/` in a row one counts, as
/// for most replicas.
pub(crate) fn find(routes: &[Route], host: &str, path: &str) -> Option<usize> {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let path: String = segments.flat_map(|segment| ["/", segment]).collect();
    let path = path.as_str();
    let rank = |route: &Route| (route.host.is_some(), route.path.len());
    let taking = routes.iter().enumerate().filter(|(_, route)| route.takes(host, path));
    // Of equals the first.
    taking.rev().max_by_key(|(_, route)| rank(route)).map(|(at, _)| at)
}

/// Whether a path has segments that are none of its own, `.` or `..`, however they are written: what a replica makes of them is not what was looked for in
/// routes.
pub(crate) fn climbs(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    path.split(['/', '\\']).any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

/// A host without its port, and without the dot that ends a whole name.
fn name(host: &str) -> &str {
    let end = host.rfind(':').filter(|at| !host[*at..].contains(']')).unwrap_or(host.len());
    host[..end].trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_decides_first_then_the_longest_path_of_whole_segments() {
        let texts = [
            "*=web:80",
            "shop.example=shop:http",
            "Shop.example/api/=api:8080",
            "/static=files:80",
            "shop.example=late:1",
        ];
        let routes: Vec<Route> = texts.iter().map(|text| text.parse().unwrap()).collect();
        for (host, path, expected) in [
            ("shop.example", "/", "shop"),
            ("SHOP.example.:8080", "/apis", "shop"),
            ("shop.example", "/api", "api"),
            ("shop.example", "/api/v1", "api"),
            ("shop.example", "/static/a.css", "shop"),
            ("other.example", "/static/a.css", "files"),
            ("[fd00::1]:80", "/", "web"),
            ("", "/", "web"),
            ("shop.example", "//api//v1/", "api"),
            ("other.example", "//", "web"),
        ] {
            let found = find(&routes, host, path).map(|at| &routes[at].service[..]);
            assert_eq!(found, Some(expected), "{host}{path}");
        }
        assert_eq!(find(&routes[1..], "other.example", "/"), None);
        assert_eq!(routes[1].target, Target::Named("http".into()));
    }

    #[test]
    fn what_is_no_route_is_refused_with_an_example() {
        for wrong in ["", "web:80", "*=web", "*=:80", "*=web:", "*=web:0", "*=web:65536"] {
            assert!(wrong.parse::<Route>().unwrap_err().contains("shop.example/api=api:8080"), "{wrong}");
        }
    }
}
