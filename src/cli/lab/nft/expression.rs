//! The steps of a rule as expressions.

use std::net::IpAddr;

use super::Step;
use super::bytes::{Writer, text};

/// Register 1, 16 bytes, as all our expressions use it (NFT_REG_1).
const REGISTER: u32 = 1;
/// The register that holds a verdict (NFT_REG_VERDICT).
const VERDICT: u32 = 0;
/// The interface name of loopback as the kernel compares it: 16 bytes, zero-padded.
const LOOPBACK_NAME: &[u8; 16] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

impl Writer {
    /// A step of a rule.
    pub(super) fn step(&mut self, step: &Step) {
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
                self.expression("immediate", |out| {
                    out.attribute(1, &REGISTER.to_be_bytes());
                    out.value(2, &port.to_be_bytes());
                });
                self.expression("redir", |out| {
                    out.attribute(1, &REGISTER.to_be_bytes());
                    // NF_NAT_RANGE_PROTO_SPECIFIED
                    out.attribute(3, &2_u32.to_be_bytes());
                });
            }
            Step::Accept => self.verdict(1, None),
            Step::Drop => self.verdict(0, None),
            Step::Reset => self.expression("reject", |out| {
                out.attribute(1, &1_u32.to_be_bytes());
                out.attribute(2, &[0]);
            }),
            Step::Jump(chain) => self.verdict(-3, Some(chain)),
            Step::Counter => self.expression("counter", |out| {
                out.attribute(1, &0_u64.to_be_bytes());
                out.attribute(2, &0_u64.to_be_bytes());
            }),
        }
    }

    /// Loads into the register (or stores from it) the value `key` of `meta` or `ct`.
    fn load(&mut self, what: &str, register: u16, key_attribute: u16, key: u32) {
        self.expression(what, |out| {
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
        self.expression("payload", |out| {
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
        self.expression("bitwise", |out| {
            out.attribute(1, &REGISTER.to_be_bytes());
            out.attribute(2, &REGISTER.to_be_bytes());
            out.attribute(3, &4_u32.to_be_bytes());
            out.value(4, &mask.to_ne_bytes());
            out.value(5, &xor.to_ne_bytes());
        });
    }

    fn compare(&mut self, value: &[u8], equal: bool) {
        self.expression("cmp", |out| {
            out.attribute(1, &REGISTER.to_be_bytes());
            out.attribute(2, &u32::from(!equal).to_be_bytes());
            out.value(3, value);
        });
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |out| {
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
