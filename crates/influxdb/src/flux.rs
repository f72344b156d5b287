//! Questions in Flux and their answers: rows of typed columns, read from annotated CSV as it comes.

pub(crate) mod annotated_csv;
mod deserialize;
pub(crate) mod ending;
pub(crate) mod question;
pub(crate) mod table;
