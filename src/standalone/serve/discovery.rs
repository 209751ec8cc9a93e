//! The gRPC skin of [`Session`]: one stream, as a short story.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::access::{Caller, caller};
use super::catalogue::Catalogue;
use super::proxies::{Proxies, Seat};
use super::session::{Refusal, Session};
use crate::creds::devca::DevCa;
use crate::wire::xds::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use crate::wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// Serves delta xDS.
#[derive(Debug)]
pub(super) struct Discovery {
    pub(super) ca: Arc<DevCa>,
    pub(super) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(super) proxies: Proxies,
}

/// One stream.
struct Conversation {
    requests: Streaming<DeltaDiscoveryRequest>,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    session: Session,
    caller: Caller,
    seat: Seat,
    /// Responses to be sent; no request is read before they are.
    due: VecDeque<DeltaDiscoveryResponse>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = Responses;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let caller = caller(&request, self.ca.tokens())?;
        let conversation = Conversation {
            catalogue: self.catalogue.clone(),
            session: Session::default(),
            seat: self.proxies.enter(caller.address, caller.node.clone()),
            caller,
            requests: request.into_inner(),
            due: VecDeque::new(),
        };
        // A refusal is the last thing that is said.
        let responses = unfold(Some(conversation), |conversation| async {
            let mut conversation = conversation?;
            match conversation.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(conversation))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

impl Conversation {
    /// The next response; `None` when the client has ended the stream.
    async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        loop {
            if let Some(response) = self.due.pop_front() {
                return Ok(Some(response));
            }
            tokio::select! {
                biased;
                request = self.requests.message() => match request? {
                    Some(request) => self.take(request)?,
                    None => return Ok(None),
                },
                changed = self.catalogue.changed() => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                    let catalogue = Arc::clone(&self.catalogue.borrow_and_update());
                    self.due.extend(self.session.update(&catalogue));
                }
            }
            self.seat.note(&self.session);
        }
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if let Some(error) = &request.error_detail {
            let node = self.session.node().map_or("", |node| &node.id);
            let (kind, reason) = (&request.type_url, &error.message);
            tracing::warn!(node, kind, reason, "a proxy refused resources");
        }
        let catalogue = Arc::clone(&self.catalogue.borrow_and_update());
        let response = self.session.receive(request, &catalogue).map_err(|refusal| {
            let text = refusal.to_string();
            match refusal {
                Refusal::NoNode => Status::invalid_argument(text),
                Refusal::TooMany => Status::resource_exhausted(text),
            }
        })?;
        if let (Some(node), Some(said)) = (&self.caller.node, self.session.node())
            && !said.node.is_empty()
            && said.node != *node
        {
            let text = format!("the token is of node {node}, the metadata names {}", said.node);
            return Err(Status::permission_denied(text));
        }
        self.due.extend(response);
        // The state that was just answered with may be newer than what the other kinds have.
        self.due.extend(self.session.update(&catalogue));
        Ok(())
    }
}
