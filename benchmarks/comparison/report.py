"""The tables, their summary, and the picture."""

import math

from .libraries import FastRNN
from .parts import PEERS

LABELS = {library.key: library.name for library in (FastRNN, *PEERS)}
TITLES = {
    "forward": "Forward, float32",
    "train": "Forward and backward, float32",
    "float64": "Forward, float64",
    "stream": "One step of a stream at batch 1",
    "ragged": "Ragged batches, lengths uniform in 1 to T",
}


def heading(part, threads):
    return f"{TITLES[part]}, {threads} thread{'s' if threads > 1 else ''}"


def _line(*fields):
    return f"| {' | '.join(fields)} |"


def header(part, keys):
    """The head of a part's table; `keys` are the libraries in it."""
    if part == "ragged":
        fields = ["cell", "T, B, I, H", "dense, us", "ragged, us", "dense, ns per token", "ragged", "ragged / dense"]
    elif part == "stream":
        fields = ["cell", "I = H", *(f"{LABELS[k]}, us" for k in keys)]
        fields += [f"{LABELS[k]} / fastrnn" for k in keys[1:]]
    else:
        fields = ["cell", "T, B, I, H", *(f"{LABELS[k]}, us" for k in keys)]
        fields += ["best peer", "its time / fastrnn's", "GF/s", "of the limit"]
    return _line(*fields) + "\n|" + "---|" * 2 + "---:|" * (len(fields) - 2)


def line(row, keys):
    """One row of it."""
    cell, shape = row["cell"].upper(), ", ".join(map(str, row["shape"]))
    if row["part"] == "ragged":
        times = [f"{row['times'][k]['median'] * 1e6:.0f}" for k in ("dense", "ragged")]
        times += [f"{row['per_token'][k] * 1e9:.0f}" for k in ("dense", "ragged")]
        return _line(cell, shape, *times, f"{row['ratio']:.2f}")
    times = [_time(row, key) for key in keys]
    if row["part"] == "stream":
        ratios = (_number(row["ratios"].get(key), ".2f") for key in keys[1:])
        return _line(cell, str(row["shape"][-1]), *times, *ratios)
    share = "-" if row.get("fraction") is None else f"{row['fraction']:.0%} {row['limit']}"
    best = LABELS[row["best"]] if "best" in row else "-"
    return _line(cell, shape, *times, best, _number(row.get("ratio"), ".2f"), _number(row.get("gflops"), ".1f"), share)


def side_by_side(rows):
    """A table for a page: a line for each cell and shape, with the last columns of the full tables."""
    counts = sorted({row["threads"] for row in rows})
    fields = ["us", "best peer", "ratio", "of the limit"]
    names = [f"{name}, {count} thread{'s' if count > 1 else ''}" for count in counts for name in fields]
    lines = [_line("cell", "T, B, I, H", *names), "|---|---|" + "---:|---|---:|---:|" * len(counts)]
    grouped = {}
    for row in rows:
        if "best" in row:
            grouped.setdefault((row["cell"], tuple(row["shape"])), {})[row["threads"]] = row
    for (cell, shape), by_count in grouped.items():
        columns = []
        for row in map(by_count.get, counts):
            share = "-" if row is None or row.get("fraction") is None else f"{row['fraction']:.0%} {row['limit']}"
            known = (_time(row, "fastrnn"), LABELS[row["best"]], f"{row['ratio']:.2f}", share) if row else ["-"] * 4
            columns += known
        lines.append(_line(cell.upper(), ", ".join(map(str, shape)), *columns))
    return "\n".join(lines)


def _number(value, form):
    return "-" if value is None else format(value, form)


def _time(row, key):
    if key in row["errors"]:
        return "error"
    if key not in row["times"]:
        return "-"
    microseconds = row["times"][key]["median"] * 1e6
    return f"{microseconds:.{max(0, 2 - math.floor(math.log10(microseconds)))}f}"


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def summarise(rows):
    """For each part with a best peer and each thread count: geometric means of the ratio, and the rows lost."""
    groups = {}
    for row in rows:
        if "best" in row:
            groups.setdefault((row["part"], row["threads"]), []).append(row)
    summaries = []
    for (part, threads), group in groups.items():
        cells = {}
        for row in group:
            cells.setdefault(row["cell"], []).append(row["ratio"])
        summaries.append(
            {
                "part": part,
                "threads": threads,
                "rows": len(group),
                "mean": geometric_mean([row["ratio"] for row in group]),
                "mean_by_cell": {cell: geometric_mean(ratios) for cell, ratios in cells.items()},
                "lost": [f"{row['cell']} {','.join(map(str, row['shape']))}" for row in group if row["ratio"] < 1],
            }
        )
    return summaries


def summary_text(summary):
    cells = ", ".join(f"{cell.upper()} {mean:.2f}" for cell, mean in summary["mean_by_cell"].items())
    lost = f"{len(summary['lost'])} of {summary['rows']} rows lost"
    names = f": {'; '.join(summary['lost'])}" if summary["lost"] else ""
    return (
        f"{heading(summary['part'], summary['threads'])}: geometric mean of the ratio to the best peer "
        f"{summary['mean']:.2f} ({cells}); {lost}{names}"
    )


def disturbance_text(share, threads):
    """A warning where other processes took more than a few per cent of the CPUs, else nothing."""
    if share is None or share < 0.03:
        return ""
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"With {count}, other processes took {share:.0%} of the CPUs meanwhile: the numbers are not to be relied on"


def limits_text(limits):
    read = ", ".join(f"{level} {read['gbs']:.0f}" for level, read in limits["read"].items())
    return f"limits: {limits['fma_gflops']:.0f} GF/s of multiply-adds; reading, GB/s: {read}"


def draw(rows, part, title, path):
    """A picture of a part, 800 pixels wide: for each cell a panel, for each shape a bar per thread count."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    rows = [row for row in rows if row["part"] == part and "best" in row]
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in rows))
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    counts = sorted({row["threads"] for row in rows})
    height = 0.8 / len(counts)
    figure, panels = pyplot.subplots(
        1, len(cells), sharex=True, sharey=True, squeeze=False, dpi=100, layout="constrained",
        figsize=(8, 1.6 + len(shapes) * (0.14 + 0.14 * len(counts))),
    )  # fmt: skip
    top = max([2.0, *(row["ratio"] for row in rows)])
    bottom = min([0.8, *(row["ratio"] for row in rows)])
    for panel, cell in zip(panels[0], cells, strict=True):
        for k, threads in enumerate(counts):
            mine = [row for row in rows if row["cell"] == cell and row["threads"] == threads]
            places = [shapes.index(tuple(row["shape"])) + (k - (len(counts) - 1) / 2) * height for row in mine]
            ratios = [row["ratio"] for row in mine]
            label = f"{threads} thread{'s' if threads > 1 else ''}"
            # Bars start at 1: to the right is faster than the best peer, to the left slower.
            panel.barh(places, [r - 1 for r in ratios], height, left=1, label=label, color=f"C{k}")
            for place, ratio in zip(places, ratios, strict=True):
                side = 1 if ratio >= 1 else -1
                panel.annotate(
                    f"{ratio:.1f}" if ratio >= 1.05 else f"{ratio:.2f}", (ratio, place), (3 * side, 0),
                    textcoords="offset points", va="center", ha="left" if side > 0 else "right", fontsize=7,
                )  # fmt: skip
        panel.axvline(1, color="black", linewidth=1)
        panel.set_xscale("log")
        panel.set_title(cell.upper())
        panel.grid(axis="x", alpha=0.3)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if bottom / 1.9 <= t <= top * 1.9]
    panels[0][0].xaxis.set_major_locator(FixedLocator(ticks))
    panels[0][0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0][0].xaxis.set_minor_formatter(NullFormatter())
    panels[0][0].set_xlim(bottom / 1.9, top * 1.9)  # room for the figures
    panels[0][0].set_ylim(-0.7, len(shapes) - 0.3)
    panels[0][0].set_yticks(range(len(shapes)), [", ".join(map(str, s)) for s in shapes], fontsize=8)
    panels[0][0].set_ylabel("T, B, I, H")
    panels[0][0].invert_yaxis()
    figure.supxlabel("time of the best peer / time of fastrnn (log scale; right of 1, fastrnn is faster)", fontsize=9)
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=10)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(counts), fontsize=8)
    figure.savefig(path)
    pyplot.close(figure)
