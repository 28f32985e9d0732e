#!/usr/bin/env bash
# The benchmark of a device, at most 8 minutes; on a CPU at reduced size.
#     experiments/benchmarks/device.sh [--commit-results]
set -euo pipefail
cd "$(dirname "$0")/../.."
export XLA_PYTHON_CLIENT_PREALLOCATE=false  # PyTorch shares the device
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=2"  # fewer trials: compiles faster
python=${PYTHON:-python}
platform=$("$python" -c 'import jax; print(jax.default_backend())')
echo "JAX runs on: $platform"
if [ "$platform" = cpu ]; then set -- --quick "$@"; fi
exec "$python" -m experiments.benchmarks.device "$@"
