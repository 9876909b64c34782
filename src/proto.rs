//! The generated messages, clients and servers of `silkrate.v1`.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
#![allow(rustdoc::all, reason = "comments of the proto files are written for readers of protos")]

pub mod codec;
pub mod convert;
pub mod json;
pub mod parameter;

/// Package `silkrate.v1`.
pub mod v1 {
    tonic::include_proto!("silkrate.v1");
}

/// The descriptors of the package, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/silkrate_descriptor.bin"));
