use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const CONFIG: OpenerConfig =
    OpenerConfig { mark: None, port_reuse: true, ipv6: true, backlog: 16, transparent: None };
const IPV4: SocketPlan = SocketPlan { ipv6: false, transparent: false };

fn at_home() -> (Opener, JoinHandle<()>) {
    Opener::spawn(CONFIG, Travel::Never).unwrap()
}

#[tokio::test]
async fn work_is_done_on_the_thread_of_that_name() {
    let (opener, _thread) = at_home();
    let name = opener.ask(None, || Ok(thread::current().name().map(str::to_owned))).await;
    assert_eq!(name.unwrap().as_deref(), Some(THREAD));
}

#[tokio::test]
async fn a_batch_has_a_limit() {
    let opener = Opener::start_at_home(CONFIG).unwrap();
    for (asked, given) in [(0, 0), (1, 1), (3, 3), (usize::MAX, SOCKETS_PER_REQUEST_MAX)] {
        assert_eq!(opener.sockets(None, IPV4, asked).await.unwrap().len(), given);
    }
}

#[tokio::test]
async fn errors_and_panics_are_answers_and_the_thread_goes_on() {
    let (opener, _thread) = at_home();
    let refused = opener.ask(None, || Err::<(), _>(io::ErrorKind::AddrInUse.into())).await;
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let panicked = opener.ask(None, || -> io::Result<()> { panic!("on purpose") }).await;
    assert_eq!(panicked.unwrap_err().to_string(), "the opener panicked in this request");
    assert_eq!(opener.ask(None, || Ok(7)).await.unwrap(), 7);
}

#[tokio::test]
async fn a_request_nobody_waits_for_is_skipped() {
    let (opener, _thread) = at_home();
    let (release, held) = sync_mpsc::channel::<()>();
    let (entered, started) = oneshot::channel();
    let first = opener.ask(None, move || {
        let _ = entered.send(());
        held.recv().map_err(io::Error::other)
    });
    let ran = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&ran);
    let abandoned = async {
        started.await.unwrap();
        let request = opener.ask(None, move || {
            mark.store(true, Ordering::SeqCst);
            Ok(())
        });
        // Polled once, so that it is in the queue; then its future is dropped.
        tokio::select! {
            biased;
            _ = request => panic!("the thread is busy"),
            () = std::future::ready(()) => {}
        }
        release.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(first, abandoned);
    answer.unwrap();
    opener.ask(None, || Ok(())).await.unwrap();
    assert!(!ran.load(Ordering::SeqCst));
}

#[tokio::test]
async fn the_thread_ends_with_its_last_handle() {
    let (opener, thread) = at_home();
    let second = opener.clone();
    drop(opener);
    assert!(second.ask(None, || Ok(())).await.is_ok());
    drop(second);
    thread.join().unwrap();
}

#[tokio::test]
async fn at_home_means_nowhere_else() {
    let opener = Opener::start_at_home(CONFIG).unwrap();
    let own = Netns::current().unwrap();
    assert_eq!(opener.sockets(Some(own), IPV4, 1).await.unwrap().len(), 1);
}

#[test]
fn handles_may_be_shared_between_threads() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Opener>();
}
