#!/usr/bin/env bash
# The GPU benchmarks in one run of under eight minutes; prints a table for RESULTS.md. Run it from the top of the repository,
# in an environment whose torch sees the GPU. Nothing is downloaded and no setting of the GPU is changed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
timeout 480 "${PYTHON:-python3}" -m benchmarks.gpu --compile "$@"
