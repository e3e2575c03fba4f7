"""What users reach as `genzoo.NAME`: all of it there, loaded when it is used, and known to type checkers."""

import ast
import importlib
from pathlib import Path

import pytest

import genzoo

PACKAGES = (
    "genzoo",
    "genzoo.data",
    "genzoo.evaluation",
    "genzoo.metrics",
    "genzoo.models.diffusion.samplers",
)


def stub(package):
    return Path(importlib.import_module(package).__file__).with_suffix(".pyi")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package):
    module = importlib.import_module(package)
    names = module.__all__
    assert len(set(names)) == len(names) and set(dir(module)) >= set(names)
    assert all(getattr(module, name) is not None for name in names)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_stub_tells_type_checkers_the_same(package):
    """Names that are loaded lazily are no names to a type checker: a stub beside the package says where they are."""
    found = {}
    for node in ast.parse(stub(package).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    module = importlib.import_module(package)
    assert found.keys() >= set(module.__all__)
    for name, (home, inside) in found.items():
        if name in module.__all__:
            assert getattr(importlib.import_module(home), inside) is getattr(module, name), name


def test_rooms_are_attributes():
    assert genzoo.objectives.elbo.FreeBits and genzoo.nn.unet.UNetConfig and genzoo.testing.check_model
    with pytest.raises(AttributeError, match="no attribute 'objective'"):
        _ = genzoo.objective


def test_the_package_is_typed():
    assert (Path(genzoo.__file__).parent / "py.typed").exists()
