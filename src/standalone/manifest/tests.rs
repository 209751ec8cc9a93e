use super::*;
use crate::standalone::convert::convert;

/// What the articles show, with their indentation; in the order of the articles.
const ARTICLES: &str = include_str!("tests/articles.yaml");
const ARTICLES_LINES: &str = include_str!("tests/articles.txt");

/// Everything that is told of the articles' objects: nothing of them is lost in silence.
#[test]
fn the_articles_load_and_every_part_that_cannot_apply_is_told() {
    let manifests = read_texts([("articles.yaml", ARTICLES)]).unwrap();
    let resources = convert(&manifests, "cluster.local");
    let told: Vec<String> = resources.notes.list.iter().map(ToString::to_string).collect();
    assert_eq!(told.join("\n"), ARTICLES_LINES.trim_end());
}

/// A text and one of the lines that are told about it.
fn note(yaml: &str, line: &str) {
    let manifests = read_texts([("t.yaml", yaml)]).unwrap_or_else(|error| panic!("{error}"));
    let told: Vec<String> = manifests.notes.list.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|told| told == line), "{yaml}: {told:#?}");
}

/// A text, and what is wrong with it.
fn error(yaml: &str, expected: &str) {
    let got = read_texts([("t.yaml", yaml)]).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(got, Err(expected.to_owned()), "{yaml}");
}

#[test]
fn what_is_not_served_is_told() {
    note(
        "apiVersion: v1\nkind: Widget\nmetadata: {name: w}\n",
        "t.yaml:1: Widget default/w: not served: this kind means nothing to a node proxy",
    );
    note(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\n",
        "t.yaml:1: DestinationRule default/d: not served: a node proxy uses nothing of it; a \
         waypoint would",
    );
    note(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {}\n",
        "t.yaml:1: Gateway default/g: not served: an object of this kind and another apiVersion \
         is meant for others",
    );
    note(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  externalIPs: [192.0.2.1]\n",
        "t.yaml:5: Service default/s: spec.externalIPs: not served: it means nothing to a node \
         proxy",
    );
}

#[test]
fn lists_are_read_item_by_item() {
    let yaml = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: \
                {name: a}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n";
    let manifests = read_texts([("t.yaml", yaml)]).unwrap();
    let names: Vec<&str> = manifests.namespaces.iter().map(|ns| &*ns.meta.name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn mistakes_have_file_line_field_and_reason() {
    let policy =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n";
    error("a: [\n", "t.yaml:1: unclosed bracket '['");
    error("a: 1\n", "t.yaml:1: an object has an apiVersion and a kind");
    error("- a\n", "t.yaml:1: a mapping is expected, not a list");
    error(
        "apiVersion: v1\nkind: Pod\nmetadata: {}\n",
        "t.yaml:3: Pod: metadata: an object has a name",
    );
    error(
        "apiVersion: v1\nkind: Namespace\nmetadata:\nname: shop\n",
        "t.yaml:3: Namespace: metadata: an object has a name; its fields stand at the left \
         margin: indent them",
    );
    error(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus:\n  podIP: here\n",
        "t.yaml:5: Pod default/p: status.podIP: an IP address is expected, not \"here\"",
    );
    error(
        &format!("{policy}spec:\n  rules:\n  - form: []\n"),
        "t.yaml:6: AuthorizationPolicy default/p: spec.rules[0].form: not a field that is known \
         here; in a policy that is an error",
    );
    error(
        &format!("{policy}spec:\n  rules:\n  - to: [{{operation: {{ports: [80]}}}}]\n"),
        "t.yaml:6: AuthorizationPolicy default/p: spec.rules[0].to[0].operation.ports[0]: a text \
         is expected, not a number; put it in quotes",
    );
    error(
        &format!("{policy}spec: {{action: PERMIT}}\n"),
        "t.yaml:4: AuthorizationPolicy default/p: spec.action: \"PERMIT\" is none of ALLOW, DENY, \
         AUDIT and CUSTOM",
    );
    error(
        &format!("{policy}---\n{policy}"),
        "t.yaml:5: AuthorizationPolicy default/p: it is there twice; first at t.yaml:1",
    );
    error(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec: \
         {selector: {}, portLevelMtls: {http: {mode: STRICT}}}\n",
        "t.yaml:4: PeerAuthentication default/p: spec.portLevelMtls.http: a port is expected",
    );
}
