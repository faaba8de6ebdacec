//! Whatever is taken away, a guarded port carries nothing in the clear: an encrypted VXLAN between two hosts, and a third that injects.

use overlay_core::testing::{Kernel, kernel_test};
use overlay_core::{Backend as _, IpFamily, reconcile};
use overlay_crypto::{State, Tunnel};
use overlay_kernel::testing::judge;
use overlay_kernel::xfrm::{Action, Step};

use crate::town::{ESP, Host, LOOK, Town, datagram, port};

const PORT: u16 = 4790;
const FAMILY: IpFamily = IpFamily::V4;
const IN_THE_TUNNEL: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

/// The hosts a and b with a VXLAN device each, and what protects the tunnel between them.
struct Overlay {
    town: Town,
    wanted: [State; 2],
}

impl Overlay {
    fn new() -> Self {
        let town = Town::new();
        let (a, b) = (town.a.address(FAMILY), town.b.address(FAMILY));
        let tunnel = |local, peer| Tunnel { port: port(PORT), local, peer };
        let wanted = [
            LOOK.tunnel(tunnel(a, b), 0x1001, &[0x2001, 0x2002, 0x2003, 0x2004]),
            LOOK.tunnel(tunnel(b, a), 0x2001, &[0x1001]),
        ];
        let mut overlay = Self { town, wanted };
        for spi in [0x2002, 0x2003, 0x2004] {
            let more = LOOK.tunnel(tunnel(b, a), spi, &[]);
            overlay.wanted[1].sas.extend(more.sas);
        }
        for (host, inside, peer) in [(&overlay.town.a, IN_THE_TUNNEL[0], b), (&overlay.town.b, IN_THE_TUNNEL[1], a)] {
            let make = format!(
                "ip link add x0 type vxlan id 4096 local {} remote {peer} dstport {PORT}; ip addr add {inside}/24 dev x0",
                host.address(FAMILY)
            );
            judge(&host.home, "sh", &["-ec", &format!("{make}; ip link set x0 up")]);
        }
        overlay
    }

    fn hosts(&self) -> [&Host; 2] {
        [&self.town.a, &self.town.b]
    }

    /// How many frames came out of a host's tunnel.
    fn came(host: &Host) -> u64 {
        let shown = judge(&host.home, "ip", &["-s", "-j", "link", "show", "dev", "x0"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    }

    /// Whether a frame that c sends to a in the clear, as if it were b, comes out of the tunnel.
    fn takes_in_the_clear(&self) -> bool {
        let before = Self::came(&self.town.a);
        let frame = [&[8, 0, 0, 0, 0, 16, 0, 0][..], &[0xff; 6], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0; 46]].concat();
        let (source, destination) = (self.town.b.address(FAMILY), self.town.a.address(FAMILY));
        self.town.c.inject(&datagram(source, destination, (50_000, PORT), &frame));
        self.town.c.say_mark(&self.town.a, FAMILY);
        self.town.a.heard_until_mark(FAMILY);
        Self::came(&self.town.a) > before
    }

    /// Whether a reaches b in the tunnel, and the protocols by which the hosts heard from each other meanwhile.
    fn pings(&self) -> (bool, Vec<u8>) {
        self.heard(); // what was under way before: a busy machine answers late
        let ping = format!("ping -c 3 -i 0.2 -W 1 {} >&2 && echo answered || true", IN_THE_TUNNEL[1]);
        let said = judge(&self.town.a.home, "sh", &["-c", &ping]);
        (said.contains("answered"), self.heard())
    }

    /// The protocols by which the hosts heard from each other since they were asked last.
    fn heard(&self) -> Vec<u8> {
        let mut heard = Vec::new();
        for (from, to) in [(&self.town.a, &self.town.b), (&self.town.b, &self.town.a)] {
            from.say_mark(to, FAMILY);
            heard.extend(to.heard_until_mark(FAMILY).iter().map(|packet| packet.protocol));
        }
        heard
    }

    fn is_dark(&self, after: &str) {
        assert!(!self.takes_in_the_clear(), "{after}");
        let (answered, heard) = self.pings();
        assert!(!answered && heard.is_empty(), "{after}: {heard:?}");
    }

    fn is_protected(&self, after: &str) {
        assert!(!self.takes_in_the_clear(), "{after}");
        let (answered, heard) = self.pings();
        assert!(answered && heard.len() >= 6, "{after}: {heard:?}");
        assert!(heard.iter().all(|protocol| *protocol == ESP), "{after}: {heard:?}");
    }

    fn protect(&self) {
        for (host, wanted) in self.hosts().into_iter().zip(&self.wanted) {
            reconcile(&mut host.xfrm(), wanted).unwrap();
        }
    }
}

#[test]
fn an_encrypted_vxlan_passes_in_esp_alone_and_not_at_all_when_something_is_taken_away() {
    kernel_test(Kernel::Lab, "crypto::an_encrypted_vxlan_passes_in_esp_alone", || {
        let overlay = Overlay::new();
        assert!(overlay.takes_in_the_clear(), "nothing is guarded yet");
        let guards = State { ports: [port(PORT)].into(), ..State::default() };
        overlay.hosts().into_iter().for_each(|host| drop(reconcile(&mut host.xfrm(), &guards).unwrap()));
        overlay.pings(); // and hears what left before
        overlay.is_dark("before there is a peer");
        overlay.protect();
        overlay.is_protected("as it should be");
        for host in overlay.hosts() {
            judge(&host.home, "sh", &["-ec", "nft add table bridge x; nft flush ruleset"]);
        }
        overlay.is_protected("nft flush ruleset");
        for host in overlay.hosts() {
            let mut xfrm = host.xfrm();
            let policies = xfrm.observe().unwrap().policies.into_iter();
            let tunnels = policies.filter(|(_, policy)| policy.action != Action::Block);
            let steps: Vec<Step> = tunnels.map(|(key, policy)| Step::RemovePolicy(key, policy)).collect();
            xfrm.apply(&steps).unwrap();
        }
        overlay.is_dark("the tunnels' policies are gone");
        overlay.protect();
        overlay.is_protected("repaired: associations were there, so no key was needed");
        for host in overlay.hosts() {
            judge(&host.home, "ip", &["xfrm", "state", "flush"]);
        }
        overlay.is_dark("ip xfrm state flush");
    });
}
