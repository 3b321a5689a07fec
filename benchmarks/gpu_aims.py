"""A GPU's aims beside what was reached, in bfloat16, as a Markdown table made of the results of runs.

Each shape has aims of its own (`shapes.GPU_SHAPES`), for inference and for training: against PyTorch as it is, against
PyTorch compiled or captured, whichever is faster, and against a chain of cuBLAS' products.
"""

from __future__ import annotations

from .shapes import GPU_SHAPES

RIVALS = {
    "PyTorch eager": ("torch_eager",),
    "compiled or captured": ("torch_compile", "torch_graph"),
    "cuBLAS chain": ("torch_addmm",),
}
# By mode, for each shape: how many times each of the above. None: no aim.
AIMS = {
    "infer": ((6, 4, None), (4, 3, None), (6, 2, 1.5), (1.7, 1.3, 1.1), (1.4, 1.2, 1.03), (1.1, 1.05, 0.97)),
    "train": ((5, 3.5, None), (3.5, 2.5, None), (6, 1.8, 1.5), (1.7, 1.35, 1.15), (1.4, 1.2, 1.07), (1.1, 1.05, 1.0)),
}
# The shape whose network has batch normalisation; the others have none.
WITH_NORM = GPU_SHAPES[2]


def find_row(runs: list[dict], mode: str, path: str, shape: dict) -> dict | None:
    variant = "norm" if (shape["batch"], shape["width"]) == (WITH_NORM.batch, WITH_NORM.width) else "identity"
    for run in runs:
        kind = run["mode"], run["variant"], run["precision"], run["machine"].get("path", "simple")
        if kind == (mode, variant, "bfloat16", path):
            for row in run["rows"]:
                if row["shape"] == shape:
                    return row
    return None


def table(runs: list[dict], path: str) -> str:
    """A line a shape and mode: our milliseconds on that path, the share of the limit, and `reached of aim` for each rival."""
    lines = [
        "| batch, width, layers | | ms | TFLOP/s | " + " | ".join(RIVALS) + " |",
        "|---|---|---|---|" + "---|" * len(RIVALS),
    ]
    for mode, aims in AIMS.items():
        for shape, of in zip(GPU_SHAPES, aims, strict=True):
            row = find_row(runs, mode, path, {"batch": shape.batch, "width": shape.width, "depth": shape.depth})
            if row is None:
                continue
            name = f"{shape.batch}, {shape.width}, {shape.depth}" + (", norms" if shape == WITH_NORM else "")
            ours = f"{row['rivals']['resnetcore']['ms']:.3f} | {row['gflops'] / 1e3:.0f}"
            cells = [cell(row["rivals"], names, aim) for names, aim in zip(RIVALS.values(), of, strict=True)]
            lines.append(f"| {name} | {mode} | {ours} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(rivals: dict, names: tuple[str, ...], aim: float | None) -> str:
    """`reached of aim`, bold where the aim was reached; the fastest of several rivals."""
    ratios = [rivals[name]["ratio"] for name in names if "ratio" in rivals.get(name, {})]
    if not ratios:
        return "–"
    if aim is None:
        return f"{min(ratios):.2f}"
    mark = "**" if round(min(ratios), 2) >= aim else ""
    return f"{mark}{min(ratios):.2f}{mark} of {aim:g}"
