"""python/resnetcore/_core.pyi says what the compiled module has: every name, parameter, default and plain result.

The types of arrays are the stub's own: pybind11 knows them as `object` only.
"""

import ast
from pathlib import Path

import pytest

import resnetcore
from resnetcore import _core

# Beside the installed package, not in the repository: the wheel must bring it along.
STUB = Path(resnetcore.__file__).with_name("_core.pyi")
# Results that pybind11 itself knows; a container's elements it does not.
PLAIN = ("None", "bool", "int", "float", "str", "list", "dict", "tuple")


def described(node):
    """Parameters with their defaults, and the result's type, of a `def`."""
    assert not (node.args.vararg or node.args.kwarg or node.args.kwonlyargs or node.args.posonlyargs), node.name
    names = [argument.arg for argument in node.args.args]
    defaults = [None] * (len(names) - len(node.args.defaults)) + [ast.unparse(value) for value in node.args.defaults]
    return list(zip(names, defaults, strict=True)), ast.unparse(node.returns)


def is_private(name):
    """Also what Python calls by itself, which a type checker must know of."""
    return name.startswith("_") and name != "__init__"


def stub_members(body):
    """{name: a class's members, a function's description, or a property's ("property", type)}."""
    members = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            members[node.name] = stub_members(node.body)
        elif isinstance(node, ast.FunctionDef) and not is_private(node.name):
            assert node.name not in members, f"{node.name} is there twice"
            kinds = [ast.unparse(decorator) for decorator in node.decorator_list]
            assert kinds in ([], ["property"]), f"{node.name}: {kinds}"
            members[node.name] = ("property", described(node)[1]) if kinds else described(node)
    return members


def signature(text):
    """What pybind11 writes as a docstring's first line, described as a stub's `def` is."""
    line = text.strip().splitlines()[0]
    return described(ast.parse(f"def {line if line[0] != '(' else 'property' + line}: ...").body[0])


def module_members(owner):
    members = {}
    for name, value in vars(owner).items():
        if is_private(name) or (name == "__init__" and not value.__doc__.startswith(name)):  # nobody's to call
            continue
        if isinstance(value, type):
            members[name] = module_members(value)
        elif isinstance(value, property):
            members[name] = ("property", signature(value.fget.__doc__)[1])
        else:
            assert callable(value), f"{name} is neither a class nor a function nor a property"
            members[name] = signature(value.__doc__)
    return members


def differences(path, stub, module):
    for name in sorted(stub.keys() | module.keys()):
        here = f"{path}.{name}"
        if name not in module:
            yield f"{here} is in the stub only"
        elif name not in stub:
            yield f"{here} is not in the stub"
        elif isinstance(stub[name], dict) or isinstance(module[name], dict):
            if isinstance(stub[name], dict) and isinstance(module[name], dict):
                yield from differences(here, stub[name], module[name])
            else:
                yield f"{here} is a class on one side only"
        else:
            (has, gives), (expected, result) = stub[name], module[name]
            if has != expected:
                yield f"{here} has {expected}, in the stub {has}"
            if result.partition("[")[0] in PLAIN and gives != result and not gives.startswith(result + "["):
                yield f"{here} gives {result}, in the stub {gives}"


def test_the_stub_is_the_modules():
    stub = stub_members(ast.parse(STUB.read_text()).body)
    assert list(differences("_core", stub, module_members(_core))) == []


@pytest.mark.parametrize(
    ("was", "becomes", "found"),
    [
        ("def losses() -> list[str]", "def loses() -> list[str]", "losses is not in the stub"),
        ("seed: int, step: int = 0)", "seed: int, step: int = 1)", "random_permutation has"),
        ("def get(self, names: ", "def get(self, keys: ", "Network.get has"),
        ("def steps(self) -> int", "def steps(self) -> float", "Trainer.steps gives int"),
        ("    def clone(self,", "    def copied(self,", "Network.copied is in the stub only"),
    ],
)
def test_a_stub_that_differs_is_noticed(was, becomes, found):
    text = STUB.read_text()
    assert was in text
    stub = stub_members(ast.parse(text.replace(was, becomes)).body)
    assert any(found in line for line in differences("_core", stub, module_members(_core)))
