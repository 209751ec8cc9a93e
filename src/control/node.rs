//! Who we are, as the control plane is told (spec xds 2).

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Value as Json;

use crate::config::XdsNode;
use crate::wire::xds::discovery::Node;

/// The message.
pub(super) fn message(node: &XdsNode) -> Node {
    let fields = node.metadata.iter().map(|(name, json)| (name.clone(), value(json)));
    let metadata = Some(Struct { fields: fields.collect() });
    Node { id: node.id.clone(), metadata, ..Node::default() }
}

fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        // Every number of JSON is one of these to whoever reads JavaScript.
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(list) => {
            Kind::ListValue(ListValue { values: list.iter().map(value).collect() })
        }
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, json)| (name.clone(), value(json)));
            Kind::StructValue(Struct { fields: fields.collect() })
        }
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_told_as_it_is() {
        let metadata = json!({"N": "a", "L": {"app": "x", "n": [1.5, true, null]}});
        let Json::Object(metadata) = metadata else { unreachable!() };
        let node = XdsNode { id: "ztunnel~".to_owned(), metadata: metadata.into_iter().collect() };
        let message = message(&node);
        assert_eq!(message.id, "ztunnel~");
        let of = |kind| Value { kind: Some(kind) };
        let list = ListValue {
            values: vec![
                of(Kind::NumberValue(1.5)),
                of(Kind::BoolValue(true)),
                of(Kind::NullValue(0)),
            ],
        };
        let labels = [
            ("app".to_owned(), of(Kind::StringValue("x".to_owned()))),
            ("n".to_owned(), of(Kind::ListValue(list))),
        ];
        let labels = Kind::StructValue(Struct { fields: labels.into() });
        let expected =
            [("L".to_owned(), of(labels)), ("N".to_owned(), of(Kind::StringValue("a".to_owned())))];
        assert_eq!(message.metadata, Some(Struct { fields: expected.into() }));
    }
}
