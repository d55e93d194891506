//! `api-drift DIR`: compares the service models below DIR (botocore's `data`) with the gateway's tables.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use api_drift::model::Models;

/// The tables and the models differ.
const DRIFT: u8 = 1;
/// They could not be compared.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(data), None) = (arguments.next(), arguments.next()) else {
        eprintln!("api-drift: want one argument, the directory of botocore's service models");
        return ExitCode::from(FAILED);
    };
    match compare(Path::new(&data)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DRIFT),
        Err(error) => {
            eprintln!("api-drift: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn compare(data: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let (models, tables) = (Models::read(data)?, api_drift::tables()?);
    let drift = api_drift::drift(&models, &tables);
    drift.iter().for_each(|drift| println!("{drift}"));
    Ok(drift.len())
}
