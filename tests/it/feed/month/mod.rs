//! Simulation of six publishers for a month. For some days the banks serve recorded tables. For the other days they
//! serve generated tables in the same formats, with rates that change randomly from day to day. Sundays, holidays and
//! publication hours are those of each bank.

pub(crate) mod choices;
pub(crate) mod faults;

use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{Datelike as _, NaiveDate, NaiveTime, Weekday};
use silkrate::analysis::Zone;
use silkrate::clock::{Clock as _, ManualClock};
use silkrate::domain::Timestamp;
use silkrate::follow::FollowedSource;

use crate::publisher::{Reply, recorded};

/// The pairs of the ticker and their approximate rates, in units of the fifth decimal place.
const TICKER: [(&str, u64); 5] =
    [("KGS/USD", 1_144), ("KZT/USD", 206), ("TJS/USD", 10_700), ("UZS/USD", 8), ("TMT/USD", 28_490)];
/// How long the ticker keeps a rate, and how many cycles its page has.
const TICKER_SLOT_S: i64 = 3 * 3_600;
const TICKER_CYCLES: usize = 8;
/// A recorded page, served on one day of the month.
const TICKER_PAGE: &[u8] = include_bytes!("../../../../data/times-of-central-asia-2025-12-08.html");
const TICKER_PAGE_DAY: u32 = 10;
/// A day without a table of NBT.
const HOLIDAY: u32 = 9;

/// The simulated publishers at the time of a clock.
#[derive(Clone)]
pub(crate) struct Simulation {
    pub(crate) clock: Arc<ManualClock>,
    /// All rates are multiplied by this number: 1 for correct rates.
    pub(crate) factor: u64,
}

/// Returns a pseudo-random number that depends on the name and the count.
pub(crate) fn pseudo_random(name: &str, count: u64) -> u64 {
    let mixed = name.bytes().fold(count.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1, |mixed, byte| {
        (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23)
    });
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

/// Returns the value of a random walk from `around` after the given number of steps, each of at most 0.5 %.
fn walk(name: &str, around: u64, steps: i64) -> u64 {
    let amplitude = around / 200;
    (0..u64::try_from(steps).unwrap())
        .fold(around, |rate, step| rate + pseudo_random(name, step) % (2 * amplitude + 1) - amplitude)
}

/// Formats `units` units of 10^-`places` as a decimal with `places` places and the decimal separator `mark`.
fn decimal(units: u64, places: u32, mark: char) -> String {
    let unit = 10_u64.pow(places);
    format!("{}{mark}{:0width$}", units / unit, units % unit, width = places as usize)
}

fn trimmed(decimal: &str) -> &str {
    decimal.trim_end_matches('0').trim_end_matches('.')
}

/// Returns the first date in a path; `chars` is the length of the date.
fn date_in(path: &str, format: &str, chars: usize) -> NaiveDate {
    let dates = (0..path.len()).filter_map(|at| NaiveDate::parse_from_str(path.get(at..at + chars)?, format).ok());
    dates.into_iter().next().unwrap_or_else(|| panic!("no date in {path}"))
}

/// Returns the working day of the rates that a bank publishes for `date`: banks repeat rates on days of rest.
fn rate_day(date: NaiveDate, rest: &[Weekday]) -> NaiveDate {
    let mut day = date;
    while rest.contains(&day.weekday()) {
        day = day.pred_opt().unwrap();
    }
    day
}

impl Simulation {
    /// Returns a simulation in which all rates are seven times too large, so that a stored wrong rate is detected.
    pub(crate) fn with_wrong_rates(&self) -> Self {
        Self { factor: 7, ..self.clone() }
    }

    /// Returns the reply of `source` to a path at the current time.
    pub(crate) fn reply(&self, source: FollowedSource, path: &str) -> Reply {
        let body = match source {
            FollowedSource::Timesca => Some(self.ticker(&TICKER)),
            FollowedSource::Nbkr if path.ends_with("daily.xml") => Some(self.nbkr_daily()),
            FollowedSource::Nbkr => Some(self.nbkr_weekly()),
            FollowedSource::Nbk => Some(self.nbk(date_in(path, "%d.%m.%Y", 10))),
            FollowedSource::Nbt => Some(self.nbt(date_in(path, "%Y-%m-%d", 10))),
            FollowedSource::Cbu => Some(self.cbu(date_in(path, "%Y-%m-%d", 10))),
            FollowedSource::Cbt => self.cbt(date_in(path, "%d%m%Y", 8)),
        };
        body.map_or(Reply::ABSENT, Reply::Body)
    }

    /// Returns a page without TMT. Real pages sometimes lack a pair.
    pub(crate) fn ticker_without_tmt(&self) -> Vec<u8> {
        self.ticker(&TICKER[..4])
    }

    /// Returns the newest day for which a bank has a table: tomorrow if the local time is `from_hour` or later,
    /// otherwise today.
    fn newest(&self, zone: Zone, from_hour: u32) -> NaiveDate {
        let local = zone.local(self.clock.now());
        let announced = local.time() >= NaiveTime::from_hms_opt(from_hour, 0, 0).unwrap();
        if announced { local.date().succ_opt().unwrap() } else { local.date() }
    }

    fn today(&self, zone: Zone) -> NaiveDate {
        zone.local(self.clock.now()).date()
    }

    /// Returns the rate of `code` by a bank on `day`, in units of the last place.
    fn rate(&self, bank: &str, code: &str, around: u64, day: NaiveDate) -> u64 {
        let first = NaiveDate::from_ymd_opt(2026, 4, 1).unwrap();
        self.factor * walk(&format!("{bank}{code}"), around, day.signed_duration_since(first).num_days())
    }

    fn ticker(&self, pairs: &[(&str, u64)]) -> Vec<u8> {
        let now = self.clock.now();
        if self.factor == 1 && pairs.len() == TICKER.len() && Zone::UTC.local(now).day() == TICKER_PAGE_DAY {
            return TICKER_PAGE.to_vec();
        }
        let slot = now.micros() / Timestamp::SECOND_US / TICKER_SLOT_S;
        let mut page = "<!DOCTYPE html>\n<html><body><p>В 2024 the som gained 1.5%.</p><ul>\n".to_owned();
        for _ in 0..TICKER_CYCLES {
            for (pair, around) in pairs {
                let moved = pseudo_random(pair, u64::try_from(slot).unwrap()) % 5;
                let rate = decimal(self.factor * (around + moved), 5, '.');
                writeln!(page, "<li>&bull; {pair} = {rate}&nbsp;{}%</li>", ["0", "-0", "0.87"][moved as usize % 3])
                    .unwrap();
            }
        }
        page.push_str("</ul></body></html>\n");
        page.into_bytes()
    }

    fn nbkr_table(&self, date: NaiveDate, kind: &str, rates: &[(&str, u64)], rate_day: NaiveDate) -> Vec<u8> {
        let mut body = format!(
            "<?xml version=\"1.0\" encoding=\"windows-1251\" ?>\n<CurrencyRates Name=\"{kind} Exchange Rates\" Date=\"{}\">\n",
            date.format("%d.%m.%Y")
        );
        for (code, around) in rates {
            let value = decimal(self.rate("nbkr", code, *around, rate_day), 4, ',');
            let valid = if kind == "Weekly" { "<ValidFor>7</ValidFor>\n" } else { "" };
            writeln!(
                body,
                "<Currency ISOCode=\"{code}\">\n<Nominal>1</Nominal>\n{valid}<Value>{value}</Value>\n</Currency>"
            )
            .unwrap();
        }
        body.push_str("</CurrencyRates>\n");
        body.into_bytes()
    }

    /// Returns the daily table, which the bank publishes in the afternoon for the next day, with a new date every day.
    fn nbkr_daily(&self) -> Vec<u8> {
        let date = self.newest(Zone::BISHKEK, 16);
        match (self.factor, date.day()) {
            (1, 23) => recorded("nbkr/daily-2026-05-23.xml"),
            (1, 24) => recorded("nbkr/daily-2026-05-24.xml"),
            _ => {
                let rates = [("USD", 874_500), ("EUR", 1_015_076), ("KZT", 1_859)];
                self.nbkr_table(date, "Daily", &rates, rate_day(date, &[Weekday::Sun, Weekday::Mon]))
            }
        }
    }

    /// Returns the weekly table, which the bank publishes on Saturdays.
    fn nbkr_weekly(&self) -> Vec<u8> {
        let newest = self.newest(Zone::BISHKEK, 16);
        let date = newest.week(Weekday::Sat).first_day();
        if self.factor == 1 && date.day() == 23 {
            return recorded("nbkr/weekly-2026-05-23.xml");
        }
        let rates = [("GBP", 1_174_147), ("TJS", 94_148), ("UZS", 73), ("TMT", 249_857)];
        self.nbkr_table(date, "Weekly", &rates, date)
    }

    /// Returns a JSON object for a day without a table.
    fn nbk(&self, date: NaiveDate) -> Vec<u8> {
        if date > self.newest(Zone::ALMATY, 16) {
            return recorded("nbk/get_rates_bad_or_missing_fdate_error_body.json");
        }
        let mut body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<rates>\n    <generator>Alternate RSS Builder</generator>\n    <date>{}</date>\n",
            date.format("%d.%m.%Y")
        );
        let day = rate_day(date, &[Weekday::Sun, Weekday::Mon]);
        for (code, around, nominal) in
            [("AUD", 32_801, 1), ("USD", 47_877, 1), ("KGS", 547, 1), ("TJS", 5_019, 1), ("UZS", 393, 100)]
        {
            // Two places, with trailing zeros dropped.
            let rate = decimal(self.rate("nbk", code, around, day), 2, '.');
            writeln!(
                body,
                "<item>\n<fullname>ВАЛЮТА</fullname>\n<title>{code}</title>\n<description>{}</description>\n<quant>{nominal}</quant>\n<change>-0.51</change>\n</item>",
                trimmed(&rate)
            )
            .unwrap();
        }
        body.push_str("</rates>\n");
        body.into_bytes()
    }

    /// Returns today's table for a day that has no table yet, and the table of the day before for a holiday.
    fn nbt(&self, day: NaiveDate) -> Vec<u8> {
        let is_lacking = |date: NaiveDate| date.day() == HOLIDAY && date.month() == 5;
        let mut date = if day > self.newest(Zone::DUSHANBE, 12) { self.today(Zone::DUSHANBE) } else { day };
        while is_lacking(date) {
            date = date.pred_opt().unwrap();
        }
        match (self.factor, date.month(), date.day()) {
            (1, 5, 18) => return recorded("nbt/export-2026-05-18.xml"),
            (1, 5, 19) => return recorded("nbt/export-2026-05-19.xml"),
            _ => {}
        }
        let mut body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\n<ValCurs Date=\"{}\" name=\"Foreign Currency Market\">\n",
            date.format("%Y-%m-%d")
        );
        let day = rate_day(date, &[Weekday::Sat, Weekday::Sun]);
        for (code, around, nominal) in
            [("USD", 93_450, 1), ("EUR", 108_757, 1), ("KGS", 10_686, 10), ("KZT", 1_971, 10), ("UZS", 780, 100)]
        {
            let rate = decimal(self.rate("nbt", code, around, day), 4, '.');
            writeln!(
                body,
                "<Valute ID=\"1\">\n   <CharCode>{code}</CharCode>\n   <Nominal>{nominal}</Nominal>\n   <Name>Валюта</Name>\n   <Value>{rate}</Value>\n</Valute>"
            )
            .unwrap();
        }
        body.push_str("</ValCurs>\n");
        body.into_bytes()
    }

    /// Returns an empty array for a day without a table: for tomorrow before the publication, and for Sundays.
    fn cbu(&self, date: NaiveDate) -> Vec<u8> {
        if date > self.newest(Zone::TASHKENT, 15) || date.weekday() == Weekday::Sun {
            return b"[]".to_vec();
        }
        let entries = [("USD", 1_219_421), ("RUB", 14_997), ("KGS", 13_940), ("KZT", 2_553), ("TJS", 127_288)];
        let entries = entries.map(|(code, around)| {
            let rate = decimal(self.rate("cbu", code, around, date), 2, '.');
            let day = date.format("%d.%m.%Y");
            format!(
                "{{\"id\":69,\"Ccy\":\"{code}\",\"CcyNm_UZC\":\"А\",\"Nominal\":\"1\",\"Rate\":\"{rate}\",\"Diff\":\"-16.5\",\"Date\":\"{day}\"}}"
            )
        });
        format!("[{}]", entries.join(",")).into_bytes()
    }

    /// Returns `None` for Sundays, and for tomorrow before 9:00 local time.
    fn cbt(&self, date: NaiveDate) -> Option<Vec<u8>> {
        if date > self.newest(Zone::ASHGABAT, 9) || date.weekday() == Weekday::Sun {
            return None;
        }
        match (self.factor, date.month(), date.day()) {
            (1, 5, 20) => return Some(recorded("cbt/20052026.xml")),
            (1, 5, 21) => return Some(recorded("cbt/21052026.xml")),
            _ => {}
        }
        let mut body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\r\n<cbt_currency_rate name=\"CBT Currency XML\">\r\n\t<date>{}</date>\r\n",
            date.format("%d.%m.%Y")
        );
        // The manat is pegged to the dollar.
        let rates = [("USD", self.factor * 35_000, 1), ("KGS", self.rate("cbt", "KGS", 4_002, date), 10)];
        for (code, rate, multiplier) in rates {
            let rate = decimal(rate, 4, '.');
            write!(
                body,
                "\t<rate code=\"{code}\">\r\n\t\t<name>ABŞ</name>\r\n\t\t<multiplier>{multiplier}</multiplier>\r\n\t\t<rate_tmt>{}</rate_tmt>\r\n\t</rate>\r\n",
                trimmed(&rate)
            )
            .unwrap();
        }
        body.push_str("</cbt_currency_rate>\r\n");
        Some(body.into_bytes())
    }
}
