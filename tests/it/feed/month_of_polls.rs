//! A simulated month of six publishers, with and without faults: what is stored, and which source answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use silkrate::clock::Clock as _;
use silkrate::domain::Timestamp;
use silkrate::follow::{FollowedSource, Outcome};

use crate::feed::fixture::{Fixture, time};
use crate::feed::month::Simulation;
use crate::feed::month::choices::{Reason, Switch, switches};
use crate::feed::month::faults::{Fault, FaultSchedule};
use crate::publisher::Publisher;

/// A poll of a source, its outcome, and the fault at that time.
struct Polled {
    source: FollowedSource,
    time: Timestamp,
    outcome: Outcome,
    fault: Option<Fault>,
}

/// The simulated month.
const BEGIN: &str = "2026-05-01T00:00:00Z";
const END: &str = "2026-06-01T00:00:00Z";
/// The interval at which the test checks for due polls. A ticker is due each minute, so it is polled each time.
const STEP_US: i64 = 15 * 60 * Timestamp::SECOND_US;

/// Follows every source for a month, with the faults of a schedule if there is one.
async fn follow_for_a_month(fixture: &Fixture, schedule: Option<Arc<FaultSchedule>>) -> Vec<Polled> {
    let simulation = Simulation { clock: Arc::clone(&fixture.clock), factor: 1 };
    let wrong = simulation.with_wrong_rates();
    let elsewhere = Publisher::start(move |_| wrong.reply(FollowedSource::Timesca, "/")).await;
    let mut followed = Vec::new();
    for source in FollowedSource::ALL {
        let (simulation, faults, elsewhere) = (simulation.clone(), schedule.clone(), elsewhere.base_url.clone());
        let publisher = Publisher::start(move |path| {
            let fault = faults.as_ref().and_then(|faults| faults.at(source, simulation.clock.now()));
            fault.map_or_else(
                || simulation.reply(source, path),
                |fault| fault.reply(source, path, &simulation, &elsewhere),
            )
        });
        let publisher = publisher.await;
        let read = Duration::from_millis(if schedule.is_some() { 250 } else { 20_000 });
        followed.push((source, fixture.follower_for(source, &publisher, read), publisher));
    }
    let mut polled = Vec::new();
    let mut now = time(BEGIN);
    while now < time(END) {
        fixture.clock.set(now);
        for (source, follower, publisher) in &mut followed {
            if follower.next_poll() <= now {
                let fault = schedule.as_ref().and_then(|schedule| schedule.at(*source, now));
                publisher.set_open(fault != Some(Fault::Refused)).await;
                polled.push(Polled { source: *source, time: now, outcome: follower.poll().await, fault });
            }
        }
        now = now.saturating_add_us(STEP_US);
    }
    assert!(elsewhere.requests().is_empty(), "a redirect was followed to {:?}", elsewhere.requests());
    polled
}

/// Checks that the polls without faults have good outcomes and are frequent enough, and that each fault occurs at each
/// source and is reported unless it is harmless.
fn check_polls(good: &[Polled], bad: &[Polled]) {
    assert!(good.iter().all(|poll| poll.outcome <= Outcome::Silent));
    for source in FollowedSource::ALL {
        let count = good.iter().filter(|poll| poll.source == source).count();
        assert!(count > if source == FollowedSource::Timesca { 31 * 95 } else { 31 * 24 }, "{source}: {count}");
        for fault in Fault::ALL {
            let polls: Vec<_> = bad.iter().filter(|poll| (poll.source, poll.fault) == (source, Some(fault))).collect();
            assert!(!polls.is_empty(), "{source} had no {fault:?}");
            let is_reported = polls.iter().any(|poll| poll.outcome > Outcome::Taken);
            assert!(is_reported || fault.is_harmless(), "{source}: {fault:?}");
        }
    }
    // A pause of the test machine has the same effect as a publisher that hangs.
    let mut without_fault = bad.iter().filter(|poll| poll.fault.is_none() && poll.outcome > Outcome::Silent);
    assert!(without_fault.all(|poll| poll.outcome == Outcome::Unreachable));
}

/// Checks that the series of banks have the same runs and instants in both stores, and that the series of the ticker
/// lack exactly the instants of polls that gave no rate of the pair.
fn check_stores(faultless: &Fixture, faulty: &Fixture, bad: &[Polled]) {
    let (whole, seen) = (faultless.timelines(), faulty.timelines());
    assert_eq!(whole.keys().collect::<Vec<_>>(), seen.keys().collect::<Vec<_>>());
    let (of_ticker, of_banks): (Vec<_>, Vec<_>) = whole.keys().partition(|name| name.ends_with("timesca"));
    assert_eq!((of_ticker.len(), of_banks.len()), (5, 23));
    // The other series are weekly, or occur only in the recorded tables.
    assert_eq!(of_banks.iter().filter(|name| whole[**name].len() > 24).count(), 16);
    for name in of_banks {
        assert_eq!(seen[name], whole[name], "{name}");
    }
    let runs_of_banks = |fixture: &Fixture| -> Vec<String> {
        fixture.runs().into_iter().filter(|run| !run.contains(FollowedSource::Timesca.name())).collect()
    };
    assert_eq!(runs_of_banks(faulty), runs_of_banks(faultless));
    for name in of_ticker {
        let answered = bad.iter().filter(|poll| {
            poll.source == FollowedSource::Timesca
                && poll.outcome <= Outcome::Taken
                && !(poll.fault == Some(Fault::NoTmt) && name.starts_with("TMT"))
        });
        let expect: BTreeMap<_, _> = answered.map(|poll| (poll.time, whole[name][&poll.time].clone())).collect();
        assert!((whole[name].len() / 3..whole[name].len() * 9 / 10).contains(&expect.len()), "{name}");
        assert_eq!(seen[name], expect, "{name}");
    }
}

/// Checks how often the sources of each pair change, and why. Without faults they never change. With faults of a third
/// of the time they change only if the ticker becomes stale or fresh again, and only for pairs that it answers: those
/// for which it prints as many digits as the bank.
fn check_choices(faultless: &Fixture, faulty: &Fixture) {
    // In the first days, not every bank has published a table.
    let begin = time(BEGIN).saturating_add_us(4 * Timestamp::DAY_US);
    let of = |fixture: &Fixture| switches(fixture.running.ingest().view(), begin, time(END));
    for (pair, switches) in of(faultless) {
        assert_eq!(switches, [], "{pair}");
    }
    let of_ticker = ["KZT/TJS", "KZT/TMT", "TJS/TMT", "TJS/USD", "TMT/USD", "TMT/UZS"];
    for (pair, switches) in of(faulty) {
        let count = |reason: Reason| switches.iter().filter(|switch| switch.reason == reason).count();
        let (stale, fresh) = (count(Reason::BecameStale), count(Reason::IsFreshAgain));
        println!("{pair}: a source became stale {stale} times, and was fresh again {fresh} times");
        assert_eq!(count(Reason::OtherDigits), 0, "{pair}: {switches:?}");
        assert_eq!(stale > 20, of_ticker.contains(&pair), "{pair}: {switches:?}");
        assert!(stale.abs_diff(fresh) <= 1, "{pair}: {switches:?}");
        for Switch { time, from, to, reason } in &switches {
            let of_ticker = if *reason == Reason::BecameStale { from } else { to };
            assert!(of_ticker.contains("timesca"), "{pair} at {time}: {from} to {to}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn month_with_faults_gives_the_store_of_a_month_without_faults() {
    let month = |schedule: Option<FaultSchedule>| {
        tokio::spawn(async move {
            let fixture = Fixture::at(BEGIN);
            let polled = follow_for_a_month(&fixture, schedule.map(Arc::new)).await;
            (fixture, polled)
        })
    };
    let (faultless, faulty) = (month(None), month(Some(FaultSchedule::new(7, time(BEGIN), time(END)))));
    let ((faultless, good), (faulty, bad)) = (faultless.await.unwrap(), faulty.await.unwrap());
    check_polls(&good, &bad);
    check_stores(&faultless, &faulty, &bad);
    check_choices(&faultless, &faulty);
    faultless.close();
    faulty.close();
}
