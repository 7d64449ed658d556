"""The jobs of the didactic experiment, and what of it cannot be run."""

from experiments.stages import Job, StageError, with_inputs

OUTCOME_ONLY = "outcome"


def plan(config):
    """A job for the outcome alone and for each prover, of the main reading and of each
    other, where they differ; last the report, which reads them all."""
    config = config.to_dict()
    check(config)
    jobs = {}
    readings = {"main": {}, **config["readings"]}
    for reading, changes in readings.items():
        sections = {name: config[name] | changes.get(name, {}) for name in CHANGEABLE}
        for gamma in (None, *sections["rl"]["gammas"]):
            job = run_job(config, sections, reading, gamma)
            jobs[job.name.removeprefix("planted.")] = job
    settings = {name: config[name] for name in ("readings", "report", "evaluate")}
    settings |= {name: config[name] for name in ("seed", "task", "model", *CHANGEABLE)}
    report = Job("planted.report", "planted.report", settings, jobs)
    return with_inputs([report])


CHANGEABLE = ("sft", "rl")  # the sections that a reading may change


def run_job(config, sections, reading, gamma):
    """All seeds with one prover; gamma None: with the outcome alone."""
    rl = {k: v for k, v in sections["rl"].items() if k not in ("gammas", "main_gamma")}
    if gamma is None:
        # Nothing of the prover is read: the same runs whatever is said of it.
        rl |= {"alpha": 0.0, "advantage_rollouts": 0, "sum_to_go": False}
    settings = {name: config[name] for name in ("seed", "task", "model")}
    settings |= {"sft": sections["sft"], "rl": rl, "gamma": gamma}
    settings["evaluate"] = {k: config["evaluate"][k] for k in ("every", "num_samples")}
    name = OUTCOME_ONLY if gamma is None else f"gamma{gamma:g}"
    return Job("planted.runs", f"planted.{reading}.{name}", settings)


def check(config):
    """StageError for what cannot be run, before anything is."""
    every, at = config["evaluate"]["every"], config["evaluate"]["pass_at_iteration"]
    most = max(config["evaluate"]["pass_at"])
    if most > config["evaluate"]["num_samples"]:
        raise StageError(
            f"evaluate.pass_at goes up to {most}, but evaluate.num_samples is only "
            f"{config['evaluate']['num_samples']}; set it to {most} or more"
        )
    if config["rl"]["main_gamma"] not in config["rl"]["gammas"]:
        raise StageError(
            f"rl.main_gamma={config['rl']['main_gamma']} must be one of "
            f"rl.gammas={config['rl']['gammas']}"
        )
    for reading, changes in {"main": {}, **config["readings"]}.items():
        for section, fields in changes.items():
            known = config[section] if section in CHANGEABLE else ()
            wrong = [name for name in fields if name not in known]
            if wrong or section not in CHANGEABLE:
                raise StageError(
                    f"readings.{reading}.{section} changes {wrong or section!r}: a "
                    f"reading may change fields of {' and of '.join(CHANGEABLE)}"
                )
        rl = config["rl"] | changes.get("rl", {})
        if rl["num_seeds"] < 2:
            raise StageError(f"rl.num_seeds={rl['num_seeds']}: intervals need two")
        if rl["num_iterations"] % every or at % every or at > rl["num_iterations"]:
            raise StageError(
                f"rl.num_iterations={rl['num_iterations']} and evaluate."
                f"pass_at_iteration={at} must be multiples of evaluate.{every=}, the "
                "latter not beyond the former"
            )
