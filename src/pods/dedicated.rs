//! One pod, no agent: the proxy runs in the pod's own network namespace (spec node-and-pods 6).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Host;
use crate::model::PodName;
use crate::path::{PodSpec, StartError};

/// The uid of the one pod: there is no agent to tell its own.
const UID: &str = "dedicated";
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// For the listeners to open.
const START_MAX: Duration = Duration::from_secs(5);

/// Opens the listeners of the one pod, trying again until they are open.
pub async fn serve_one(host: &impl Host, name: PodName) {
    let mut backoff = BACKOFF_FIRST;
    let mut told = None;
    loop {
        let spec = PodSpec { uid: Arc::from(UID), name: name.clone(), netns: None };
        let started = match timeout(START_MAX, host.start(spec)).await {
            Ok(started) => started,
            Err(_) => {
                host.stop(UID).await;
                Err(StartError(format!("its listeners are not open after {START_MAX:?}")))
            }
        };
        match started {
            Ok(()) => return tracing::info!(pod = %name, "pod started"),
            Err(error) if told.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::error!(pod = %name, %error, "cannot start pod; trying again");
                told = Some(error);
            }
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    /// Each attempt takes what is next in the script.
    struct Scripted {
        script: RefCell<Vec<Option<Result<(), StartError>>>>,
        log: RefCell<Vec<(u128, &'static str)>>,
        begin: Instant,
    }

    impl Scripted {
        fn note(&self, what: &'static str) {
            self.log.borrow_mut().push((self.begin.elapsed().as_millis(), what));
        }
    }

    impl Host for Scripted {
        async fn start(&self, spec: PodSpec) -> Result<(), StartError> {
            assert!(spec.netns.is_none());
            self.note("start");
            let next = self.script.borrow_mut().remove(0);
            match next {
                Some(result) => result,
                None => std::future::pending().await,
            }
        }

        async fn stop(&self, uid: &str) {
            assert_eq!(uid, UID);
            self.note("stop");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_pod_is_started_until_it_is() {
        let failed = || Some(Err(StartError("no".to_owned())));
        let host = Scripted {
            script: RefCell::new(vec![failed(), failed(), None, Some(Ok(()))]),
            log: RefCell::default(),
            begin: Instant::from_std(crate::sys::clock::Clock::system().monotonic()),
        };
        let name = PodName { name: "a".into(), namespace: "n".into(), service_account: "s".into() };
        serve_one(&host, name).await;
        let expected =
            [(0, "start"), (100, "start"), (300, "start"), (5300, "stop"), (5700, "start")];
        // Timers fire on the millisecond after.
        let near = |(got, what): &(u128, &str), (want, expected): &(u128, &str)| {
            what == expected && got.abs_diff(*want) <= 10
        };
        let log = host.log.borrow();
        assert_eq!(log.len(), expected.len(), "{log:?}");
        assert!(log.iter().zip(&expected).all(|(got, want)| near(got, want)), "{log:?}");
    }
}
