"""The seeded quotes: their files, times and sizes. The load client writes the files (benches/load/quotes.rs)."""

import csv
import datetime
from decimal import Decimal
from pathlib import Path

START_S = 1_735_689_600  # 2025-01-01T00:00:00Z
OFFICIAL_START_S = 1_420_070_400  # 2015-01-01T00:00:00Z
OFFICIAL_DAYS = 3_653
PAIRS = ["KGS/USD", "KZT/USD", "TJS/USD", "UZS/USD", "TMT/USD"]
DAY_S = 86_400
# A page of candles from silkrate has at most 10,000 rows; one page is one request.
MINUTES_MAX = 6_600
PLANTED_ERROR = Decimal("0.000001")


class Quotes:
    """The files of quotes of one size, and the time ranges of the questions about them."""

    def __init__(self, directory, ticks):
        self.directory = Path(directory)
        self.ticks = ticks
        self.seconds = ticks // len(PAIRS)
        self.end_s = START_S + self.seconds
        self.minutes = min(MINUTES_MAX, self.seconds // 60)
        self.days = max(1, self.seconds // DAY_S)
        self.csv = self.directory / "quotes.csv"
        self.official_csv = self.directory / "official.csv"
        self.influx = self.directory / "quotes.influx"

    def instants(self, count):
        """Returns pairs and instants, half a second after a tick. The last tick is among them."""
        step = self.seconds // count
        chosen = [(PAIRS[index % 5], START_S + index * step + index * 7919 % step) for index in range(count - 1)]
        return [(pair, second + 0.5) for pair, second in chosen] + [(PAIRS[0], self.end_s - 0.5)]


def read_rows(text):
    """Returns the rows of a CSV text with a header, as dictionaries."""
    return list(csv.DictReader(text.decode().splitlines()))


def seconds_of(time):
    """Returns the seconds since 1970 of an RFC 3339 time in UTC, or of a date."""
    parsed = datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.timezone.utc)
    return int(parsed.timestamp())


def rfc3339(second):
    time = datetime.datetime.fromtimestamp(second, datetime.timezone.utc)
    return time.isoformat().replace("+00:00", "Z")


def date(second):
    return datetime.datetime.fromtimestamp(second, datetime.timezone.utc).date().isoformat()


def runs_of(ticks):
    """Returns the ticks at which the rate changes, as silkrate's runs begin: (second, rate)."""
    runs = []
    for second, rate in ticks:
        if not runs or runs[-1][1] != rate:
            runs.append((second, rate))
    return runs


def batch_rates(client, count):
    """Returns `count` rates of a client that writes batches, as texts with six places."""
    return [f"0.{11_440 + client * 100 + (index * 7 // 23) % 97:06d}" for index in range(count)]
