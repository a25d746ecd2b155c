#!/bin/bash
# night.sh PART BUNDLES OUT: the runs of README.md on two GPUs in parts of at most ten minutes each, as root. BUNDLES: a
# directory with a/core.tar.xz (and a/te), b/core.tar.xz (NeMo-RL), c/automodel.tar.xz, as far as they are carried. All parts
# use ROOT (/tmp/gpu), so they belong on one machine; each goes on where one of its runs fails, and leaves one archive of
# results in OUT. SECONDS_LEFT: of the part (560). NO_HAND=1: no saves by hand.
#   saves    environments and Slurm; saves by hand, one way after the other; stages of TRL; an evaluation on one GPU and two
#   nemo     stages of NeMo: saves, FP8 against the recipe by hand; on the other GPU, stages of TRL with bitsandbytes
#   chains   NeMo-RL on Ray, AutoModel over two nodes and on one, NeMo in FP8: each loses a node
# Without a GPU: NODES=2 MODEL=tiny PYTHON=... bash night.sh ...
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
part=$1 bundles=$(readlink -f "$2") out=$(readlink -m "$3")
root=${ROOT:-/tmp/gpu} model=${MODEL:-3b} small=small
[ "$model" != tiny ] || small=tiny
end=$((SECONDS + ${SECONDS_LEFT:-560}))
results=$root/out
mkdir -p "$results" "$out"
export SLURM_CONF=$root/slurm/etc/slurm.conf SLURM_SETS=3 SLURM_MEMORY=${SLURM_MEMORY:-900000} SLURM_NODES=${NODES:-2}
export PYTHONUNBUFFERED=1
python=$root/venvs/core/bin/python nemo=$root/venvs/nemo/bin/python
gpus=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' | wc -l)
liger=()
[ "$gpus" = 0 ] || liger=(--liger)
shape=(--venvs "$root/venvs" --gpus "$gpus" --gpu h200:139G)

say() { echo "[$SECONDS s] $*"; }
# One run: NAME SECONDS COMMAND...; never longer than what is left, and the next one begins whatever comes.
try() {
  local name=$1 limit=$2 left=$((end - SECONDS)) began=$SECONDS
  shift 2
  [ "$left" -gt 20 ] || { say "$name: no time left"; return; }
  [ "$limit" -lt "$left" ] || limit=$left
  timeout "$limit" "$@" >"$results/$name.log" 2>&1
  say "$name: ended with $? after $((SECONDS - began)) s"
}
leave() {
  cp -r "$root/slurm/log" "$results/slurm" 2>/dev/null
  (cd "$results" && tar -cf - . | xz -T0 -1 >"$out/$part.tar.xz")
  for log in "$results"/*.log; do echo "== $log" && tail -n 12 "$log"; done | cut -c 1-300 | tail -n 120
}
trap leave EXIT
add() { # a, b or c: the environments of its archive, if it was carried
  local archive
  for archive in "$bundles/$1"/*.tar.xz; do
    [ -f "$archive" ] || return 0
    bash "$here/setup.sh" "$archive" "$root" >>"$results/setup-$1.log" 2>&1
    say "$archive: ended with $?"
  done
}
inputs() { # NAME WORDS...
  local at=$root/$1
  shift
  [ -e "$at/gpu.yaml" ] || "$python" "$here/inputs.py" "$at" "${shape[@]}" "$@"
}
memory() { # Have a virtual machine given its memory, 144 GB, before something is timed: that takes 3 s for each 8 GB.
  local each
  mkdir -p /dev/shm/night
  for each in 1 2 3 4 5 6 7 8; do head -c 18G /dev/zero >"/dev/shm/night/$each" & done
  wait
  rm -rf /dev/shm/night
}

case $part in
saves)
  add a &
  setup=$!
  [ "$gpus" = 0 ] || mount -o remount,size=220G /dev/shm
  ([ "$gpus" = 0 ] || memory) &
  warm=$!
  for _ in $(seq 300); do [ -e "$SLURM_CONF" ] && sinfo -h -t idle | grep -q batch && break; sleep 1; done
  # The workspace of what is timed lies in memory, as the file system of a cluster would be no slower.
  fast=/dev/shm/big
  [ "$gpus" -gt 0 ] || fast=$root/fast
  mkdir -p "$fast" && ln -sfn "$fast" "$root/big"
  inputs big --nodes 2 --model "$model" "${liger[@]}" --mem 110G --steps 10 >"$results/inputs.log" 2>&1 || tail "$results/inputs.log"
  wait "$setup" "$warm"
  request=(--partition=batch --nodes=2 --ntasks-per-node=1)
  [ "$gpus" = 0 ] || request+=(--gpus-per-node=1 --mem=110G --cpus-per-task=4)
  mkdir -p /tmp/night "$fast/saves"
  [ -n "${NO_HAND:-}" ] || try by-hand 200 srun "${request[@]}" "$python" "$here/saves.py" "$results/saves.jsonl" "$fast/saves" /tmp/night \
    --model "$model"
  try trl-saves 330 "$python" "$here/two.py" speed "$root/big" "$results/trl" --model "$model" --mem 110G --steps 6 \
    --alone --seconds $((end - SECONDS - 15)) --pairs "${PAIRS:-fsdp:2:32:4:saves:beside,fsdp:2:32:4:saves}"
  # Behind what is timed of training, since it runs on the same two GPUs.
  try evaluate 240 "$python" "$here/evaluate.py" "$root/big" "$results/evaluate" --limit "${LIMIT:-400}" \
    --seconds $((end - SECONDS - 15))
  ;;
nemo)
  try nemo-saves 400 "$python" "$here/two.py" speed "$root/big" "$results/nemo" --model "$model" --mem 110G --steps 6 \
    --alone --seconds $((end - SECONDS - 15)) --pairs "${PAIRS:-long:2:32:2:saves:beside,long:2:32:2:saves}"
  # Of these the memory is asked, not the time.
  try bits 280 "$python" "$here/run.py" large "$root/big" "$results/bits" --model "$model" --pairs 0 \
    --shapes qlora,adamw8 --seconds $((end - SECONDS - 15)) &
  bits=$!
  try nemo-fp8 300 "$python" "$here/two.py" speed "$root/big" "$results/fp8" --model "$model" --mem 110G --steps 10 \
    --nemo "$nemo" --seconds $((end - SECONDS - 15)) --pairs "${FP8:-fp8:1:16:2,fp8-tensorwise:1:16:2}"
  wait "$bits"
  ;;
chains)
  add b
  add c
  for each in 1 2 3; do
    inputs "set$each" --nodes 2 --model "$small" --partition "set$each" --mem 40G >"$results/inputs-$each.log" 2>&1 &
  done
  inputs one --nodes 1 --model "$small" --partition set3 --mem 40G >"$results/inputs-one.log" 2>&1 &
  wait
  ((left = end - SECONDS - 15))
  lost() { echo "gpu$((2 * $1))"; }
  (try ray "$left" "$python" "$here/two.py" ray "$root/set1" "$results/ray" --seconds "$left" --lost "$(lost 1)") &
  (try auto "$left" "$python" "$here/two.py" auto "$root/set2" "$results/auto" --seconds "$left" --lost "$(lost 2)") &
  (
    try eight "$left" "$python" "$here/two.py" eight "$root/set3" "$results/eight" --seconds "$left" --lost "$(lost 3)"
    ((left = end - SECONDS - 15))
    try auto-one "$left" "$python" "$here/two.py" auto "$root/one" "$results/auto-one" --seconds "$left" --lost gpu5
  ) &
  wait
  ;;
*) echo "no such part: $part" && exit 2 ;;
esac
