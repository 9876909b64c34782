//! Reads exports over the wire, checks them, and writes their parts to files like the command does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use silkrate::export::{Checker, Step};
use silkrate::proto::v1;
use silkrate::proto::v1::snapshot_service_client::SnapshotServiceClient;
use tonic::{Code, Status, Streaming};

use crate::files::tables;
use crate::support::TestServer;

pub(crate) fn all() -> v1::ExportSnapshotRequest {
    v1::ExportSnapshotRequest::default()
}

pub(crate) async fn open(
    server: &TestServer,
    request: v1::ExportSnapshotRequest,
) -> Result<Streaming<v1::ExportSnapshotResponse>, Status> {
    SnapshotServiceClient::new(server.channel.clone()).export_snapshot(request).await.map(tonic::Response::into_inner)
}

/// A complete export, its parts written to files of a temporary directory.
pub(crate) struct Exported {
    directory: tempfile::TempDir,
    pub(crate) manifest: v1::ExportManifest,
}

impl Exported {
    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.directory.path().join(part)
    }

    pub(crate) fn rows(&self, part: &str, columns: &[&str]) -> Vec<String> {
        tables::rows(&tables::parquet(&self.path(part)), columns)
    }
}

/// Opens an export as soon as a slot is free, which must happen within 20 s.
pub(crate) async fn open_when_free(
    server: &TestServer,
    request: v1::ExportSnapshotRequest,
) -> Streaming<v1::ExportSnapshotResponse> {
    let begun = Instant::now();
    loop {
        match open(server, request.clone()).await {
            Ok(stream) => return stream,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "no export slot became free within 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn export(server: &TestServer, request: v1::ExportSnapshotRequest) -> Exported {
    receive(open(server, request).await.unwrap()).await
}

/// Reads a stream to its end.
pub(crate) async fn receive(mut stream: Streaming<v1::ExportSnapshotResponse>) -> Exported {
    let (mut checker, mut bytes, mut manifest) = (Checker::default(), Vec::new(), None);
    let directory = tempfile::tempdir().unwrap();
    while let Some(message) = stream.message().await.unwrap() {
        match checker.accept(message).unwrap() {
            Step::Manifest(found) => manifest = Some(*found),
            Step::Data(data, _) => bytes.extend_from_slice(&data),
            Step::PartEnd(part) => {
                std::fs::write(directory.path().join(part.name), std::mem::take(&mut bytes)).unwrap();
            }
            Step::End => {}
        }
    }
    checker.finish().unwrap();
    Exported { directory, manifest: manifest.unwrap() }
}

pub(crate) fn footer(path: &Path) -> ParquetMetaData {
    SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap().metadata().clone()
}

pub(crate) fn key_value(metadata: &ParquetMetaData, key: &str) -> String {
    let pairs = metadata.file_metadata().key_value_metadata().unwrap();
    pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()).unwrap()
}
