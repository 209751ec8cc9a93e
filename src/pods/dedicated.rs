//! One pod, no agent: the proxy runs in the pod's own network namespace (spec node-and-pods 6).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Host;
use crate::model::PodName;
use crate::path::PodSpec;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Opens the listeners of the one pod, trying again until they are open.
pub async fn serve_one(host: &impl Host, name: PodName) {
    let mut backoff = BACKOFF_FIRST;
    loop {
        let spec = PodSpec { uid: Arc::from("dedicated"), name: name.clone(), netns: None };
        match host.start(spec).await {
            Ok(()) => return tracing::info!(pod = %name, "pod started"),
            Err(error) => tracing::error!(pod = %name, %error, "cannot start pod; trying again"),
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}
