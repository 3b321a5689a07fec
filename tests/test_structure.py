"""What may include and import what: the directions of docs/architecture.md."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "base": {"base"},
    "math": {"math"},
    "topology": {"topology", "base", "math"},
    "kernels": {"kernels", "base", "math"},
    "runtime": {"runtime", "topology", "kernels", "base", "math"},
    "train": {"train", "runtime", "topology", "kernels", "base", "math"},
    "functional": {"functional", "runtime", "kernels", "base", "math"},
    "bindings": {"bindings", "functional", "train", "runtime", "topology", "kernels", "base", "math"},
}
SOURCES = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cpp"))
MODULES = sorted((ROOT / "python" / "resnetcore").rglob("*.py"))
FRAMEWORKS = {"torch", "jax", "onnx", "sklearn", "pandas", "polars", "matplotlib"}


def includes(path):
    return re.findall(r'#include ([<"][^>"]+[>"])', path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_includes_follow_the_directions(path):
    room = path.relative_to(ROOT / "csrc").parts[0]
    for include in includes(path):
        name = include[1:-1]
        if include.startswith('"'):
            assert name.split("/")[0] in ALLOWED[room], f"{path.name} includes {name}"
            assert "kernels/cpu" not in name or "kernels/cpu" in str(path), f"{path.name} includes {name}"
        assert room == "bindings" or ("pybind11" not in name and name != "Python.h"), f"{path.name} includes {name}"


def imported(tree, top_level_only):
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.name)
def test_no_framework_is_imported_with_the_package(path):
    tree = ast.parse(path.read_text())
    assert not FRAMEWORKS & set(imported(tree, top_level_only=True))
    assert not {"torch", "jax", "onnx", "pandas", "polars"} & set(imported(tree, top_level_only=False))


def test_no_flag_depends_on_this_cpu_or_changes_arithmetic():
    for path in [ROOT / "CMakeLists.txt", ROOT / "csrc" / "CMakeLists.txt"]:
        code = re.sub(r"#.*", "", path.read_text())
        assert "-march=native" not in code
        assert "-ffast-math" not in code


def test_the_readme_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[0]) > 0.6
    assert (tmp_path / "net.safetensors").exists()
