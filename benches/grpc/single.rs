//! Latency of one durable tick.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use bytes::Bytes;
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;

use crate::bare;
use crate::client::{connect, message, runtime, ticks};
use crate::server::TestServer;
use crate::support::{ROUNDS, keys, median, parameter, report};

pub(crate) fn single() {
    let runtime = runtime();
    runtime.block_on(async {
        let server = TestServer::start(&[]).await;
        let mut client = IngestServiceClient::new(connect(server.addr).await);
        let key = &keys()[0];
        let mut generator = ticks(1, 100_000).into_iter();
        let bare = connect(bare::serve(bare::Blob { bytes: Bytes::from(vec![7; 40]) }).await).await;
        let mut file = File::create(server.dir.path().join("append")).expect("a file");
        let calls = parameter("SILKRATE_BENCH_CALLS", 300) as usize;
        let (mut appends, mut rpcs, mut ticks_us) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS * calls {
            let begun = Instant::now();
            file.write_all(&[7; 64]).and_then(|()| file.sync_data()).expect("a good disk");
            appends.push(begun.elapsed().as_secs_f64() * 1e6);
            let begun = Instant::now();
            bare::call::<bare::Blob>(&bare, Bytes::from_static(&[7; 60])).await;
            rpcs.push(begun.elapsed().as_secs_f64() * 1e6);
            let (time, value) = generator.next().expect("enough ticks");
            let request = v1::IngestTicksRequest { ticks: vec![message(key, time, value)], ..Default::default() };
            let begun = Instant::now();
            let response = client.ingest_ticks(request).await.expect("stored").into_inner();
            ticks_us.push(begun.elapsed().as_secs_f64() * 1e6);
            assert_eq!(response.refusals, []);
        }
        let (append, rpc, ticks_us) = (median(appends), median(rpcs), median(ticks_us));
        report("bare append + fdatasync, median", append, "us", "-");
        report("bare call, median", rpc, "us", "-");
        report("one tick, durable, median", ticks_us, "us", "-");
        report("one tick, ratio to bare append + bare call", ticks_us / (append + rpc), "times", "<= 1.5");
        server.stop().await;
    });
}
