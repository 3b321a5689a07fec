"""The examples of docs/embedding.md run as they stand."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "docs" / "embedding.md").read_text()
EXAMPLES = re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```python\n(.*?)```", TEXT, re.S | re.M)


@pytest.mark.parametrize(("heading", "code"), EXAMPLES, ids=[heading for heading, _ in EXAMPLES])
def test_the_examples_run(heading, code, tmp_path, monkeypatch, request):
    for package in ("torch", "onnx", "jax"):
        if re.search(rf"\b{package}\b", code):
            pytest.importorskip(package, reason=f"{package} is not installed")
            if package == "torch":
                request.getfixturevalue("one_thread")
    if '"cuda"' in code and not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"docs/embedding.md, {heading}", "exec"), {"__name__": "embedding"})


def test_every_example_is_found():
    assert len(EXAMPLES) == TEXT.count("```python") >= 3
