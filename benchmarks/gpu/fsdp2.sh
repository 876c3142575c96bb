#!/usr/bin/env bash
# FSDP2 through `accelerate launch` with its questionnaire's defaults, on the GPUs of one machine: trains, is stopped, goes on, and trains
# again on one GPU alone; the losses of the two have to agree. docs/reference/training.md says how far it was run.
#
#     benchmarks/gpu/fsdp2.sh [NUM_GPUS] [RECIPE ...]
#
# Without a recipe it trains tiny-laver, which needs no weights; with one, give its data too: laver-clip --data captions=... .
set -euo pipefail
gpus=${1:-$(nvidia-smi --list-gpus | wc -l)}
shift || true
recipe=${1:-tiny-laver}
shift || true
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cat > "$out/accelerate.yaml" <<YAML
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
mixed_precision: bf16
num_machines: 1
num_processes: $gpus
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: true
  fsdp_offload_params: false
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_activation_checkpointing: false
YAML
run() { accelerate launch --config_file "$out/accelerate.yaml" -m theodolite train "$recipe" --out "$out/sharded" "$@"; }
# Stopped after a while, as by a queue, then resumed from its last checkpoint.
timeout --signal=TERM "${STOP_AFTER_S:-60}" bash -c "$(declare -f run); out=$out recipe=$recipe; run \"\$@\"" run "$@" || true
run "$@"
CUDA_VISIBLE_DEVICES=0 theodolite train "$recipe" --out "$out/alone" "$@"
python - "$out" <<'PYTHON'
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
for log in sorted((out / "alone").glob("*/log.jsonl")):
    pairs = [
        [json.loads(line)["loss"] for line in (out / run / log.parent.name / "log.jsonl").read_text().splitlines()]
        for run in ("alone", "sharded")
    ]
    assert len(pairs[0]) == len(pairs[1]), log
    print(f"{log.parent.name}: {len(pairs[0])} steps, largest difference of a loss {max(abs(a - b) for a, b in zip(*pairs)):.4f}")
PYTHON
