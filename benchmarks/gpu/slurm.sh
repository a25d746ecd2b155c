#!/bin/bash
# slurm.sh DIRECTORY up|down: a real Slurm of one node, this machine, with its GPU, in DIRECTORY; as root. Ports from
# SLURM_PORT (17000).
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
getent hosts gpu1 >/dev/null || echo "$address gpu1" >>/etc/hosts
getent hosts "$host" >/dev/null || echo "$address $host" >>/etc/hosts
cpus=$(nproc)
# A virtual machine may show less than it will be given: SLURM_MEMORY says how much (MB).
memory=${SLURM_MEMORY:-$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)}
gpus=0
port=${SLURM_PORT:-17000}
[ ! -e /dev/nvidia0 ] || gpus=1
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
SlurmdSpoolDir=$root/spool
SlurmctldPidFile=$root/run/slurmctld.pid
SlurmdPidFile=$root/run/slurmd.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd.log
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
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=gpu1 NodeHostname=$host NodeAddr=$address Port=$((port + 11)) CPUs=$cpus Sockets=1 CoresPerSocket=$cpus \
ThreadsPerCore=1 RealMemory=$memory Gres=gpu:$gpus State=UNKNOWN
PartitionName=batch Default=YES Nodes=gpu1 DefMemPerCPU=1024 MaxTime=04:00:00 DefaultTime=00:10:00 State=UP
CONF
echo 'CgroupPlugin=cgroup/v1' >"$root/etc/cgroup.conf" # the other one needs libdbus, and neither is used
echo 'AutoDetect=off' >"$root/etc/gres.conf"
[ "$gpus" = 0 ] || echo "NodeName=gpu1 Name=gpu File=/dev/nvidia0 Flags=nvidia_gpu_env" >>"$root/etc/gres.conf"
setsid slurmctld -D </dev/null >>"$root/log/slurmctld.out" 2>&1 &
setsid slurmd -D -N gpu1 </dev/null >>"$root/log/slurmd.out" 2>&1 &
for _ in $(seq 200); do
  [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && exec sinfo -o "%N %t %c %m %G"
  sleep 0.2
done
tail -n 20 "$root"/log/*
exit 1
