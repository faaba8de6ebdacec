//! A node's data plane: its datapath, and the stacks of its containers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use overlay_core::{EndpointId, Instant, Name, NsId};
use overlay_datapath::{Buffer, Config, Datapath, Tables};
use overlay_dns::{Resolver, View};

use super::attached::Published;
use super::stack::Stack;

pub(crate) struct Host {
    pub(crate) datapath: Datapath,
    pub(crate) stacks: BTreeMap<EndpointId, Stack>,
    /// By container, the machine that answers it.
    pub(crate) resolvers: BTreeMap<Name, Resolver<View>>,
    pub(crate) buffer: Buffer,
    /// When all that it has sent is out.
    pub(crate) idle: Instant,
    /// Largest packet of its link to the underlay.
    pub(crate) mtu: usize,
    /// Tables that the datapath could not take.
    pub(crate) refused: Vec<String>,
    pub(crate) wake: Option<Instant>,
    seed: [u8; 32],
    made: u64,
}

/// The longest frame or packet there is.
const LONGEST: usize = 9_216 + 128;

impl Host {
    pub(crate) fn new(seed: [u8; 32], mtu: usize, now: Instant) -> Self {
        Self {
            datapath: Datapath::new(Config::default(), seed, now),
            stacks: BTreeMap::new(),
            resolvers: BTreeMap::new(),
            buffer: Buffer::new(LONGEST),
            idle: now,
            mtu,
            refused: Vec::new(),
            wake: None,
            seed,
            made: 0,
        }
    }

    /// All is gone, as when the power was.
    pub(crate) fn reset(&mut self, now: Instant) {
        self.stacks.clear();
        self.resolvers.clear();
        self.made += 1;
        self.datapath = Datapath::new(Config::default(), self.drawn(), now);
    }

    /// Takes what was published, between two packets.
    pub(crate) fn take(&mut self, published: &Published, now: Instant) {
        match Tables::new(&published.wanted) {
            Ok(tables) => self.datapath.handle_tables(Arc::new(tables), now),
            Err(refusal) => return self.refused.push(refusal.to_string()),
        }
        self.stacks.retain(|endpoint, stack| {
            let now = published.attached.get(endpoint);
            now.is_some_and(|now| now.mac == stack.attached().mac && now.namespace == stack.attached().namespace)
        });
        for (endpoint, attached) in &published.attached {
            if let Some(stack) = self.stacks.get_mut(endpoint) {
                stack.follow(attached);
                continue;
            }
            self.made += 1;
            let [a, b, c, d, e, f, g, h, ..] = self.drawn();
            let stack = Stack::new(attached, u64::from_be_bytes([a, b, c, d, e, f, g, h]), now);
            self.stacks.insert(*endpoint, stack);
        }
    }

    /// Ends what belongs to containers that run here no longer.
    pub(crate) fn keep(&mut self, runs: impl Fn(&Name, NsId) -> bool) {
        self.stacks.retain(|_, stack| runs(&stack.container, stack.attached().namespace));
    }

    /// The endpoint by which a container sends to an address, as its addresses and routes say.
    pub(crate) fn way(&self, from: &Name, to: IpAddr) -> Option<EndpointId> {
        let own = self.stacks.iter().filter(|(_, stack)| stack.container == *from);
        let ways = own.flat_map(|(endpoint, stack)| {
            let attached = stack.attached();
            let on_link = attached.addresses.iter().map(|net| (net.trunc(), true));
            let routed = attached.routes.iter().map(|(net, _)| (*net, false));
            on_link.chain(routed).map(move |(net, direct)| (net, direct, *endpoint))
        });
        let matching = ways.filter(|(net, ..)| net.contains(&to));
        matching.max_by_key(|(net, direct, _)| (net.prefix_len(), *direct)).map(|(.., endpoint)| endpoint)
    }

    /// Words of chance, no two the same.
    fn drawn(&self) -> [u8; 32] {
        let mut seed = self.seed;
        seed.iter_mut().zip(self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).for_each(|(to, by)| *to ^= by);
        seed
    }
}
