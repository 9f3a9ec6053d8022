//! The faker: an Armis that can be had anywhere, with a network behind it whose truth is known.
//!
//! It serves the Armis HTTP interface over a population of devices made from a seed, moves
//! addresses among them as DHCP would, and knows what a mapper and a sweep would see of the same
//! machines. Times are microseconds since the Unix epoch.

mod armis;
mod catalogue;
mod faults;
mod network;
mod others;
mod population;
mod server;
mod state;
mod tokens;
mod truth;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use serviceradar_schemas::{Observation, time::Clock};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use faults::{ArmedFault, FAULTS_MAX, Fault, TooManyFaults};
pub use network::PoolNotClosed;
pub use population::DEVICES_MAX;
pub use state::StateError;
pub use truth::{Belongs, Truth};

use faults::Faults;
use network::Network;
use others::Others;
use population::Population;
use tokens::Tokens;

/// The secret that the faker takes for an access token.
pub const SECRET: &str = "faker";
/// The partition of all that the faker knows.
pub const PARTITION: &str = "default";
/// The instance under which the truth expects the faker's Armis to be crawled: `armis/faker`.
pub const INSTANCE: &str = "faker";

/// What the faker is asked to be.
#[derive(Clone, Debug)]
pub struct FakerConfig {
    /// How many devices there are, at most [`DEVICES_MAX`].
    pub devices: usize,
    /// What they are made from: the same seed gives the same devices.
    pub seed: u64,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where its state lives.
    pub dir: PathBuf,
    /// How often addresses move by themselves while it serves; `None` is never.
    pub shuffle_every: Option<Duration>,
}

impl FakerConfig {
    /// 50,000 devices on a free loopback port, shuffled each minute.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            devices: 50_000,
            seed: 1,
            listen: ([127, 0, 0, 1], 0).into(),
            dir,
            shuffle_every: Some(Duration::from_secs(60)),
        }
    }
}

/// Why the faker could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum FakerError {
    /// More devices than there are addresses for.
    #[error("{0} devices are over the limit of {DEVICES_MAX}: ask for fewer")]
    TooManyDevices(usize),
    /// Its state could not be read or kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// A shuffle would have lost an address, or given one twice. It was not done.
    #[error(transparent)]
    Pool(#[from] PoolNotClosed),
    /// It could not listen.
    #[error("cannot listen on {address}: {error}; give another address, or port 0 for a free one")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A shuffle was cut short by the end of the program.
    #[error("the shuffle was cut short by the end of the program")]
    Stopped,
}

/// A faker that serves.
#[derive(Debug)]
pub struct Serving {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends after the shutdown, when the last answer is out.
    pub task: JoinHandle<()>,
}

impl Serving {
    /// The URL to crawl.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The faker. What it knows may be asked while it serves.
pub struct Faker {
    config: FakerConfig,
    clock: Arc<dyn Clock>,
    population: Population,
    network: RwLock<Network>,
    /// Held by whoever shuffles, so that readers wait for the exchange alone and not for the disk.
    shuffling: Mutex<()>,
    faults: Faults,
    tokens: Tokens,
}

impl Faker {
    /// Makes the population and goes on with the state in the folder, or begins one there.
    pub fn open(config: FakerConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, FakerError> {
        if config.devices > DEVICES_MAX {
            return Err(FakerError::TooManyDevices(config.devices));
        }
        let now = clock.now();
        let mut network = state::load(&config.dir, config.devices, config.seed)?
            .unwrap_or_else(|| Network::new(config.devices, now));
        network.as_of = network.as_of.max(now);
        state::save(&config.dir, config.seed, &network)?;
        Ok(Arc::new(Self {
            population: Population::new(config.devices, config.seed),
            network: RwLock::new(network),
            shuffling: Mutex::new(()),
            faults: Faults::default(),
            tokens: Tokens::new(),
            config,
            clock,
        }))
    }

    /// Listens, answers, and shuffles at the interval asked for, until the shutdown.
    pub async fn serve(self: &Arc<Self>, shutdown: CancellationToken) -> Result<Serving, FakerError> {
        let refused = |error| FakerError::Listen { address: self.config.listen, error };
        let listener = TcpListener::bind(self.config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let routes = server::routes(self.clone());
        let faker = self.clone();
        let task = tokio::spawn(async move {
            let answering =
                axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned());
            let ((), answered) = tokio::join!(faker.keep_shuffling(&shutdown), answering.into_future());
            if let Err(error) = answered {
                tracing::error!(%error, "the faker stopped answering");
            }
        });
        Ok(Serving { address, task })
    }

    async fn keep_shuffling(self: &Arc<Self>, shutdown: &CancellationToken) {
        let Some(every) = self.config.shuffle_every else {
            return;
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            match self.shuffle_aside().await {
                Ok(shuffles) => tracing::debug!(shuffles, "addresses moved"),
                Err(error) => tracing::error!(%error, "addresses could not be moved"),
            }
        }
    }

    /// Moves the first addresses of 5 % of the devices among them and keeps the new state.
    /// Returns how many shuffles were ever done. On an error nothing moved.
    pub fn shuffle(&self) -> Result<u64, FakerError> {
        let _alone = self.shuffling.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.network().clone();
        next.shuffle(&self.population, self.config.seed, self.clock.now())?;
        state::save(&self.config.dir, self.config.seed, &next)?;
        let shuffles = next.shuffles;
        *self.network.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(shuffles)
    }

    /// [`Faker::shuffle`] where it may wait for the disk.
    async fn shuffle_aside(self: &Arc<Self>) -> Result<u64, FakerError> {
        let faker = self.clone();
        let shuffled = tokio::task::spawn_blocking(move || faker.shuffle()).await;
        shuffled.unwrap_or(Err(FakerError::Stopped))
    }

    /// Which records are one device, as things stand.
    pub fn truth(&self) -> Truth {
        truth::truth(&self.population, &self.network())
    }

    /// What the mapper `mapper/m1` and the sweep `sweep/k1` see now.
    pub fn observations_of_others(&self) -> impl Iterator<Item = Observation> + use<> {
        let network = self.network();
        let others = Others::new(&self.population, &network);
        let seen: Vec<Observation> = others.observations(self.clock.now()).collect();
        seen.into_iter()
    }

    /// Makes a fault strike the next requests for a page.
    pub fn arm(&self, fault: ArmedFault) -> Result<(), TooManyFaults> {
        self.faults.arm(fault)
    }

    fn network(&self) -> RwLockReadGuard<'_, Network> {
        self.network.read().unwrap_or_else(PoisonError::into_inner)
    }
}
