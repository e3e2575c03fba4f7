"""Some 230 calls of the Python API that cannot be: each raises a `GenzooError` of one line and nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import genzoo
from genzoo.core.errors import GenzooError
from genzoo.data import TensorSplit, from_images
from genzoo.evaluation import compare, evaluate, feature_space
from genzoo.metrics import register as register_metric
from genzoo.training.trainer import Budget, RunOptions, Trainer

CLASSES, VECTORS = genzoo.DataSpec((1, 4, 4), 4, "class", 2), genzoo.DataSpec((1, 4, 4), 4, "vector", 3)
PLAIN, NAN, LONG = genzoo.DataSpec((1, 4, 4), 4), math.nan, "x" * 300
X = torch.randint(4, (8, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 2
SMALL = {"channels": (4,), "blocks": 0}


@pytest.fixture(scope="module")
def zoo():
    images = torch.cat([X] * 5)
    return {
        "classes": genzoo.create("vae", CLASSES, "tiny", **SMALL).eval(),
        "vectors": genzoo.create("vae", VECTORS, "tiny", **SMALL).eval(),
        "plain": genzoo.create("vae", PLAIN, "tiny", **SMALL).eval(),
        "flow": genzoo.create("flow", CLASSES, "tiny").eval(),
        "encoder": genzoo.create_encoder("simclr", genzoo.DataSpec((1, 8, 8), 4), "tiny").eval(),
        "data": replace(from_images("noise", images, None), spec=PLAIN),
    }


def fit(data, name="plain", **options):
    return lambda z: z[name].fit(data, **{"steps": 1, "progress": False, **options})


CALLS = {
    **{
        f"create {v!r}": (lambda z, v=v: genzoo.create(v, PLAIN))
        for v in ("vea", "", None, 3, ["vae"], "simclr", "💥", LONG)
    },
    **{f"spec {v!r}": (lambda z, v=v: genzoo.create("vae", v)) for v in (None, (1, 4, 4), "digits", X)},
    **{f"size {v!r}": (lambda z, v=v: genzoo.create("vae", PLAIN, v)) for v in ("huge", None, 3, [])},
    **{
        f"seed {v!r}": (lambda z, v=v: genzoo.create("vae", PLAIN, seed=v))
        for v in (-1, 2**70, "0", None, 1.5, NAN)
    },
    **{
        f"vae {k}={v!r}": (lambda z, k=k, v=v: genzoo.create("vae", PLAIN, "tiny", **{k: v}))
        for k, v in (
            ("latent_dim", 0),
            ("latent_dim", -1),
            ("latent_dim", 10**12),
            ("latent_dim", "x"),
            ("nothing", 1),
            ("channels", ()),
            ("channels", 3),
            ("channels", (0,)),
            ("dropout", NAN),
            ("kl", None),
            ("kl", 1.0),
            ("training", None),
            ("training", {}),
            ("output", "x"),
            ("blocks", 10**9),
            ("blocks", 1.5),
        )
    },
    **{
        f"features {kind}": (lambda z, v=v: genzoo.metrics.frechet_distance(v, v))
        for kind, v in (
            ("meta", torch.zeros(9, 3, device="meta")),
            ("sparse", torch.eye(9).to_sparse()),
            ("complex", torch.zeros(9, 3, dtype=torch.complex64)),
        )
    },
    "arrays as features": lambda z: genzoo.metrics.frechet_distance(np.zeros((9, 3)), np.ones((9, 3))),
    "network": lambda z: genzoo.create("flow", PLAIN, network=torch.nn.Linear(1, 1)),
    "encoder kind": lambda z: genzoo.create_encoder("simclr", PLAIN, kind="nothing"),
    "encoder vectors": lambda z: genzoo.create_encoder("simclr", genzoo.DataSpec((4,), None)),
    **{
        f"spec {a}": (lambda z, a=a: genzoo.DataSpec(*a))
        for a in (
            (None,),
            ((),),
            ((0, 4, 4),),
            ((1, 4, 4), 1),
            ((1, 4, 4), 2.5),
            ((1, 4), 4),
            ("x",),
            ((1, 10**6, 10**6),),
            ((1, 4, 4), 4, "class"),
            ((1, 4, 4), 4, "word", 2),
            ((1, 4, 4), 4, "class", -1),
            (("a", 4, 4),),
        )
    },
    **{
        f"load {v!r}": (lambda z, v=v: genzoo.load(v))
        for v in ("nowhere", "", None, 3, "a\0", LONG, "/dev/null", b"x", "y/" * 3000)
    },
    "load weights": lambda z: genzoo.load("nowhere", weights="best"),
    **{
        f"save {v!r}": (lambda z, v=v: z["plain"].save(v))
        for v in ("", None, 3, "a\0", "a\ud800", LONG, "/dev/null", "/dev/null/x")
    },
    **{
        f"data {v!r}": (lambda z, v=v: genzoo.load_data(v))
        for v in (
            "digitz",
            "",
            None,
            3,
            "folder:",
            "folder:nowhere",
            "folder:a\0",
            "folder:a\ud800",
            "folder:" + LONG,
            "folder:/dev/null",
            LONG,
        )
    },
    **{f"root {v!r}": (lambda z, v=v: genzoo.load_data("mnist", v)) for v in (3, "a\0", LONG)},
    **{
        f"image_size {v!r}": (lambda z, v=v: genzoo.load_data("folder:.", image_size=v))
        for v in (0, -1, 10**9, "x", 1.5, NAN)
    },
    **{
        f"cond {v!r}": (lambda z, v=v: genzoo.load_data("digits", cond=v))
        for v in ("", "word", 3, "folder:a\0")
    },
    **{
        f"fit {k}": fit(v)
        for k, v in (
            ("none", None),
            ("text", "digits"),
            ("list", [1, 2]),
            ("numpy", np.zeros((2, 2))),
            ("floats", X.float()),
            ("meta", X.to("meta")),
            ("sparse", X.long().to_sparse()),
            ("labels meta", (X, torch.zeros(len(X), dtype=torch.long, device="meta"))),
            ("shape", X[:, :, :2]),
            ("empty", X[:0]),
            ("values", X + 9),
            ("three", (X, Y, Y)),
            ("lengths", (X, Y[:3])),
        )
    },
    "fit no labels": fit(X, "classes"),
    "fit labels": fit((X, Y + 7), "classes"),
    "fit labels list": fit((X, "ab"), "classes"),
    "fit vectors": fit((X, torch.zeros(8, 2)), "vectors"),
    "fit nan": fit((X, torch.full((8, 3), NAN)), "vectors"),
    "fit late nan": fit((X, torch.cat([torch.zeros(7, 3), torch.full((1, 3), math.inf)])), "vectors"),
    "fit val": fit(X, val=X[:, :, :1]),
    **{
        f"fit {o}": fit(X, **o)
        for o in (
            {"steps": 0},
            {"steps": -1},
            {"steps": 1.5},
            {"steps": 10**30},
            {"steps": "x"},
            {"minutes": 1},
            {"seed": -1},
            {"seed": 2**70},
            {"seed": "x"},
            {"out": ""},
            {"out": 3},
            {"out": "a\0"},
            {"out": LONG},
        )
    },
    **{f"minutes {v}": fit(X, steps=None, minutes=v) for v in (NAN, math.inf, 0, -1, "x")},
    **{f"epochs {v}": fit(X, steps=None, epochs=v) for v in (NAN, math.inf, 0, -1, [])},
    "no budget": fit(X, steps=None),
    **{
        f"sample {v!r}": (lambda z, v=v: z["plain"].sample(v))
        for v in (-1, 10**12, 1.5, "2", None, NAN, True)
    },
    **{
        f"sample cond {v!r:.40}": (lambda z, v=v: z["classes"].sample(2, v))
        for v in (
            [0],
            [0, 1, 1],
            [0, 2],
            [-1, 0],
            "01",
            torch.zeros(2),
            [[0], [1]],
            [0.5, 1],
            torch.tensor([True, False]),
            {},
            Ellipsis,
            [0, None],
            torch.tensor([0, 1], device="meta"),
            7,
            [10**30, 0],
        )
    },
    "sample unconditional": lambda z: z["plain"].sample(2, [0, 1]),
    **{
        f"vectors {i}": (lambda z, v=v: z["vectors"].sample(2, v))
        for i, v in enumerate(
            (
                None,
                [0, 1],
                torch.zeros(2, 2),
                torch.zeros(3, 3),
                torch.full((2, 3), NAN),
                [[0.0] * 3, [0.0] * 2],
            )
        )
    },
    "generator": lambda z: z["plain"].sample(2, generator=3),
    "numpy generator": lambda z: z["plain"].sample(2, generator=np.random.default_rng(0)),
    **{
        f"log_likelihood {i}": (lambda z, v=v: z["plain"].log_likelihood(v))
        for i, v in enumerate(
            (
                None,
                X.float(),
                X[:, :, :2],
                X[0],
                X + 9,
                X.numpy(),
                "x",
                torch.empty(2, 1, 4, 4, device="meta"),
                X.to(torch.complex64),
                X.to(torch.uint16),
                X.to_sparse(),
            )
        )
    },
    "log_likelihood cond": lambda z: z["flow"].log_likelihood(X[:2], [0, 3]),
    "guidance": lambda z: z["flow"].draw(2, sampling=replace(z["flow"].config.sampling, guidance=NAN)),
    "embed": lambda z: z["encoder"].embed(X),
    "embed floats": lambda z: z["encoder"].embed(torch.zeros(2, 1, 8, 8)),
    "embed none": lambda z: z["encoder"].embed(None),
    **{
        f"evaluate {o}": (lambda z, o=o: evaluate(z["plain"], z["data"], **o))
        for o in (
            {"max_seconds": NAN},
            {"max_seconds": 0},
            {"max_images": 0},
            {"max_images": -1},
            {"max_images": "x"},
            {"samples": 1},
            {"samples": -1},
            {"samples": 10**12},
            {"split": "all"},
            {"split": None},
            {"seed": -1},
            {"features": "nothing"},
            {"features": 3},
            {"out": 3},
            {"out": "a\0"},
            {"out": LONG},
        )
    },
    "evaluate spec": lambda z: evaluate(z["classes"], z["data"]),
    "evaluate model": lambda z: evaluate(None, z["data"]),
    "evaluate data": lambda z: evaluate(z["plain"], X),
    "features": lambda z: feature_space(None),
    **{
        f"compare {i}": (lambda z, v=v: compare(v))
        for i, v in enumerate(([], "x", [3], [("a",)], ["nowhere"], None, [None], 3))
    },
    "compare html": lambda z: compare([("a", z["plain"], z["data"])], html=3, samples=0),
    **{
        f"register {v!r}": (lambda z, v=v: genzoo.register(v, z["plain"].config))
        for v in ("vae", "", None, 3, "a\n", "--x")
    },
    "register config": lambda z: genzoo.register("mine", None),
    "register class": lambda z: genzoo.register("mine", dict),
    **{
        f"register_data {v!r}": (lambda z, v=v: genzoo.register_data(v, len))
        for v in ("digits", "", "a:b", None, 3)
    },
    "register_data function": lambda z: genzoo.register_data("mine", None),
    "register_metric": lambda z: register_metric("", len),
    "register_metric function": lambda z: register_metric("m", None),
    "to_diffusers": lambda z: genzoo.to_diffusers(z["plain"], "x"),
    "to_diffusers path": lambda z: genzoo.to_diffusers(z["flow"], 3),
    "to_diffusers none": lambda z: genzoo.to_diffusers(None, "x"),
    "from_diffusers": lambda z: genzoo.from_diffusers("nowhere"),
    "from_diffusers none": lambda z: genzoo.from_diffusers(None),
    "from_diffusers NUL": lambda z: genzoo.from_diffusers("a\0"),
    **{f"device {v!r}": (lambda z, v=v: RunOptions(device=v)) for v in ("tpu", "cuda:99", "meta", "", 3)},
    "save_every": lambda z: RunOptions(save_every=0),
    "tracker": lambda z: RunOptions(tracker="x"),
    "resume": lambda z: Trainer(z["plain"], Budget(steps=1), options=RunOptions(resume=True)),
    "split": lambda z: TensorSplit(None),
    "split labels": lambda z: TensorSplit(X, [0] * 8),
    "unfit batch": lambda z: replace(z["plain"].config.training, batch_size=0),
}


@pytest.mark.parametrize("name", CALLS, ids=lambda name: name[:50].encode("unicode_escape").decode())
def test_it_is_told_in_one_line(name, zoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GenzooError) as error:
        CALLS[name](zoo)
    assert "\n" not in str(error.value).strip() and 0 < len(str(error.value)) < 1500
    assert not list(tmp_path.rglob("config.json"))


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: y.to(torch.uint8),
        lambda y: y.int(),
        lambda y: y.tolist(),
        lambda y: y.numpy(),
        lambda y: y.numpy().astype(np.uint8),
        lambda y: y.to(torch.int16),
    ],
)
@pytest.mark.parametrize("preset", ["vae", "pixelcnn", "gan", "ddpm", "vqvae", "vq-transformer", "hvae"])
def test_every_family_takes_classes_in_any_form(preset, labels):
    model = genzoo.create(preset, CLASSES, "tiny").eval()
    rng = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    assert torch.equal(
        model.sample(2, labels(Y[:2]), generator=rng()), model.sample(2, Y[:2], generator=rng())
    )
    assert model.sample(2, torch.tensor(1)).shape == model.sample(2, 1).shape == (2, 1, 4, 4)
    if model.likelihood is not genzoo.Likelihood.NONE:
        found = model.log_likelihood(X[:2], labels(Y[:2]), generator=rng()).nats
        assert torch.equal(found, model.log_likelihood(X[:2], Y[:2], generator=rng()).nats)


@pytest.mark.parametrize(
    "labels", [Y.tolist(), Y.numpy(), Y.to(torch.uint8), Y.int(), Y.numpy().astype(np.uint8)]
)
def test_fit_takes_classes_in_any_form(labels):
    trained = [
        genzoo.create("vae", CLASSES, "tiny", **SMALL).fit((X, y), steps=1, progress=False).state_dict()
        for y in (Y, labels)
    ]
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])


@pytest.mark.parametrize("preset", ["vae", "flow", "pixelcnn", "gan"])
def test_vectors_are_taken_in_any_precision(preset):
    model = genzoo.create(preset, VECTORS, "tiny").eval()
    vectors = [[0.0, 0.5, 1.0], [1.0, 0.0, -0.5]]
    rng = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    expected = model.sample(2, torch.tensor(vectors), generator=rng())
    for given in (vectors, np.array(vectors), torch.tensor(vectors).half(), torch.tensor(vectors).double()):
        assert torch.equal(model.sample(2, given, generator=rng()), expected)
