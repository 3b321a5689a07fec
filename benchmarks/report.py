"""The JSON of a run as a Markdown table, put between a document's markers, and as a picture."""

from __future__ import annotations

import re
from pathlib import Path

from .rivals import INSIDE, NOT_OFFERED

LABELS = {
    "resnetcore": "resnetcore",
    "resnetcore_torch": "resnetcore in PyTorch",
    "resnetcore_torch_flat": "resnetcore in PyTorch, flat",
    "resnetcore_torch_loss": "resnetcore in PyTorch, flat, with the loss",
    "resnetcore_jax": "resnetcore in JAX",
    "torch_eager": "PyTorch eager",
    "torch_compile": "PyTorch compile",
    "torch_graph": "PyTorch CUDA graph",
    "torch_addmm": "cuBLAS chain, CUDA graph",
    "torch_onednn": "PyTorch oneDNN",
    "jax_jit": "JAX jit",
    "onnxruntime": "ONNX Runtime",
    "sklearn_mlp": "scikit-learn (no skips)",
}
COLOURS = dict(
    resnetcore="#000000",
    resnetcore_torch="#7f7f7f",
    resnetcore_torch_flat="#c7c7c7",
    resnetcore_torch_loss="#8c564b",
    resnetcore_jax="#bcbd22",
    torch_eager="#d55e00",
    torch_compile="#0072b2",
    torch_graph="#f0e442",
    torch_addmm="#999999",
    torch_onednn="#56b4e9",
    jax_jit="#009e73",
    onnxruntime="#e69f00",
    sklearn_mlp="#cc79a7",
)
NETWORKS = {
    "identity": "identity skips",
    "norm": "identity skips and batch normalisation",
    "learned": "learned skips",
    "dense": "dense learned skips from 2 to 4 layers back",
}
NAMES_OF_OPTIMIZERS = {"sgd": "SGD", "momentum": "SGD with momentum", "adamw": "AdamW"}
MARKERS = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
AIMS_MARKERS = "<!-- aims: begin -->", "<!-- aims: end -->"


def table(run: dict) -> str:
    """Milliseconds, MiB, and how many times faster than the best rival we are."""
    measured = [n for n in LABELS if any("ms" in row["rivals"].get(n, {}) for row in run["rows"])]
    machine = run["machine"]
    has_memory = any("memory_mib" in entry for row in run["rows"] for entry in row["rivals"].values())
    memory = " / peak memory in MiB above imports and data" if has_memory else ""
    hidden = [n for n in measured if n in NOT_OFFERED]
    inside = [n for n in measured if n in INSIDE]
    ratios = ["times the fastest rival", *(f"without {LABELS[n]}" for n in hidden)]
    ratios += [f"{LABELS[n]}: times the fastest there" for n in inside]
    last = "columns" if len(ratios) > 1 else "column"
    lines = [
        f"{title(run)}: medians in ms{memory}, {place(machine)}, {run['date']}, commit {run['commit']}; "
        f"{machine['versions']}. How many times faster than the fastest rival that computes the same, the median of paired "
        f"ratios, is in the last {last}. Made by `{run['command']}`.",
        "",
        "| batch, width, layers | " + " | ".join([LABELS[n] for n in measured] + ratios) + " |",
        "|---|" + "---|" * (len(measured) + len(ratios)),
    ]
    for row in run["rows"]:
        shape, rivals = row["shape"], row["rivals"]
        cells = [cell(rivals.get(n, {})) for n in measured]
        cells += [best_ratio(row), *(best_ratio(row, without=n) for n in hidden)]
        cells += [fastest_inside(rivals.get(n, {})) for n in inside]
        lines.append(f"| {shape['batch']}, {shape['width']}, {shape['depth']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def place(machine: dict) -> str:
    if "gpu" in machine:
        return f"{machine['gpu']}, driver {machine['driver']}, batches in its memory, path `{machine.get('path', 'simple')}`"
    return f"{machine['threads']} threads of {machine['cpu']}, {machine['isa']}"


def cell(entry: dict) -> str:
    if "ms" not in entry:
        return "–"
    return f"{entry['ms']:.2f}" + (f" / {entry['memory_mib']:.0f}" if "memory_mib" in entry else "")


def fastest_inside(entry: dict) -> str:
    """How many times faster than the fastest way of the framework that it is inside of."""
    found = [(ratio, LABELS[host]) for host, ratio in entry.get("faster", {}).items()]
    return "{:.2f} ({})".format(*min(found)) if found else "–"


def line(name: str, row: dict) -> str:
    """A row as it is printed while the others are measured."""
    parts = []
    for rival, entry in row["rivals"].items():
        if "ms" not in entry:
            parts.append(f"{rival}: {entry['missing']}")
            continue
        memory = f", {entry['memory_mib']:.0f} MiB" if "memory_mib" in entry else ""
        note = f"{entry['note']}, " if "note" in entry else ""
        parts.append(f"{rival} {entry['ms']:.2f} ms{memory} ({note}{entry['ratio']:.2f})")
    return f"{name}: {'; '.join(parts)}; {row['gflops']:.0f} GFLOP/s"


def title(run: dict) -> str:
    network, precision = NETWORKS[run.get("variant", "identity")], run.get("precision", "float32")
    if run.get("products", "highest") != "highest":
        precision += f" with {run['products']} products"
    if run.get("mode", "train") == "infer":
        return f"{precision.capitalize()} inference, {network}"
    return f"One {precision} training step, {network}, {NAMES_OF_OPTIMIZERS[run.get('optimizer', 'sgd')]}"


def compared(row: dict, without: tuple[str, ...]) -> list[tuple[float, str]]:
    """Ratio and name of the rivals that a ratio is taken to."""
    return [
        (r["ratio"], LABELS[name])
        for name, r in row["rivals"].items()
        if name not in ("resnetcore", *INSIDE, *without) and "ratio" in r and "note" not in r
    ]


def fastest(row: dict) -> tuple[float, str]:
    """How many times faster than the fastest rival that its library offers, and which that is."""
    return min(compared(row, NOT_OFFERED))


def best_ratio(row: dict, without: str = "resnetcore") -> str:
    ratios = compared(row, (without,))
    return "{:.2f} ({})".format(*min(ratios)) if ratios else "–"


def put(content: str, markers: tuple[str, str], document: Path) -> None:
    """Between a document's markers, instead of what is there."""
    begin, end = markers
    text = document.read_text()
    document.write_text(re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.S))


def put_tables(runs: list[dict], document: Path) -> None:
    put("\n\n".join(table(run) for run in runs), MARKERS, document)


def picture(run: dict, path: Path) -> None:
    """How many times our time every rival takes, a group of bars for each shape."""
    from matplotlib.figure import Figure

    rivals = [n for n in LABELS if n != "resnetcore" and any("ratio" in r["rivals"].get(n, {}) for r in run["rows"])]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    slot = 0.8 / max(len(rivals), 1)
    for index, name in enumerate(rivals):
        places = [i + (index - (len(rivals) - 1) / 2) * slot for i in range(len(run["rows"]))]
        heights = [row["rivals"].get(name, {}).get("ratio", 0) for row in run["rows"]]
        bars = axes.bar(places, heights, 0.92 * slot, label=LABELS[name], color=COLOURS[name])
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(
        range(len(run["rows"])),
        [
            f"batch {r['shape']['batch']}\nwidth {r['shape']['width']}\n{r['shape']['depth']} layers"
            for r in run["rows"]
        ],
    )
    axes.set_ylabel("time of the rival / ours")
    axes.set_title(f"{title(run)}: above 1 resnetcore is faster", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if rivals:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def roofline(run: dict, path: Path) -> None:
    """GFLOP/s of every program over the work's operations a byte (Williams, Waterman & Patterson 2009), and the limits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    intensities = [row["operations"] / row["traffic"] for row in run["rows"]]
    ends = min(intensities) / 2, max(intensities) * 2
    top = run["limits"]["gflops"]
    for name, label, style in (("memory_gb_s", "memory", "--"), ("cache_gb_s", "last cache", ":")):
        if name not in run["limits"]:
            continue
        bend = top / run["limits"][name]
        points = [ends[0], min(max(bend, ends[0]), ends[1]), ends[1]]
        roof = [min(top, x * run["limits"][name]) for x in points]
        axes.plot(points, roof, style, color="grey", label=f"limit, data in {label}")
    for name in LABELS:
        seen = [
            (i, row) for i, row in zip(intensities, run["rows"], strict=True) if "ms" in row["rivals"].get(name, {})
        ]
        if not seen or any("note" in row["rivals"][name] for _, row in seen):
            continue
        reached = [row["operations"] / row["rivals"][name]["ms"] / 1e6 for _, row in seen]
        axes.plot(
            [i for i, _ in seen], reached, "o" if name != "resnetcore" else "s", label=LABELS[name], color=COLOURS[name]
        )
    for intensity, row in zip(intensities, run["rows"], strict=True):
        axes.annotate(
            "{batch}, {width}, {depth}".format(**row["shape"]), (intensity, top * 1.08), rotation=30, fontsize=8
        )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=(top / 30, top * 2))
    axes.set(xlabel="operations a byte that must move", ylabel="GFLOP/s")
    axes.set_title(f"{title(run)}: what is reached, and what could be", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=150)
