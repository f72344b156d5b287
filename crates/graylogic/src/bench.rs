//! `graylogic bench`: measures the line protocol, the store and the spool on this machine. Figures are medians or totals of one
//! run; compare them within a run, not between machines.

use crate::cli::{Bench, What};
use crate::failure::Failure;
use std::process::ExitCode;

mod dataset;
mod line;
mod machine;
mod rows;
mod spool;
mod store;

pub(crate) fn run(options: &Bench, json: bool) -> Result<ExitCode, Failure> {
    match options.what {
        What::Line => line::run(json),
        What::Store => store::run(options, json),
        What::Spool => spool::run(options, json),
    }
}

/// The middle of some figures.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
