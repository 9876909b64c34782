//! Runs as lines of CSV, for lists of millions of runs.
//!
//! **Invariant**: the lines are those that the columns of `history` give for the same runs.

use std::io::{self, Write as _};

use super::output::csv_to_io;

use crate::domain::{Rate, Run, Timestamp, without_formula};
use crate::proto::v1::Leg;

/// Writes the runs of one series.
pub(super) struct RunCsv {
    /// The cells before the rate.
    before: Vec<u8>,
    /// The cells after the recorded time.
    after: String,
    times: TimeText,
}

impl RunCsv {
    /// Makes a writer for the runs of the series `leg`. None of them is a baseline.
    ///
    /// # Errors
    /// Returns no error: writing to memory does not fail.
    pub(super) fn new(leg: &Leg) -> io::Result<Self> {
        let mut cells = csv::Writer::from_writer(Vec::new());
        cells.write_record([&*without_formula(&leg.pair), &*without_formula(&leg.source)]).map_err(csv_to_io)?;
        let mut before = cells.into_inner().map_err(csv::IntoInnerError::into_error)?;
        if let Some(last) = before.last_mut() {
            *last = b',';
        }
        Ok(Self { before, after: format!(",{},{},false\n", leg.stale, leg.archived), times: TimeText::default() })
    }

    /// Adds the lines of `runs` to `out`.
    ///
    /// # Errors
    /// Returns no error: writing to memory does not fail.
    pub(super) fn write(&mut self, runs: &[Run], out: &mut Vec<u8>) -> io::Result<()> {
        for run in runs {
            out.extend_from_slice(&self.before);
            write_rate(run.value.rate, out)?;
            out.push(b',');
            if let Some(change) = run.value.reported_change {
                write!(out, "{change}")?;
            }
            out.push(b',');
            self.times.write(run.first_observed_time, out)?;
            out.push(b',');
            self.times.write(run.last_observed_time, out)?;
            write!(out, ",{},", run.observation_count)?;
            self.times.write(run.recorded_time, out)?;
            out.extend_from_slice(self.after.as_bytes());
        }
        Ok(())
    }
}

/// Writes the same text as the `Display` of a rate.
fn write_rate(rate: Rate, out: &mut Vec<u8>) -> io::Result<()> {
    /// A rate below one with up to 18 places has at most 20 characters.
    const TEXT_BYTES: usize = 20;
    let places = usize::from(rate.places());
    let Ok(mut rest) = u64::try_from(rate.mantissa()) else { return write!(out, "{rate}") };
    // The digits are written from the last to the first.
    let mut text = [b'0'; TEXT_BYTES];
    let mut begin = TEXT_BYTES;
    for slot in text.iter_mut().rev() {
        let written = TEXT_BYTES - begin;
        if rest == 0 && written > places + usize::from(places > 0) {
            break;
        }
        begin -= 1;
        if places > 0 && written == places {
            *slot = b'.';
            continue;
        }
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    if rest > 0 {
        return write!(out, "{rate}");
    }
    out.extend_from_slice(text.get(begin..).unwrap_or_default());
    Ok(())
}

/// Formats times. Neighbouring times are often of one day, whose text is kept.
#[derive(Default)]
struct TimeText {
    /// The start of the day, and the text of this instant up to the `T`.
    day: Option<(Timestamp, String)>,
}

impl TimeText {
    /// Writes the same text as the `Display` of a time.
    fn write(&mut self, time: Timestamp, out: &mut Vec<u8>) -> io::Result<()> {
        let of_day = |start: Timestamp| Some(time.micros_since(start)).filter(|us| (0..Timestamp::DAY_US).contains(us));
        let known = self.day.as_ref().and_then(|(start, text)| Some((of_day(*start)?, text)));
        let (us, date) = if let Some(known) = known {
            known
        } else {
            let us = time.micros().rem_euclid(Timestamp::DAY_US);
            let start = time.saturating_add_us(-us);
            let text = start.to_string();
            let date = text.split_inclusive('T').next().unwrap_or_default().to_owned();
            (us, &self.day.insert((start, date)).1)
        };
        out.extend_from_slice(date.as_bytes());
        let (seconds, fraction) = (us / Timestamp::SECOND_US, us % Timestamp::SECOND_US);
        let digits = |number: i64| [b'0' + digit(number / 10), b'0' + digit(number)];
        let [h, m, s] = [seconds / 3_600, seconds / 60 % 60, seconds % 60].map(digits);
        out.extend_from_slice(&[h[0], h[1], b':', m[0], m[1], b':', s[0], s[1]]);
        match fraction {
            0 => {}
            us if us % 1_000 == 0 => write!(out, ".{:03}", us / 1_000)?,
            us => write!(out, ".{us:06}")?,
        }
        out.push(b'Z');
        Ok(())
    }
}

/// Returns the last decimal digit of a number.
fn digit(number: i64) -> u8 {
    u8::try_from(number.rem_euclid(10)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(times: &mut TimeText, time: Timestamp) -> String {
        let mut out = Vec::new();
        times.write(time, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn times_have_the_text_of_their_display(
            micros in Timestamp::MIN.micros()..Timestamp::MAX.micros(),
            steps in proptest::collection::vec(prop_oneof![
                -200_000_000_000_i64..200_000_000_000,
                (-200_000_i64..200_000).prop_map(|seconds| seconds * 1_000_000),
                (-200_000_000_i64..200_000_000).prop_map(|millis| millis * 1_000),
            ], 1..20),
        ) {
            let mut times = TimeText::default();
            let mut time = Timestamp::from_micros(micros);
            for step in steps {
                prop_assert_eq!(text(&mut times, time), time.to_string());
                time = time.saturating_add_us(step).clamp(Timestamp::MIN, Timestamp::MAX);
            }
        }
    }

    fn rate_text(rate: Rate) -> String {
        let mut out = Vec::new();
        write_rate(rate, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn rates_have_the_text_of_their_display(digits in 1_u32..=28, number in any::<u128>(), places in 0_u32..=18) {
            let mantissa = number % 10_u128.pow(digits) + 1;
            if let Ok(rate) = Rate::from_parts(mantissa, places) {
                prop_assert_eq!(rate_text(rate), rate.to_string());
            }
        }
    }

    #[test]
    fn usual_rates_have_the_text_of_their_display() {
        for text in ["0.00008", "0.28490", "8100", "1", "0.1", "12345.678900", "0.000000000000000001", "10", "100.0"] {
            assert_eq!(rate_text(Rate::parse(text).unwrap()), text);
        }
    }

    #[test]
    fn first_and_last_instants_have_a_text() {
        let mut times = TimeText::default();
        for time in [Timestamp::MIN, Timestamp::MAX, Timestamp::from_micros(-1), Timestamp::from_micros(0)] {
            assert_eq!(text(&mut times, time), time.to_string());
        }
    }
}
