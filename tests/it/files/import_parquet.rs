//! Import of files of runs as ticks: damaged files, files of another version, and files that other programs wrote.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Decimal128Type, TimestampMicrosecondType, UInt8Type, UInt64Type};
use arrow_array::{
    ArrayRef, Decimal128Array, Float64Array, Int16Array, Int64Array, LargeStringArray, NullArray, RecordBatch,
    StringArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use silkrate::domain::{PublishedValue, Rate, ReportedChange, Run, Timestamp};
use silkrate::export::read::RunTicks;

use crate::files::exported;
use crate::full_export;
use crate::full_export::{Named, names, run_columns};
use crate::support::{NOW, TestServer, tick};

/// Returns each tick of a file as text: row, pair, source, seconds after [`NOW`], rate and reported change.
fn read(path: &Path) -> Result<Vec<String>, String> {
    let mut ticks = RunTicks::open(path).map_err(|error| error.to_string())?;
    let mut ticks_read = Vec::new();
    while let Some(tick) = ticks.next_tick().map_err(|error| error.to_string())? {
        let seconds = (tick.observed_time.micros() - NOW.micros()) / Timestamp::SECOND_US;
        let change = tick.value.reported_change.map_or_else(|| "none".to_owned(), |change| change.to_string());
        ticks_read.push(format!("{} {} {} {seconds} {} {change}", tick.row, tick.pair, tick.source, tick.value.rate));
    }
    Ok(ticks_read)
}

fn a_run(first: i64, last: i64, rate: &str, change: Option<&str>) -> Run {
    let at = |seconds: i64| NOW.saturating_add_us(seconds * Timestamp::SECOND_US);
    Run {
        first_observed_time: at(first),
        last_observed_time: at(last),
        observation_count: 2,
        value: PublishedValue {
            rate: Rate::parse(rate).unwrap(),
            reported_change: change.map(|change| ReportedChange::parse(change).unwrap()),
        },
        recorded_time: NOW,
    }
}

fn columns(runs: &[Run]) -> Vec<Named> {
    let rows: Vec<_> = runs.iter().map(|run| (("KGS/USD".to_owned(), "timesca".to_owned()), run.clone())).collect();
    [names(&rows), run_columns(&runs.iter().collect::<Vec<_>>())].concat()
}

/// Two runs, the first with a reported change.
fn two() -> Vec<Run> {
    vec![a_run(-900, -600, "0.01144", Some("-0.5")), a_run(-500, -500, "0.0114500", None)]
}

const TWO_TICKS: [&str; 3] = [
    "1 KGS/USD timesca -900 0.01144 -0.5",
    "1 KGS/USD timesca -600 0.01144 -0.5",
    "2 KGS/USD timesca -500 0.0114500 none",
];

/// Returns copies with one flipped bit each: bit 0, bit 89, bit 178 and so on. So some copies have a damaged page, and
/// some have a damaged footer.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).step_by(89).map(|bit| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_of_an_export_is_detected() {
    let server = TestServer::start(&[]).await;
    let ticks: Vec<_> = (0..200).map(|n| tick("KGS/USD", n - 9_000, &format!("0.0{}", 1_000 + n / 3))).collect();
    server.store(&ticks).await;
    let exported = exported::export(&server, exported::all()).await;
    let path = exported.path("runs.parquet");
    let (original, ticks_read) = (fs::read(&path).unwrap(), read(&path).unwrap());
    assert!(ticks_read.len() > 100);
    let (mut refused, mut total) = (0, 0);
    for bytes in flips(&original) {
        fs::write(&path, bytes).unwrap();
        refused += usize::from(read(&path).is_err());
        total += 1;
    }
    assert_eq!(refused, total);
    assert!(total > 150, "{total}");
    // A change within a dictionary decodes without an error, so only the checksum detects it.
    let at = original.windows(7).position(|window| window == b"KGS/USD").unwrap();
    let mut bytes = original;
    bytes[at] = b'Q';
    fs::write(&path, bytes).unwrap();
    assert!(read(&path).unwrap_err().ends_with("its bytes are not those that silkrate wrote; copy or export it again"));
    server.stop().await;
}

/// In a file without a checksum, undecodable data is an error without a panic.
#[test]
fn damaged_file_without_checksum_causes_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.parquet");
    full_export::write(&path, columns(&two()));
    let original = fs::read(&path).unwrap();
    // No server listens on port 1. The command reads the file before it connects.
    let mut panics = 0;
    for bytes in flips(&original).step_by(7) {
        fs::write(&path, bytes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(["import", path.to_str().unwrap(), "--endpoint", "127.0.0.1:1"]).stdin(Stdio::null());
        let output = String::from_utf8(command.output().unwrap().stderr).unwrap();
        panics += usize::from(output.contains("panicked"));
    }
    assert_eq!(panics, 0);
}

#[test]
fn file_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.parquet");
    let check = |metadata: &[(&str, &str)], expect: Result<(), &str>| {
        let pairs = metadata.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), (*value).to_owned()));
        let properties = WriterProperties::builder().set_key_value_metadata(Some(pairs.collect()));
        write(&path, columns(&two()), properties.build());
        match (read(&path), expect) {
            (Ok(ticks), Ok(())) => assert_eq!(ticks, TWO_TICKS),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (found, _) => panic!("{metadata:?}: {found:?}"),
        }
    };
    check(&[], Ok(()));
    for version in ["1", "2"] {
        check(&[("silkrate.schema_version", version), ("silkrate.version", "9.0.0")], Ok(()));
    }
    check(
        &[("silkrate.schema_version", "3"), ("silkrate.version", "9.0.0")],
        Err("schema_version is 3, but this silkrate reads 1 to 2; use the silkrate version that wrote it (9.0.0)"),
    );
    check(&[("silkrate.schema_version", "x")], Err("schema_version is x"));
}

fn write(path: &Path, columns: Vec<Named>, properties: WriterProperties) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)));
    let batch = batch.unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn common_compressions_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.parquet");
    let check = |compression: Compression| {
        write(&path, columns(&two()), WriterProperties::builder().set_compression(compression).build());
        assert_eq!(read(&path).unwrap(), TWO_TICKS, "{compression}");
    };
    check(Compression::UNCOMPRESSED);
    check(Compression::SNAPPY);
    check(Compression::GZIP(GzipLevel::default()));
    check(Compression::LZ4_RAW);
    check(Compression::LZ4);
}

#[test]
fn columns_of_equivalent_types_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.parquet");
    let check = |name: &str, change: &dyn Fn(&ArrayRef) -> ArrayRef, expect: Result<(), &str>| {
        let changed = columns(&two()).into_iter();
        let changed = changed.map(|(other, array)| (other, if other == name { change(&array) } else { array }));
        write(&path, changed.collect(), WriterProperties::default());
        match (read(&path), expect) {
            (Ok(ticks), Ok(())) => assert_eq!(ticks, TWO_TICKS, "{name}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "no '{part}' in: {error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    };
    let decimal = |precision: u8, scale: i8| {
        move |array: &ArrayRef| -> ArrayRef {
            let array = array.as_primitive::<Decimal128Type>();
            let unit = 10_i128.pow(u32::from(array.scale().abs_diff(scale)));
            let to = |value: i128| if scale > array.scale() { value * unit } else { value / unit };
            let values = array.iter();
            let values: Decimal128Array = values.map(|value| value.map(to)).collect();
            Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
        }
    };
    for (precision, scale) in [(9, 5), (9, 7), (18, 7), (19, 18), (38, 10), (38, 18)] {
        check("rate", &decimal(precision, scale), Ok(()));
    }
    check("rate", &decimal(38, 20), Err("column 'rate' is Decimal128(38, 20); write it as a decimal of at most 18"));
    check("reported_change_percent", &decimal(3, 1), Ok(()));
    let huge: ArrayRef =
        Arc::new(Decimal128Array::from(vec![10_i128.pow(37); 2]).with_precision_and_scale(38, 0).unwrap());
    check("rate", &move |_| Arc::clone(&huge), Err("row 1: rate: has too many digits before the decimal point"));
    let doubles: ArrayRef = Arc::new(Float64Array::from(vec![0.01144, 0.01145]));
    check("rate", &move |_| Arc::clone(&doubles), Err("column 'rate' is Float64; write it as a decimal"));

    let micros = |array: &ArrayRef| array.as_primitive::<TimestampMicrosecondType>().values().to_vec();
    let in_utc = "+00:00";
    check(
        "first_observed_time",
        &|array| {
            Arc::new(
                TimestampNanosecondArray::from_iter_values(micros(array).iter().map(|us| us * 1_000))
                    .with_timezone(in_utc),
            )
        },
        Ok(()),
    );
    check(
        "last_observed_time",
        &|array| {
            Arc::new(
                TimestampMillisecondArray::from_iter_values(micros(array).iter().map(|us| us / 1_000))
                    .with_timezone(in_utc),
            )
        },
        Ok(()),
    );
    check(
        "first_observed_time",
        &|array| {
            Arc::new(
                TimestampNanosecondArray::from_iter_values(micros(array).iter().map(|us| us * 1_000 + 1))
                    .with_timezone(in_utc),
            )
        },
        Err("row 1: first_observed_time: is finer than a microsecond; round it"),
    );
    check(
        "first_observed_time",
        &|array| Arc::new(TimestampMicrosecondArray::from(micros(array))),
        Err("column 'first_observed_time' is Timestamp(µs); write it as a timestamp with a time zone"),
    );

    let text = |text: &'static str| move |_: &ArrayRef| -> ArrayRef { Arc::new(StringArray::from(vec![text; 2])) };
    check("pair", &text("KGS/USD"), Ok(()));
    check("source", &|_| Arc::new(LargeStringArray::from(vec!["timesca"; 2])), Ok(()));
    check("published_places", &text("5"), Err("column 'published_places' is Utf8; write it as a whole number"));

    let places = |array: &ArrayRef| array.as_primitive::<UInt8Type>().iter().collect::<Vec<_>>();
    check(
        "published_places",
        &|array| Arc::new(places(array).into_iter().map(|n| n.map(i64::from)).collect::<Int64Array>()),
        Ok(()),
    );
    check("published_places", &|_| Arc::new(Int16Array::from(vec![256; 2])), Err("published_places: is 256, which"));
    // pandas stores integer columns with missing values as floats.
    check(
        "reported_change_places",
        &|array| Arc::new(places(array).into_iter().map(|n| n.map(f64::from)).collect::<Float64Array>()),
        Ok(()),
    );
    check("reported_change_places", &|_| Arc::new(Float64Array::from(vec![Some(1.5), None])), Err("is 1.5, which"));
    let counts = |array: &ArrayRef| array.as_primitive::<UInt64Type>().values().to_vec();
    check(
        "observation_count",
        &|array| Arc::new(counts(array).iter().map(|n| i64::try_from(*n).ok()).collect::<Int64Array>()),
        Ok(()),
    );
    check(
        "observation_count",
        &|_| Arc::new(Int64Array::from(vec![2, 0])),
        Err("row 2: observation_count: is 0; a run"),
    );
    check("observation_count", &|_| Arc::new(Int64Array::from(vec![2, -1])), Err("row 2: observation_count: is -1"));
}

/// pandas writes a column without values as a column of type null.
#[test]
fn runs_without_reported_changes_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.parquet");
    let columns = columns(&[a_run(-900, -900, "0.01144", None)]).into_iter();
    let columns = columns.map(|(name, array)| {
        let array: ArrayRef = if name.starts_with("reported") { Arc::new(NullArray::new(1)) } else { array };
        (name, array)
    });
    write(&path, columns.collect(), WriterProperties::default());
    assert_eq!(read(&path).unwrap(), ["1 KGS/USD timesca -900 0.01144 none"]);
}

#[test]
fn run_that_ends_before_it_begins_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.parquet");
    full_export::write(&path, columns(&[a_run(-900, -900, "0.01144", None), a_run(-500, -501, "0.01145", None)]));
    let error = read(&path).unwrap_err();
    let expect = "row 2: last_observed_time: is 2025-12-08T11:51:39Z, before first_observed_time 2025-12-08T11:51:40Z";
    assert!(error.ends_with(expect), "{error}");
}

/// Writes a valid file with a second footer, in which `change` was applied to the row groups.
fn with_footer(
    path: &Path,
    change: impl Fn(RowGroupMetaData) -> parquet::errors::Result<RowGroupMetaData>,
) -> Result<Vec<String>, String> {
    full_export::write(path, columns(&two()));
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(path).unwrap()).unwrap();
    let groups = metadata.row_groups().iter().cloned().map(change).collect::<Result<Vec<_>, _>>().unwrap();
    let changed = metadata.into_builder().set_row_groups(groups).build();
    // A reader uses the footer at the end of the file.
    ParquetMetaDataWriter::new(&mut OpenOptions::new().append(true).open(path).unwrap(), &changed).finish().unwrap();
    read(path)
}

#[test]
fn oversized_row_group_is_refused_from_its_footer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.parquet");
    assert_eq!(with_footer(&path, Ok).unwrap(), TWO_TICKS);
    let of_bytes = |bytes: i64| {
        move |group: RowGroupMetaData| {
            let columns = group.columns().iter().cloned();
            let columns = columns.map(|column| column.into_builder().set_total_uncompressed_size(bytes).build());
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            group.into_builder().set_column_metadata(columns).build()
        }
    };
    let output = with_footer(&path, of_bytes(1 << 30)).unwrap_err();
    assert!(output.contains("bytes; the limit is 1073741824: write it with smaller row groups"), "{output}");
    let output = with_footer(&path, |group| group.into_builder().set_num_rows(5_000_000).build()).unwrap_err();
    assert!(output.contains("of 5000000 rows; the limit is 4194304: write it with smaller row groups"), "{output}");
}
