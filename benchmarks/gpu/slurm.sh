#!/bin/bash
# slurm.sh DIRECTORY up|down: a real Slurm in DIRECTORY; as root. Each GPU of this machine is one node, gpu1, gpu2 and so
# on (SLURM_NODES: as many nodes, where there is no GPU). With SLURM_SETS=3 so many nodes share a GPU, for chains of small
# models side by side: partition set1 has the first node of each GPU, set2 the second. Ports from SLURM_PORT (17000).
#   export SLURM_CONF=DIRECTORY/etc/slurm.conf
# Needs slurmctld and slurmd; where only the unpacked packages are (SLURM_PACKAGES), setup.sh puts them in place.
set -euo pipefail
root=$(readlink -m "$1")
host=$(hostname -s)
export SLURM_CONF=$root/etc/slurm.conf
if [ "$2" = down ]; then
  scontrol shutdown || true
  exit 0
fi
mkdir -p "$root"/{etc,log,run,state,spool}
# The node must be found by its name: torchrun and Ray meet there.
address=$(hostname -I | awk '{print $1}')
address=${address:-127.0.0.1}
getent hosts "$host" >/dev/null || echo "$address $host" >>/etc/hosts
gpus=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' | wc -l)
size=$((gpus > 0 ? gpus : ${SLURM_NODES:-1}))
count=$((size * ${SLURM_SETS:-1}))
mapfile -t nodes < <(seq -f 'gpu%g' "$count")
for node in "${nodes[@]}"; do
  getent hosts "$node" >/dev/null || echo "$address $node" >>/etc/hosts
done
cpus=$(($(nproc) / count))
[ "$cpus" -gt 0 ] || cpus=1
# A virtual machine may show less than it will be given: SLURM_MEMORY says how much (MB).
memory=$((${SLURM_MEMORY:-$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)} / count))
port=${SLURM_PORT:-17000}
cat >"$SLURM_CONF" <<CONF
ClusterName=gpu
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
# A requeued job may start cred_expire + 1 s later.
AuthInfo=cred_expire=5
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool/%n
SlurmctldPidFile=$root/run/slurmctld.pid
SlurmdPidFile=$root/run/slurmd.%n.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd.%n.log
SlurmdParameters=config_overrides
PluginDir=/usr/lib/x86_64-linux-gnu/slurm-wlm
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
JobRequeue=1
KillWait=10
MinJobAge=36000
ReturnToService=2
InactiveLimit=0
SlurmdTimeout=10
TaskProlog=$root/etc/prolog.sh
AccountingStorageType=accounting_storage/none
GresTypes=gpu
$(for index in "${!nodes[@]}"; do
  echo "NodeName=${nodes[index]} NodeHostname=$host NodeAddr=$address Port=$((port + 11 + index)) CPUs=$cpus Sockets=1" \
    "CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$memory Gres=gpu:$((gpus > 0)) State=UNKNOWN"
done)
CONF
for ((first = 0; first < count; first += size)); do
  members=$(IFS=, && echo "${nodes[*]:first:size}")
  echo "PartitionName=set$((first / size + 1)) Nodes=$members DefMemPerCPU=1024 MaxTime=04:00:00 DefaultTime=00:10:00 State=UP"
done >>"$SLURM_CONF"
echo "PartitionName=batch Default=YES Nodes=$(IFS=, && echo "${nodes[*]:0:size}") DefMemPerCPU=1024 MaxTime=04:00:00" \
  "DefaultTime=00:10:00 State=UP" >>"$SLURM_CONF"
echo 'CgroupPlugin=cgroup/v1' >"$root/etc/cgroup.conf" # the other one needs libdbus, and neither is used
echo 'AutoDetect=off' >"$root/etc/gres.conf"
# Slurm counts the GPUs of a node from 0, and these nodes are one machine: a task is told which one is its own.
echo '#!/bin/bash' >"$root/etc/prolog.sh"
for index in "${!nodes[@]}"; do
  mkdir -p "$root/spool/${nodes[index]}"
  [ "$gpus" -gt 0 ] || continue
  own=$((index % gpus))
  echo "NodeName=${nodes[index]} Name=gpu File=/dev/nvidia$own Flags=nvidia_gpu_env" >>"$root/etc/gres.conf"
  # shellcheck disable=SC2016  # the task expands it
  printf '[ "$SLURMD_NODENAME.$CUDA_VISIBLE_DEVICES" != %s.0 ] || echo export CUDA_VISIBLE_DEVICES=%d\n' \
    "${nodes[index]}" "$own" >>"$root/etc/prolog.sh"
done
chmod +x "$root/etc/prolog.sh"
setsid slurmctld -D </dev/null >>"$root/log/slurmctld.out" 2>&1 &
for node in "${nodes[@]}"; do setsid slurmd -D -N "$node" </dev/null >>"$root/log/slurmd.out" 2>&1 & done
for _ in $(seq 200); do
  [ "$(sinfo -h -N -o '%N %t' 2>/dev/null | sort -u | grep -c ' idle$')" = "$count" ] && exec sinfo -o "%P %N %t %c %m %G"
  sleep 0.2
done
tail -n 20 "$root"/log/*
exit 1
