//! nftables without a tool: tables, chains and rules as bytes, sent in one transaction.
//!
//! Only what redirection (spec redirection 3) and faults need. Attributes are big-endian; the
//! values that expressions compare are as the packet or the kernel has them.

use std::net::IpAddr;

use super::error::LabError;
use bytes::{Writer, flags, kind, text};
use exchange::{exchange, is_missing};

mod bytes;
mod exchange;

/// Register 1, 16 bytes, as all our expressions use it (NFT_REG_1).
const REGISTER: u32 = 1;
/// The register that holds a verdict (NFT_REG_VERDICT).
const VERDICT: u32 = 0;
/// The interface name of loopback as the kernel compares it: 16 bytes, zero-padded.
const LOOPBACK_NAME: &[u8; 16] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Where a base chain hangs (linux/netfilter.h `nf_inet_hooks`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    Prerouting = 0,
    Input = 1,
    Output = 3,
}

/// A base chain: its kind, hook and priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// `nat`, `filter` or `route`.
    pub(super) kind: &'static str,
    pub(super) hook: Hook,
    pub(super) priority: i32,
}

/// One step of a rule. Matches end the rule if they do not hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// IPv4 or IPv6, TCP or whatever protocol number.
    Protocol(u8),
    /// Destination address is this.
    To(IpAddr),
    /// Destination address is of this family and another one.
    NotTo(IpAddr),
    /// Source address is this.
    From(IpAddr),
    /// TCP or UDP destination port is this.
    Port(u16),
    /// It is another one.
    NotPort(u16),
    /// `mark & mask == value`.
    Mark {
        value: u32,
        mask: u32,
    },
    /// `mark & mask != value`.
    NotMark {
        value: u32,
        mask: u32,
    },
    /// `ct mark & mask == value`.
    ConnectionMark {
        value: u32,
        mask: u32,
    },
    /// The packet leaves through loopback.
    OverLoopback,
    /// It leaves through anything else.
    NotOverLoopback,
    /// `ct mark = (ct mark & !mask) | value`.
    SetConnectionMark {
        value: u32,
        mask: u32,
    },
    /// `mark = ct mark`.
    RestoreMark,
    /// Deliver to this port of this host.
    Redirect(u16),
    Accept,
    Drop,
    /// Answer with RST.
    Reset,
    /// Go through that chain, then come back.
    Jump(&'static str),
    Counter,
}

/// One transaction: all of it happens or nothing.
#[derive(Debug)]
pub(super) struct Batch {
    out: Writer,
    /// What each message asks for and which kernel feature it stands on, by sequence number.
    asks: Vec<Ask>,
}

#[derive(Debug)]
struct Ask {
    what: String,
    feature: String,
    module: &'static str,
    probes: Vec<Step>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut out = Writer::default();
        out.frame(kind::BATCH_BEGIN);
        Self { out, asks: Vec::new() }
    }

    /// Makes a table of family inet, empty even if it was there.
    pub(super) fn fresh_table(&mut self, table: &str) {
        // Deleting what may not exist: make it first, in the same transaction.
        self.table(kind::NEW_TABLE, table);
        self.table(kind::DEL_TABLE, table);
        self.table(kind::NEW_TABLE, table);
    }

    /// Removes a table that may not exist.
    pub(super) fn remove_table(&mut self, table: &str) {
        self.table(kind::NEW_TABLE, table);
        self.table(kind::DEL_TABLE, table);
    }

    /// Adds a chain.
    pub(super) fn chain(&mut self, table: &str, name: &str, base: Option<Base>) {
        let (feature, module) = match base {
            Some(base) if base.kind == "nat" => ("nftables chain of type nat", "nft_chain_nat"),
            Some(base) if base.kind == "route" => ("nftables chain of type route", "nf_tables"),
            _ => ("nftables chain in a table of family inet", "nf_tables"),
        };
        self.ask(Ask {
            what: format!("adding chain {name} to table inet {table}"),
            feature: feature.into(),
            module,
            probes: Vec::new(),
        });
        let at = self.message(kind::NEW_CHAIN, flags::CREATE);
        self.out.attribute(1, &text(table));
        self.out.attribute(3, &text(name));
        if let Some(base) = base {
            let hook = self.out.open(4);
            self.out.attribute(1, &(base.hook as u32).to_be_bytes());
            self.out.attribute(2, &base.priority.to_be_bytes());
            self.out.close(hook);
            self.out.attribute(7, &text(base.kind));
        }
        self.out.close_message(at);
    }

    /// Appends a rule to a chain.
    pub(super) fn rule(&mut self, table: &str, chain: &str, steps: &[Step]) {
        self.ask(Ask {
            what: format!("adding a rule to chain {chain} of table inet {table}"),
            feature: "one of the nftables expressions of a rule".into(),
            module: "nf_tables",
            probes: steps.to_vec(),
        });
        let at = self.message(kind::NEW_RULE, flags::CREATE | flags::APPEND);
        self.out.attribute(1, &text(table));
        self.out.attribute(2, &text(chain));
        let list = self.out.open(4);
        for step in steps {
            self.step(step);
        }
        self.out.close(list);
        self.out.close_message(at);
    }

    /// Sends the transaction to the kernel from the calling thread's network namespace.
    pub(super) fn commit(mut self) -> Result<(), LabError> {
        self.out.frame(kind::BATCH_END);
        let Some((index, answer)) = exchange(self.out.bytes(), self.asks.len())? else {
            return Ok(());
        };
        let whole = Ask {
            what: "changing nftables".into(),
            feature: "nftables".into(),
            module: "nf_tables",
            probes: Vec::new(),
        };
        // An answer to no ask is one to the transaction as such.
        let ask = index.and_then(|index| self.asks.get(index)).unwrap_or(&whole);
        if !is_missing(&answer) {
            return Err(LabError::Refused { what: ask.what.clone(), answer });
        }
        let (feature, module) = ask
            .probes
            .iter()
            .find(|step| lacks(step))
            .map_or_else(|| (ask.feature.clone(), ask.module), named);
        Err(LabError::Missing {
            feature: format!("{feature} (wanted for {})", ask.what),
            answer,
            remedy: format!("load its module (modprobe {module}) or use a kernel built with it"),
        })
    }

    fn table(&mut self, kind: u16, table: &str) {
        self.ask(Ask {
            what: format!("preparing table inet {table}"),
            feature: "nftables table of family inet".into(),
            module: "nf_tables",
            probes: Vec::new(),
        });
        let at = self.message(kind, flags::CREATE);
        self.out.attribute(1, &text(table));
        self.out.close_message(at);
    }

    fn ask(&mut self, ask: Ask) {
        self.asks.push(ask);
    }

    fn message(&mut self, kind: u16, extra: u16) -> usize {
        // The frame has sequence 0, so the n-th ask, which was just made, has n.
        let sequence = u32::try_from(self.asks.len()).unwrap_or(u32::MAX);
        self.out.message(kind, flags::REQUEST | flags::ACK | extra, sequence)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Protocol(protocol) => self.meta_is(16, &[protocol], true),
            Step::To(address) => self.address(address, false, true),
            Step::NotTo(address) => self.address(address, false, false),
            Step::From(address) => self.address(address, true, true),
            Step::Port(port) => self.port(port, true),
            Step::NotPort(port) => self.port(port, false),
            Step::Mark { value, mask } => {
                self.load("meta", 1, 2, 3);
                self.masked_is(value, mask, true);
            }
            Step::NotMark { value, mask } => {
                self.load("meta", 1, 2, 3);
                self.masked_is(value, mask, false);
            }
            Step::ConnectionMark { value, mask } => {
                self.load("ct", 1, 2, 3);
                self.masked_is(value, mask, true);
            }
            Step::OverLoopback => self.meta_is(7, LOOPBACK_NAME, true),
            Step::NotOverLoopback => self.meta_is(7, LOOPBACK_NAME, false),
            Step::SetConnectionMark { value, mask } => {
                self.load("ct", 1, 2, 3);
                self.bitwise(!mask, value);
                self.load("ct", 4, 2, 3);
            }
            Step::RestoreMark => {
                self.load("ct", 1, 2, 3);
                self.load("meta", 3, 2, 3);
            }
            Step::Redirect(port) => {
                self.out.expression("immediate", |out| {
                    out.attribute(1, &REGISTER.to_be_bytes());
                    out.value(2, &port.to_be_bytes());
                });
                self.out.expression("redir", |out| {
                    out.attribute(1, &REGISTER.to_be_bytes());
                    // NF_NAT_RANGE_PROTO_SPECIFIED
                    out.attribute(3, &2_u32.to_be_bytes());
                });
            }
            Step::Accept => self.verdict(1, None),
            Step::Drop => self.verdict(0, None),
            Step::Reset => self.out.expression("reject", |out| {
                out.attribute(1, &1_u32.to_be_bytes());
                out.attribute(2, &[0]);
            }),
            Step::Jump(chain) => self.verdict(-3, Some(chain)),
            Step::Counter => self.out.expression("counter", |out| {
                out.attribute(1, &0_u64.to_be_bytes());
                out.attribute(2, &0_u64.to_be_bytes());
            }),
        }
    }

    /// Loads into the register (or stores from it) the value `key` of `meta` or `ct`.
    fn load(&mut self, what: &str, register: u16, key_attribute: u16, key: u32) {
        self.out.expression(what, |out| {
            out.attribute(register, &REGISTER.to_be_bytes());
            out.attribute(key_attribute, &key.to_be_bytes());
        });
    }

    fn meta_is(&mut self, key: u32, value: &[u8], equal: bool) {
        self.load("meta", 1, 2, key);
        self.compare(value, equal);
    }

    fn address(&mut self, address: IpAddr, source: bool, equal: bool) {
        // Offsets of the addresses in the two headers; NFPROTO_IPV4 and NFPROTO_IPV6.
        let (family, octets, offset) = match address {
            IpAddr::V4(v4) => (2, v4.octets().to_vec(), if source { 12 } else { 16 }),
            IpAddr::V6(v6) => (10, v6.octets().to_vec(), if source { 8 } else { 24 }),
        };
        self.meta_is(15, &[family], true);
        self.payload(1, offset, octets.len());
        self.compare(&octets, equal);
    }

    fn port(&mut self, port: u16, equal: bool) {
        self.payload(2, 2, 2);
        self.compare(&port.to_be_bytes(), equal);
    }

    /// Loads bytes of the network (1) or transport (2) header.
    fn payload(&mut self, base: u32, offset: u32, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.out.expression("payload", |out| {
            out.attribute(1, &REGISTER.to_be_bytes());
            out.attribute(2, &base.to_be_bytes());
            out.attribute(3, &offset.to_be_bytes());
            out.attribute(4, &len.to_be_bytes());
        });
    }

    fn masked_is(&mut self, value: u32, mask: u32, equal: bool) {
        self.bitwise(mask, 0);
        self.compare(&value.to_ne_bytes(), equal);
    }

    /// `register = (register & mask) ^ xor`
    fn bitwise(&mut self, mask: u32, xor: u32) {
        self.out.expression("bitwise", |out| {
            out.attribute(1, &REGISTER.to_be_bytes());
            out.attribute(2, &REGISTER.to_be_bytes());
            out.attribute(3, &4_u32.to_be_bytes());
            out.value(4, &mask.to_ne_bytes());
            out.value(5, &xor.to_ne_bytes());
        });
    }

    fn compare(&mut self, value: &[u8], equal: bool) {
        self.out.expression("cmp", |out| {
            out.attribute(1, &REGISTER.to_be_bytes());
            out.attribute(2, &u32::from(!equal).to_be_bytes());
            out.value(3, value);
        });
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.out.expression("immediate", |out| {
            out.attribute(1, &VERDICT.to_be_bytes());
            let data = out.open(2);
            let verdict = out.open(2);
            out.attribute(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                out.attribute(2, &text(chain));
            }
            out.close(verdict);
            out.close(data);
        });
    }
}

/// What a rule's step stands on, and the module that brings it.
fn named(step: &Step) -> (String, &'static str) {
    let (expression, module) = match step {
        Step::Redirect(_) => ("redir", "nft_redir"),
        Step::Reset => ("reject", "nft_reject_inet"),
        Step::ConnectionMark { .. } | Step::SetConnectionMark { .. } | Step::RestoreMark => {
            ("ct", "nft_ct")
        }
        Step::Counter => ("counter", "nf_tables"),
        _ => ("meta, payload, bitwise, cmp or immediate", "nf_tables"),
    };
    (format!("nftables expression {expression}"), module)
}

/// Whether the kernel refuses a rule of this one step. Nothing is left behind: a transaction
/// without an end is checked and thrown away.
fn lacks(step: &Step) -> bool {
    const TABLE: &str = "adit-probe";
    let base = Base { kind: "nat", hook: Hook::Prerouting, priority: -100 };
    let filter = Base { kind: "filter", ..base };
    let mut batch = Batch::new();
    batch.table(kind::NEW_TABLE, TABLE);
    batch.chain(
        TABLE,
        "probe",
        Some(if matches!(step, Step::Redirect(_)) { base } else { filter }),
    );
    if let Step::Jump(target) = step {
        batch.chain(TABLE, target, None);
    }
    batch.rule(TABLE, "probe", &[*step]);
    matches!(exchange(batch.out.bytes(), batch.asks.len()), Ok(Some(_)))
}
