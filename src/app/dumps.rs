//! What is shown of the rooms: their values, put together for dumps and metrics.

use std::sync::{Arc, PoisonError};

use super::House;
use crate::creds::{CertificateState, Credentials};
use crate::model::PodName;
use crate::pods::Listing;
use crate::report::dump::{self, Certificate, Dump, PodState};
use crate::report::metrics::CertificateExpiry;
use crate::report::version;

pub(super) fn closure(
    house: &House,
    pods: Option<Listing>,
) -> Box<dyn Fn() -> Vec<u8> + Send + Sync> {
    let (view, report) = (house.view.clone(), house.report.clone());
    let credentials = house.credentials.clone();
    let version = version::of_binary(house.config.istio_version.as_deref());
    let config = house.config.dump();
    let control_plane = house.control_plane.clone();
    let revocation = house.revocation.clone();
    Box::new(move || {
        let control_plane = control_plane.as_ref().map(|status| status.borrow().dump());
        let revocation = revocation.as_ref().map(|status| status.borrow().dump());
        let listed = pods.as_ref().map(|pods| {
            let pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
            let state = |(uid, name, up): &(_, _, _)| PodState {
                uid: Arc::clone(uid),
                up: *up,
                name: PodName::clone(name),
            };
            pods.iter().map(state).collect::<Vec<_>>()
        });
        dump::render(&Dump {
            snapshot: &view.load(),
            certificates: &certificate_list(&credentials),
            pods: listed.as_deref(),
            connections: &report.connections(),
            control_plane: control_plane.as_ref(),
            revocation: revocation.as_ref(),
            version: &version,
            config: &config,
        })
    })
}

fn certificate_list(credentials: &Credentials) -> Vec<Certificate> {
    let inventory = credentials.inventory().into_iter();
    let list = inventory.map(|info| Certificate {
        identity: info.identity,
        state: match info.state {
            CertificateState::Initializing => "Initializing".to_owned(),
            CertificateState::Available => "Available".to_owned(),
            CertificateState::Unavailable(why) => format!("Unavailable: {why}"),
        },
        chain: info.chain.iter().map(|der| der.to_vec()).collect(),
        roots: info.roots.iter().map(|der| der.to_vec()).collect(),
        failures: info.failures,
        last_error: info.last_error.as_deref().map(str::to_owned),
    });
    list.collect()
}

pub(super) fn expiries(credentials: &Credentials) -> Vec<CertificateExpiry> {
    let inventory = credentials.inventory().into_iter();
    let expiries = inventory.filter_map(|info| {
        let since_epoch = info.not_after?.duration_since(std::time::UNIX_EPOCH).ok()?;
        let not_after_seconds = i64::try_from(since_epoch.as_secs()).ok()?;
        Some(CertificateExpiry { identity: info.identity, not_after_seconds })
    });
    expiries.collect()
}
