//! Journey 3: a plaintext connection for a pod (spec hbone 7).

use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::accept::Accepted;
use super::connections::Connection;
use super::outbound::until_cut;
use super::pipe::{self, Around};
use super::pod::Pod;
use super::room::Room;
use super::{dial, lookup, session};
use crate::decide::{Client, Facts, is_own_port};
use crate::model::{NetworkAddr, Workload};
use crate::report::{Connection as Described, Direction, Early, Failure, Reason, Side, Transport};
use crate::sys::socket;

/// Serves one plaintext connection from its first byte to its last.
pub(super) async fn serve(accepted: Box<Accepted>, connection: Connection, room: Rc<Room>) {
    let Accepted { socket, pod, client, local, guards, .. } = accepted.unboxed();
    let _guards = guards;
    let ready = async {
        if is_own_port(local.port()) {
            return Err(Failure::new(Reason::SelfCall, local));
        }
        pod.workload(&room.shared).await
    };
    let workload = match until_cut(&connection, Box::pin(ready)).await {
        Ok(workload) => workload,
        Err(failure) => {
            let early =
                Early { direction: Direction::Inbound, source: client.0, destination: local };
            room.shared.report.refused(early, &failure);
            let _ = socket::reset_on_close(&socket);
            return;
        }
    };
    let facts = Facts {
        workload_uid: Arc::clone(&workload.uid),
        client: Client::Plaintext,
        source_ip: client.0.ip(),
        destination: local,
    };
    deliver(socket, &workload, (&room, &pod, &connection), (client.0, facts)).await;
}

async fn deliver(
    socket: TcpStream,
    workload: &Arc<Workload>,
    (room, pod, connection): (&Rc<Room>, &Pod, &Connection),
    (client, facts): (std::net::SocketAddr, Facts),
) {
    let shared = &room.shared;
    let addr = NetworkAddr { network: Arc::clone(&shared.network), ip: client.ip() };
    let described = Described {
        direction: Direction::Inbound,
        transport: Transport::Plaintext,
        source: Side {
            addr: client,
            workload: lookup::described(shared, &shared.view.load(), addr).cloned(),
            claimed: None,
            identity: None,
        },
        destination: Side {
            addr: facts.destination,
            workload: Some(Arc::clone(workload)),
            claimed: None,
            identity: None,
        },
        authority: None,
        service: None,
        original_destination: Some(Arc::from(facts.destination.to_string())),
        trace_id: None,
    };
    let live = shared.report.opened(&pod.spec.uid, described);
    let opened = async {
        let session = session::open(room, connection, &facts).await?;
        let (source, target) = (client.ip(), facts.destination);
        dial::to_application(&session, room, pod, source, target).await
    };
    let result = match until_cut(connection, Box::pin(opened)).await {
        Ok(application) => {
            let around = Around {
                connection,
                buffers: &room.buffers,
                live: &live,
                direction: Direction::Inbound,
            };
            pipe::plain(application, socket, &around).await
        }
        Err(failure) => {
            let _ = socket::reset_on_close(&socket);
            Err(failure)
        }
    };
    live.finish(result);
}
