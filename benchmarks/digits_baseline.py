"""The classical mark on digits: scikit-learn's best Gaussian mixture. `python -m benchmarks.digits_baseline`.

The mixture is fitted to uniformly dequantised training digits; its covariance type, number of components and
regularisation are chosen on validation digits and the chosen one is scored once on the test digits. Uniform
dequantisation makes its figure an upper bound on the bits of the discrete digits (Theis et al. 2016):
-log P(x) <= -E_u log p(x + u). With `--minutes` a preset is trained beside it and scored exactly.
"""

import argparse

import genzoo
from genzoo.evaluation.baselines import best_mixture, bits_per_dim_of

COVARIANCES = ("diag", "tied", "full")
COMPONENTS = (1, 2, 5, 10, 20, 40, 80, 160)
REGULARISATION = (1e-3, 1e-2, 1e-1)


def main() -> None:
    """Prints the baseline and, with `--minutes`, a preset's exact figure on the same test digits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=None, help="also train a preset so long")
    parser.add_argument("--preset", default="pixelcnn")
    args = parser.parse_args()
    data = genzoo.load_data("digits")
    train, val, test = (s.images.flatten(1).numpy().astype(float) for s in (data.train, data.val, data.test))
    score, mixture = best_mixture(
        train, val, covariances=COVARIANCES, components=COMPONENTS, regularisation=REGULARISATION
    )
    print(
        f"GaussianMixture({mixture.n_components}, {mixture.covariance_type}, reg {mixture.reg_covar:g}), "
        f"chosen on validation at {score:.3f} bits/dim"
    )
    print(f"  {data.protocol['test_id']}: <= {bits_per_dim_of(mixture, test, seed=3):.3f} bits/dim")
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
