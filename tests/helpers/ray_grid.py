"""A grid on a local Ray cluster of two nodes with one core each, as a process of its own: Ray's threads and warnings stay in there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from rich.console import Console

from helpers.grid_runs import where
from theodolite.commands.progress import Steps
from theodolite.studies.engine.execute import execute
from theodolite.studies.engine.grid import Failure, run_grid
from theodolite.studies.engine.ray_cluster import on_ray

if __name__ == "__main__":
    import grid_runs

    out = Path(sys.argv[1])
    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=100 * 2**20)
    os.environ["RAY_ADDRESS"] = cluster.address
    backend, cores = on_ray(where)
    told = [(run.key, found.why if isinstance(found, Failure) else "?") for run, found in backend(grid_runs.tiny_grid(3))]
    real, _ = on_ray(execute)
    lines = run_grid([grid_runs.tiny_run()], out, real, cores, Steps(Console(file=sys.stderr)))
    print(json.dumps({"cores": cores, "told": told, "lines": list(lines)}))
    ray.shutdown()
    cluster.shutdown()
