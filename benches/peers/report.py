"""The table and the plot of a comparison.

**Invariant**: every figure comes from the run that writes it. A database that is missing has a column that says so.
"""

import math
import os
import platform
import sys
import time
from html import escape

from workloads import FAILED, ROWS

COLOURS = {"silkrate": "#000000", "postgresql": "#336791", "victoria-metrics": "#7b3fa0", "influxdb": "#d0458b",
           "duckdb": "#c9a100", "clickhouse": "#e0621b", "sqlite": "#4a90c2", "redis": "#c6302b", "polars": "#5a8f29",
           "bare-tonic": "#888888"}
# Not durable when acknowledged, or no database.
NOT_DURABLE = {"victoria-metrics", "polars", "bare-tonic"}
# Embedded in the program that asks: no network, no second process, and no second copy of the answer.
EMBEDDED = {"duckdb", "clickhouse", "sqlite", "polars"}
LEFT, RIGHT, ROW_HEIGHT, TOP = 420, 1180, 24, 92


class Fact:
    """A database of the comparison, its version and its durability setting. A missing database has no version."""

    def __init__(self, database, version, durability):
        self.name = database.name
        self.title = database.title
        self.version = version
        self.durability = durability


def text(value, unit):
    """Returns a figure with three significant digits."""
    if value is None:
        return "–"
    if value == FAILED:
        return FAILED
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    for limit, divisor, suffix in [(1e6, 1e6, " M"), (1e4, 1e3, " k")]:
        if value >= limit:
            return f"{three_digits(value / divisor)}{suffix}"
    return three_digits(value)


def three_digits(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0}f}"


def write(options, facts, figures, answers):
    options.results.mkdir(parents=True, exist_ok=True)
    size = f"{options.ticks // 1_000_000}-million" if options.ticks >= 1_000_000 else f"{options.ticks}"
    table, plot = options.results / f"{size}.md", options.results / f"{size}.svg"
    plot.write_text(svg(facts, figures, options))
    content = markdown(facts, figures, options, answers, plot.name)
    table.write_text(content)
    print(content)
    print(f"written: {table} and {plot.name}", file=sys.stderr)


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    memory_kib = int(next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal")))
    return f"{os.cpu_count()} cores ({model}), {memory_kib / 2**20:.0f} GiB, Linux {platform.release().split('-')[0]}"


def markdown(facts, figures, options, answers, plot):
    lines = [f"# {options.ticks:,} quotes", "",
             f"Written by `benches/peers/run --ticks {options.ticks} --rounds {options.rounds}{f' --only {options.only}' if options.only else ''}` on "
             f"{time.strftime('%Y-%m-%d', time.gmtime())}: {machine()}. Medians of {options.rounds} interleaved rounds. "
             f"{answers} answers were compared and are equal. The best figure of a row is bold. † not durable when "
             f"acknowledged. ‡ embedded: no network.", "",
             f"![Each database relative to silkrate]({plot})", "",
             "| work | unit | " + " | ".join(title(fact) for fact in facts) + " |",
             "|---|---|" + "---|" * len(facts)]
    for row in ROWS:
        values = [figures.median(row.key, fact.name) for fact in facts]
        numbers = [value for value in values if value not in (None, FAILED)]
        if not numbers:
            continue
        best = max(numbers) if row.more_is_better else min(numbers)
        cells = []
        for fact, value in zip(facts, values):
            cell = "missing" if fact.version is None else text(value, row.unit)
            cells.append(f"**{cell}**" if value == best and len(numbers) > 1 else cell)
        lines.append(f"| {row.title} | {row.unit} | " + " | ".join(cells) + " |")
    lines += ["", "| database | version | durability, as read back |", "|---|---|---|"]
    lines += [f"| {fact.title} | {fact.version or '–'} | {fact.durability} |" for fact in facts]
    return "\n".join(lines) + "\n"


def title(fact):
    marks = ("†" if fact.name in NOT_DURABLE else "") + ("‡" if fact.name in EMBEDDED else "")
    return f"{fact.title} {marks}".strip()


def svg(facts, figures, options):
    """Returns a plot with a point for each figure: how many times better than silkrate, on a logarithmic scale."""
    points = []
    for row in ROWS:
        own = figures.median(row.key, "silkrate")
        others = [(fact.name, figures.median(row.key, fact.name)) for fact in facts if fact.name != "silkrate"]
        others = [(name, value) for name, value in others if value not in (None, FAILED) and value > 0]
        if own in (None, FAILED) or not others:
            continue
        ratios = [(name, value / own if row.more_is_better else own / value) for name, value in others]
        points.append((row, ratios))
    limit = max([abs(math.log10(ratio)) for _, ratios in points for _, ratio in ratios] + [1])
    limit = math.ceil(limit * 2) / 2
    across = lambda ratio: (LEFT + RIGHT) / 2 + math.log10(ratio) / limit * (RIGHT - LEFT) / 2
    height = TOP + ROW_HEIGHT * len(points) + 40
    bottom = TOP + ROW_HEIGHT * len(points)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="{height}" viewBox="0 0 1200 {height}" '
             'font-family="sans-serif" font-size="12">',
             f'<title>Each database relative to silkrate, {options.ticks:,} quotes</title>',
             f'<rect width="1200" height="{height}" fill="#ffffff"/>',
             f'<text x="12" y="24" font-size="16" font-weight="bold">Each database relative to silkrate, '
             f'{options.ticks:,} quotes</text>',
             '<text x="12" y="44" fill="#555555">Left of the line: silkrate is better. Right of it: the other database '
             'is better. Logarithmic. † not durable when acknowledged. ‡ embedded: no network.</text>']
    place = 12
    for fact in facts:
        if fact.name == "silkrate":
            continue
        label = title(fact) + (" (missing)" if fact.version is None else "")
        parts.append(f'<circle cx="{place + 5}" cy="62" r="5" fill="{COLOURS[fact.name]}"/>')
        parts.append(f'<text x="{place + 14}" y="66">{escape(label)}</text>')
        place += 24 + 7 * len(label)
    for power in range(-math.floor(limit), math.floor(limit) + 1):
        x = across(10.0 ** power)
        colour, width = ("#000000", 1.5) if power == 0 else ("#cccccc", 1)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="{colour}" '
                     f'stroke-width="{width}"/>')
        label = "silkrate" if power == 0 else f"{10 ** power:,} ×" if power > 0 else f"1/{10 ** -power:,}"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555555">{label}</text>')
    for index, (row, ratios) in enumerate(points):
        y = TOP + ROW_HEIGHT * index + ROW_HEIGHT / 2
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(row.title)}</text>')
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="#eeeeee"/>')
        for name, ratio in ratios:
            label = next(fact.title for fact in facts if fact.name == name)
            parts.append(f'<circle cx="{across(ratio):.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[name]}" '
                         f'fill-opacity="0.85"><title>{escape(label)}: {ratio:.3g}</title></circle>')
    return "\n".join([*parts, "</svg>"]) + "\n"
