//! nftables without a tool: tables, chains and rules as bytes, sent in one transaction.
//!
//! Only what redirection (spec redirection 3) and faults need. Attributes are big-endian; the
//! values that expressions compare are as the packet or the kernel has them.

use std::fmt;
use std::net::IpAddr;

use super::error::LabError;
use bytes::{Writer, flags, kind, text};
use exchange::{exchange, is_missing};

mod bytes;
mod exchange;
mod expression;

/// Which packets tables are about (linux/netfilter.h).
#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    /// IPv4 and IPv6 of a host (NFPROTO_INET).
    Inet = 1,
    /// Frames that a bridge forwards (NFPROTO_BRIDGE).
    Bridge = 7,
}

/// Where a base chain hangs (linux/netfilter.h `nf_inet_hooks`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
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
    family: Family,
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

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        })
    }
}

impl Batch {
    /// About tables of a family.
    pub(super) fn new(family: Family) -> Self {
        let mut out = Writer::default();
        out.frame(kind::BATCH_BEGIN);
        Self { family, out, asks: Vec::new() }
    }

    /// Makes a table, empty even if it was there.
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
        let family = self.family;
        let (feature, module) = match base.map(|base| base.kind) {
            Some(kind @ "nat") => (format!("nftables chain of type {kind}"), "nft_chain_nat"),
            Some(kind @ "route") => (format!("nftables chain of type {kind}"), "nf_tables"),
            _ => (format!("nftables chain in a table of family {family}"), "nf_tables"),
        };
        self.ask(Ask {
            what: format!("adding chain {name} to table {family} {table}"),
            feature,
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
        let family = self.family;
        self.ask(Ask {
            what: format!("adding a rule to chain {chain} of table {family} {table}"),
            feature: "one of the nftables expressions of a rule".into(),
            module: "nf_tables",
            probes: steps.to_vec(),
        });
        let at = self.message(kind::NEW_RULE, flags::CREATE | flags::APPEND);
        self.out.attribute(1, &text(table));
        self.out.attribute(2, &text(chain));
        let list = self.out.open(4);
        for step in steps {
            self.out.step(step);
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
        let family = self.family;
        self.ask(Ask {
            what: format!("preparing table {family} {table}"),
            feature: format!("nftables table of family {family}"),
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
        let flags = flags::REQUEST | flags::ACK | extra;
        self.out.message(kind, flags, sequence, self.family as u8)
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
    let mut batch = Batch::new(Family::Inet);
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
