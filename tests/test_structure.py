"""What may include and import what: the directions of docs/architecture.md."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import planted_bugs
from resnetcore import _core

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "base": {"base"},
    "math": {"math"},
    "topology": {"topology", "base", "math"},
    "kernels": {"kernels", "base", "math"},
    "runtime": {"runtime", "topology", "kernels", "base", "math"},
    "train": {"train", "runtime", "topology", "kernels", "base", "math"},
    "functional": {"functional", "runtime", "kernels", "base", "math"},
    "xla": {"xla", "files", "functional", "train", "runtime", "topology", "kernels", "base", "math"},
    "bindings": {"bindings", "xla", "functional", "train", "runtime", "topology", "kernels", "base", "math"},
    "files": {"files", "train", "topology", "base", "math"},
    "capi": {"capi", "files", "functional", "train", "runtime", "topology", "kernels", "base", "math"},
}
SOURCES = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".hpp", ".cpp", ".cu", ".cuh"))
# Installed: nothing else of ours is there when they are included.
PUBLIC = {"resnetcore.h", "resnetcore.hpp"}
CUDA_BORDER = "kernels/cuda/module.h"
CUDA_HEADER = re.compile(r"<(cuda|cooperative_groups|mma\.h|cub/|cute/|nv)")
PACKAGE = ROOT / "python" / "resnetcore"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Who may import what NumPy's users need not have, and inside functions only. Frameworks and frames have no owner: their
# arrays come in as they are.
OWNERS = {
    "matplotlib": {"plots", "figure_style", "demo"},
    "sklearn": {"digits"},
    "onnx": {"onnx"},
    "google": {"onnx"},
    "torch": {"torch"},
    "jax": {"jax"},
}
# Modules for users of one framework, which they are named after: they import it when they are imported.
FRAMEWORKS = {"torch", "jax"}
# What is built on the library and never used by it, and who starts it.
LEAVES = {
    "conversion": {"conversion", "onnx", "torch"},
    "cli": {"cli", "__main__"},
    "demo": {"demo", "cli"},
    "onnx": {"onnx", "network", "__init__"},
    "torch": {"torch"},
    "jax": {"jax"},
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
ISA_SYMBOL = re.compile(r"10resnetcore(8baseline|4avx2|6avx512|11avx512_bf16|10avx512_amx|4neon)")


def includes(path):
    return re.findall(r'#include ([<"][^>"]+[>"])', path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_includes_follow_the_directions(path):
    room = path.relative_to(ROOT / "csrc").parts[0]
    for include in includes(path):
        name = include[1:-1]
        if path.name in PUBLIC:
            assert include.startswith("<") or name in PUBLIC, f"{path.name} includes {name}"
            continue
        if include.startswith('"'):
            assert name.split("/")[0] in ALLOWED[room], f"{path.name} includes {name}"
            assert "kernels/cpu" not in name or "kernels/cpu" in str(path), f"{path.name} includes {name}"
            reaches_in = "kernels/cuda" in name and name != CUDA_BORDER
            assert not reaches_in or "kernels/cuda" in str(path), f"{path.name} includes {name}"
            at_the_border = "kernels/cuda" in str(path) or path.stem in ("cuda_module", "cuda_device")
            assert name != CUDA_BORDER or at_the_border, f"{path.name} includes {name}"
        assert not CUDA_HEADER.match(include) or "kernels/cuda" in str(path), f"{path.name} includes {name}"
        assert room == "bindings" or ("pybind11" not in name and name != "Python.h"), f"{path.name} includes {name}"


def is_for_types_only(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def import_nodes(body, *, with_the_module):
    """Import statements, at any depth; or only those that importing the module runs."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (with_the_module and (isinstance(node, FUNCTIONS) or is_for_types_only(node))):
            yield from import_nodes(ast.iter_child_nodes(node), with_the_module=with_the_module)


def third_party(path, *, with_the_module):
    for node in import_nodes(ast.parse(path.read_text()).body, with_the_module=with_the_module):
        if isinstance(node, ast.ImportFrom):
            names = [] if node.level else [node.module]
        else:
            names = [alias.name for alias in node.names]
        yield from ({name.split(".")[0] for name in names} - sys.stdlib_module_names - {"resnetcore"})


def own_modules(path):
    """The parts of the package that a file imports: "cli" for `from ..cli import x` as for `from .. import cli`."""
    package = path.relative_to(PACKAGE).parent.parts
    for node in import_nodes(ast.parse(path.read_text()).body, with_the_module=False):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "resnetcore":
            base = node.module.partition(".")[2]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("resnetcore."))
            continue
        else:
            continue
        yield from [base.split(".")[0]] if base else [alias.name for alias in node.names]


def module_id(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_only_numpy_is_imported_with_a_module(path):
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert set(third_party(path, with_the_module=True)) <= {"numpy"} | (FRAMEWORKS & {name})


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_an_extra_is_imported_by_its_owners_only(path):
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for extra in set(third_party(path, with_the_module=False)) - {"numpy"}:
        assert name in OWNERS.get(extra, ()), f"{module_id(path)} imports {extra}"


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_nothing_imports_a_leaf(path):
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for leaf in LEAVES.keys() & set(own_modules(path)):
        assert name in LEAVES[leaf], f"{module_id(path)} imports {leaf}"


def test_the_leaves_and_owners_are_there():
    # A renamed one would make the tests above pass without looking at anything.
    found = {name for path in MODULES for name in own_modules(path)}
    assert LEAVES.keys() - FRAMEWORKS <= found
    for extra, names in OWNERS.items():
        files = [path for name in names for path in [PACKAGE / f"{name}.py", *(PACKAGE / name).rglob("*.py")]]
        assert any(extra in third_party(path, with_the_module=False) for path in files if path.exists())


def nm(path, *options):
    if shutil.which("nm") is None:
        pytest.skip("there is no nm (binutils) to list symbols with")
    result = subprocess.run(["nm", "-P", *options, path], capture_output=True, text=True)
    if result.returncode != 0:
        pytest.skip(f"nm cannot read {path.name}: {result.stderr.strip()}")
    return [line.split()[:2] for line in result.stdout.splitlines()]


def test_no_instruction_sets_code_is_exported():
    module = Path(_core.__file__)
    dynamic = [name for name, _ in nm(module, "-D", "--defined-only")]
    assert "PyInit__core" in dynamic
    assert [name for name in dynamic if ISA_SYMBOL.search(name)] == []
    # A stripped module has no others; in one that is not, every such symbol is local.
    shared = [name for name, kind in nm(module, "--defined-only") if ISA_SYMBOL.search(name) and kind not in "tdrb"]
    assert shared == []


def test_an_instruction_sets_object_gives_its_tables_only():
    # The linker keeps one copy of a weak function, whoever brought it: were it this unit's, processors without its
    # instruction set would run into it. Objects are where the package was built from this folder.
    objects = [path for folder in ("csrc", "cp*/csrc") for path in (ROOT / "build").glob(f"{folder}/**/isa_*.o")]
    if not objects:
        pytest.skip("the package was not built in build/: there are no object files to look at")
    for path in objects:
        isa = path.name.split(".")[0].removeprefix("isa_")
        source = (ROOT / "csrc" / "kernels" / "cpu" / f"isa_{isa}.cpp").read_text()
        precisions = ("4bf16", "6bf16x2") if "#define RC_BFLOAT16_ONLY" in source else ("3f32", "3f64", "4bf16")
        tables = {f"_ZN10resnetcore{len(isa)}{isa}{precision}Ev" for precision in precisions}
        assert {name for name, _ in nm(path, "--extern-only", "--defined-only")} == tables, path


def test_no_flag_depends_on_this_cpu_or_changes_arithmetic():
    for path in [ROOT / "CMakeLists.txt", *(ROOT / "cmake").glob("*.cmake"), *(ROOT / "csrc").rglob("CMakeLists.txt")]:
        code = re.sub(r"#.*", "", path.read_text())
        assert "native" not in code
        assert "fast-math" not in code and "fast_math" not in code


def test_every_planted_bug_has_its_place_and_is_listed():
    listed = (ROOT / "tests" / "README.md").read_text()
    assert planted_bugs.stale() == []
    assert [bug.name for bug in planted_bugs.BUGS if f"| {bug.name} |" not in listed] == []


def test_every_test_file_is_explained():
    listed = (ROOT / "tests" / "README.md").read_text()
    assert [path.name for path in sorted((ROOT / "tests").glob("test_*.py")) if f"`{path.name}`" not in listed] == []


def test_the_readme_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[0]) > 0.6
    assert (tmp_path / "net.safetensors").exists()
