"""Is training as fast as in another checkout? `python -m benchmarks.speed_ratio CHECKOUT [--presets ...] [--rounds 3]`.

Trains each preset for some steps here and there in turn, so that whatever else the machine does meets both alike, and
compares the images per second that the runs themselves log. What is printed is the median of each, their ratio, and the
ratios of the single rounds, whose spread is the noise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PRESETS = ("pixelcnn", "vae", "flow", "simclr")
HERE = Path(__file__).parents[1]


TRAIN = """
import sys, genzoo
preset, data, steps, out = sys.argv[1:]
data = genzoo.load_data(data)
make = genzoo.create_encoder if preset in genzoo.list_encoders() else genzoo.create
make(preset, data.spec).fit(data.train, steps=int(steps), out=out, progress=False)
"""


def images_per_second(checkout: Path, preset: str, data: str, steps: int) -> float:
    """The median over the logged stretches of a run of `steps` steps by the code in `checkout`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-c", TRAIN, preset, data, str(steps), str(out)]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{preset} in {checkout}: {done.stderr.strip()}")
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["images_per_second"] for row in rows if "images_per_second" in row]
    return statistics.median(speeds[len(speeds) // 4 :])  # the first steps fill caches


def main() -> None:
    """Prints a row per preset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print("| preset | here, images/s | there | ratio | rounds |\n|---|---|---|---|---|")
    for preset in args.presets:
        pairs = []
        for _ in range(args.rounds):
            pairs.append(
                [
                    images_per_second(tree, preset, args.data, args.steps)
                    for tree in (HERE, args.checkout.resolve())
                ]
            )
        here, there = (statistics.median(column) for column in zip(*pairs, strict=True))
        rounds = ", ".join(f"{a / b:.2f}" for a, b in pairs)
        print(f"| `{preset}` | {here:.0f} | {there:.0f} | {here / there:.2f} | {rounds} |", flush=True)


if __name__ == "__main__":
    main()
