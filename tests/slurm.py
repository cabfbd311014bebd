"""A real SLURM of two nodes on this machine, on loopback, gone when the block ends."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from avnb import processes
from tests.processes import wait_for

# Nodes' names do not resolve, as on clusters whose names are known to SLURM only. A killed job's
# processes get one second, so that tests need not wait the usual thirty.
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=1
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def installed() -> bool:
    return all(shutil.which(name, path=PATH) for name in PROGRAMS)


def ask(*command: str) -> str:
    """What a command of SLURM says; nothing if it fails."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def idle() -> bool:
    return ask("sinfo", "--noheader", "--states=idle", "--format=%D").strip() == "2"


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start(folder: Path, stack: contextlib.ExitStack, name: str, *arguments: str) -> None:
    """Start a program that ends with the stack, or with this process."""
    program = shutil.which(name, path=PATH)
    command = [sys.executable, processes.__file__, str(os.getpid()), program, *arguments]
    with (folder / f"{name}.out").open("a") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


@contextlib.contextmanager
def two_nodes():
    """The folder of a running cluster; SLURM_CONF names it to SLURM's commands."""
    # A socket's path may have 107 characters: pytest's own folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    for name in ("state", "spool/n1", "spool/n2"):
        (folder / name).mkdir(parents=True)
    text = CONF.format(
        folder=folder, host=socket.gethostname(), user=getpass.getuser(), ports=free_ports(3)
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    with contextlib.ExitStack() as stack:
        files = {"socket": "sock", "key-file": "key", "pid-file": "pid", "log-file": "log",
                 "seed-file": "seed"}  # fmt: skip
        start(
            folder, stack, "munged", "--foreground", "--force",
            *(f"--{option}={folder}/munge.{ending}" for option, ending in files.items()),
        )  # fmt: skip
        wait_for((folder / "munge.sock").exists)
        start(folder, stack, "slurmctld", "-D")
        for node in ("n1", "n2"):
            start(folder, stack, "slurmd", "-D", "-N", node)
        try:
            wait_for(idle)
            yield folder
        finally:
            ask("scancel", f"--user={getpass.getuser()}")
            wait_for(idle)  # a job's processes are the nodes' to end, so before the nodes end
            del os.environ["SLURM_CONF"]
    shutil.rmtree(folder)
