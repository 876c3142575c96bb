"""Pictures of the shapes world per second, from a cold start: `python benchmarks/rendering.py [--json]`."""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from theodolite.worlds.shapes.world import Shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    world = Shapes()
    scenes = world.sample(options.pictures, np.random.default_rng(0))
    started = time.perf_counter()
    world.render(scenes, options.size)
    found = {"pictures": options.pictures, "size": options.size, "pictures_per_s": options.pictures / (time.perf_counter() - started)}
    print(json.dumps(found) if options.json else f"{found['pictures_per_s']:,.0f} pictures/s")


if __name__ == "__main__":
    main()
