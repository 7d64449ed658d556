"""From a config to the graph of its jobs.

sft.<policy>       each policy that is used, after the one it starts from
collect            seed traces and labels           <- base, provers
complementarity    chooses the prover, if "auto"    <- base, provers
rft                the start of rl                  <- base, collect
verifier.<name>    V^mu of every prefix             <- base, collect
orm                outcome of complete traces       <- base, collect
                   (with collect.hard: more labels, found with a first verifier,
                   before these two; see label_rounds.py)
search             best-of-N and beams              <- base, verifier.main, orm
                   (with search.verifier or rl.verifier, published ones, nothing is
                   trained for who asks them; see external_verifiers.py)
check.<name>       a verifier against many completions   <- base, verifier.<name>,
                   collect.reference, if the config has one
evaluate.sft, evaluate.rft      Pass@N, before RL   <- base; rft
rl.<method>.seed<k>             <- base, rft, verifier.main, both evaluations
report                                              <- all of them
"""

from experiments import external_verifiers as outside
from experiments import sources
from experiments.jobs.settings import (
    checkpoint_settings,
    make_job,
    merge,
    task_settings,
    whole,
)
from experiments.label_rounds import (
    collect_job,
    orm_job,
    reference_jobs,
    verifier_jobs,
)
from experiments.prover_names import (
    AUTO,
    BASE,
    check_provers,
    family_of,
    parse_name,
    parse_prover,
    provers_of,
)
from experiments.stages import StageError, with_inputs
from pavjax import rl


def plan(config):
    """All jobs of `config`, each after its inputs."""
    policies = policy_jobs(config)
    check_provers(config)
    base = policies[config.base]
    collect = collect_job(config, policies)
    rft = rft_job(config, base, collect)
    reference = reference_jobs(config, policies)
    labels = {"collect": collect, **reference}
    verifiers, hard = verifier_jobs(config, policies, labels)
    orm = orm_job(config, {"base": base, **labels} | hard)
    chooser = complementarity_job(config, policies)
    trained = {"verifier": verifiers["main"], "orm": orm}
    search = search_job(config, base, trained, chooser)
    before = {
        "evaluate.sft": evaluate_job(config, "evaluate.sft", base),
        "evaluate.rft": evaluate_job(config, "evaluate.rft", rft),
    }
    inputs = {"base": base, "rft": rft, "verifier": verifiers["main"], **before}
    runs = rl_jobs(config, inputs, chooser)
    parts = [*policies.values(), collect, rft]
    if any("verifier" in job.inputs for job in (search, *runs)):
        parts += verifiers.values()
    parts += [*([orm] if "orm" in search.inputs else []), search]
    parts += [*before.values(), *runs]
    # The rounds that led to them too: the report accounts for all that was spent.
    report = report_job(config, with_inputs(parts))
    checks = [
        check_job(config, name, {"base": base, "verifier": verifier, **reference})
        for name, verifier in verifiers.items()
        if reference
    ]
    return with_inputs([report, *checks])


def available(config):
    """All that `plan` makes, and the job that it makes only for `prover = "auto"`."""
    return with_inputs(
        [*plan(config), complementarity_job(config, policy_jobs(config))]
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
            is_policy = init and not sources.is_checkpoint(init)
            inputs = {"init": job_of(init, (*path, name))} if is_policy else {}
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
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_train", "num_validation"),
        "model": config.model.to_dict() | changes,
        "sft": config.sft.to_dict() | own,
    }
    if checkpoint := sources.checkpoint_of(config, name):
        settings |= checkpoint_settings(config, checkpoint, changes)
    return settings


def rft_job(config, base, collect):
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_validation"),
        "rft": config.rft.to_dict(),
    }
    return make_job("rft", "rft", settings, {"base": base, "collect": collect})


def complementarity_job(config, policies):
    inputs = {f"prover.{p}": policies[parse_prover(p)[0]] for p in provers_of(config)}
    settings = {
        "seed": config.seed,
        "task": task_settings(config),
        "provers": provers_of(config),
        "family": family_of(config),
        "complementarity": config.complementarity.to_dict(),
    }
    return make_job("complementarity", "complementarity", settings, inputs)


def prover_input(config, prover, chooser):
    """-> (name of the prover, {role: job} of what it takes to know it)."""
    if prover == AUTO:
        return AUTO, {"complementarity": chooser}
    return str(parse_name(prover, config.base)), {}


def search_job(config, base, trained, chooser):
    """trained: the verifier and the ORM, as inputs."""
    if len(set(config.search.widths)) < 2:
        raise StageError(
            f"search.widths={config.search.widths} is no curve of accuracy over tokens, "
            "which beams are compared by: give two widths or more, such as (4, 16)"
        )
    prover, more = prover_input(config, config.prover, chooser)
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_validation", "num_test"),
        "provers": provers_of(config),
        "prover": prover,
        "family": family_of(config),
        "search": config.search.to_dict(),
    }
    if config.search.verifier:
        outside.check_prover(config, prover, "prover")
        settings |= outside.settings_of(config, config.search.verifier)
        settings["provers"] = [config.base]
        settings["family"] = outside.family_of(config)
        trained = {}
    return make_job("search", "search", settings, {"base": base} | trained | more)


def check_job(config, name, inputs):
    """It has the seed of the experiment, so that verifiers of labels drawn anew search
    among the same candidates."""
    names = ("candidates", "distinct", "temperature", "rows_per_batch")
    how = {field: config.search[field] for field in names}
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_test"),
        "verifier_check": config.verifier_check.to_dict() | how,
    }
    return make_job("verifier_check", f"check.{name}", settings, inputs)


def evaluate_job(config, name, policy):
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_test"),
        "evaluate": config.evaluate.to_dict(),
    }
    return make_job("evaluate", name, settings, {"policy": policy})


def rl_jobs(config, inputs, chooser):
    """One job per method and seed."""
    section = config.rl.to_dict()
    variants = section.pop("variants")
    methods, seeds = section.pop("methods"), section.pop("seeds")
    unknown = sorted(set(methods) - set(variants))
    if unknown:
        raise StageError(f"rl.methods {unknown} are not among {sorted(variants)}")
    jobs = []
    for name in methods:
        own = merge(section, variants[name], name)
        # With alpha = 0 no prover is asked, and the runs are the same for all.
        prover = (own["prover"] or config.prover) if own["alpha"] else BASE
        own["prover"], more = prover_input(config, prover, chooser)
        check_choices(own)
        check_refreshed(config, own)
        read = inputs | more
        if own["verifier"]:
            del read["verifier"]
            if not own["alpha"]:
                own["verifier"] = outside.UNREAD
            else:
                outside.check_prover(config, own["prover"], f"{name}: rl.prover")
        jobs += [
            rl_job(config, f"rl.{name}.seed{seed}", own | {"seed": seed}, read)
            for seed in seeds
        ]
    return jobs


def rl_job(config, name, section, inputs):
    settings = {
        "seed": config.seed,
        "task": task_settings(config, "num_train", "num_test"),
        "provers": provers_of(config),
        "rl": section,
    }
    if section["verifier"] not in ("", outside.UNREAD):
        settings |= outside.settings_of(config, section["verifier"])
    return make_job("rl", name, settings, inputs)


def check_choices(section):
    """StageError for a word that the stage would not know."""
    for field, known in (("baseline", rl.BASELINES), ("credit", rl.CREDITS)):
        if section[field] not in known:
            raise StageError(f"rl.{field}={section[field]!r}: choose one of {known}")


def check_refreshed(config, section):
    """StageError for a verifier that would follow another policy than its prover."""
    if not (section["alpha"] and section["refresh_learning_rate"]):
        return
    if section["verifier"]:
        raise StageError(
            f"rl.verifier={section['verifier']!r} is a published verifier, which goes "
            "on learning from nobody: set rl.refresh_learning_rate=0 with it"
        )
    prover = section["prover"]
    if prover == AUTO or set(parse_name(prover, config.base).policies) != {config.base}:
        raise StageError(
            f"rl.refresh_learning_rate={section['refresh_learning_rate']} trains the "
            f"base's column of the verifier on the policy's own traces, but the prover "
            f"is {prover!r}: use best-of-K of 'pi', or a rate of 0"
        )


def report_job(config, parts):
    """The report shows the whole config, so any change of it makes a new report."""
    settings = {"config": whole(config)}
    return make_job("report", "report", settings, {job.name: job for job in parts})
