"""The start of a command that several processes may run together."""

import secrets
import socket
import sys

from experiments.jobs import local_processes, work_directory
from experiments.stages import StageError
from pavjax.runtime import processes
from pavjax.runtime.atomic import write_text_atomic

NAME = ".processes"  # a file that the first process writes, and all others look for


def begin(options, jobs):
    """Before any work: become one of the processes that `options` ask for, if they ask
    for several, and prepare the work directory."""
    settings = options.config.processes
    if options.processes < 1:
        raise StageError(f"--processes={options.processes}: give how many, 1 or more")
    if options.processes > 1 and not settings.coordinator:
        heartbeat_seconds = settings.heartbeat_seconds
        sys.exit(local_processes.run(options.processes, heartbeat_seconds))
    local_processes.end_with_launcher()
    processes.start(settings.to_dict())
    work_directory.prepare(options.workdir)
    check_same(options.workdir, [job.hash for job in jobs])


def check_same(workdir, job_hashes):
    """StageError, in all processes, if they are not to run the same jobs or do not see
    the same `workdir`. Says who they are."""
    if not processes.are_many():
        return
    token = processes.agreed(secrets.token_hex(8))
    if processes.is_first():
        write_text_atomic(workdir / NAME, token)
    processes.barrier("the first process has written into the work directory")
    seen = (workdir / NAME).read_text() if (workdir / NAME).exists() else None
    everyone = processes.gathered(
        {"host": socket.gethostname(), "jobs": job_hashes, "sees": seen == token}
    )
    hosts = ", ".join(f"{n} on {each['host']}" for n, each in enumerate(everyone))
    print(f"{len(everyone)} processes: {hosts}", flush=True)
    for number, each in enumerate(everyone):
        name = f"process {number} on {each['host']}"
        if each["jobs"] != everyone[0]["jobs"]:
            raise StageError(
                f"{name} was asked for other jobs than process 0: start all with the "
                "same --config and the same overrides"
            )
        if not each["sees"]:
            raise StageError(
                f"{name} does not see what process 0 writes into {workdir}: give a "
                "--workdir that all machines share, such as a mounted bucket or NFS"
            )
