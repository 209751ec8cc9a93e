//! `PeerAuthentication` to policies that deny who has no identity (spec policy 6).
//!
//! What the objects mean is generated, also where istiod's own code falls short of it (its
//! oddities (a) to (c)); a line says where the two differ.

use std::collections::HashMap;

use super::ROOT_NAMESPACE;
use crate::standalone::manifest::{Labels, Meta, Mode, Note, Notes, PeerAuthentication, selects};
use crate::wire::xds::security::{
    Action, Authorization, Group, Match, Rules, Scope, StringMatch, string_match::MatchType,
};

const KIND: &str = "PeerAuthentication";
/// The policy that asks for an identity on every port.
const STATIC_STRICT: &str = "istio_converted_static_strict";
const CONVERTED: &str = "converted_peer_authentication_";

/// What every workload asks of its peers.
pub(super) struct Authentication<'a> {
    mesh: Option<Mode>,
    namespaces: HashMap<&'a str, Mode>,
    /// With a selector, by namespace, the oldest first.
    selected: HashMap<&'a str, Vec<(&'a PeerAuthentication, Effect)>>,
    any: bool,
}

/// What an object with a selector comes to for the workloads it selects.
#[derive(Clone, Debug, PartialEq)]
enum Effect {
    /// Nothing is asked.
    Open,
    /// An identity is asked for on every port.
    Strict,
    /// It depends on the port.
    ByPort(Vec<Group>),
}

impl<'a> Authentication<'a> {
    /// From all objects. `notes` gets a line for what has no effect.
    pub(super) fn of(objects: &'a [PeerAuthentication], notes: &mut Notes) -> Self {
        let mut oldest_first: Vec<&PeerAuthentication> = objects.iter().collect();
        oldest_first.sort_by_key(|object| (&object.meta.created, &object.meta.name));
        let mut this = Self {
            mesh: None,
            namespaces: HashMap::new(),
            selected: HashMap::new(),
            any: !objects.is_empty(),
        };
        for object in oldest_first.iter().filter(|object| object.selector.is_none()) {
            this.take_whole(object, notes);
        }
        for object in oldest_first {
            let Some(selector) = &object.selector else { continue };
            if &*object.meta.namespace == ROOT_NAMESPACE {
                let text = "not served: with a selector it has no effect in the root namespace";
                note(notes, &object.meta, "spec.selector", text);
                continue;
            }
            if selector.is_empty() {
                let text = "it selects every workload of the namespace";
                note(notes, &object.meta, "spec.selector", text);
            }
            let effect = this.effect(object);
            this.differences(object, notes);
            this.selected.entry(&object.meta.namespace).or_default().push((object, effect));
        }
        this
    }

    /// One that is for the mesh or for its namespace: the oldest counts.
    fn take_whole(&mut self, object: &'a PeerAuthentication, notes: &mut Notes) {
        if !object.ports.is_empty() {
            let text = "not served: ports count only beside a selector; the mode of the whole does";
            note(notes, &object.meta, "spec.portLevelMtls", text);
        }
        let namespace = &*object.meta.namespace;
        let taken = if namespace == ROOT_NAMESPACE {
            self.mesh.replace(object.mode).inspect(|first| self.mesh = Some(*first)).is_some()
        } else {
            let taken = self.namespaces.contains_key(namespace);
            self.namespaces.entry(namespace).or_insert(object.mode);
            taken
        };
        if taken {
            note(notes, &object.meta, "", "not served: an older one without a selector counts");
        }
    }

    /// Whether a workload about which nothing else is said asks for an identity.
    fn strict_parent(&self, namespace: &str) -> bool {
        let own = self.namespaces.get(namespace).copied().unwrap_or_default();
        let mode = if own == Mode::Unset { self.mesh.unwrap_or_default() } else { own };
        mode == Mode::Strict
    }

    fn effect(&self, object: &PeerAuthentication) -> Effect {
        let inherits = object.mode == Mode::Unset;
        let strict = if inherits {
            self.strict_parent(&object.meta.namespace)
        } else {
            object.mode == Mode::Strict
        };
        let of_mode = |modes: &[Mode]| -> Vec<u32> {
            let ports = object.ports.iter().filter(|(_, mode)| modes.contains(mode));
            ports.map(|(port, _)| u32::from(*port)).collect()
        };
        if !strict {
            let ports = of_mode(&[Mode::Strict]);
            let group = |port: u32| Group {
                rules: vec![rule(Match { destination_ports: vec![port], ..nobody() })],
            };
            let groups: Vec<Group> = ports.into_iter().map(group).collect();
            return if groups.is_empty() { Effect::Open } else { Effect::ByPort(groups) };
        }
        let open = of_mode(&[Mode::Permissive, Mode::Disable]);
        if open.is_empty() {
            return Effect::Strict;
        }
        let other_port =
            |port| rule(Match { not_destination_ports: vec![port], ..Match::default() });
        let mut rules: Vec<Rules> = open.into_iter().map(other_port).collect();
        // The order is istiod's.
        let at = if inherits { rules.len() } else { 0 };
        rules.insert(at, rule(nobody()));
        Effect::ByPort(vec![Group { rules }])
    }

    /// Says where istiod does something else with an object (spec policy 6).
    fn differences(&self, object: &PeerAuthentication, notes: &mut Notes) {
        let has = |mode| object.ports.values().any(|of_port| *of_port == mode);
        let namespace = self.namespaces.get(&*object.meta.namespace).copied();
        let mesh_strict = self.mesh == Some(Mode::Strict);
        let inherits = object.mode == Mode::Unset;
        let strict = self.strict_parent(&object.meta.namespace);
        let open = matches!(object.mode, Mode::Permissive | Mode::Disable);
        let inherited = inherits && namespace == Some(Mode::Unset) && has(Mode::Permissive);
        let opened = open && namespace.unwrap_or_default() == Mode::Unset && has(Mode::Strict);
        let text = if inherits && strict && has(Mode::Disable) && !has(Mode::Permissive) {
            "istiod asks for an identity on these ports too: it looks for PERMISSIVE only; served \
             as written"
        } else if mesh_strict && (inherited || opened) {
            "istiod names a policy here that it does not send, so that plain text is accepted on \
             every port; served as written"
        } else {
            return;
        };
        note(notes, &object.meta, "spec.portLevelMtls", text);
    }

    /// The policy that a workload names, if something is asked of its peers.
    pub(super) fn name_for(&self, namespace: &str, labels: &Labels) -> Option<String> {
        let of_namespace = self.selected.get(namespace).into_iter().flatten();
        let selects = |object: &PeerAuthentication| {
            object.selector.as_ref().is_some_and(|selector| selects(selector, labels))
        };
        let strict = || format!("{ROOT_NAMESPACE}/{STATIC_STRICT}");
        match of_namespace.into_iter().find(|(object, _)| selects(object)) {
            Some((_, Effect::Open)) => None,
            Some((_, Effect::Strict)) => Some(strict()),
            Some((object, Effect::ByPort(_))) => {
                Some(format!("{namespace}/{CONVERTED}{}", object.meta.name))
            }
            None => self.strict_parent(namespace).then(strict),
        }
    }

    /// Everything that a workload may name.
    pub(super) fn policies(&self) -> Vec<Authorization> {
        let of_group = |namespace: &str, name: String, groups: Vec<Group>| Authorization {
            name,
            namespace: namespace.to_owned(),
            scope: Scope::WorkloadSelector.into(),
            action: Action::Deny.into(),
            groups,
            dry_run: false,
            extensions: Vec::new(),
        };
        let mut policies = Vec::new();
        if self.any {
            let groups = vec![Group { rules: vec![rule(nobody())] }];
            policies.push(of_group(ROOT_NAMESPACE, STATIC_STRICT.to_owned(), groups));
        }
        for (object, effect) in self.selected.values().flatten() {
            if let Effect::ByPort(groups) = effect {
                let name = format!("{CONVERTED}{}", object.meta.name);
                policies.push(of_group(&object.meta.namespace, name, groups.clone()));
            }
        }
        policies
    }
}

fn rule(entry: Match) -> Rules {
    Rules { matches: vec![entry] }
}

/// Who has no identity.
fn nobody() -> Match {
    let presence = StringMatch { match_type: Some(MatchType::Presence(())) };
    Match { not_principals: vec![presence], ..Match::default() }
}

fn note(notes: &mut Notes, meta: &Meta, field: &str, text: &str) {
    notes.push(Note::about(KIND, meta, field, text));
}
