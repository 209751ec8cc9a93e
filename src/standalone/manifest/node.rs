//! YAML as it is written: a tree in which every value knows its line.

use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Spanned, budget, options};

/// YAML nodes in one file.
const NODES_MAX: usize = 20_000_000;
/// How deep values may be nested: twice what any object of ours needs.
const DEPTH_MAX: usize = 48;
/// Documents in one file: enough for 100,000 pods with their services.
const DOCUMENTS_MAX: usize = 500_000;
/// Uses of anchors in one file; manifests have none as a rule.
const ALIASES_MAX: usize = 1_000;

/// A value and what is in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    /// As text, so that nothing is lost of a port or a label.
    Number(String),
    Text(String),
    List(Vec<Spanned<Self>>),
    /// In the order of the file.
    Map(Vec<(String, Spanned<Self>)>),
}

/// Why a text is not YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// From 1; 0 where not known.
    pub(super) line: u64,
    pub(super) reason: String,
}

impl Node {
    /// The documents of a text, without empty ones.
    pub(super) fn documents(text: &str) -> Result<Vec<Spanned<Self>>, SyntaxError> {
        let options = options! {
            budget: budget! {
                max_nodes: NODES_MAX,
                max_events: 2 * NODES_MAX,
                max_total_scalar_bytes: text.len().max(1),
                max_depth: DEPTH_MAX,
                max_documents: DOCUMENTS_MAX,
                max_aliases: ALIASES_MAX,
                max_anchors: ALIASES_MAX,
            },
            emit_comments: false,
            strict_booleans: true,
            with_snippet: false,
        };
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let place = error.location().map(|place| (place.line(), place.column()));
            let mut reason = error.to_string();
            if let Some((line, column)) = place {
                let suffix = format!(" at line {line}, column {column}");
                if let Some(short) = reason.strip_suffix(&suffix) {
                    reason = short.to_owned();
                }
            }
            SyntaxError { line: place.map_or(0, |(line, _)| line), reason }
        })
    }

    /// What it is, for people.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Node>()? {
            let key = match key {
                Node::Text(text) | Node::Number(text) => text,
                Node::Bool(value) => value.to_string(),
                other => {
                    return Err(A::Error::custom(format!("{} is no field's name", other.what())));
                }
            };
            map.push((key, entries.next_value()?));
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, (u64, &str)>) {
        match (Node::documents(text), expected) {
            (Ok(documents), Ok(expected)) => {
                let shown: Vec<String> = documents.iter().map(|node| show(&node.value)).collect();
                assert_eq!(shown.join(" | "), expected, "{text}");
            }
            (Err(error), Err((line, part))) => {
                assert_eq!(error.line, line, "{text}: {error:?}");
                assert!(error.reason.contains(part), "{text}: {error:?}");
            }
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    fn show(node: &Node) -> String {
        match node {
            Node::Null => "null".into(),
            Node::Bool(value) => value.to_string(),
            Node::Number(text) => format!("#{text}"),
            Node::Text(text) => format!("{text:?}"),
            Node::List(items) => {
                let items: Vec<_> = items.iter().map(|item| show(&item.value)).collect();
                format!("[{}]", items.join(" "))
            }
            Node::Map(map) => {
                let map = map.iter().map(|(key, value)| {
                    format!("{key}@{}={}", value.referenced.line(), show(&value.value))
                });
                format!("{{{}}}", map.collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn documents_become_trees_with_lines() {
        check("a: 1\nb:\n- x\n- true\n", Ok("{a@1=#1 b@3=[\"x\" true]}"));
        check("a: \"1\"\n---\n---\nb: ~\n", Ok("{a@1=\"1\"} | {b@4=null}"));
        check("9090:\n  mode: STRICT\n", Ok("{9090@2={mode@2=\"STRICT\"}}"));
        check("a: 2024-01-01T00:00:00Z\n", Ok("{a@1=\"2024-01-01T00:00:00Z\"}"));
        check("a: &x [1]\nb: *x\n", Ok("{a@1=[#1] b@2=[#1]}"));
        check("# nothing\n", Ok(""));
        check("a: 1\na: 2\n", Err((2, "duplicate")));
        check("a: [1\nb: 2\n", Err((2, "")));
        check("? [x]\n: 1\n", Err((0, "a list is no field's name")));
        check(&"[".repeat(DEPTH_MAX + 2), Err((1, "")));
    }

    #[test]
    fn anchors_do_not_multiply() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let uses = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{uses}]\n"));
        }
        assert!(Node::documents(&text).is_err());
    }
}
