"""A published verifier where a stage has its own, and an account of what it reads.

It is asked on the host, about whole traces: of every candidate it reads everything anew,
where a verifier of ours reads the newest step. So its tokens (in its own tokenizer) and
its FLOPs are counted as it reads them, problem by problem.
"""

import collections
import functools

import jax
import numpy as np

from experiments import building, sources
from pavjax.runtime import sharding
from pavjax.tasks.math_text import prompt_function

MARK = "THE-PROBLEM"  # stands for it in a prompt


class ExternalJudge:
    """One column of values, read as those of the base policy."""

    verifier = params = None  # nothing that JAX could run, train or save
    num_networks = 0  # that read every token once: see `reading_of`

    def __init__(self, name, base):
        self.name, self.provers = name, [base]
        self.values = None  # an `ExternalVerifier`; None: nobody asks
        self.read = {}  # text of a problem -> (tokens, FLOPs)

    @property
    def estimates_values(self):
        """Are its scores chances of success, to be held against Monte-Carlo?"""
        return self.values is not None and self.values.meaning == "values"

    def trace_values(self, tokens, step_ids, prompt_len):
        """V of every prefix of traces [R T]: [R S 1]."""
        return self.values.trace_values(tokens, step_ids, prompt_len)

    def prefix_values(self, tokens, prompt_len, length):
        """V of whole prefixes [R T]: [R 1]."""
        return self.values.prefix_values(tokens, prompt_len, length)

    def note(self, problems, tokens, flops):
        """Count what was read of traces of these problems."""
        for problem, *amounts in zip(problems, tokens, flops, strict=True):
            self.read[problem] = np.add(self.read.get(problem, 0), amounts)

    def reading_of(self, tokens, prompt_len):
        """(tokens, FLOPs) [B] that these problems have taken since this was last asked;
        rows of the same problem have equal shares."""
        texts = self.values.problems_of(tokens, prompt_len)
        times, read = collections.Counter(texts), self.read
        self.read = {}
        shares = [np.divide(read.get(text, (0, 0)), times[text]) for text in texts]
        return np.reshape(shares, (-1, 2)).T

    def forget(self):
        """What was read so far is on nobody's account."""
        self.read = {}


def load(job, task, base):
    """The verifier that the settings of a job name, with the name of the base policy."""
    settings = job.settings
    judge = ExternalJudge(settings[job.stage]["verifier"], base)
    if "external" not in settings:
        return judge
    # It brings transformers along.
    from pavjax.step_scorers import ExternalVerifier, load_scorer

    options, mesh = settings["external"], jax.sharding.get_mesh()
    shardings_fn = functools.partial(sharding.shardings_of, mesh=mesh)
    score = load_scorer(
        sources.folder_of(judge.name),
        kind=options["kind"] or None,
        separator=options["separator"] or None,
        batch_size=options["batch_size"],
        max_length=options["max_length"] or None,
        on_read=judge.note,
        dtype=options["dtype"],
        param_dtype=options["dtype"],
        shardings_fn=None if mesh.empty else shardings_fn,
    )
    judge.values = ExternalVerifier(
        (score,),
        task,
        meaning=options["meaning"],
        root=options["root"],
        problem_of=problem_reader(task, settings["task"]),
    )
    return judge


def problem_reader(task, settings):
    """-> problem_of(prompt): from a prompt, as its tokens read, to the bare problem."""
    if settings["name"] != "math_text":
        return str.strip
    names = ("prompt", "chat", "system")
    text_of = prompt_function(
        task.tokenizer, **{name: settings["options"][name] for name in names}
    )
    shown = task.tokenizer.decode(task.tokenizer.encode_prompt(text_of(MARK)))
    before, after = shown.split(MARK)

    def problem_of(prompt):
        return prompt.removeprefix(before).removesuffix(after)

    return problem_of


def judge_of(job, workspace, task):
    """The verifier of a job: the trained one that it reads, or a published one."""
    if "verifier" in job.inputs:
        return building.load_verifier(workspace.input_checkpoints("verifier"), task)
    return load(job, task, job.settings["provers"][0])
