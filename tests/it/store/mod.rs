//! Tests of the store: format, models, kills, power cuts, disk faults, damage and full disks.

mod archive;
mod as_of;
mod crash;
mod damage;
mod durable;
mod faults;
mod fixture_store;
mod full_disk;
mod model;
mod opening;
mod poll_records;
mod power_cut;
mod quarantine_model;
mod state_rules;
