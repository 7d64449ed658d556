"""Drawing traces and labelling their prefixes: what the collect stage does per shard."""

import functools

import jax
import numpy as np

from experiments import drawing
from experiments.search_methods import Searcher
from pavjax import arrays, evaluate, labels
from pavjax.runtime import processes
from pavjax.tasks import encoding
from pavjax.types import Rollouts


class Collector:
    """Draws and labels the traces of a batch of problems."""

    def __init__(self, task, provers, section, costs, judge=None):
        self.task, self.provers, self.section = task, provers, section
        self.costs = costs
        self.searcher = None
        if judge:
            names = ("candidates", "distinct", "rows_per_batch")
            search = {name: section["hard"][name] for name in names}
            search["temperature"] = section["temperature"]
            self.searcher = Searcher(task, provers[0], judge, judge, search)
        self.num_prefixes = task.max_steps + 1
        base = provers[0]
        self.sampler = drawing.make_sampler(
            task, base.policy, section["num_seed_traces"], section["temperature"]
        )
        self.branchers = branchers_of(task, provers, section["temperature"])
        self.branch_points = jax.jit(
            functools.partial(labels.branch_points, num_prefixes=self.num_prefixes)
        )
        self.score = jax.jit(
            lambda params, tokens: base.policy.over_logits(
                *(arrays.picked_logprobs, tokens),
                (params, base.policy.hidden(params, tokens)),
            )
        )

    def collect(self, problems, key, split):
        """The records of one shard: dict of arrays, see `data.label_shards.FIELDS`."""
        seed_key, first_key, second_key = jax.random.split(key, 3)
        draw_seeds = self._searched_seeds if self.searcher else self._sampled_seeds
        seeds = draw_seeds(problems, seed_key)
        num_completions = self.section["num_completions"]
        kept = self._label(problems, seeds, first_key, num_completions)
        if self.section["allocation"] == "first_pit" and split == "train":
            chosen = labels.until_first_pit(
                seeds["successes"][..., 0],
                seeds["attempts"][..., 0],
                seeds["reward"],
                high_value=self.section["high_value"],
                pit_value=self.section["pit_value"],
            )
            extra = self.section["num_pit_completions"]
            kept += self._label(problems, seeds, second_key, extra, chosen)
        self._count_own_outcomes(seeds)
        return concatenate([seeds, *kept])

    def _sampled_seeds(self, problems, key):
        """Traces that the base draws from the bare problem: it completes all of their
        prefixes, the bare problem included (branch -1)."""
        rollouts = self.sampler(
            self.provers[0].params, key, problems.tokens, problems.prompt_len
        )
        rollouts, _ = drawing.grade(
            self.task, problems.problems, processes.on_host(rollouts)
        )
        flat = drawing.flatten(rollouts)
        self._charge(self.provers[0], flat.length, flat.prompt_len)
        return self._seed_records(problems, flat, branch=-1)

    def _searched_seeds(self, problems, key):
        """The traces that a search likes best. They were selected, so that their own
        outcome says nothing of their prefixes, which only fresh completions label
        (branch: past the last step)."""
        hard = self.section["hard"]
        width = hard["width"]
        tokens, length, written = self.searcher.final_beams(problems, key, width)
        self._charge_search(problems, written, width)
        tokens, length = (x[:, : hard["num_traces"]] for x in (tokens, length))
        prompt_len = np.repeat(problems.prompt_len[:, None], tokens.shape[1], axis=1)
        step_ids = encoding.step_ids(self.task, tokens, prompt_len, length)
        flat = tokens.reshape(-1, tokens.shape[-1])
        rollouts = Rollouts(
            tokens=tokens,
            prompt_len=prompt_len,
            length=length,
            step_ids=step_ids,
            logprobs=self._reference_logprobs(
                flat, step_ids.reshape(flat.shape)
            ).reshape(tokens.shape),
            reward=np.zeros(length.shape, np.float32),
        )
        rollouts, _ = drawing.grade(self.task, problems.problems, rollouts)
        flat = drawing.flatten(rollouts)
        return self._seed_records(problems, flat, branch=self.num_prefixes)

    def _seed_records(self, problems, rollouts, branch):
        shape = (len(rollouts.length), self.num_prefixes, len(self.provers))
        each = len(rollouts.length) // len(problems.ids)
        return {
            "tokens": rollouts.tokens,
            "prompt_len": rollouts.prompt_len,
            "length": rollouts.length,
            "step_ids": rollouts.step_ids,
            "successes": np.zeros(shape, np.int32),
            "attempts": np.zeros(shape, np.int32),
            "reward": rollouts.reward,
            "problem_id": np.repeat(np.asarray(problems.ids, np.int32), each),
            "source": np.zeros(shape[0], np.int32),
            "branch": np.full(shape[0], branch, np.int32),
            "reference_logprobs": rollouts.logprobs,
        }

    def _label(self, problems, seeds, key, num_samples, chosen=None):
        """Add completions' counts to `seeds`; returns the completions to keep."""
        prefix_len, is_open = processes.on_host(
            self.branch_points(seeds["step_ids"], seeds["prompt_len"])
        )
        # The last prefix of the longest trace is closed: it needs no branches.
        prefix_len, is_open = prefix_len[:, :-1], is_open[:, :-1]
        if chosen is not None:
            is_open = is_open & chosen[:, :-1]
        by_id = dict(zip(problems.ids, problems.problems, strict=True))
        any_open, kept = np.flatnonzero(is_open.any(1)), []
        # Traces of like length side by side: a batch is as wide as its longest.
        longest = np.where(is_open, prefix_len, 0).max(1)
        any_open = any_open[np.argsort(longest[any_open], kind="stable")]
        for p, model in enumerate(self.provers):
            prover_key = jax.random.fold_in(key, p)
            size = self.section["batch_size"]
            for index, real in drawing.batches(len(any_open), size):
                rows = any_open[index]
                open_rows = is_open[rows] & (np.arange(size) < real)[:, None]
                batch_key = jax.random.fold_in(prover_key, rows[0])
                *traces, rewards = drawing.complete(
                    self.task,
                    functools.partial(self.branchers[p], model.params, batch_key),
                    [by_id[i] for i in seeds["problem_id"][rows]],
                    *(seeds["tokens"][rows], prefix_len[rows], open_rows, num_samples),
                )
                counts = labels.count_completions(rewards, open_rows)
                seeds["successes"][rows[:real], :-1, p] += counts[0][:real]
                seeds["attempts"][rows[:real], :-1, p] += counts[1][:real]
                start = prefix_len[rows][open_rows][:, None]
                self._charge(model, traces[1][open_rows], start)
                kept.append(
                    self._kept_records(p, seeds, rows, traces, rewards, open_rows)
                )
        return kept

    def _kept_records(self, p, seeds, rows, traces, rewards, open_rows):
        """The first `keep_completions` completions of every prefix, as records."""
        num_kept = self.section["keep_completions"]
        row, branch = np.nonzero(open_rows)
        row, branch = np.repeat(row, num_kept), np.repeat(branch, num_kept)
        sample = np.tile(np.arange(num_kept), len(row) // max(num_kept, 1))
        # Of all completions, kept or not: one shape, compiled once.
        prompt_len = seeds["prompt_len"][rows, None, None]
        prompt_len = np.broadcast_to(prompt_len, rewards.shape)
        step_ids = encoding.step_ids(self.task, traces[0], prompt_len, traces[1])
        tokens, length, logprobs, step_ids = (
            x[row, branch, sample] for x in (*traces, step_ids)
        )
        source = {name: seeds[name][rows][row] for name in seeds}
        if p == 0:
            is_shared = (step_ids >= 0) & (step_ids < branch[:, None])
            shared = np.where(is_shared, source["reference_logprobs"], 0)
            reference = shared + logprobs
        else:
            reference = self._reference_logprobs(tokens, step_ids)
        records = {
            "tokens": tokens,
            "prompt_len": source["prompt_len"],
            "length": length,
            "step_ids": step_ids,
            "successes": np.zeros_like(source["successes"]),
            "attempts": np.zeros_like(source["attempts"]),
            "reward": rewards[row, branch, sample],
            "problem_id": source["problem_id"],
            "source": np.full(len(row), p, np.int32),
            "branch": branch.astype(np.int32),
            "reference_logprobs": reference,
        }
        self._count_own_outcomes(records)
        return records

    def _reference_logprobs(self, tokens, step_ids):
        """Log-probs of the responses by the base, batch by batch of one shape."""
        parts = []
        for rows, real in drawing.batches(len(tokens), 256):
            part = self.score(self.provers[0].params, tokens[rows])
            part = processes.on_host(part)
            parts.append(np.where(step_ids[rows] >= 0, part, 0)[:real])
        if not parts:
            return np.zeros(tokens.shape, np.float32)
        lengths = (step_ids >= 0).sum(1)
        self.costs.add(tokens_scored=lengths.sum())
        return np.concatenate(parts)

    def _count_own_outcomes(self, records):
        """A trace is a completion of the prefixes after its branching point; its last
        prefix has the same outcome for every prover."""
        num_steps = records["step_ids"].max(1) + 1
        reward = records["reward"]
        options = {"num_prefixes": self.num_prefixes}
        own = labels.count_outcome(reward, num_steps, records["branch"], **options)
        closed = labels.count_closed(
            reward, num_steps, weight=self.section["num_completions"], **options
        )
        everyone = np.arange(len(self.provers))
        is_own = records["source"][:, None, None] == everyone
        is_closed = closed[1][..., None] > 0
        for name, mine, final in zip(
            ("successes", "attempts"), own, closed, strict=True
        ):
            counts = records[name] + is_own * mine[..., None]
            records[name] = np.where(is_closed, final[..., None], counts).astype(
                np.int32
            )

    def _charge_search(self, problems, written, width):
        """Account for a search in which `written` [B H] tokens were drawn and read."""
        found = {"prompt_len": problems.prompt_len, "written": written}
        total = int(written.sum())
        self.costs.add(
            tokens_generated=total,
            tokens_scored=total,
            flops=self.searcher.beam_flops(found, width) * len(written),
        )

    def _charge(self, model, stop, start):
        """Account for completions that took traces from `start` to `stop` tokens."""
        self.costs.add(
            tokens_generated=int(np.sum(stop - start)),
            flops=np.sum(evaluate.sequence_flops(model.size, stop, start)),
        )


def branchers_of(task, models, temperature):
    """A brancher for each model; those of the same sizes are one compiled program."""
    by_sizes = {repr(sorted(model.config.items())): model.policy for model in models}
    found = {
        sizes: drawing.make_brancher(task, policy, temperature)
        for sizes, policy in by_sizes.items()
    }
    return [found[repr(sorted(model.config.items()))] for model in models]


def concatenate(parts):
    """Dicts of arrays -> one dict, longest axis first."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
