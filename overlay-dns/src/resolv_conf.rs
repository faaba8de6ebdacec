//! `/etc/resolv.conf`, read and written.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// What resolv.conf(5) says: who is asked, and how names are completed.
///
/// Reading never fails: lines and options that are not known are kept as they are, since the C library of tomorrow, or
/// of another maker, may know them.
///
/// ```
/// use overlay_dns::ResolvConf;
///
/// let host = ResolvConf::parse("nameserver 192.0.2.53\nsearch example.org\noptions timeout:1\n");
/// let container = host.for_container([127, 0, 0, 11].into());
/// assert_eq!(container.to_string(), "nameserver 127.0.0.11\nsearch example.org\noptions timeout:1 ndots:0\n");
/// assert_eq!(host.nameservers().collect::<Vec<_>>(), ["192.0.2.53:53".parse()?]);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The lines, comments left out.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A server to ask: an IPv6 address may have its link's number or name behind a `%`.
    Nameserver(String),
    /// Domains that are tried behind a name, in turn. Only the last such line counts; `domain` is one of one domain.
    Search(Vec<String>),
    /// Options, such as `ndots:1`.
    Options(Vec<String>),
    /// Another line, as it is.
    Other(String),
}

impl ResolvConf {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Self {
        Self { lines: text.lines().filter_map(Line::parse).collect() }
    }

    /// The servers that can be asked from here, at port 53: those named by an address, IPv6 ones with the number of their
    /// link if they have one. A link's name is not looked up; such a server is left out.
    pub fn nameservers(&self) -> impl Iterator<Item = SocketAddr> {
        self.lines.iter().filter_map(|line| match line {
            Line::Nameserver(text) => server(text),
            _ => None,
        })
    }

    /// The search list that counts: the last one.
    pub fn search(&self) -> &[String] {
        self.lines
            .iter()
            .rev()
            .find_map(|line| match line {
                Line::Search(domains) => Some(&domains[..]),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// All options, in the order in which they stand.
    pub fn options(&self) -> impl Iterator<Item = &str> {
        let lines = self.lines.iter().filter_map(|line| match line {
            Line::Options(options) => Some(options),
            _ => None,
        });
        lines.flatten().map(String::as_str)
    }

    /// How many dots a name needs to be asked as it is before the search list is tried: 1, unless an option says otherwise.
    pub fn ndots(&self) -> u8 {
        let last = self.options().filter_map(|option| option.strip_prefix("ndots:")?.parse().ok()).last();
        last.map_or(1, |ndots: u8| ndots.min(15))
    }

    /// The file for a container whose resolver is at `resolver`: it alone is asked; search list and options stay.
    ///
    /// If no option says how many dots a name needs, `ndots:0` is added. `web` then is asked as it is at once, and
    /// only if nobody has it with the search list behind it. With the usual 1, every `web` would first go to the world as
    /// `web.example.org`: slower, and none of its business. Where somebody has set it, for a search list that must
    /// come first, it stays.
    #[must_use]
    pub fn for_container(&self, resolver: IpAddr) -> Self {
        let mut lines = vec![Line::Nameserver(resolver.to_string())];
        if !self.search().is_empty() {
            lines.push(Line::Search(self.search().to_vec()));
        }
        let mut options: Vec<String> = self.options().map(ToOwned::to_owned).collect();
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".to_owned());
        }
        lines.push(Line::Options(options));
        lines.extend(self.lines.iter().filter(|line| matches!(line, Line::Other(_))).cloned());
        Self { lines }
    }
}

impl fmt::Display for ResolvConf {
    /// The file's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Line {
    /// Reads a line; `None` if there is nothing on it. Keyword and value are apart by spaces or tabs; `#` and `;` at
    /// the line's start are comments.
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with(['#', ';']) {
            return None;
        }
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next()?;
        let rest = || words.clone().map(ToOwned::to_owned).collect::<Vec<_>>();
        Some(match (keyword, words.clone().next()) {
            ("nameserver", Some(server)) => Self::Nameserver(server.to_owned()),
            ("search", Some(_)) => Self::Search(rest()),
            ("domain", Some(domain)) => Self::Search(vec![domain.to_owned()]),
            ("options", Some(_)) => Self::Options(rest()),
            _ => Self::Other(line.trim_ascii_end().to_owned()),
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nameserver(server) => write!(f, "nameserver {server}"),
            Self::Search(domains) => write!(f, "search {}", domains.join(" ")),
            Self::Options(options) => write!(f, "options {}", options.join(" ")),
            Self::Other(line) => f.write_str(line),
        }
    }
}

/// A server's address: `192.0.2.53`, `2001:db8::53`, `fe80::1%3`.
fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, link)) = text.split_once('%') {
        return Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, link.parse().ok()?).into());
    }
    Some(SocketAddr::new(text.parse().ok()?, PORT))
}

const PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "# made by hand\nnameserver 192.0.2.53\nnameserver\tfe80::1%3\nnameserver fe80::1%eth0\n\
                        domain old.example\nsearch example.org example.net\noptions rotate future-option:7\n\
                        sortlist 192.0.2.0/24\n; end\n";

    #[test]
    fn servers_search_list_and_options_are_read() {
        let conf = ResolvConf::parse(HOST);
        let servers: Vec<_> = conf.nameservers().map(|server| server.to_string()).collect();
        assert_eq!(servers, ["192.0.2.53:53", "[fe80::1%3]:53"]);
        assert_eq!(conf.search(), ["example.org", "example.net"]);
        assert_eq!(conf.options().collect::<Vec<_>>(), ["rotate", "future-option:7"]);
        assert_eq!(conf.ndots(), 1);
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let container = ResolvConf::parse(HOST).for_container([127, 0, 0, 11].into());
        assert_eq!(
            container.to_string(),
            "nameserver 127.0.0.11\nsearch example.org example.net\noptions rotate future-option:7 ndots:0\n\
             sortlist 192.0.2.0/24\n"
        );
        assert_eq!(container.ndots(), 0);
    }

    #[test]
    fn somebodys_own_ndots_stays() {
        for (option, ndots) in [("ndots:0", 0), ("ndots:5", 5), ("ndots:99", 15), ("ndots:2 ndots:3", 3)] {
            let conf = ResolvConf::parse(&format!("options {option}")).for_container([127, 0, 0, 11].into());
            assert_eq!((conf.ndots(), conf.to_string().contains(option)), (ndots, true), "{option}");
        }
        assert_eq!(ResolvConf::parse("options ndots:x").ndots(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "((nameserver|search|domain|options|other|#)?[ \t]?[ -~]{0,20}\n){0,6}") {
            let conf = ResolvConf::parse(&text);
            prop_assert_eq!(ResolvConf::parse(&conf.to_string()), conf);
        }
    }
}
