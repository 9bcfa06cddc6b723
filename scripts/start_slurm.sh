#!/bin/bash
# Start a local SLURM to try job files without a cluster: two simulated nodes with 64 cores, 256 GB and 8 GPUs each.
# Needs munged, slurmctld and slurmd (Debian: apt-get install slurm-wlm munge).
#
#   eval "$(scripts/start_slurm.sh)"    start it, or use the running one; then sbatch, squeue, ... work in this shell
#   scripts/start_slurm.sh stop         stop it and remove its folder
#
# All files are in $CSGCNN_SLURM, by default csgcnn_slurm_<user> in the folder for temporary files.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

folder=${CSGCNN_SLURM:-${TMPDIR:-/tmp}/csgcnn_slurm_$(id -un)}
nodes=(simulated1 simulated2)
export SLURM_CONF=$folder/slurm.conf

fail() {
    echo "start_slurm.sh: $*" >&2
    exit 1
}

is_running() {
    [[ -e $SLURM_CONF ]] && [[ $(timeout 10 sinfo --noheader --states=idle,mixed,allocated --format=%D 2>&1) == "${#nodes[@]}" ]]
}

# Print the first free port of the ten from $1.
free_port() {
    for port in $(seq "$1" $(($1 + 9))); do
        (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port" && return; }
    done
    fail "no free port near $1"
}

configure() {
    local user controller first
    user=$(id -un) controller=$(free_port 16800) first=$(free_port 16810)
    cat >"$SLURM_CONF" <<EOF
ClusterName=simulated
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
SlurmctldPort=$controller
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5 # also the delay of a requeued job, two minutes by default
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc # containers rarely provide cgroups
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides # accept the nodes below regardless of the hardware
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=3600
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
EOF
    for i in "${!nodes[@]}"; do
        echo "NodeName=${nodes[i]} NodeAddr=127.0.0.1 NodeHostname=$(hostname -s) Port=$((first + i))" \
            "CPUs=64 RealMemory=256000 Gres=gpu:8" >>"$SLURM_CONF"
    done
    echo "PartitionName=all Nodes=ALL Default=YES MaxTime=1-0 State=UP" >>"$SLURM_CONF"
    touch "$folder"/gpu{0..7}
    echo "Name=gpu File=$folder/gpu[0-7]" >"$folder/gres.conf"
}

start() {
    for program in munged slurmctld slurmd sbatch; do
        command -v $program >/dev/null || fail "$program is not installed; on Debian: apt-get install slurm-wlm munge"
    done
    stop # remove an incomplete earlier start
    (umask 077 && mkdir "$folder" "$folder/state" && touch "$SLURM_CONF")
    for node in "${nodes[@]}"; do mkdir "$folder/$node"; done
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
    configure
    munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" --num-threads=2 >&2 ||
        fail "munged does not start, see $folder/munged.log"
    slurmctld >&2 || fail "slurmctld does not start, see $folder/slurmctld.log"
    for node in "${nodes[@]}"; do
        slurmd -N "$node" >&2 || fail "slurmd does not start, see $folder/$node.log"
    done
    for _ in $(seq 60); do
        is_running && return
        sleep 0.5
    done
    sinfo --list-reasons >&2 || true
    fail "the nodes did not start within 30 s, see the logs in $folder"
}

# Whether all of these processes have ended; zombies count as ended.
is_over() {
    [[ $# == 0 || ! $(ps -o state= -p "$(IFS=,; echo "$*")") =~ [^Z[:space:]] ]]
}

stop() {
    [[ -e $folder ]] || return 0
    [[ -e $SLURM_CONF ]] || fail "$folder is not a folder of this script; choose another CSGCNN_SLURM"
    timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 150); do # jobs outlive the services, so they are stopped first
        [[ $(timeout 10 squeue --noheader --states=all --format=%T 2>/dev/null) =~ RUNNING|COMPLETING|PENDING ]] || break
        sleep 0.1
    done
    local pids=()
    for file in "$folder"/*.pid; do
        pid=$(cat "$file" 2>/dev/null) || continue
        [[ $(ps -o comm= -p "$pid") =~ ^(munged|slurm) ]] || continue # the process id may belong to another program by now
        kill "$pid" && pids+=("$pid")
    done
    for _ in $(seq 100); do
        is_over "${pids[@]}" && break
        sleep 0.1
    done
    is_over "${pids[@]}" || kill -KILL "${pids[@]}" 2>/dev/null || true
    rm -rf "$folder"
}

case ${1:-start} in
    start)
        is_running || start
        echo "export SLURM_CONF=$SLURM_CONF"
        ;;
    stop) stop ;;
    *) fail "expected start or stop, not $1" ;;
esac
