//! The bytes of a file or of standard input. A thread of its own reads them, so that what has arrived can be handed on while
//! more is awaited, and a signal ends the input at once. It knows nothing of lines.

use crate::failure::Failure;
use flate2::read::MultiGzDecoder;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Instant;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;
/// At most this many pieces are read ahead.
const PIECES_MAX: usize = 8;
/// The first bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What comes of the input.
pub(crate) enum Event {
    Bytes(Vec<u8>),
    /// All of it was read.
    End,
    /// It cannot be read.
    Failed(io::Error),
    /// This signal ended it.
    Stopped(i32),
    /// The time has come, and no bytes.
    Due,
}

/// A file or standard input that is being read.
pub(crate) struct Input {
    events: Receiver<Event>,
    sender: SyncSender<Event>,
    stopped: Arc<AtomicBool>,
}

impl Input {
    /// Reads a file, or standard input without a path or with `-`. Gzip is recognized by its first bytes.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            Some(path) if path.as_os_str() != "-" => {
                let file = File::open(path)
                    .map_err(|e| Failure::because(format_args!("read {}", path.display()), e))?;
                Self::read(file)
            }
            _ => Self::read(io::stdin()),
        }
    }

    /// Reads from here.
    pub(crate) fn read(source: impl Read + Send + 'static) -> Result<Self, Failure> {
        let (sender, events) = sync_channel(PIECES_MAX);
        let pieces = sender.clone();
        let thread = std::thread::Builder::new().name("input".into());
        thread.spawn(move || send(source, &pieces)).map_err(|e| Failure::because("read the input", e))?;
        Ok(Self { events, sender, stopped: Arc::default() })
    }

    /// From here on SIGINT, SIGTERM and SIGHUP (a closed terminal) end the input, and a second one ends the program.
    pub(crate) fn stop_on_signals(&self) -> Result<(), Failure> {
        let listening = |e: io::Error| Failure::because("listen for signals", e);
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let at_once =
                signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, self.stopped.clone());
            at_once.map_err(listening)?;
            signal_hook::flag::register(signal, self.stopped.clone()).map_err(listening)?;
        }
        let mut signals =
            signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(listening)?;
        let events = self.sender.clone();
        let watch = std::thread::Builder::new().name("signals".into()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _ended_already = events.send(Event::Stopped(signal));
            }
        });
        watch.map(drop).map_err(listening)
    }

    /// Set once a signal has come.
    pub(crate) fn stopped(&self) -> Arc<AtomicBool> {
        self.stopped.clone()
    }

    /// Waits for the next event, until a time if there is one.
    pub(crate) fn next(&self, until: Option<Instant>) -> Event {
        let Some(until) = until else { return self.events.recv().unwrap_or(Event::End) };
        match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Due,
            Err(RecvTimeoutError::Disconnected) => Event::End,
        }
    }
}

/// Whether a signal has come.
pub(crate) fn is_stopped(stopped: &AtomicBool) -> bool {
    stopped.load(Ordering::Relaxed)
}

/// Sends all that can be read, until the receiver is gone.
fn send(mut source: impl Read + Send + 'static, events: &SyncSender<Event>) {
    let mut first = [0; GZIP.len()];
    let read = match read_full(&mut source, &mut first) {
        Ok(read) => read,
        Err(why) => return drop(events.send(Event::Failed(why))),
    };
    let all = Cursor::new(first).take(read as u64).chain(source);
    let last = match first == GZIP {
        true => send_pieces(MultiGzDecoder::new(io::BufReader::with_capacity(PIECE_BYTES, all)), events),
        false => send_pieces(all, events),
    };
    let _nobody_listens = events.send(last);
}

/// Sends all pieces, and returns what follows the last one.
fn send_pieces(mut source: impl Read, events: &SyncSender<Event>) -> Event {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Event::End,
            Ok(read) => {
                if events.send(Event::Bytes(buffer[..read].to_vec())).is_err() {
                    return Event::End;
                }
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Event::Failed(why),
        }
    }
}

/// Fills the buffer unless the input is shorter.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(filled)
}
