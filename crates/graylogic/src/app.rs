//! The life of a server: open, listen, serve until told to end, close.

use crate::cli::{Address, Place};
use crate::failure::Failure;
use crate::output::answer;
use crate::page;
use graylogic_influxdb::{Client, Config, Target};
use graylogic_store::WriteOptions;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the client may take to close.
pub(crate) const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// The configuration that options mean: a folder, a file, or the environment and defaults.
pub(crate) fn config(place: &Place) -> Result<Config, Failure> {
    let config = match (&place.config, &place.data) {
        (Some(file), _) => Config::from_file(file)?,
        (None, folder) => {
            let config = Config::from_yaml("")?;
            match folder {
                Some(folder) => config.with_target(Target::Embedded(folder.clone())),
                None => config,
            }
        }
    };
    Ok(match &place.bucket {
        Some(bucket) => config.with_bucket(bucket),
        None => config,
    })
}

/// The configuration of a command that changes something, which a configuration that is switched off forbids.
pub(crate) fn acting_config(place: &Place, command: &str) -> Result<Config, Failure> {
    let config = config(place)?;
    match config.is_enabled() {
        true => Ok(config),
        false => Err(disabled(place, command)),
    }
}

/// Why a command does nothing when the configuration is switched off.
fn disabled(place: &Place, command: &str) -> Failure {
    let file = place.config.as_ref().map_or_else(String::new, |file| format!(" of {}", file.display()));
    Failure::new(format!(
        "{command}: nothing is done because influxdb.enabled is false; set it to true{file}, or \
         GRAYLOGIC_INFLUXDB_ENABLED in the environment"
    ))
}

/// The client that options mean.
pub(crate) fn connect(place: &Place) -> Result<(Client, Config), Failure> {
    let config = config(place)?;
    Ok((Client::connect(&config)?, config))
}

/// Serves the page until Ctrl-C or SIGTERM, then closes the client.
pub(crate) fn serve(client: &Client, address: &Address, json: bool) -> Result<(), Failure> {
    let Some(store) = client.store() else {
        let message = "the page shows the embedded store; name its folder with --data";
        return Err(Failure::new(message));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::because("start the server", e))?;
    let at = SocketAddr::new(address.bind, address.port);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Failure::because("listen for Ctrl-C", e))?;
    let stop_signals = signals.handle();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let watch = std::thread::Builder::new().name("signals".into()).spawn(move || {
        signals.forever().next();
        let _ended_already = stop.send(());
    });
    watch.map_err(|e| Failure::because("listen for Ctrl-C", e))?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(at).await.map_err(|e| {
            let remedy = if e.kind() == std::io::ErrorKind::AddrInUse {
                "; name another with --port, or 0 for a free one"
            } else {
                ""
            };
            Failure::new(format!("listen on {at}: {e}{remedy}"))
        })?;
        let at = listener.local_addr().map_err(|e| Failure::because("listen", e))?;
        if json {
            answer(serde_json::json!({ "listening": format!("http://{at}") }));
        } else {
            answer(format_args!("listening on http://{at}"));
        }
        let _closed_pipe = std::io::stdout().flush();
        let router = page::router(client.clone(), store.clone(), at);
        let ended = axum::serve(listener, router).with_graceful_shutdown(async {
            let _sender_gone = stopped.await;
        });
        // A page that is open keeps its connection: it is not waited for long.
        tokio::select! {
            ended = ended.into_future() => ended.map_err(|e| Failure::because("serve", e)),
            () = after_signal() => Ok(()),
        }
    });
    stop_signals.close();
    runtime.shutdown_timeout(Duration::from_secs(2));
    client.close(CLOSE_DEADLINE)?;
    served
}

/// Two seconds after a signal to end.
async fn after_signal() {
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if signal_hook::flag::register(signal, ended.clone()).is_err() {
            return std::future::pending().await;
        }
    }
    while !ended.load(std::sync::atomic::Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// How the embedded store takes lines: all of them, or those with implausible timestamps into quarantine.
pub(crate) fn write_options(any_time: bool) -> WriteOptions {
    if any_time { WriteOptions::now().any_time() } else { WriteOptions::now() }
}
