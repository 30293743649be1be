"""The folder of the tests' cluster: configuration, keys and passwords, before anything runs."""

from __future__ import annotations

import secrets
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

DATABASE_PORT, _SLURMDBD_PORT, _SLURMCTLD_PORT, _SLURMD_PORT = 16816, 16819, 16817, 16820

_SLURM_CONF = Template(f"""\
ClusterName=cardamage
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort={_SLURMCTLD_PORT}
SlurmUser=root
SlurmdUser=root
# cred_expire is also how long a requeued job waits before it may start again.
AuthInfo=socket=$folder/munge/socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2

SlurmdTimeout=10
KillWait=5
OverTimeLimit=0
MinJobAge=600
MaxArraySize=3
JobRequeue=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={_SLURMDBD_PORT}
AccountingStoragePass=$folder/munge/socket
AccountingStorageEnforce=limits,qos
JobAcctGatherType=jobacct_gather/linux

GresTypes=gpu
DefMemPerCPU=500
NodeName=DEFAULT CPUs=8 RealMemory=8000 Gres=gpu:2
$nodes
PartitionName=DEFAULT Nodes=ALL MaxTime=60 DefaultTime=5 PreemptMode=OFF
PartitionName=main Default=YES
PartitionName=low PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high PriorityTier=10
""")

_SLURMDBD_CONF = Template(f"""\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={_SLURMDBD_PORT}
SlurmUser=root
AuthInfo=socket=$folder/munge/socket
PidFile=$folder/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={DATABASE_PORT}
StorageUser=slurm
StoragePass=$password
StorageLoc=slurm_acct_db
""")

_DATABASE_SQL = Template("""\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE OR REPLACE USER 'slurm'@'%' IDENTIFIED BY '$password';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'%';
""")


def configuration(folder: Path, nodes: Sequence[str]) -> str:
    """The ``slurm.conf`` of a cluster."""
    host = socket.gethostname().split(".")[0]
    lines = [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={_SLURMD_PORT + number}"
        for number, node in enumerate(nodes)
    ]
    return _SLURM_CONF.substitute(folder=folder, host=host, nodes="\n".join(lines))


def lay_out(folder: Path, nodes: Sequence[str]) -> None:
    """Make the folder of a cluster anew, with its keys, passwords and configuration."""
    values: Mapping[str, object] = {"folder": folder, "password": secrets.token_hex(16)}
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("munge", "database", "state", "log", *(f"spool-{node}" for node in nodes)):
        (folder / part).mkdir(parents=True, mode=0o755)
    (folder / "munge" / "key").write_bytes(secrets.token_bytes(128))
    (folder / "munge" / "key").chmod(0o400)
    shutil.chown(folder / "munge", "munge", "munge")
    shutil.chown(folder / "munge" / "key", "munge", "munge")
    shutil.chown(folder / "database", "mysql", "mysql")
    (folder / "database.sql").write_text(_DATABASE_SQL.substitute(values))
    # The devices stand for GPUs: SLURM only asks that they exist, and numbers them 0 and 1.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    (folder / "slurmdbd.conf").write_text(_SLURMDBD_CONF.substitute(values))
    (folder / "slurmdbd.conf").chmod(0o600)
    (folder / "slurm.conf").write_text(configuration(folder, nodes))  # last: laid out
