//! Tests of exports and imports, and of the programs with which analysts read exports.

mod analysts;
mod export_candles;
mod export_command;
mod export_service;
mod exported;
mod import;
mod import_command;
mod import_faults;
mod import_parquet;
mod stores;
mod tables;

pub(crate) use stores::options;
