//! A server at the other end: connections and requests, what it is, how it is written to, and what its answers mean for every
//! line. Must not know lanes, spools and clients.

pub(crate) mod asking;
mod credentials;
pub(crate) mod delivery;
pub(crate) mod dialect;
mod dropped;
pub(crate) mod exchange;
pub(crate) mod http;
pub(crate) mod kind;
pub(crate) mod naming;
pub(crate) mod outcome;
mod parts;
mod poison;
pub(crate) mod preflight;
pub(crate) mod probe;
pub(crate) mod proxy;
pub(crate) mod recognise;
pub(crate) mod refusal;
pub(crate) mod retry;
pub(crate) mod said;
pub(crate) mod settle;
pub(crate) mod standing;
pub(crate) mod tls;
pub(crate) mod translate;
mod trusted;
pub(crate) mod vitals;
mod vm_checks;
pub(crate) mod vm_line;
pub(crate) mod watch;
mod x509;
