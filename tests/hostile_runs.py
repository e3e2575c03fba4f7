"""Run folders that nobody should trust: a sound one with something in it replaced.

Each mutation is a name and a function of a folder, which holds a copy of a sound run and is changed in place. The same
ones are for `load`, a resume, and every command.
"""

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_pictures
import torch
from safetensors.torch import load_file, save_file

Mutation = tuple[str, Callable[[Path], None]]

FILES = ("config.json", "model.safetensors", "state/state.pt", "metrics.jsonl", "report.json")
DEEP = 100_000
HUGE = "9" * 5000
"""A whole number that Python would not even parse."""


class Raw:
    """Text that stands in JSON as it is."""

    def __init__(self, text):
        self.text = text


WRONG = {
    "null": None,
    "true": True,
    "minus": -1,
    "zero": 0,
    "half": 0.5,
    "large": 10**9,
    "larger": 10**30,
    "digits": Raw(HUGE),
    "beyond": Raw("1e999"),
    "nan": Raw("NaN"),
    "infinity": Raw("-Infinity"),
    "text": "x",
    "empty-text": "",
    "nul": "a\0b",
    "surrogate": Raw('"\\ud800"'),
    "long-text": "x" * 100_000,
    "list": [],
    "long-list": [1] * 100_000,
    "dict": {},
    "typed": {"type": "TrainConfig"},
    "foreign": {"type": "Popen", "args": "true"},
    "type-list": {"type": []},
    "deep": Raw("[" * 500 + "]" * 500),
}
"""What no field takes, or few."""

FEW = ("null", "minus", "large", "nan", "text", "list", "foreign")


def dumped(content):
    """JSON with every `Raw` as it is."""
    raws = []

    def plain(value):
        if isinstance(value, Raw):
            raws.append(value.text)
            return f"@raw{len(raws) - 1}@"
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list) else value

    text = json.dumps(plain(content))
    for number, raw in enumerate(raws):
        text = text.replace(f'"@raw{number}@"', raw)
    return text


def places(content, here=()):
    """The paths of all values in JSON, the outermost left out."""
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in items:
        yield (*here, key)
        yield from places(value, (*here, key))


def replaced(content, place, value):
    changed = copy.deepcopy(content)
    at = changed
    for key in place[:-1]:
        at = at[key]
    if value is ...:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    return changed


def json_mutations(run, name, wrong) -> Iterator[Mutation]:
    """Each value of a JSON file replaced by each of `wrong`, and left out."""
    content = json.loads((run / name).read_text())
    for place in places(content):
        for label, value in {**{w: WRONG[w] for w in wrong}, "absent": ...}.items():
            text = dumped(replaced(content, place, value))
            yield f"{name}/{'.'.join(map(str, place))}={label}", _writes(name, text.encode())


def _writes(name, data):
    return lambda folder: _put(folder / name, data)


def _put(path, data):
    if path.is_dir() and not path.is_symlink():
        raise ValueError(path)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def file_mutations(run) -> Iterator[Mutation]:
    """Each file as something else."""
    for name in FILES:
        sound = (run / name).read_bytes()
        contents = {
            "empty": b"",
            "half": sound[: len(sound) // 2],
            "less-one": sound[:-1],
            "garbage": bytes(range(256)) * 40,
            "zeros": bytes(10_000),
            "lines": b"\n" * 10_000,
            "gzip": b"\x1f\x8b\x08\0" + bytes(100),
            "shell": b"#!/bin/sh\ntouch /tmp/hostile\n",
            **{
                label: text.encode()
                for label, text in {
                    "null": "null",
                    "list": "[]",
                    "number": "3",
                    "nan": "NaN",
                    "object": "{}",
                    "deep-lists": "[" * DEEP,
                    "deep-lists-closed": "[" * DEEP + "]" * DEEP,
                    "deep-objects": '{"a":' * DEEP + "1" + "}" * DEEP,
                    "digits": HUGE,
                }.items()
            },
        }
        if name.endswith((".json", ".jsonl")):
            text = sound.decode()
            contents["bom"] = b"\xef\xbb\xbf" + sound
            contents["utf-16"] = text.encode("utf-16")
            contents["latin-1"] = text.replace("digits", "digits\xe9").encode("latin-1")
            contents["nul"] = sound + b"\0"
            contents["comma"] = text.rstrip().removesuffix("}").encode() + b",}"
        for label, data in contents.items():
            yield f"{name}:{label}", _writes(name, data)
        for label in hostile_pictures.NO_FILES:
            yield f"{name}:{label}", _becomes(name, label)
        yield f"{name}:absent", lambda folder, name=name: (folder / name).unlink()
        yield f"{name}:sparse", lambda folder, name=name: os.truncate(folder / name, 2**40)


def _becomes(name, label):
    def change(folder):
        path = folder / name
        zoo = folder / "zoo"
        zoo.mkdir()
        hostile_pictures.not_files(zoo)
        path.unlink()
        if label == "to-itself":
            path.symlink_to(path)
        else:
            (zoo / label).rename(path)

    return change


# --- duplicate keys, other forms -------------------------------------------------------------------------------


def config_mutations() -> Iterator[Mutation]:
    """What no replaced field makes of config.json."""

    def text(change):
        def apply(folder):
            path = folder / "config.json"
            path.write_text(change(path.read_text()))

        return apply

    yield "config.json:duplicate", text(lambda t: t.replace('"seed"', '"seed": 1, "seed"'))
    yield "config.json:unknown-field", text(lambda t: t.replace('"group"', '"grouping": 1, "group"'))
    yield "config.json:other-family", text(lambda t: t.replace('"PixelCNNConfig"', '"GANConfig"'))
    yield "config.json:many-parts", text(lambda t: t.replace("[\n      4,", "[" + "4," * 50_000, 1))
    for count in (10**6, 10**9):
        many = f'"shape": [1, {count}, {count}]'
        yield f"config.json:shape-{count}", text(lambda t, many=many: _with_shape(t, many))
    yield "config.json:shape-of-many", text(lambda t: _with_shape(t, '"shape": [' + "1," * 5000 + "1]"))
    nested = '{"type": "Lazily", "every": 2, "penalty": ' * 200 + '{"type": "R1"}' + "}" * 200
    yield "config.json:nested-types", text(lambda t: t.replace('"dropout": 0.5', f'"dropout": {nested}'))
    for where in ("root", "name"):
        for word in ("folder:/dev", "folder:/proc/self", "../../etc/passwd", "encoder:" + "x" * 5000, "toy:"):

            def change(t, where=where, word=word):
                content = json.loads(t)
                content["data"]["arguments"][where] = word
                return json.dumps(content)

            yield f"config.json:data-{where}={word[:20]}", text(change)


def _with_shape(text, shape):
    start = text.index('"shape"')
    return text[:start] + shape + text[text.index("]", start) + 1 :]


# --- weights and states ----------------------------------------------------------------------------------------


def odd_tensors(tensor):
    """What may stand for a tensor."""
    yield "shape", torch.zeros(3, 5, 7)
    yield "scalar", torch.tensor(1.0)
    yield "none", tensor[:0].clone() if tensor.ndim else torch.zeros(0)
    yield "transposed", tensor.flatten()[None].clone()
    yield "double", tensor.double()
    yield "half", tensor.half()
    yield "bool", tensor.bool()
    yield "long", tensor.long()
    yield "complex", tensor.to(torch.complex64)
    yield "nan", torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor
    yield "infinite", torch.full_like(tensor, float("inf")) if tensor.is_floating_point() else tensor
    yield "float8", tensor.float().to(torch.float8_e4m3fn)


def weight_mutations(run) -> Iterator[Mutation]:
    """Tensors of model.safetensors."""
    name = "model.safetensors"
    tensors = load_file(run / name)
    keys = [key for key in tensors if tensors[key].is_floating_point()]
    for key in (keys[0], keys[-1]):
        for label, odd in odd_tensors(tensors[key]):
            yield f"{name}/{key}={label}", _saves(tensors, {key: odd})
        yield f"{name}/{key}=absent", _saves(tensors, {key: None})
    yield f"{name}/extra", _saves(tensors, {"ema.extra": torch.zeros(2), "x": torch.zeros(1)})
    yield f"{name}/only-raw", _saves({k: v for k, v in tensors.items() if k.startswith("raw.")}, {})
    yield f"{name}/nothing", _saves({"x": torch.zeros(1)}, {})
    yield (
        f"{name}/all-nan",
        _saves({k: v * float("nan") if v.is_floating_point() else v for k, v in tensors.items()}, {}),
    )
    for label, size, header in (
        ("header-of-all", 2**63 - 1, b"{}"),
        ("header-of-much", 2**31, b"{}"),
        ("header-of-nothing", 0, b""),
        ("header-of-garbage", 4, b"\xff\xfe{}"),
        ("header-deep", DEEP * 2, b"[" * DEEP + b"]" * DEEP),
        ("offsets", 0, b'{"ema.x":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,8]}}'),
        ("offsets-beyond", 0, b'{"ema.x":{"dtype":"F32","shape":[2],"data_offsets":[0,8000000000]}}'),
        ("dtype", 0, b'{"ema.x":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}'),
        ("negative", 0, b'{"ema.x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}'),
    ):
        data = (size or len(header)).to_bytes(8, "little") + header + bytes(8)
        yield f"{name}:{label}", _writes(name, data)


def _saves(tensors, changes):
    merged = {k: v for k, v in {**tensors, **changes}.items() if v is not None}
    return lambda folder: save_file(merged, folder / "model.safetensors")


class _Runs:
    """What a pickle would run."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def state_mutations(run) -> Iterator[Mutation]:
    """Everything in the training state."""
    state = torch.load(run / "state/state.pt", weights_only=True)
    values = [
        None,
        True,
        -1,
        10**30,
        float("nan"),
        "x",
        [],
        {},
        torch.zeros(3),
        torch.zeros(2, dtype=torch.bool),
    ]
    values += [[[[]]], {"a": {"b": {}}}, b"x", (1, 2), {1: 2}]
    turn = next(iter(state["optimizers"]))
    tops = [(key,) for key in state]
    inner = [("done", "steps"), ("best", "loss"), ("best", "step"), ("best", "weights"), ("optimizers", turn)]
    optimizer = [("optimizers", turn, key) for key in state["optimizers"][turn]]
    groups = [(*optimizer[-1], 0, key) for key in state["optimizers"][turn]["param_groups"][0]]
    first = next(iter(state["optimizers"][turn]["state"]))
    moments = [("optimizers", turn, "state", first)]
    moments += [(*moments[0], key) for key in state["optimizers"][turn]["state"][first]]
    for place in [*tops, *inner, *optimizer, *groups, *moments]:
        for number, value in enumerate(values):
            yield f"state/{'.'.join(map(str, place))}={number}", _dumps(replaced_state(state, place, value))
        yield f"state/{'.'.join(map(str, place))}=absent", _dumps(replaced_state(state, place, ...))
    weights = next(k for k, v in state["model"].items() if v.is_floating_point())
    for place in [("model", weights), ("average", weights), ("best", "weights", weights), *moments[1:]]:
        tensor = state
        for key in place:
            tensor = tensor[key]
        for label, odd in odd_tensors(tensor):
            yield f"state/{'.'.join(map(str, place))}={label}", _dumps(replaced_state(state, place, odd))
    places_of_one = torch.zeros(2, 1, dtype=torch.long)
    sparse = torch.sparse_coo_tensor(places_of_one, torch.ones(1), (10**6, 10**6), check_invariants=True)
    expanded = torch.zeros(1).expand(10**6, 10**6)
    for label, odd in {"sparse": sparse, "expanded": expanded, "meta": torch.zeros(3, device="meta")}.items():
        for place in (("model", weights), ("best", "weights", weights), moments[-1]):
            yield f"state/{'.'.join(map(str, place))}={label}", _dumps(replaced_state(state, place, odd))
    yield "state=runs", lambda folder: torch.save(_Runs(folder / "ran"), folder / "state/state.pt")
    yield (
        "state=legacy",
        lambda folder: torch.save(state, folder / "state/state.pt", _use_new_zipfile_serialization=False),
    )
    yield "state=module", lambda folder: torch.save(torch.nn.Linear(2, 2), folder / "state/state.pt")


def replaced_state(state, place, value):
    """A copy that shares tensors."""
    if not place:
        return value
    key, *rest = place
    at = list(state) if isinstance(state, (list, tuple)) else dict(state)
    if not rest and value is ...:
        del at[key]
    else:
        at[key] = replaced_state(at[key], rest, value)
    return at


def _dumps(state):
    return lambda folder: torch.save(state, folder / "state/state.pt")


# --- rows of metrics -------------------------------------------------------------------------------------------


def metrics_mutations(run) -> Iterator[Mutation]:
    """Fields of rows of metrics.jsonl."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for number in (0, len(rows) - 1):
        for place in places(rows[number]):
            for label, value in WRONG.items():
                if label == "long-list":
                    continue
                lines = [
                    dumped(replaced(row, place, value) if i == number else row) for i, row in enumerate(rows)
                ]
                name = f"metrics.jsonl/{number}.{'.'.join(map(str, place))}={label}"
                yield name, _writes("metrics.jsonl", "\n".join(lines).encode())
    deep = "\n".join([json.dumps(rows[0]), "[" * DEEP, '{"step": ' + "[" * DEEP, json.dumps(rows[-1])])
    yield "metrics.jsonl:deep-rows", _writes("metrics.jsonl", deep.encode())
    yield "metrics.jsonl:one-row", _writes("metrics.jsonl", b'{"step": 1, "x": "' + b"x" * 2**20)
    yield "metrics.jsonl:not-text", _writes("metrics.jsonl", b"\xff\xfe\n" + json.dumps(rows[0]).encode())


def mutations(run) -> Iterator[Mutation]:
    """All of them: some thousands."""
    yield from file_mutations(run)
    yield from config_mutations()
    yield from json_mutations(run, "config.json", WRONG)
    yield from weight_mutations(run)
    yield from state_mutations(run)
    yield from metrics_mutations(run)
    yield from json_mutations(run, "report.json", FEW)
