//! How the proxy of a node shows the development control plane who it is.
//!
//! In a cluster that is a Kubernetes service-account token. Here it is `adit-dev:<node>:<mac>`:
//! the node's name and a code over it that only who has the development root could have made.
//! Whoever reads a token can be the proxy of that node, as with Kubernetes.

use std::fmt;

use aws_lc_rs::hmac;

const PREFIX: &str = "adit-dev:";
/// Separates this use of the root's key from every other.
const PURPOSE: &[u8] = b"adit development node tokens";
/// A DNS name, as Kubernetes has it.
const NODE_BYTES_MAX: usize = 253;

/// Makes and checks tokens.
pub struct NodeTokens {
    key: hmac::Key,
}

impl NodeTokens {
    /// Tokens of the root with this key: the same for as long as the root is.
    pub(super) fn of(root_key: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, root_key);
        let derived = hmac::sign(&root, PURPOSE);
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    /// The token of a node's proxy; `None` if it is no name of a node.
    pub fn issue(&self, node: &str) -> Option<String> {
        is_node_name(node).then(|| {
            let mac = hmac::sign(&self.key, node.as_bytes());
            let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{PREFIX}{node}:{hex}")
        })
    }

    /// The node whose token this is.
    pub fn check<'a>(&self, token: &'a str) -> Option<&'a str> {
        let (node, hex) = token.trim().strip_prefix(PREFIX)?.split_once(':')?;
        let mac = bytes(hex)?;
        let valid = hmac::verify(&self.key, node.as_bytes(), &mac).is_ok();
        (is_node_name(node) && valid).then_some(node)
    }
}

impl fmt::Debug for NodeTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeTokens")
    }
}

/// Also safe as the name of a file.
fn is_node_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    !text.is_empty()
        && text.len() <= NODE_BYTES_MAX
        && !text.starts_with('.')
        && text.chars().all(plain)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_node_and_one_root() {
        let tokens = NodeTokens::of(b"root key");
        let token = tokens.issue("node-a").unwrap();
        let check = |token: &str, expected: Option<&str>| {
            assert_eq!(tokens.check(token), expected, "{token}");
        };
        check(&token, Some("node-a"));
        check(&format!("{token}\n"), Some("node-a"));
        check(&token.replace("node-a", "node-b"), None);
        check(&token[..token.len() - 2], None);
        check(&token[..token.len() - 1], None);
        check(&format!("{token}00"), None);
        check(token.strip_prefix(PREFIX).unwrap(), None);
        check("", None);
        check("adit-dev:node-a:", None);
        check("adit-dev:node-a:zz", None);
        assert_eq!(NodeTokens::of(b"another root key").check(&token), None);
        assert_eq!(NodeTokens::of(b"root key").check(&token), Some("node-a"));
    }

    #[test]
    fn only_names_of_nodes_get_tokens() {
        let tokens = NodeTokens::of(b"root key");
        for name in ["", ".", "../x", "a/b", "A", "a b", &"a".repeat(NODE_BYTES_MAX + 1)] {
            assert_eq!(tokens.issue(name), None, "{name}");
        }
        assert!(tokens.issue(&"a".repeat(NODE_BYTES_MAX)).is_some());
    }
}
