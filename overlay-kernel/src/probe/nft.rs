//! nf_tables: a table, a base chain and a rule, taken back at once.

use overlay_core::BackendError;

use super::socket;
use crate::netlink::{Body, Family, Flags, Requests};

/// A filter chain of `family` with a rule of these expressions.
pub(super) fn filter(family: u8, expressions: &[&str]) -> Result<(), BackendError> {
    let chain = Chain { family, kind: "filter", hook: FORWARD, device: None };
    chain.make(expressions)
}

/// A masquerade rule where packets leave.
pub(super) fn nat() -> Result<(), BackendError> {
    Chain { family: IPV4, kind: "nat", hook: POSTROUTING, device: None }.make(&["masq"])
}

/// A chain at the ingress of the loopback device.
pub(super) fn netdev() -> Result<(), BackendError> {
    Chain { family: NETDEV, kind: "filter", hook: INGRESS, device: Some("lo") }.make(&[])
}

struct Chain {
    family: u8,
    kind: &'static str,
    hook: u32,
    device: Option<&'static str>,
}

impl Chain {
    fn make(&self, expressions: &[&str]) -> Result<(), BackendError> {
        let mut batch = Requests::default();
        batch.add(BATCH_BEGIN, Flags::NONE, batch_head);
        batch.add(NEW_TABLE, Flags::CREATE | Flags::EXCLUSIVE, |body| {
            self.head(body).text(TABLE_NAME, TABLE);
        });
        batch.add(NEW_CHAIN, Flags::CREATE, |body| self.chain(body));
        batch.add(NEW_RULE, Flags::CREATE | Flags::APPEND, |body| self.rule(body, expressions));
        batch.add(DEL_TABLE, Flags::ACK, |body| {
            self.head(body).text(TABLE_NAME, TABLE);
        });
        batch.add(BATCH_END, Flags::NONE, batch_head);
        let done = socket(Family::Netfilter)?.transaction(&batch);
        let doing = || format!("add a {} chain of nf_tables family {} with {expressions:?}", self.kind, self.family);
        done.map_err(|error| error.source.during(doing()))
    }

    fn chain(&self, body: &mut Body<'_>) {
        self.head(body).text(CHAIN_TABLE, TABLE).text(CHAIN_NAME, CHAIN).text(CHAIN_TYPE, self.kind);
        body.nest(CHAIN_HOOK, |hook| {
            hook.be32(HOOK_NUMBER, self.hook).be32(HOOK_PRIORITY, 0);
            if let Some(device) = self.device {
                hook.text(HOOK_DEVICE, device);
            }
        });
    }

    fn rule(&self, body: &mut Body<'_>, expressions: &[&str]) {
        self.head(body).text(RULE_TABLE, TABLE).text(RULE_CHAIN, CHAIN);
        body.nest(RULE_EXPRESSIONS, |list| {
            for name in expressions {
                list.nest(LIST_ELEMENT, |expression| {
                    expression.text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, |data| {
                        if *name == "ct" {
                            data.be32(CT_REGISTER, 1).be32(CT_KEY, CT_STATE);
                        }
                    });
                });
            }
        });
    }

    /// `struct nfgenmsg`.
    fn head<'a, 'b>(&self, body: &'a mut Body<'b>) -> &'a mut Body<'b> {
        body.raw(&[self.family, 0, 0, 0])
    }
}

fn batch_head(body: &mut Body<'_>) {
    body.raw(&[0, 0]).raw(&SUBSYSTEM.to_be_bytes());
}

const TABLE: &str = "overlay-probe";
const CHAIN: &str = "probe";

pub(super) const INET: u8 = 1; // NFPROTO_INET
pub(super) const BRIDGE: u8 = 7; // NFPROTO_BRIDGE
const IPV4: u8 = 2; // NFPROTO_IPV4
const NETDEV: u8 = 5; // NFPROTO_NETDEV
const INGRESS: u32 = 0; // NF_NETDEV_INGRESS
const FORWARD: u32 = 2; // NF_INET_FORWARD, NF_BR_FORWARD
const POSTROUTING: u32 = 4; // NF_INET_POST_ROUTING

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DEL_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const CT_REGISTER: u16 = 1;
const CT_KEY: u16 = 2;
const CT_STATE: u32 = 0;
