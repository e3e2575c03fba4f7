"""The classical mark on digits: scikit-learn's best Gaussian mixture. `python -m benchmarks.digits_baseline`.

The mixture is fitted to uniformly dequantised training digits; its covariance type, number of components and
regularisation are chosen on validation digits and the chosen one is scored once on the test digits. Uniform
dequantisation makes its figure an upper bound on the bits of the discrete digits (Theis et al. 2016):
-log P(x) <= -E_u log p(x + u). With `--minutes` a preset is trained beside it and scored exactly.
"""

import argparse
import math
import warnings
from itertools import product

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import genzoo

COVARIANCES = ("diag", "tied", "full")
COMPONENTS = (1, 2, 5, 10, 20, 40, 80, 160)
REGULARISATION = (1e-3, 1e-2, 1e-1)
DRAWS = 10


def dequantised(images: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """`draws` copies of `images` `[n, 64]` with uniform noise on [0, 1): `[draws * n, 64]`."""
    rng = np.random.default_rng(seed)
    return np.concatenate([images + rng.random(images.shape) for _ in range(draws)])


def bits(mixture: GaussianMixture, images: np.ndarray, seed: int) -> float:
    """Upper bound on bits/dim; bins have width one, so the density needs no further constant."""
    return -mixture.score(dequantised(images, DRAWS, seed)) / (images.shape[1] * math.log(2))


def best_mixture(train: np.ndarray, val: np.ndarray) -> tuple[float, GaussianMixture]:
    """The mixture with the fewest bits on `val`, and those bits."""
    candidates = []
    for covariance, k, regularisation in product(COVARIANCES, COMPONENTS, REGULARISATION):
        if covariance == "full" and k > 20:
            continue  # more parameters than numbers in the training set
        mixture = GaussianMixture(k, covariance_type=covariance, reg_covar=regularisation, random_state=0)
        mixture.fit(dequantised(train, 3, seed=1))
        candidates.append((bits(mixture, val, seed=2), len(candidates), mixture))
    score, _, mixture = min(candidates, key=lambda c: c[:2])
    return score, mixture


def main() -> None:
    """Prints the baseline and, with `--minutes`, a preset's exact figure on the same test digits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=None, help="also train a preset so long")
    parser.add_argument("--preset", default="pixelcnn")
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations are plenty at three decimals
    data = genzoo.load_data("digits")
    train, val, test = (s.images.flatten(1).numpy().astype(float) for s in (data.train, data.val, data.test))
    score, mixture = best_mixture(train, val)
    print(
        f"GaussianMixture({mixture.n_components}, {mixture.covariance_type}, reg {mixture.reg_covar:g}), "
        f"chosen on validation at {score:.3f} bits/dim"
    )
    print(f"  {data.protocol['test_id']}: <= {bits(mixture, test, seed=3):.3f} bits/dim")
    if args.minutes is not None:
        model = genzoo.create(args.preset, data.spec)
        model.fit(data.train, val=data.val, minutes=args.minutes)
        ll = model.log_likelihood(data.test.images)
        each = ll.bits_per_dim
        print(f"{args.preset} after {args.minutes:g} minutes")
        stderr = each.std() / len(each) ** 0.5
        print(f"  {data.protocol['test_id']}: {ll.kind.symbol} {each.mean():.3f} +- {stderr:.3f} bits/dim")


if __name__ == "__main__":
    main()
