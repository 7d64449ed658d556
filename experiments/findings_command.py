"""The command of an experiment whose plan is its own and ends with a page of findings."""

from experiments import cli
from experiments import run as runner
from experiments.jobs import cleaning, many_processes
from experiments.stages import read_record
from pavjax.runtime import processes


def run_to_page(argv, *, default, description, plan):
    """Parse, plan, run, and say what was found and where the page is.

    default: the config that `argv` may replace. plan(config) -> jobs, of which the last
    makes the page, with the "findings" of its results as sentences.
    """
    options = cli.parse([f"--config={default}", *argv], description=description)
    jobs = plan(options.config)
    if options.clean:
        cleaning.clean(jobs, options.workdir, options.dry_run)
        return
    if options.dry_run:
        print(runner.plan_table(jobs, options.workdir))
        return
    many_processes.begin(options, jobs)
    execution = runner.execution_of(options.config)
    runner.use_cores(jobs, execution)
    runner.run_jobs(jobs, options.workdir, execution, options.parallel)
    if not processes.is_first():
        return
    runner.write_latest(jobs, options.workdir)
    page = jobs[-1].directory(options.workdir)
    for line in read_record(page / "results.json")["findings"]:
        print(f"  {line}")
    print(f"page: {page / 'index.html'}")
