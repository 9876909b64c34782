//! Tests of the gRPC services over real sockets.

mod archive;
mod deadline;
mod derived_rates;
mod floods;
mod grpc_web;
mod ingest;
mod limits;
mod quarantine;
mod rates;
mod reads;
mod server;
mod stream_runs;
mod watch;
