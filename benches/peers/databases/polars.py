"""polars: Parquet only. It reads the CSV file into memory before the measurement."""

from decimal import Decimal

import process
from databases import Answer, Database


class Polars(Database):
    name = "polars"
    title = "polars"
    modules = ["polars"]

    def start(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / "quotes.parquet"

    def version(self):
        import polars

        return polars.__version__

    def durability(self):
        return "stores nothing; files are not synced"

    def load_official(self):
        import polars

        frame = polars.read_csv(self.quotes.csv, columns=["pair", "observed_time", "rate"],
                                schema_overrides={"pair": polars.String, "rate": polars.String})
        self.frame = frame.select(
            polars.col("pair").cast(polars.Categorical),
            polars.col("observed_time").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us"),
            polars.col("rate").cast(polars.Decimal(18, 6))).sort("pair", "observed_time")

    def parquet_out(self):
        seconds, _ = process.seconds(lambda: self.frame.write_parquet(self.path, compression="zstd"))

        def read():
            import polars

            frame = polars.read_parquet(self.path).with_columns(
                polars.col("pair").cast(polars.String), polars.col("observed_time").dt.epoch("s"))
            return [(pair, second, Decimal(rate)) for pair, second, rate in
                    frame.sort("pair", "observed_time").iter_rows()]

        return Answer(seconds, read)

    def parquet_bytes(self):
        return self.path.stat().st_size

    def parquet_in(self):
        import polars

        return process.seconds(lambda: polars.read_parquet(self.path))[0]
