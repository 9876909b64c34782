//! Build script: compiles the protos without protoc and saves their descriptors for reflection.
//!
//! Messages that HTTP reads or writes derive serde's traits. The descriptor of each field determines its serde
//! attribute.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use protox::prost::Message as _;
use protox::prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor};
use tonic_prost_build::Builder;

const PROTOS: [&str; 10] = [
    "proto/silkrate/v1/backup_service.proto",
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

/// All unary calls of this service are also served over HTTP.
const HTTP_SERVICE: &str = "RateService";
/// The only call of another service that is also served over HTTP.
const HTTP_CALL: &str = "ListQuarantine";

/// Response fields that JSON omits. Their values change with time, so they would change the `ETag` of a response even
/// if no rate changed. `src/http/schema.rs` has the same list.
const OMITTED_FIELDS: [&str; 2] = ["age", "server_time"];

/// Returns the commit for `--version`: the variable `SILKRATE_COMMIT`, for builds without a repository, or what git says. A
/// debug build does not ask git, because every commit would then compile the whole crate again.
fn commit() -> String {
    println!("cargo:rerun-if-env-changed=SILKRATE_COMMIT");
    if let Ok(commit) = env::var("SILKRATE_COMMIT") {
        return commit;
    }
    if env::var("PROFILE").as_deref() != Ok("release") {
        return "debug build".to_owned();
    }
    // The log of HEAD changes with every commit and checkout. Cargo would run this script each time if it were missing.
    if Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    let described =
        Command::new("git").args(["describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]).output();
    let described = described.ok().filter(|output| output.status.success());
    let text = described.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown commit".to_owned(), |text| format!("commit {}", text.trim()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rustc-env=SILKRATE_COMMIT={}", commit());
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("silkrate_descriptor.bin"), descriptors.encode_to_vec())?;
    let builder = tonic_prost_build::configure()
        .codec_path("crate::proto::codec::MessageCodec")
        // `Bytes` fields share the memory of the decoded message instead of copying it.
        .bytes(".silkrate.v1.StreamRunsResponse")
        .bytes(".silkrate.v1.TickColumns")
        .bytes(".silkrate.v1.IngestPageRequest")
        .bytes(".silkrate.v1.ExportChunk");
    let pool = DescriptorPool::from_file_descriptor_set(descriptors.clone())?;
    add_serde_attributes(&pool, builder).compile_fds(descriptors)?;
    Ok(())
}

/// Adds serde attributes to the messages of all HTTP calls (see [`derive_deserialize`] and [`derive_serialize`]) and to
/// their enums.
fn add_serde_attributes(pool: &DescriptorPool, mut builder: Builder) -> Builder {
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let over_http = methods.filter(|method| {
        let is_of_service = method.parent_service().name() == HTTP_SERVICE && !method.is_server_streaming();
        is_of_service || method.name() == HTTP_CALL
    });
    let (mut requests, mut responses): (Vec<_>, Vec<_>) =
        over_http.map(|method| (method.input(), method.output())).unzip();
    let (mut seen, mut enums) = (BTreeSet::new(), BTreeSet::new());
    while let Some(message) = requests.pop() {
        builder = derive_deserialize(&message, builder);
        enums.extend(message.fields().filter_map(|field| field.kind().as_enum().map(full_name_of)));
    }
    while let Some(message) = responses.pop() {
        if seen.insert(message.full_name().to_owned()) {
            builder = derive_serialize(&message, builder);
            enums.extend(message.fields().filter_map(|field| field.kind().as_enum().map(full_name_of)));
            let inner = message.fields().filter_map(|field| field.kind().as_message().cloned());
            responses.extend(inner.filter(|inner| serde_function(inner).is_none()));
        }
    }
    let enums = enums.into_iter().filter_map(|name| pool.get_enum_by_name(&name));
    enums.fold(builder, |builder, descriptor| rename_enum_values(&descriptor, builder))
}

fn full_name_of(descriptor: &EnumDescriptor) -> String {
    descriptor.full_name().to_owned()
}

/// Returns the serde function of a message that is a single value in text form: a time or a duration.
fn serde_function(message: &MessageDescriptor) -> Option<&'static str> {
    match message.full_name() {
        "google.protobuf.Timestamp" => Some("timestamp"),
        "google.protobuf.Duration" => Some("duration"),
        _ => None,
    }
}

fn add_field_attribute(builder: Builder, field: &FieldDescriptor, attribute: &str) -> Builder {
    builder.field_attribute(format!(".{}", field.full_name()), format!("#[serde({attribute})]"))
}

/// Derives `Deserialize` for a request message, which is read from query parameters.
fn derive_deserialize(message: &MessageDescriptor, builder: Builder) -> Builder {
    let derive = "#[derive(serde::Deserialize)] #[serde(default)]";
    let builder = builder.message_attribute(format!(".{}", message.full_name()), derive);
    message.fields().fold(builder, |builder, field| {
        let kind = field.kind();
        let reader = match (kind.as_enum(), kind.as_message().and_then(serde_function)) {
            (Some(kind), _) if field.is_list() => format!("numbers::<{}, _>", kind.name()),
            (Some(kind), _) => format!("number::<{}, _>", kind.name()),
            (None, Some(function)) => function.to_owned(),
            (None, None) => return builder,
        };
        add_field_attribute(builder, &field, &format!("deserialize_with = \"crate::proto::parameter::{reader}\""))
    })
}

/// Derives `Serialize` for a response message, which is written as JSON and CSV.
fn derive_serialize(message: &MessageDescriptor, builder: Builder) -> Builder {
    let builder = builder.message_attribute(format!(".{}", message.full_name()), "#[derive(serde::Serialize)]");
    message.fields().fold(builder, |builder, field| {
        if OMITTED_FIELDS.contains(&field.name()) {
            return add_field_attribute(builder, &field, "skip_serializing");
        }
        let kind = field.kind();
        let writer = match (kind.as_enum(), kind.as_message().and_then(serde_function)) {
            (Some(kind), _) => format!("name::<{}, _>", kind.name()),
            (None, Some(function)) => function.to_owned(),
            (None, None) => return builder,
        };
        add_field_attribute(builder, &field, &format!("serialize_with = \"crate::proto::json::{writer}\""))
    })
}

/// Removes the common prefix from the names of an enum's values, and skips the unspecified value.
fn rename_enum_values(descriptor: &EnumDescriptor, builder: Builder) -> Builder {
    let path = format!(".{}", descriptor.full_name());
    let prefix = descriptor.values().find_map(|value| value.name().strip_suffix("UNSPECIFIED").map(str::to_owned));
    let prefix = prefix.unwrap_or_default();
    let builder = builder.enum_attribute(&path, "#[derive(serde::Deserialize, serde::Serialize)]");
    descriptor.values().fold(builder, |builder, value| {
        let attribute = match value.name().strip_prefix(&prefix).unwrap_or(value.name()) {
            "UNSPECIFIED" => "#[serde(skip)]".to_owned(),
            short => format!("#[serde(rename = \"{short}\")]"),
        };
        builder.field_attribute(format!("{path}.{}", value.name()), attribute)
    })
}
