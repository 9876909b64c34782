//! Compiles the protos without protoc and keeps their descriptors for reflection.

use std::{env, fs, path::PathBuf};

use protox::prost::Message as _;

const PROTOS: [&str; 9] = [
    "proto/silkrate/v1/types.proto",
    "proto/silkrate/v1/rate.proto",
    "proto/silkrate/v1/compare.proto",
    "proto/silkrate/v1/gaps.proto",
    "proto/silkrate/v1/quarantine.proto",
    "proto/silkrate/v1/ingest_service.proto",
    "proto/silkrate/v1/rate_service.proto",
    "proto/silkrate/v1/snapshot_service.proto",
    "proto/silkrate/v1/sources.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("silkrate_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::proto::codec::MessageCodec")
        // Columns are handed on by reference, not copied.
        .bytes(".silkrate.v1.StreamRunsResponse")
        .bytes(".silkrate.v1.TickColumns")
        .bytes(".silkrate.v1.IngestPageRequest")
        .bytes(".silkrate.v1.ExportChunk")
        .compile_fds(descriptors)?;
    Ok(())
}
