//! Wiring only: builds every room and hands each its narrowest handle.

mod dumps;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use crate::config::{CertificateSource, Config, MeshSource, Mode, OriginalSource};
use crate::control::file::FileSource;
use crate::control::stream::{XdsParts, XdsSource, XdsStatus};
use crate::creds::devca::{DevCa, DevCaError};
use crate::creds::{
    Connector, Credentials, Issuer, IstioCa, Keeper, RevocationFile, RevocationStatus, Settings,
    revocations,
};
use crate::lifecycle::{Exit, Stop};
use crate::model::{Lookups, Publisher, View};
use crate::path::{Handles, PodHost};
use crate::pods::{self, Feed, Listing, PodsStatus};
use crate::report::Report;
use crate::report::admin::{self, Pages, Sockets};
use crate::report::health::{Readiness, Task};
use crate::report::log::{self, Log, LogError};
use crate::report::metrics::Metrics;
use crate::report::version;
use crate::sys::clock::Clock;
use crate::sys::opener::{Opener, OpenerConfig};
use crate::sys::process;

/// How long the last log lines may take to be written.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Why the proxy could not start.
#[derive(Debug)]
pub enum AppError {
    /// The log.
    Log(LogError),
    /// Something of the operating system: what for, and the error.
    System(&'static str, io::Error),
    /// The development CA.
    DevCa(DevCaError),
    /// There is nothing that certificates could come from.
    NoCa,
    /// There is nothing that the configuration could come from.
    NoConfiguration,
}

/// Everything that has been built and must live as long as the proxy.
struct House {
    config: Arc<Config>,
    clock: Clock,
    log: Log,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    view: View,
    credentials: Credentials,
    report: Report,
    host: PodHost,
    /// Where the stream from the control plane stands, if there is one.
    control_plane: Option<watch::Receiver<XdsStatus>>,
    /// Where the file of revocation lists stands, if there is one.
    revocation: Option<watch::Receiver<RevocationStatus>>,
    /// The control thread's long-lived tasks.
    tasks: JoinSet<()>,
}

/// Runs the proxy until it is told to stop.
pub fn run(config: Config) -> Result<Exit, AppError> {
    let clock = Clock::system();
    let log = log::start(&config.log, clock.clone()).map_err(AppError::Log)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| AppError::System("start the control thread", error))?;
    let result = runtime.block_on(async {
        let house = build(config, clock, log.clone())?;
        live(house).await
    });
    if let Err(error) = &result {
        tracing::error!(%error, "cannot run");
    }
    log.flush(FLUSH_MAX);
    result
}

fn build(config: Config, clock: Clock, log: Log) -> Result<House, AppError> {
    say_hello(&config);
    let system = |what| move |error| AppError::System(what, error);
    process::raise_open_files().map_err(system("raise the limit of open files"))?;
    process::set_not_dumpable().map_err(system("forbid core dumps"))?;
    let built = version::of_binary(config.istio_version.as_deref());
    let metrics = Arc::new(Metrics::new(&built.istio_version));
    metrics.watch_log(log.clone());
    let readiness = Readiness::new();
    let (publisher, view, lookups) = mesh(&config);
    metrics.watch_mesh(view.clone());
    let opener = start_opener(&config).map_err(system("start the opener"))?;
    let (keeper, credentials, lists) = certificates(&config, &clock, &metrics)?;
    let report = Report::new(Arc::clone(&metrics), clock.clone());
    let handles = Handles {
        view: view.clone(),
        credentials: credentials.clone(),
        report: report.clone(),
        opener,
        clock: clock.clone(),
    };
    let host = PodHost::new(&config, handles).map_err(system("start the workers"))?;
    let mut tasks = JoinSet::new();
    tasks.spawn_local(keeper.run());
    let revocation = lists.as_ref().map(RevocationFile::status);
    if let Some(lists) = lists {
        tasks.spawn_local(lists.run());
    }
    let parts = (publisher, lookups, &metrics, &clock, readiness.task("state manager"));
    let control_plane = mesh_source(&config, parts, &mut tasks)?;
    let config = Arc::new(config);
    Ok(House {
        config,
        clock,
        log,
        metrics,
        readiness,
        view,
        credentials,
        report,
        host,
        control_plane,
        revocation,
        tasks,
    })
}

/// What the writer of the mesh needs.
type Parts<'a> = (Publisher, Option<Lookups>, &'a Arc<Metrics>, &'a Clock, Task);

/// The mesh, and what its readers ask for if it is asked for one by one.
fn mesh(config: &Config) -> (Publisher, View, Option<Lookups>) {
    match &config.mesh_from {
        Some(MeshSource::Server(xds)) if xds.on_demand => {
            let (publisher, view, lookups) = Publisher::on_demand();
            (publisher, view, Some(lookups))
        }
        _ => {
            let (publisher, view) = Publisher::new();
            (publisher, view, None)
        }
    }
}

/// Starts whoever writes the mesh; where the stream stands, if it is one.
fn mesh_source(
    config: &Config,
    (publisher, lookups, metrics, clock, task): Parts<'_>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<watch::Receiver<XdsStatus>>, AppError> {
    match config.mesh_from.clone().ok_or(AppError::NoConfiguration)? {
        MeshSource::Local(local) => {
            let metrics = Arc::clone(metrics);
            let (source, status) = FileSource::new(local, publisher, metrics, clock.clone());
            tasks.spawn_local(source.run());
            tasks.spawn_local(state_manager(status, |status| status.loaded, task));
            Ok(None)
        }
        MeshSource::Server(xds) => {
            let connector = Connector::new(xds.server, &settings(config), clock.clone());
            tracing::info!(address = %connector.address(), "the control plane");
            let server = connector.address().to_string();
            let parts = XdsParts {
                node: xds.node,
                publisher,
                lookups,
                metrics: metrics.xds.clone(),
                clock: clock.clone(),
                rng: fastrand::Rng::new(),
                keep: xds.snapshot.map(|snapshot| (snapshot, server)),
            };
            let (source, status) = XdsSource::new(Arc::new(connector), parts);
            tasks.spawn_local(source.run());
            tasks.spawn_local(state_manager(status.clone(), |status| status.loaded, task));
            Ok(Some(status))
        }
    }
}

fn settings(config: &Config) -> Settings {
    let identity = &config.identity;
    Settings { tls: identity.tls, certificate_ttl: identity.certificate_ttl }
}

/// Serves people, machines and pods until something makes the proxy stop; then drains.
async fn live(mut house: House) -> Result<Exit, AppError> {
    let quit = Arc::new(Notify::new());
    let system = |what| move |error| AppError::System(what, error);
    let mut stop = Stop::new(Arc::clone(&quit)).map_err(system("catch signals"))?;
    let draining = house.readiness.task("not draining");
    draining.ready();
    let sockets = Sockets::bind(&house.config.servers).map_err(system("open the servers"))?;
    let pods = serve_pods(&mut house);
    let pages = Pages {
        readiness: house.readiness.clone(),
        metrics: Arc::clone(&house.metrics),
        log: house.log.clone(),
        dump: dumps::closure(&house, pods),
        quit,
    };
    let (close, closed) = oneshot::channel::<()>();
    house.tasks.spawn_local(async move {
        admin::serve(sockets, pages, async {
            let _ = closed.await;
        })
        .await;
    });
    let cause = stop.asked().await;
    let deadline = house.config.termination_deadline;
    tracing::info!(%cause, ?deadline, "stopping: nothing new is taken");
    draining.pending();
    // Admin and stats stay open while connections finish, so that the drain can be watched.
    let exit = stop.while_draining(house.host.drain(deadline)).await;
    drop(close);
    tracing::info!("stopped");
    Ok(exit)
}

fn say_hello(config: &Config) {
    let limits = serde_json::to_string(&config.limits).unwrap_or_default();
    tracing::info!(version = version::VERSION, workers = config.workers, "adit starts");
    tracing::info!(limits, "every bound of the data path");
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

fn start_opener(config: &Config) -> io::Result<Opener> {
    let opener = OpenerConfig {
        mark: config.data_path.packet_mark,
        port_reuse: config.data_path.port_reuse,
        ipv6: config.data_path.ipv6,
        backlog: config.limits.backlog,
        transparent: match config.data_path.original_source {
            OriginalSource::Auto => None,
            OriginalSource::Always => Some(true),
            OriginalSource::Never => Some(false),
        },
    };
    match config.mode {
        Mode::Shared { .. } => Opener::start(opener),
        Mode::Dedicated { .. } => Opener::start_at_home(opener),
    }
}

fn certificates(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<(Keeper, Credentials, Option<RevocationFile>), AppError> {
    let settings = settings(config);
    let issuer: Arc<dyn Issuer> = match &config.identity.certificates_from {
        None => return Err(AppError::NoCa),
        Some(CertificateSource::Development(ca)) => {
            let ca = DevCa::open(&ca.dir, clock.clone()).map_err(AppError::DevCa)?;
            metrics.development_ca.set(1);
            Arc::new(ca)
        }
        Some(CertificateSource::Server(server)) => {
            let connector = Connector::new(server.clone(), &settings, clock.clone());
            let shared = matches!(config.mode, Mode::Shared { .. });
            Arc::new(IstioCa::new(Arc::new(connector), shared, clock.clone()))
        }
    };
    let (keeper, credentials) = Keeper::new(settings, issuer, clock.clone());
    let mut keeper = keeper.counting(metrics.certificates.clone());
    let mut lists = None;
    if let Some(config) = &config.identity.revocation {
        let (revocations, file) = revocations(config, metrics.revocation.clone(), clock);
        keeper = keeper.looking_up(revocations);
        lists = Some(file);
    }
    let inventory = credentials.clone();
    metrics.watch_certificates(move || dumps::expiries(&inventory));
    Ok((keeper, credentials, lists))
}

/// Ready once a configuration was published; never withdrawn.
async fn state_manager<S>(mut status: watch::Receiver<S>, loaded: fn(&S) -> bool, task: Task) {
    if status.wait_for(loaded).await.is_ok() {
        task.ready();
    }
}

/// Serves the pods of the mode; where they stand, if there is an agent that tells.
fn serve_pods(house: &mut House) -> Option<Listing> {
    let host = house.host.clone();
    let mut view = house.view.clone();
    let (issued, identity) = (house.credentials.issued(), house.readiness.task("identity"));
    // Nothing is served before the mesh is known (spec xds 6).
    let known = async move {
        while view.load().generation() == 0 {
            if !view.changed().await {
                return std::future::pending().await;
            }
        }
    };
    match house.config.mode.clone() {
        Mode::Dedicated { pod } => {
            let task = house.readiness.task("proxy");
            house.tasks.spawn_local(async move {
                known.await;
                pods::serve_one(&host, pod).await;
                task.ready();
            });
            house.tasks.spawn_local(first_identity(issued, std::future::pending(), identity));
            None
        }
        Mode::Shared { agent_socket } => {
            let task = house.readiness.task("workload proxy manager");
            let clock = house.clock.clone();
            let (feed, status) = Feed::new(agent_socket, host, clock, fastrand::Rng::new());
            let listing = feed.listing();
            house.tasks.spawn_local(async move {
                known.await;
                feed.run().await;
            });
            let empty = no_pods(status.clone());
            house.tasks.spawn_local(first_identity(issued, empty, identity));
            house.tasks.spawn_local(follow_pods(status, task, Arc::clone(&house.metrics)));
            Some(listing)
        }
    }
}

/// Ready once a certificate was issued, or there is nobody who needs one; never withdrawn.
async fn first_identity(
    mut issued: watch::Receiver<bool>,
    nobody: impl Future<Output = ()>,
    task: Task,
) {
    tokio::select! {
        biased;
        issued = issued.wait_for(|issued| *issued) => if issued.is_err() { return },
        () = nobody => {}
    }
    task.ready();
}

/// Ends when the agent has said that there are no pods.
async fn no_pods(mut status: watch::Receiver<PodsStatus>) {
    if status.wait_for(|status| status.ready() && status.active == 0).await.is_err() {
        std::future::pending().await
    }
}

async fn follow_pods(mut status: watch::Receiver<PodsStatus>, task: Task, metrics: Arc<Metrics>) {
    let mut counted = PodsStatus::default();
    loop {
        let now = *status.borrow_and_update();
        metrics.pods.started.inc_by(now.started - counted.started);
        metrics.pods.stopped.inc_by(now.stopped - counted.stopped);
        metrics.pods.agent_errors.inc_by(now.refused - counted.refused);
        counted = now;
        metrics.pods.active.set(i64::try_from(now.active).unwrap_or(i64::MAX));
        metrics.pods.pending.set(i64::try_from(now.pending).unwrap_or(i64::MAX));
        if now.ready() {
            task.ready()
        } else {
            task.pending()
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => write!(f, "the log cannot start: {error}"),
            Self::System(what, error) => write!(f, "cannot {what}: {error}"),
            Self::DevCa(error) => error.fmt(f),
            Self::NoCa => f.write_str(
                "there is nothing to fetch certificates from: set CA_ADDRESS, or FAKE_CA=true for \
                 a development CA",
            ),
            Self::NoConfiguration => f.write_str(
                "there is nothing to read the mesh from: set XDS_ADDRESS to a control plane, or \
                 LOCAL_XDS_PATH to a configuration file",
            ),
        }
    }
}

impl std::error::Error for AppError {}
