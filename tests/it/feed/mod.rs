//! Feeds: publishers of every kind, followed on a clock that is set.

mod backfill_command;
mod feed_tls;
mod follow;
mod gaps;
mod month;
mod source_settings;
mod ticker_pages;
