"""What several test files share. Nothing here needs a network, and everything is seeded."""

from __future__ import annotations

import os

# Before torch and numpy start their threads: two cores, and no look-ups of model hubs.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
