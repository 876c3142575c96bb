"""Pictures of the shapes world per second, from a cold start: `python benchmarks/rendering.py [--json]`.

The baseline decodes the same pictures from PNG files in memory, as training from a folder of pictures does.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from typing import Any

import numpy as np
from PIL import Image

from theodolite.worlds.shapes.world import Shapes


def measure(num_pictures: int, size: int) -> dict[str, Any]:
    """Pictures a second that are rendered, and the same decoded."""
    world = Shapes()
    scenes = world.sample(num_pictures, np.random.default_rng(0))
    started = time.perf_counter()
    pictures = world.render(scenes, size)
    rendered = time.perf_counter() - started
    files = [encoded(picture) for picture in pictures]
    started = time.perf_counter()
    for file in files:
        np.asarray(Image.open(io.BytesIO(file)))
    decoded = time.perf_counter() - started
    return {
        "pictures": num_pictures,
        "size": size,
        "pictures_per_s": num_pictures / rendered,
        "decoded_per_s": num_pictures / decoded,
        "ratio": decoded / rendered,
    }


def encoded(picture: np.ndarray) -> bytes:
    """The picture as PNG."""
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "PNG")
    return target.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    record = measure(options.pictures, options.size)
    print(
        json.dumps(record)
        if options.json
        else f"{record['pictures_per_s']:,.0f} pictures/s, {record['ratio']:.2f} times those decoded from PNG"
    )


if __name__ == "__main__":
    main()
