//! Whether a run works: its HTTP page, its metrics, and its reports to systemd.

pub mod envoy;
mod metrics;
mod notify;
mod server;
pub mod state;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;

use crate::report::Report;
use envoy::Admin;

#[derive(Debug, Default)]
pub struct Options {
    /// Listen address of the page; port 0 picks a free port.
    pub listen: Option<SocketAddr>,
    /// Envoy's admin address.
    pub envoy: Option<Admin>,
}

/// The tasks of a run's health. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Health {
    listener: Option<(SocketAddr, TcpListener)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Health {
    /// Takes the page's address.
    pub(crate) async fn bind(options: &Options) -> Result<Self, (SocketAddr, std::io::Error)> {
        let listener = match options.listen {
            Some(address) => {
                let listen = async {
                    let listener = TcpListener::bind(address).await?;
                    Ok((listener.local_addr()?, listener))
                };
                Some(listen.await.map_err(|error| (address, error))?)
            }
            None => None,
        };
        metrics::begin();
        Ok(Self { listener, tasks: Vec::new() })
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(|(address, _)| *address)
    }

    /// Starts the tasks, each apart from the run: they answer while a store or a disk hangs.
    pub(crate) fn start(
        &mut self,
        options: &Options,
        log: Option<PathBuf>,
        report: &Arc<Report>,
        stop: &Receiver<bool>,
    ) {
        if let Some((_, listener)) = self.listener.take() {
            self.tasks.push(tokio::spawn(server::serve(listener, Arc::clone(report))));
        }
        if let Some(admin) = &options.envoy {
            self.tasks.push(tokio::spawn(envoy::watch(admin.clone(), Arc::clone(report))));
        }
        if let Some(log) = log {
            self.tasks.push(tokio::spawn(watch::log(log, Arc::clone(report))));
        }
        self.tasks.push(tokio::spawn(notify::watch(Arc::clone(report), stop.clone())));
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if !self.tasks.is_empty() {
            notify::stopping();
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}
