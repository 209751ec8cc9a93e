use tokio::time::timeout;

use super::*;
use crate::model::Workload;
use crate::model::fixtures::pod;

const LIMIT: Duration = Duration::from_secs(5);

fn arrival(name: &str) -> Delta {
    Delta { workloads: vec![pod(name, &[])], ..Delta::default() }
}

fn find(snapshot: &Snapshot, name: &str) -> Option<Arc<Workload>> {
    snapshot.workload(&Arc::from(format!("k//Pod/{name}"))).cloned()
}

#[test]
fn a_reader_sees_what_was_published_and_keeps_what_it_holds() {
    let (mut publisher, view) = Publisher::new();
    let before = view.load();
    assert_eq!(before.generation(), 0);
    assert_eq!(publisher.publish(arrival("n/p")), 1);
    assert_eq!(view.load().generation(), 1);
    assert!(find(&view.load(), "n/p").is_some());
    assert!(find(&before, "n/p").is_none());
    assert_eq!(publisher.publish(Delta::default()), 2);
    assert!(find(&view.load(), "n/p").is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_found_without_waiting() {
    let (mut publisher, view) = Publisher::new();
    publisher.publish(arrival("n/p"));
    let found = view.wait_for(Duration::ZERO, |snapshot| find(snapshot, "n/p")).await;
    assert!(found.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_generation_that_has_it() {
    let (mut publisher, view) = Publisher::new();
    let publish = async {
        tokio::task::yield_now().await;
        publisher.publish(arrival("n/other"));
        tokio::task::yield_now().await;
        publisher.publish(arrival("n/p"));
    };
    let wait = view.wait_for(LIMIT, |snapshot| find(snapshot, "n/p"));
    let (found, ()) = tokio::join!(timeout(LIMIT / 2, wait), publish);
    let found = found.expect("before the limit").expect("it was published");
    assert_eq!(&*found.name, "p");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_limit() {
    let (_publisher, view) = Publisher::new();
    let wait = || view.wait_for(LIMIT, |snapshot| find(snapshot, "n/p"));
    assert!(timeout(LIMIT / 2, wait()).await.is_err(), "not before");
    assert!(matches!(timeout(LIMIT * 2, wait()).await, Ok(None)), "not after");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_nothing_will_ever_change() {
    let (publisher, mut view) = Publisher::new();
    drop(publisher);
    let wait = view.wait_for(LIMIT, |snapshot| find(snapshot, "n/p"));
    assert!(matches!(timeout(LIMIT / 2, wait).await, Ok(None)), "before the limit");
    assert!(!view.changed().await);
}

#[tokio::test(start_paused = true)]
async fn every_reader_is_told_of_every_change_it_has_not_seen() {
    let (mut publisher, mut first) = Publisher::new();
    let mut second = first.clone();
    publisher.publish(Delta::default());
    publisher.publish(Delta::default());
    assert!(first.changed().await);
    assert!(second.changed().await);
    let nothing_new = timeout(LIMIT, first.changed()).await;
    assert!(nothing_new.is_err());
    publisher.publish(Delta::default());
    // What was published before the writer went is still told.
    drop(publisher);
    assert!(first.changed().await);
    assert!(!first.changed().await);
}
