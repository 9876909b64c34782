//! The caller's deadline, from the `grpc-timeout` that it sent.
//!
//! tonic's server ends a call at that time on its own, but with CANCELLED and for the head of a stream only. So calls
//! that may take long watch the deadline themselves, a little early, and say `DEADLINE_EXCEEDED`.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;

use super::status::ServiceError;

/// How much earlier than the caller's own timer the answer goes out.
const HEAD_START: Duration = Duration::from_millis(5);
/// Longest count in a `grpc-timeout`, by the protocol.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// When a call must be answered, if its caller said.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Of a call that arrives now. A header that cannot be read sets none, as tonic has it.
    pub fn of(metadata: &MetadataMap) -> Self {
        let timeout = metadata.get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
        Self(timeout.map(|timeout| Instant::now() + timeout - HEAD_START.min(timeout / 2)))
    }

    /// The moment itself.
    pub fn instant(self) -> Option<Instant> {
        self.0
    }

    /// Waits for `work`, no longer than this; then `work` is dropped.
    ///
    /// # Errors
    /// `DeadlineExceeded`, or those of `work`.
    pub async fn limit<T, E: Into<ServiceError>>(
        self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ServiceError> {
        match self.0 {
            None => work.await.map_err(Into::into),
            Some(instant) => match timeout_at(instant, work).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(ServiceError::DeadlineExceeded),
            },
        }
    }
}

/// Reads a count of at most eight digits and a unit, such as `100m` for 100 ms.
pub(super) fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=TIMEOUT_DIGITS_MAX).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(count)),
        "M" => Some(Duration::from_mins(count)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::QueryError;

    #[test]
    fn timeouts_are_a_count_and_a_unit() {
        let check = |text: &str, expect: Option<Duration>| assert_eq!(parse_timeout(text), expect, "{text}");
        check("1H", Some(Duration::from_hours(1)));
        check("2M", Some(Duration::from_mins(2)));
        check("3S", Some(Duration::from_secs(3)));
        check("4m", Some(Duration::from_millis(4)));
        check("5u", Some(Duration::from_micros(5)));
        check("6n", Some(Duration::from_nanos(6)));
        check("99999999H", Some(Duration::from_hours(99_999_999)));
        for bad in ["", "S", "5", "5s", "-5S", "+5S", "123456789S", "5é"] {
            check(bad, None);
        }
    }

    #[tokio::test]
    async fn late_work_is_dropped_with_the_right_code() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "20m".parse().unwrap());
        let forever = std::future::pending::<Result<(), QueryError>>();
        let before = Instant::now();
        let answer = Deadline::of(&metadata).limit(forever).await;
        assert!(matches!(answer, Err(ServiceError::DeadlineExceeded)));
        assert!(before.elapsed() >= Duration::from_millis(15), "no earlier than the head start");

        let done = Deadline::of(&metadata).limit(async { Ok::<_, QueryError>(5) }).await;
        assert_eq!(done.unwrap(), 5);
        let without = Deadline::of(&MetadataMap::new());
        assert!(without.instant().is_none());
        assert_eq!(without.limit(async { Ok::<_, QueryError>(6) }).await.unwrap(), 6);
    }
}
