"""Every field of every configuration refuses what its type has no such value of, in one line, whoever makes it."""

import dataclasses
import importlib
import math
import pkgutil
from typing import Annotated, get_args, get_origin

import pytest

import genzoo
from genzoo.core.bounds import Range, _hints, check_field, check_number, shown
from genzoo.core.config import Configurable, TrainConfig, from_json, to_json
from genzoo.core.errors import GenzooError
from genzoo.core.spec import DataSpec

HOSTILE = (math.nan, math.inf, -math.inf, 1e40, 10**400, -(10**400), "x", None, object(), [[]], True, b"", 1j)
"""What no field of a number, or of numbers, can be."""


def configurations():
    for room in ("core", "data", "nn", "objectives", "models"):
        package = importlib.import_module(f"genzoo.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"genzoo.{room}."):
            importlib.import_module(module.name)
    return [kind for kind in Configurable.types().values() if dataclasses.is_dataclass(kind)]


def holds_numbers(hint):
    parts = [hint, *get_args(hint)] if get_origin(hint) is not Annotated else [get_args(hint)[0]]
    parts += [inner for part in get_args(hint) if get_origin(part) is Annotated for inner in get_args(part)]
    return int in parts or float in parts


def test_no_number_of_any_configuration_may_be_what_is_none():
    tried = 0
    for kind in configurations():
        for name, hint in _hints(kind).items():
            if not holds_numbers(hint):
                continue
            for bad in HOSTILE:
                if bad is None and type(None) in get_args(hint):
                    continue
                with pytest.raises(GenzooError, match=f"^{name} of {kind.__name__} must be ") as error:
                    check_field(kind, name, bad)
                assert "\n" not in str(error.value) and len(str(error.value)) < 300
                tried += 1
    assert tried > 1500


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 10**12), ("batch_size", 0), ("learning_rate", math.inf), ("betas", (0.9, 1.0)), ("betas", 0.9),
     ("optimizer", "sgd"), ("accumulate", 2.5), ("validations", -1), ("precision", None)],
)  # fmt: skip
def test_the_same_check_in_python_and_of_what_is_read(field, value):
    with pytest.raises(GenzooError, match=f"{field} of TrainConfig"):
        TrainConfig(**{field: value})
    with pytest.raises(GenzooError, match=f"{field} of TrainConfig"):
        from_json({**to_json(TrainConfig()), field: value})
    with pytest.raises(GenzooError, match="blocks of"):
        genzoo.create("pixelcnn", DataSpec((1, 4, 4)), "tiny", blocks=10**9)


def test_a_configuration_of_a_user_is_checked_too():
    @dataclasses.dataclass(frozen=True)
    class Own(Configurable):
        width: Annotated[int, Range(2, 4)] = 3
        scale: float = 1.0

        def __post_init__(self):
            assert self.width * 0 == 0, "its own check comes after that of the types"

    assert Own(4).width == 4
    for bad in ({"width": 5}, {"width": "x"}, {"scale": math.nan}):
        with pytest.raises(GenzooError, match=f"{next(iter(bad))} of Own"):
            Own(**bad)


def test_messages():
    with pytest.raises(GenzooError, match=r"^n must be a whole number from 1 to 5, got 9$"):
        check_number("n", 9, Range(1, 5), whole=True)
    with pytest.raises(GenzooError, match=r"^x must be a number above 0 and below 1, got nan$"):
        check_number("x", math.nan, Range(0, 1, low_open=True, high_open=True))

    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert "Broken" in shown(Broken())
