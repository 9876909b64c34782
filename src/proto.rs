//! The generated messages, clients and servers of the proto package `silkrate.v1`, and conversions of their fields.
//!
//! **Invariant**: `domain` is the only other module of this crate that this module uses.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
#![allow(rustdoc::all, reason = "the comments of the proto files are not written for rustdoc")]

pub mod codec;
pub mod convert;
pub mod json;
pub mod parameter;

/// The generated code of package `silkrate.v1`.
pub mod v1 {
    tonic::include_proto!("silkrate.v1");
}

/// The encoded descriptors of package `silkrate.v1`, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/silkrate_descriptor.bin"));
