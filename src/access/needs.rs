//! What each gRPC method and each HTTP route needs.
//!
//! **Invariant**: a method or route without an entry is refused. Tests compare the tables with the descriptors and with
//! the routes.

use super::Role;

/// What a call needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// No credentials.
    Nothing,
    /// Credentials with this role or a stronger one.
    Role(Role),
}

const NOTHING: Need = Need::Nothing;
const READ: Need = Need::Role(Role::Read);
const INGEST: Need = Need::Role(Role::Ingest);
const ADMIN: Need = Need::Role(Role::Admin);

/// The gRPC methods, sorted by name.
pub const METHODS: [(&str, Need); 28] = [
    ("grpc.health.v1.Health/Check", NOTHING),
    ("grpc.health.v1.Health/Watch", NOTHING),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READ),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", READ),
    ("silkrate.v1.BackupService/StreamBackup", ADMIN),
    ("silkrate.v1.IngestService/ArchiveSource", ADMIN),
    ("silkrate.v1.IngestService/DiscardQuarantine", ADMIN),
    ("silkrate.v1.IngestService/IngestPage", INGEST),
    ("silkrate.v1.IngestService/IngestTicks", INGEST),
    ("silkrate.v1.IngestService/ListQuarantine", READ),
    ("silkrate.v1.IngestService/ReleaseQuarantine", ADMIN),
    ("silkrate.v1.IngestService/StreamTicks", INGEST),
    ("silkrate.v1.IngestService/UnarchiveSource", ADMIN),
    ("silkrate.v1.RateService/CompareSources", READ),
    ("silkrate.v1.RateService/Convert", READ),
    ("silkrate.v1.RateService/GetChange", READ),
    ("silkrate.v1.RateService/GetLatestRates", READ),
    ("silkrate.v1.RateService/GetRate", READ),
    ("silkrate.v1.RateService/ListCandles", READ),
    ("silkrate.v1.RateService/ListChanges", READ),
    ("silkrate.v1.RateService/ListGaps", READ),
    ("silkrate.v1.RateService/ListRevisions", READ),
    ("silkrate.v1.RateService/ListRuns", READ),
    ("silkrate.v1.RateService/ListSeries", READ),
    ("silkrate.v1.RateService/ListSources", READ),
    ("silkrate.v1.RateService/StreamRuns", READ),
    ("silkrate.v1.RateService/WatchLatestRates", READ),
    ("silkrate.v1.SnapshotService/ExportSnapshot", READ),
];

/// The HTTP routes, sorted by path. The login form and its assets need nothing, because a browser loads them before it
/// has a token.
pub const ROUTES: [(&str, Need); 27] = [
    ("/", READ),
    ("/assets/{name}", NOTHING),
    ("/frankfurter/v1/{what}", READ),
    ("/frankfurter/{what}", READ),
    ("/healthz", NOTHING),
    ("/live", READ),
    ("/login", NOTHING),
    ("/logout", NOTHING),
    ("/metrics", READ),
    ("/openapi.json", READ),
    ("/pair/{base}/{quote}", READ),
    ("/pair/{spelling}", READ),
    ("/readyz", NOTHING),
    ("/v1", READ),
    ("/v1/candles", READ),
    ("/v1/change", READ),
    ("/v1/changes", READ),
    ("/v1/compare", READ),
    ("/v1/convert", READ),
    ("/v1/gaps", READ),
    ("/v1/history", READ),
    ("/v1/latest", READ),
    ("/v1/quarantine", READ),
    ("/v1/rate", READ),
    ("/v1/revisions", READ),
    ("/v1/series", READ),
    ("/v1/sources", READ),
];

/// Returns what a gRPC method needs. `path` is the path of the request, such as `/silkrate.v1.RateService/GetRate`. A
/// method that the server does not have needs the role `read`, and is then answered with `UNIMPLEMENTED`.
pub fn method(path: &str) -> Need {
    let name = path.strip_prefix('/').unwrap_or(path);
    find(&METHODS, name).unwrap_or(READ)
}

/// Returns what an HTTP route needs; `None` for a route without an entry.
pub fn route(path: &str) -> Option<Need> {
    find(&ROUTES, path)
}

fn find(table: &[(&str, Need)], name: &str) -> Option<Need> {
    table.binary_search_by(|(other, _)| (*other).cmp(name)).ok().and_then(|at| table.get(at)).map(|(_, need)| *need)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(METHODS.is_sorted_by(|(a, _), (b, _)| a < b), "{METHODS:?}");
        assert!(ROUTES.is_sorted_by(|(a, _), (b, _)| a < b), "{ROUTES:?}");
    }

    #[test]
    fn every_method_of_the_descriptors_has_an_entry_and_no_other() {
        let files = FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap().file;
        let described: Vec<String> = files
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file, service)))
            .flat_map(|(file, service)| {
                let name = format!("{}.{}", file.package(), service.name());
                service.method.iter().map(move |method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
            })
            .collect();
        let own: BTreeMap<_, _> = METHODS.into_iter().filter(|(name, _)| name.starts_with("silkrate.")).collect();
        let mut described: Vec<&str> = described.iter().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(own.keys().copied().collect::<Vec<_>>(), described);
    }
}
