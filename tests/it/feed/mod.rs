//! Tests of feeds: following publishers with a manual clock, backfill, gaps, source settings and the ticker page.

mod backfill_command;
mod feed_tls;
mod fixture;
mod follow;
mod gaps;
mod month;
mod month_of_polls;
mod source_settings;
mod ticker_pages;
