"""Aims beside what was reached and what is possible, as a Markdown table made of the results of runs.

What is possible: the time of the fastest rival that is offered over that of the same operations at the peak that the
run measured before everything else, and nothing between them.
"""

from __future__ import annotations

from .networks import VARIANTS
from .report import fastest
from .shapes import SHAPES

# By mode, precision, and that of products: times the fastest rival, by shape in the order of SHAPES.
AIMS = {
    ("train", "float32", "highest"): (3, 1.8, 1.45, 1.25, 1.15, 4),
    ("train", "float32", "high"): (5, 3.5, 3, 2.5, 2.2, 4),
    ("infer", "float32", "highest"): (2, 1.5, 1.3, 1.25, 1.15, 4),
    ("train", "bfloat16", "highest"): (12, 5, 4, 2.8, 2.3, 10),
    ("infer", "bfloat16", "highest"): (5, 3.5, 2.8, 2.6, 2.2, 8),
}
# All that is measured, as arguments of a run; who is to keep a ratio comes after whose it is.
KINDS = [
    *({"mode": mode, "precision": precision, "products": products} for mode, precision, products in AIMS),
    *({"mode": "train", "variant": variant, "precision": "float32"} for variant in VARIANTS if variant != "identity"),
]
KEPT = 0.9  # norms and other skips are to keep so much of the ratio of identity skips
# Operations of the instructions that multiply bfloat16, over those of the float32 instruction that the peak is measured
# with: a dot product of pairs, or one between tiles, which takes 16 cycles. "high" is three of them.
PAIRS, TILES, HALVES = 2, 16, 3


def aims_table(runs: list[dict]) -> str:
    """A line for each run, in their order; one of identity skips comes before the runs that are to keep what it reached."""
    lines = [
        "| | " + " | ".join(f"{s.batch}, {s.width}, {s.depth}" for s in SHAPES) + " |",
        "|---|" + "---|" * len(SHAPES),
    ]
    reached: dict[tuple[str, str, str], tuple[float, ...]] = {}
    for run in runs:
        mode, variant, precision, products = run["mode"], run["variant"], run["precision"], run["products"]
        ratios = tuple(fastest(row)[0] for row in run["rows"])
        if variant == "identity":
            reached[mode, precision, products] = ratios
            aims: tuple[float, ...] = AIMS[mode, precision, products]
        else:
            aims = tuple(KEPT * ratio for ratio in reached[mode, precision, products])
        peak = run["limits"]["gflops"] * speed(precision, products, run["machine"]["isa"])
        cells = [
            cell(ratio, aim, ratio * peak / row["gflops"])
            for ratio, aim, row in zip(ratios, aims, run["rows"], strict=True)
        ]
        words = variant if variant != "identity" else "", f'"{products}"' if products != "highest" else ""
        name = ", ".join([mode, precision, *filter(None, words)])
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed(precision: str, products: str, isa: str) -> float:
    """Operations of such products over those of float32 in the same time."""
    of_bfloat16 = TILES if isa == "avx512_amx" else PAIRS
    if precision == "bfloat16":
        return of_bfloat16
    return max(of_bfloat16 / HALVES, 1) if products == "high" else 1


def cell(ratio: float, aim: float, possible: float) -> str:
    """`reached of aim (possible)`, bold where the aim was reached."""
    mark = "**" if round(ratio, 2) >= round(aim, 2) else ""
    return f"{mark}{ratio:.2f}{mark} of {aim:.3g} ({possible:.3g})"
