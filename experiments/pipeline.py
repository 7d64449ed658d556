"""From a config to the graph of its jobs.

    sft.<policy>       each policy that is used, after the one it starts from
    collect            seed traces and labels           <- base, provers
    rft                the start of rl                  <- base, collect
    verifier.<name>    V^mu of every prefix             <- base, collect
    orm                outcome of complete traces       <- base, collect
                       (with collect.hard: verifier.<name>.round1, then collect.hard1
                       with what verifier.main.round1 likes, and so on, then these, on
                       all labels)
    search             best-of-N and beams              <- base, verifier.main, orm
    evaluate.sft, evaluate.rft      Pass@N, before RL   <- base; rft
    rl.<method>.seed<k>             <- base, rft, verifier.main, both evaluations
    report                                              <- all of them

A job's settings hold exactly the fields that its stage reads, so that a change of any
other field leaves it alone.
"""

from experiments.stages import Job, StageError, with_inputs

# Bump a stage's number when a change of its code changes what its results mean: what
# older code computed is then computed anew.
VERSIONS = {
    "sft": 1,
    "collect": 1,
    "rft": 1,
    "verifier": 1,
    "search": 1,
    "evaluate": 1,
    "rl": 1,
    "report": 1,
}


def plan(config):
    """All jobs of `config`, each after its inputs."""
    policies = policy_jobs(config)
    check_provers(config)
    base = policies[config.base]
    collect = collect_job(config, policies)
    rft = rft_job(config, base, collect)
    verifiers, hard = verifier_jobs(config, policies, collect)
    orm = orm_job(config, {"base": base, "collect": collect} | hard)
    search = search_job(config, base, verifiers["main"], orm)
    before = {
        "evaluate.sft": evaluate_job(config, "evaluate.sft", base),
        "evaluate.rft": evaluate_job(config, "evaluate.rft", rft),
    }
    inputs = {"base": base, "rft": rft, "verifier": verifiers["main"], **before}
    rl = rl_jobs(config, inputs)
    parts = [*policies.values(), collect, rft, *verifiers.values(), orm, search]
    parts += [*before.values(), *rl]
    return with_inputs([report_job(config, parts)])


def provers_of(config):
    """The provers, the base first: the verifier's heads come in this order."""
    others = [prover for prover in config.provers if prover != config.base]
    return [config.base, *others]


def parse_prover(prover):
    """'strong' -> ('strong', None); 'base@150' -> ('base', 150)."""
    name, at, step = prover.partition("@")
    if at and not step.isdigit():
        raise StageError(f"prover {prover!r}: write 'name' or 'name@updates'")
    return name, int(step) if at else None


def check_provers(config):
    """StageError if a prover asks for a checkpoint that sft does not keep."""
    for prover in provers_of(config):
        name, step = parse_prover(prover)
        last, every = config.policies[name].num_updates, config.sft.keep_every
        if step is not None and not (every and 0 < step <= last and step % every == 0):
            raise StageError(
                f"prover {prover!r} asks for the checkpoint after {step} updates, but "
                f"policies.{name} makes {last} and keeps every {every}: choose a "
                f"multiple of sft.keep_every up to policies.{name}.num_updates"
            )


def policy_jobs(config):
    """{policy name: sft job} of the base, the provers, and what they start from."""
    jobs = {}

    def job_of(name, path=()):
        if name not in config.policies:
            raise StageError(
                f"no policy is called {name!r}; config.policies has: "
                f"{', '.join(config.policies)}"
            )
        if name in path:
            raise StageError(f"policies start from each other: {(*path, name)}")
        if name not in jobs:
            init = config.policies[name].init
            inputs = {"init": job_of(init, (*path, name))} if init else {}
            jobs[name] = make_job(
                "sft", f"sft.{name}", sft_settings(config, name), inputs
            )
        return jobs[name]

    for prover in provers_of(config):
        job_of(parse_prover(prover)[0])
    return jobs


def sft_settings(config, name):
    own = config.policies[name].to_dict()
    changes = own.pop("model")
    return {
        "seed": config.seed,
        "task": task_settings(config, "num_train", "num_validation"),
        "model": config.model.to_dict() | changes,
        "sft": config.sft.to_dict() | own,
    }


def collect_job(config, policies):
    section = config.collect.to_dict()
    del section["hard"]
    return make_job("collect", "collect", *label_settings(config, policies, section))


def hard_job(config, policies, verifier, number):
    """A further round of labels, the `number`-th, on traces that `verifier` likes: each
    round has train problems of its own."""
    section = config.collect.to_dict()
    hard = section["hard"]
    del hard["rounds"]
    count = hard.pop("num_problems")
    hard["skip_problems"] = section["num_problems"] + (number - 1) * count
    section |= {"allocation": "uniform", "num_heldout_problems": 0}
    section |= {"num_problems": count, "num_completions": hard.pop("num_completions")}
    settings, inputs = label_settings(config, policies, section)
    inputs |= {"verifier": verifier}
    return make_job("collect", f"collect.hard{number}", settings, inputs)


def label_settings(config, policies, section):
    """-> (settings, inputs) of a job that labels traces."""
    inputs = {"base": policies[config.base]}
    for prover in provers_of(config):
        inputs[f"prover.{prover}"] = policies[parse_prover(prover)[0]]
    settings = {
        "seed": config.seed,
        "task": task_settings(config),
        "provers": provers_of(config),
        "collect": section,
    }
    return settings, inputs


def rft_job(config, base, collect):
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_validation"),
        "rft": config.rft.to_dict(),
    }
    return make_job("rft", "rft", settings, {"base": base, "collect": collect})


def verifier_jobs(config, policies, collect):
    """({variant: its last job}, {input name: job} of the further rounds of labels).

    With `collect.hard` a variant has one job per round: the first is trained on the
    labels of the first round, that of "main" finds the traces of the next, and all
    variants go on from their own on all labels so far.
    """
    section = config.verifier.to_dict()
    variants = section.pop("variants")
    changed = {"num_updates": section.pop("hard_updates")}
    rounds = config.collect.hard.rounds if config.collect.hard.num_problems else 0
    sections = {name: merge(section, new, name) for name, new in variants.items()}
    inputs, jobs, hard = {"base": policies[config.base], "collect": collect}, {}, {}
    for number in range(1, rounds + 2):
        if number > 1:
            name = f"hard{number - 1}"
            hard[name] = hard_job(config, policies, jobs["main"], number - 1)
        for name, own in sections.items():
            last = number == rounds + 1
            label = f"verifier.{name}" + ("" if last else f".round{number}")
            more = hard | {"init": jobs[name]} if jobs.get(name) else {}
            settings = verifier_settings(
                config, "prefixes", own | changed if more else own
            )
            jobs[name] = make_job("verifier", label, settings, inputs | more)
    return jobs, hard


def orm_job(config, inputs):
    section = config.verifier.to_dict()
    del section["variants"]
    hard_updates = section.pop("hard_updates")
    section = merge(section, config.orm.to_dict(), "orm")
    # As many updates as the PAV has had, on the same traces.
    section["num_updates"] += hard_updates * sum("hard" in name for name in inputs)
    settings = verifier_settings(config, "outcome", section)
    return make_job("verifier", "orm", settings, inputs)


def verifier_settings(config, kind, section):
    return {
        "seed": config.seed,
        "kind": kind,  # "prefixes" of traces, or the "outcome" of complete ones
        "task": task_settings(config),
        "provers": provers_of(config),
        "verifier": section,
    }


def search_job(config, base, verifier, orm):
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_validation", "num_test"),
        "provers": provers_of(config),
        "search": config.search.to_dict(),
    }
    inputs = {"base": base, "verifier": verifier, "orm": orm}
    return make_job("search", "search", settings, inputs)


def evaluate_job(config, name, policy):
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_test"),
        "evaluate": config.evaluate.to_dict(),
    }
    return make_job("evaluate", name, settings, {"policy": policy})


def rl_jobs(config, inputs):
    """One job per method and seed."""
    section = config.rl.to_dict()
    variants = section.pop("variants")
    methods, seeds = section.pop("methods"), section.pop("seeds")
    unknown = sorted(set(methods) - set(variants))
    if unknown:
        raise StageError(f"rl.methods {unknown} are not among {sorted(variants)}")
    return [
        make_job(
            "rl",
            f"rl.{name}.seed{seed}",
            {
                "seed": config.seed,
                "task": task_settings(config, "num_train", "num_test"),
                "provers": provers_of(config),
                "rl": merge(section, variants[name], name) | {"seed": seed},
            },
            inputs,
        )
        for name in methods
        for seed in seeds
    ]


def report_job(config, parts):
    """The report shows the whole config, so any change of it makes a new report."""
    settings = {"config": config.to_dict()}
    return make_job("report", "report", settings, {job.name: job for job in parts})


def task_settings(config, *counts):
    """The task that is chosen, how it is split, and the `counts` that a stage reads."""
    name = config.task.name
    return {
        "name": name,
        "options": config.task[name].to_dict(),
        "split_parts": config.task.split_parts,
        "split_salt": config.task.split_salt,
        **{count: config.task[count] for count in counts},
    }


def merge(section, changes, name):
    """`section` with `changes`; StageError for a change of a field it does not have."""
    unknown = sorted(set(changes) - set(section))
    if unknown:
        raise StageError(
            f"{name!r} changes unknown fields {unknown}: {sorted(section)}"
        )
    return section | changes


def make_job(stage, name, settings, inputs):
    return Job(stage, name, plain(settings), inputs, VERSIONS[stage])


def plain(value):
    """Tuples as lists: settings are what reading job.json gives back."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value
