#!/bin/bash
# Run a study on the nodes of a Slurm allocation. From a checkout that all nodes mount: sbatch scripts/slurm.sh [STUDY]
# See docs/how-to/slurm.md. Options of sbatch on its command line come before those here.
#SBATCH --job-name=dmlcore
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --open-mode=append
# Ten minutes before the end this shell, and no trial, gets USR1: no further trial starts.
#SBATCH --signal=B:USR1@600
set -euo pipefail

answers() { (: < "/dev/tcp/${RAY_ADDRESS%:*}/${RAY_ADDRESS##*:}") 2> /dev/null; }

# One task a node runs this part: the head on the first node, the others join it. All ports but the head's are random,
# since another job may share the node.
if [[ "${1:-}" == node ]]; then
    options=(--block --disable-usage-stats --min-worker-port 0 --max-worker-port 0
        --num-cpus "${SLURM_CPUS_PER_TASK:-1}" --num-gpus "${SLURM_GPUS_ON_NODE:-0}")
    if [[ "$SLURM_NODEID" == 0 ]]; then
        options+=(--head --port "${RAY_ADDRESS##*:}" --temp-dir "$DMLCORE_RAY_FOLDER/r" --include-dashboard false)
    else
        mkdir -p -m 700 "$DMLCORE_RAY_FOLDER"
        options+=(--address "$RAY_ADDRESS")
        until answers; do sleep 1; done
    fi
    ray start "${options[@]}" &
    ray=$!
    trap 'kill "$ray" 2> /dev/null' TERM
    until wait "$ray"; ! kill -0 "$ray" 2> /dev/null; do :; done
    rm -rf "$DMLCORE_RAY_FOLDER"
    exit
fi

study="${1:-.}"
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export RAY_ADDRESS="${hosts[0]}:$((20000 + SLURM_JOB_ID % 20000))"
# Whoever has the token runs code as you: it is in the environment of this job's processes alone.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN DMLCORE_RAY_FOLDER
RAY_AUTH_TOKEN="$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
DMLCORE_RAY_FOLDER="$(mktemp -d /tmp/dmlcore-XXXXXX)"

# Not "$0": Slurm runs a copy of this file, which the first node alone has.
srun --nodes "$SLURM_JOB_NUM_NODES" --ntasks "$SLURM_JOB_NUM_NODES" --ntasks-per-node 1 bash scripts/slurm.sh node &
nodes=$!
trap 'kill "$nodes" 2> /dev/null || true; wait "$nodes" || true' EXIT
trap 'dmlcore drain --study "$study" || true' USR1
until answers; do
    kill -0 "$nodes" 2> /dev/null && ((SECONDS < 600)) || { echo "slurm: Ray did not start, see above" >&2; exit 1; }
    sleep 1
done

dvc repro --ignore-errors "$study/dvc.yaml" &
run=$!
# A signal interrupts `wait`, and not what it waits for.
until wait "$run"; code=$?; ! kill -0 "$run" 2> /dev/null; do :; done
# Not by `code`: it is 0 where a stage failed, so that the others run.
if ! dmlcore check --study "$study"; then
    echo "slurm: to go on where it ended: sbatch scripts/slurm.sh $study"
    exit 1
fi
exit "$code"
