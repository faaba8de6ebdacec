//! What is typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use lexopt::prelude::{Long, Short, ValueExt as _};

use crate::pool::Checks;
use crate::routes::Route;

pub(crate) const USAGE: &str = "\
usage: l7                                  shows what it does, on two hosts of namespaces
       l7 --control SOCKET --listen ADDRESS:PORT --route ROUTE...

It is to run where the services are reached: in a container that a node has attached to their network, as with
  overlay-node attach front --name edge --netns /run/netns/edge
  ip netns exec edge l7 --control /run/overlay/control.sock --listen 0.0.0.0:8000 --route '*=web:8080'

  --control SOCKET      a node's control socket: its node tells the endpoints of services, by their own addresses and ports
  --listen ADDRESS:PORT where clients come
  --route ROUTE         HOST/PATH=SERVICE:PORT: a service's name or id, and a number or a published port's name;
                        *=web:80 takes what no other does
  --check PATH          what replicas are asked to see how they are: any answer below 500 is well; /
  --check-every MS      how often, in milliseconds: 1000. Two failures one after the other, and a replica is ill
  --patience SECONDS    how long a replica may take until it begins to answer: 30";

/// What is wanted.
#[derive(Debug)]
pub(crate) enum Asked {
    Help,
    Show,
    Serve(Box<Serve>),
}

/// A proxy.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) control: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) routes: Vec<Route>,
    pub(crate) check: PathAndQuery,
    pub(crate) checks: Checks,
    pub(crate) patience: Duration,
}

/// Reads it.
pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Asked, lexopt::Error> {
    let (mut control, mut listen, mut routes) = (None, None, Vec::new());
    let (mut check, mut every, mut patience) =
        (PathAndQuery::from_static("/"), Duration::from_secs(1), Duration::from_secs(30));
    let mut typed = false;
    while let Some(argument) = parser.next()? {
        typed = true;
        match argument {
            Long("help") | Short('h') => return Ok(Asked::Help),
            Long("control") => control = Some(parser.value()?.into()),
            Long("listen") => listen = Some(parser.value()?.parse()?),
            Long("route") => routes.push(parser.value()?.parse()?),
            Long("check") => check = path(&parser.value()?.string()?)?,
            Long("check-every") => every = Duration::from_millis(parser.value()?.parse_with(at_least_one)?),
            Long("patience") => patience = Duration::from_secs(parser.value()?.parse_with(at_least_one)?),
            _ => return Err(argument.unexpected()),
        }
    }
    match (control, listen) {
        _ if !typed => Ok(Asked::Show),
        (Some(control), Some(listen)) if !routes.is_empty() => {
            let checks = Checks { every, failures: 2 };
            Ok(Asked::Serve(Box::new(Serve { control, listen, routes, check, checks, patience })))
        }
        _ => Err("--control, --listen and a --route are needed".into()),
    }
}

fn path(text: &str) -> Result<PathAndQuery, lexopt::Error> {
    let path = text.starts_with('/').then(|| text.parse().ok()).flatten();
    path.ok_or_else(|| format!("{text:?} is no path: /health, say").into())
}

fn at_least_one(text: &str) -> Result<u64, String> {
    let number: Option<u64> = text.parse().ok().filter(|number| (1..=3_600_000).contains(number));
    number.ok_or_else(|| "a number from 1 to 3600000 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(arguments: &[&str]) -> Result<Asked, String> {
        parse(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn alone_it_shows_itself_and_with_a_socket_a_listener_and_a_route_it_serves() {
        assert!(matches!(asked(&[]), Ok(Asked::Show)));
        assert!(matches!(asked(&["--route", "*=web:80", "-h"]), Ok(Asked::Help)));
        let whole = ["--control=/run/c.sock", "--listen", "127.0.0.1:80", "--route", "*=web:80", "--route=a/b=c:http"];
        let Ok(Asked::Serve(serve)) = asked(&whole) else { panic!() };
        assert_eq!((serve.routes.len(), serve.checks.every, serve.check.as_str()), (2, Duration::from_secs(1), "/"));
        for cut in 1..4 {
            assert!(asked(&whole[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for wrong in
            [["--check-every", "0"], ["--patience", "x"], ["--check", "health"], ["--listen", "here"], ["--fast", "1"]]
        {
            assert!(asked(&wrong).is_err(), "{wrong:?}");
        }
    }
}
