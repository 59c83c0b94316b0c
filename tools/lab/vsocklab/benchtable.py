# SPDX-License-Identifier: GPL-2.0
"""Figures of the bench: medians of boots, ratios, and what is told of them."""

import json
import statistics

# A row whose boots differ by more (in percent of the median) does not count.
SPREAD = 1.0
# What is counted beside instructions, by its name in a program's line, and as it is told.
BESIDE = {"switches": "switches", "sent": "packets sent", "received": "packets received",
          "kicks": "kicks", "interrupts": "interrupts"}


def parse(line):
    """A program's line as (name, fields); None if it is no row."""
    words = line.split()
    if len(words) < 3 or words[0] != "row":
        return None
    fields = dict(word.split("=", 1) for word in words[2:])
    return words[1], fields


def per_operation(fields, window):
    """What one boot says of a row: a dictionary of figures for one operation."""
    if "kind" in fields:
        return {"kind": fields["kind"], "value": float(fields["value"])}
    ops = int(fields["ops"])
    if window is None:
        figures = {"kind": "ns", "value": int(fields["clock"]) / ops}
    else:
        figures = {"kind": "instructions", "value": window / ops}
    for key in BESIDE:
        if key in fields:
            figures[key] = int(fields[key]) / ops
    return figures


def figures(rows, windows):
    """All rows of a boot with the instructions that the plugin counted, as [(name, figures)]; with the time
    that they took where `windows` is None.

    `windows` are in the order of the rows that are measured in windows; a row that failed in its
    own window has told which number that was.
    """
    found = []
    for name, fields in rows:
        window = windows[int(fields["window"])] if windows is not None and "window" in fields else None
        found.append((name, per_operation(fields, window)))
    return found


def spread(values):
    """The distance of the farthest value from the median, in percent."""
    middle = statistics.median(values)
    return max(abs(value - middle) for value in values) / middle * 100 if middle else 0.0


class Row:
    """One row on one kernel: the boots of both sides."""

    def __init__(self, name):
        self.name, self.boots = name, {"c": [], "ours": []}

    def add(self, side, figures):
        self.boots[side].append(figures)

    def complete(self):
        return bool(self.boots["c"] and self.boots["ours"])

    def of(self, side, key="value"):
        found = [figures[key] for figures in self.boots[side] if key in figures]
        return statistics.median(found) if found else None

    def spread(self, side):
        return spread([figures["value"] for figures in self.boots[side]])

    def ratio(self):
        c = self.of("c")
        return self.of("ours") / c if c else float("nan")

    def counts(self):
        """Whether the boots agree well enough."""
        return max(self.spread("c"), self.spread("ours")) <= SPREAD

    def summary(self):
        kind = self.boots["ours"][0]["kind"]
        found = {"kind": kind, "ratio": round(self.ratio(), 4)}
        for side in ("c", "ours"):
            found[side] = {"median": round(self.of(side), 1), "spread": round(self.spread(side), 2),
                           "boots": len(self.boots[side])}
            for key in BESIDE:
                value = self.of(side, key)
                if value is not None:
                    found[side][key] = round(value, 3)
        return found


def beside(summary):
    """Context switches and the rest, C -> ours."""
    parts = []
    for key, name in BESIDE.items():
        if key in summary["c"] and key in summary["ours"]:
            parts.append(f"{name} {summary['c'][key]:.2f} -> {summary['ours'][key]:.2f}")
    return ", ".join(parts)


def table(rows, limit=SPREAD):
    """Text for people of `rows`: name -> summary. Boots may be `limit` percent apart."""
    lines = [f"{'row':34} {'ours/C':>7} {'C':>10} {'+-':>6} {'ours':>10} {'+-':>6}  "
             "for each operation, C -> ours"]
    for name, summary in rows.items():
        c, ours = summary["c"], summary["ours"]
        noisy = "  NOISY: does not count" if max(c["spread"], ours["spread"]) > limit else ""
        unit = "" if summary["kind"] in ("instructions", "ns") else f" [{summary['kind']}]"
        lines.append(f"{name:34} {summary['ratio']:7.3f} {c['median']:10.0f} {c['spread']:5.1f}% "
                     f"{ours['median']:10.0f} {ours['spread']:5.1f}%  {beside(summary)}{unit}{noisy}")
    return "\n".join(lines)


def load(path):
    """A committed table: kernel -> row -> summary."""
    return json.loads(path.read_text()) if path.exists() else {}


def save(path, tables):
    path.write_text(json.dumps(tables, indent=1, sort_keys=True) + "\n")


def losses(committed, measured):
    """Rows that got worse by more than noise: (name, committed ratio, ratio, what is allowed).

    Noise is what the boots of either run differ by, at least one percent. Both must be worse, the ratio
    and the figure of ours: the first one alone may be a boot in which C was lucky, the second one
    alone another kernel. Rows without a committed figure cannot get worse.
    """
    found = []
    for name, now in measured.items():
        before = committed.get(name)
        if before is None or before["kind"] != now["kind"]:
            continue
        noise = max([SPREAD] + [run[side]["spread"] for run in (before, now) for side in ("c", "ours")])
        worse = 1 + noise / 100
        if now["ratio"] > before["ratio"] * worse and \
                now["ours"]["median"] > before["ours"]["median"] * worse:
            found.append((name, before["ratio"], now["ratio"], before["ratio"] * worse))
    return found


def chart(tables):
    """An SVG of the ratios, a bar for each row and kernel; shorter is better, the line is C."""
    kernels = sorted(tables, reverse=True)
    names = list(dict.fromkeys(name for kernel in kernels for name in tables[kernel]))
    bar, gap, left, scale = 9, 6, 250, 330
    step = bar * len(kernels) + gap
    height = step * len(names) + 50
    colours = {"stock": "#1f5fa8", "lean": "#8ab6e0"}
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + 2 * scale}" height="{height}" '
             'font-family="sans-serif" font-size="11">',
             '<rect width="100%" height="100%" fill="white"/>']
    for number, kernel in enumerate(kernels):
        x = left + 150 * number
        parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{colours.get(kernel, "#777")}"/>'
                     f'<text x="{x + 15}" y="17">{kernel} kernel</text>')
    for line, name in enumerate(names):
        top = 30 + step * line
        parts.append(f'<text x="{left - 6}" y="{top + bar}" text-anchor="end">{name}</text>')
        for number, kernel in enumerate(kernels):
            summary = tables[kernel].get(name)
            if summary is None:
                continue
            width = min(summary["ratio"], 1.9) * scale
            y = top + bar * number
            parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{bar - 1}" '
                         f'fill="{colours.get(kernel, "#777")}"/>'
                         f'<text x="{left + width + 4:.1f}" y="{y + bar - 1}" font-size="9">'
                         f'{summary["ratio"]:.2f}</text>')
    x = left + scale
    parts.append(f'<line x1="{x}" y1="24" x2="{x}" y2="{height - 16}" stroke="#b00"/>'
                 f'<text x="{x}" y="{height - 4}" text-anchor="middle">C = 1.00</text></svg>')
    return "\n".join(parts) + "\n"
