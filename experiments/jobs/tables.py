"""The jobs of a run as text: before it, what there is to do; after it, what it took."""

from experiments.reporting import summary as reporting_summary
from experiments.stages import read_record
from pavjax.runtime.progress import clock


def plan_table(jobs, workdir):
    """Every job with its hash and whether it is done, as text."""
    width = max(len(job.name) for job in jobs)
    lines = [f"{'job':{width}}  hash          state      reads"]
    for job in jobs:
        reads = ", ".join(dict.fromkeys(up.name for up in job.inputs.values()))
        state = job_state(job, workdir)
        lines.append(f"{job.name:{width}}  {job.hash}  {state:9}  {reads}")
    num_done = sum(job.is_done(workdir) for job in jobs)
    lines.append(f"{len(jobs)} stage runs, {num_done} of them done, in {workdir}")
    return "\n".join(line.rstrip() for line in lines)


def job_state(job, workdir):
    if job.is_done(workdir):
        return "done"
    started = (job.directory(workdir) / "job.json").exists()
    return "half-done" if started else "to do"


def summary(jobs, workdir):
    """What each job cost, what the report says in short, and where it lies."""
    width = max(len(job.name) for job in jobs)
    lines = [f"\n{'job':{width}}     time  peak memory   generated     trained"]
    total = 0.0
    for job in jobs:
        done = read_record(job.directory(workdir) / "DONE.json")
        total += done["seconds"]
        lines.append(
            f"{job.name:{width}}  {clock(done['seconds']):>7}"
            f"  {done['peak_memory_bytes'] / 1e9:8.2f} GB"
            f"  {done['tokens_generated']:10,}  {done['tokens_trained']:10,}"
        )
    lines.append(f"{'all':{width}}  {clock(total):>7}   (tokens generated, trained)")
    for job in jobs:
        if job.stage == "report":
            results = read_record(job.directory(workdir) / "results.json")
            lines.append("\n" + reporting_summary.as_text(results["summary"]))
            lines.append(f"report: {job.directory(workdir) / 'index.html'}")
    return "\n".join(lines)
