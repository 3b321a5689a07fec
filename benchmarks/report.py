"""The JSON of a run as a Markdown table, put between the README's markers, and as a picture."""

from __future__ import annotations

import re
from pathlib import Path

LABELS = {
    "resnetcore": "resnetcore",
    "torch_eager": "PyTorch eager",
    "torch_compile": "PyTorch compile",
    "jax_jit": "JAX jit",
}
MARKERS = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def table(run: dict) -> str:
    """Milliseconds of a training step, and how many times faster than the best rival we are."""
    measured = [n for n in LABELS if any("ms" in row["rivals"].get(n, {}) for row in run["rows"])]
    machine = run["machine"]
    lines = [
        f"One float32 training step (SGD), medians in ms, {machine['threads']} threads of {machine['cpu']}, "
        f"{machine['isa']}, {run['date']}, commit {run['commit']}; {machine['versions']}. The ratio is the median of paired "
        "ratios to the best rival. Made by `python -m benchmarks`.",
        "",
        "| batch, width, layers | " + " | ".join(LABELS[n] for n in measured) + " | times the best rival |",
        "|---|" + "---|" * (len(measured) + 1),
    ]
    for row in run["rows"]:
        shape, rivals = row["shape"], row["rivals"]
        cells = [f"{rivals[n]['ms']:.2f}" if "ms" in rivals.get(n, {}) else "–" for n in measured]
        lines.append(
            f"| {shape['batch']}, {shape['width']}, {shape['depth']} | "
            + " | ".join(cells)
            + f" | {best_ratio(row):.2f} |"
        )
    return "\n".join(lines)


def best_ratio(row: dict) -> float:
    return min(r["ratio"] for name, r in row["rivals"].items() if name != "resnetcore" and "ratio" in r)


def put_into_readme(run: dict, readme: Path) -> None:
    begin, end = MARKERS
    text = readme.read_text()
    readme.write_text(re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table(run)}\n{end}", text, flags=re.S))


def picture(run: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rivals = [n for n in LABELS if n != "resnetcore" and any("ratio" in r["rivals"].get(n, {}) for r in run["rows"])]
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    colours = ("#d55e00", "#0072b2", "#009e73")
    for index, name in enumerate(rivals):
        places = [i + (index - (len(rivals) - 1) / 2) * 0.25 for i in range(len(run["rows"]))]
        heights = [row["rivals"][name].get("ratio", 0) for row in run["rows"]]
        bars = axes.bar(places, heights, 0.23, label=LABELS[name], color=colours[index])
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
    axes.set_title("Training step in float32: above 1 resnetcore is faster", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
