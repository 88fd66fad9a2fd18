#!/bin/bash
# A job that runs an experiment, and lets Slurm run its cells in jobs of their own:
#     sbatch slurm.sh experiments/x.toml [OPTIONS of decoderbench run]
# Change partition, times and environment. Submitted again, it goes on.
#SBATCH --job-name=decoderbench
#SBATCH --time=24:00:00
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:TERM@300
set -euo pipefail

# source ~/venv/bin/activate  # your environment, with decoderbench[slurm]
export DECODERBENCH_CACHE="${DECODERBENCH_CACHE:-$PWD/cache}" # decoded images, on a filesystem that all machines see

exec decoderbench run "$@" \
    --executor slurm \
    --set executor.cluster="${CLUSTER:-slurm}" \
    --set executor.time=2h
