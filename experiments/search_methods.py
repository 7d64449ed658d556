"""What the search stage measures: a pool of samples, and beams; arrays per problem."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import drawing
from pavjax import evaluate, guided_decoding, pav, provers
from pavjax.decoding import Sampling
from pavjax.runtime import local_work, processes
from pavjax.tasks import encoding
from pavjax.types import Rollouts

PLAIN = "Q"  # label of the search that ranks by Q^pi alone
POOL_ROWS = 1_536  # samples that are drawn, then scored, together


class SampleFlops(NamedTuple):
    """FLOPs of one sample, and of the prompt that all samples of a problem share."""

    write: float  # of the policy
    write_prompt: float
    read: float  # of a verifier
    read_prompt: float


class Searcher:
    """The base policy and its verifiers, on one task."""

    def __init__(self, task, base, judge, orm, section):
        self.task, self.base, self.judge, self.orm = task, base, judge, orm
        self.section = section
        self.num_prefixes = task.max_steps + 1
        self.values = {"PAV": self._scorer(judge), "ORM": self._scorer(orm)}

    def _scorer(self, judge):
        """values(params, rollouts) -> V of every prefix: [B S P]."""

        @jax.jit
        def values(params, rollouts):
            logits = judge.verifier.logits(
                params, rollouts.tokens, rollouts.prompt_len, rollouts.logprobs
            )
            return pav.prefix_values(
                *(logits, rollouts.step_ids, rollouts.prompt_len),
                num_prefixes=self.num_prefixes,
            )

        return values

    def pool(self, problems, key, num_samples):
        """N samples of every problem, graded and scored: dict of [B N ...] arrays.

        values [B N S P] by the verifier, orm [B N] of the whole trace, reward, length,
        num_steps, prompt_len [B N], answer [B N] (an id per distinct answer; -1 none).
        """
        section = self.section
        sampler = drawing.make_sampler(
            self.task, self.base.policy, num_samples, section["temperature"]
        )
        parts = []
        for _, real, rollouts, responses in drawing.graded_samples(
            *(self.task, self.base.params, sampler, problems, key),
            batch_size=max(1, POOL_ROWS // num_samples),
        ):
            flat = drawing.flatten(rollouts)
            found = {
                **self._scores(flat),
                **self._spent(flat.tokens, flat.prompt_len),
                "reward": flat.reward,
                "length": flat.length,
                "prompt_len": flat.prompt_len,
                "num_steps": flat.step_ids.max(-1) + 1,
            }
            shape = rollouts.length.shape
            found = {k: v.reshape(*shape, *v.shape[1:]) for k, v in found.items()}
            found["answer"] = answer_ids(self.task, responses, shape)
            parts.append({name: array[:real] for name, array in found.items()})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _scores(self, flat):
        """V of every prefix of traces [R ...]: [R S P], and the ORM's of the whole."""
        return {
            "values": processes.on_host(self.values["PAV"](self.judge.params, flat)),
            "orm": self._orm_of(flat),
        }

    def _orm_of(self, flat):
        """The ORM's value of whole traces [R ...]: [R]."""
        return processes.on_host(self.values["ORM"](self.orm.params, flat))[:, -1, 0]

    def _spent(self, tokens, prompt_len):
        """What of the cost of scoring problems [B] has to be kept: {name: [B]}. Of
        networks that read every token once, nothing."""
        return {}

    @functools.cached_property
    def compiled_search(self):
        limits = drawing.step_limits(self.task)

        def part(shared, rows, *, width):
            base_params, judge_params, key, rule = shared
            row_ids, tokens, prompt_len = rows
            beams, values, written = guided_decoding.guided_search(
                *(base_params, judge_params, key, tokens, prompt_len),
                row_ids=row_ids,
                policy=self.base.policy,
                verifier=self.judge.verifier,
                score_rule=guided_decoding.effective_reward_rule(base=0, **rule),
                width=width,
                candidates=self.section["candidates"],
                limits=limits,
                distinct=self.section["distinct"],
                sampling=Sampling(temperature=self.section["temperature"]),
            )
            return beams.tokens, beams.length, values, written

        @functools.partial(jax.jit, static_argnames="width")
        def search(base_params, judge_params, key, tokens, prompt_len, rule, *, width):
            """Each device searches problems of its own."""
            shared = (base_params, judge_params, key, rule)
            rows = (jnp.arange(len(tokens)), tokens, prompt_len)
            return local_work.by_rows(functools.partial(part, width=width))(
                shared, rows
            )

        return search

    def beam(self, problems, key, width, rule, progress=None, all_picks=False):
        """Step-level beam search on every problem: dict of [B ...] arrays.

        rule: {"prover": a `provers.Prover`, "alpha": alpha}. correct, solved (by any beam),
        claimed (the verifier's value of the chosen trace), written [B H], prompt_len;
        chosen_tokens [B T], chosen_length. With all_picks also correct_by_orm and
        correct_by_vote, were the final candidate picked otherwise; final_len [B W].
        """
        parts = []
        for rows, real, found in self._searched(problems, key, width, rule):
            tokens, length, values, written = found
            spent = self._spent(rows.tokens, rows.prompt_len)
            reward, responses = drawing.grade_traces(
                self.task, rows.problems, tokens, rows.prompt_len[:, None], length
            )
            # The paper's rule: the final candidate is the one of highest Q^pi.
            best = values[..., 0].argmax(axis=1)
            every = np.arange(len(best))
            found = {
                "correct": reward[every, best],
                "solved": reward.max(axis=1),
                "claimed": values[every, best, 0],
                "written": written,
                "prompt_len": rows.prompt_len,
                "chosen_tokens": tokens[every, best],
                "chosen_length": length[every, best],
                **spent,
            }
            if all_picks:
                by_orm = self._orm_values(rows, tokens, length, values).argmax(axis=1)
                answers = answer_ids(self.task, responses, reward.shape)
                votes = evaluate.vote_curve(answers, reward, [width])
                found["correct_by_orm"] = reward[every, by_orm]
                found["correct_by_vote"] = votes[:, 0]
                found["final_len"] = length
            parts.append({name: array[:real] for name, array in found.items()})
            if progress:
                progress(sum(len(part["correct"]) for part in parts))
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _orm_values(self, rows, tokens, length, values):
        """The ORM's value of each final trace [B W]; -1 of those that are unfinished."""
        shape = length.shape
        prompt_len = np.repeat(rows.prompt_len[:, None], shape[1], axis=1)
        step_ids = encoding.step_ids(self.task, tokens, prompt_len, length)
        traces = Rollouts(
            tokens=tokens,
            prompt_len=prompt_len,
            length=length,
            step_ids=step_ids,
            logprobs=None,  # the ORM's reference has to read the traces itself
            reward=None,
        )
        values = self._orm_of(drawing.flatten(traces))
        last = np.take_along_axis(tokens, length[..., None] - 1, axis=-1)[..., 0]
        ended = self.task.tokenizer.step_rule.ends_trace[last]
        return np.where(ended, values.reshape(shape), -1)

    def final_beams(self, problems, key, width):
        """All final beams of a search by Q^pi, the best first: tokens [B W T], length
        [B W]; and how much was written in all, [B H]."""
        rule = plain_rule(len(self.judge.provers))
        parts = []
        for _, real, found in self._searched(problems, key, width, rule):
            tokens, length, _, written = (array[:real] for array in found)
            parts.append((tokens, length, written))
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def _searched(self, problems, key, width, rule):
        """Search batch by batch: yields (rows, number of real ones, results), the
        arrays of traces as wide as a trace of the task may be."""
        longest = self.task.max_prompt_len + self.task.max_response_len
        rule = jax.tree.map(jnp.asarray, rule)
        rows_of_one = width * self.section["candidates"]
        size = max(1, min(self.section["rows_per_batch"] // rows_of_one, 128))
        size = min(size, len(problems.ids))
        for index, real in drawing.batches(len(problems.ids), size):
            rows = problems.rows(index)
            batch_key = jax.random.fold_in(key, index[0])
            found = self.compiled_search(
                *(self.base.params, self.judge.params, batch_key),
                *(rows.tokens, rows.prompt_len, rule),
                width=width,
            )
            tokens, *others = processes.on_host(found)
            yield rows, real, (tokens[..., :longest], *others)

    def trace_values(self, tokens, prompt_len, length):
        """V of every prefix of given traces [B T]: [B S P]."""
        step_ids = encoding.step_ids(self.task, tokens, prompt_len, length)

        @jax.jit
        def values(params, tokens, prompt_len, step_ids):
            logits = self.judge.verifier.logits(params, tokens, prompt_len)
            return pav.prefix_values(
                logits, step_ids, prompt_len, num_prefixes=self.num_prefixes
            )

        found = values(self.judge.params, tokens, prompt_len, step_ids)
        return processes.on_host(found)

    def sample_flops(self, pool):
        """`SampleFlops`: means over the pool."""
        prompt, length = pool["prompt_len"].ravel(), pool["length"].ravel()
        read = np.mean(evaluate.sequence_flops(self.base.size, length, prompt))
        once = np.mean(evaluate.sequence_flops(self.base.size, prompt))
        return SampleFlops(read, once, read, once)

    def pool_costs(self, pool):
        """What a pool adds to the cost account: drawn, and read by PAV and ORM."""
        response = int(np.sum(pool["length"] - pool["prompt_len"]))
        flops = self.sample_flops(pool)
        return {
            "tokens_generated": response,
            "tokens_scored": 2 * response,
            "flops": (flops.write + 2 * flops.read) * pool["length"].size,
        }

    def beam_costs(self, found, width):
        """What a search adds to the cost account."""
        written = int(found["written"].sum())
        costs = {"tokens_generated": written, "tokens_scored": written}
        costs["flops"] = self.beam_flops(found, width) * len(found["written"])
        if "final_len" in found:  # the ORM has read the final traces
            response = found["final_len"] - found["prompt_len"][:, None]
            costs["tokens_scored"] += int(response.sum())
            costs["flops"] += self.orm_pick_flops(found) * len(found["written"])
        return costs

    def beam_flops(self, found, width):
        """Mean FLOPs of a search: both networks read the prompt once and every token
        that any candidate wrote once."""
        sizes = self.base.size, self.judge.size
        return sum(self._once_flops(size, found, width) for size in sizes)

    def _once_flops(self, size, found, width):
        """Of a network that reads prompt and candidates once."""
        rows = width * self.section["candidates"]
        stop = found["prompt_len"] + np.cumsum(found["written"], axis=1).T / rows
        start = np.concatenate([found["prompt_len"][None], stop[:-1]])
        steps = evaluate.sequence_flops(size, stop, start).sum(0) * rows
        prompt = evaluate.sequence_flops(size, found["prompt_len"])
        return float(np.mean(steps + prompt))

    def orm_pick_flops(self, found):
        """Mean FLOPs of the ORM on all final traces, which it reads anew."""
        networks = 1 + self.orm.reads_reference
        flops = evaluate.sequence_flops(self.orm.size, found["final_len"])
        return float(networks * np.mean(flops.sum(axis=1)))


def answer_ids(task, responses, shape):
    """An id per distinct answer of a problem, [B N]; -1 where there is none."""
    answers = [task.final_answer(text) for text in responses]
    return evaluate.answer_ids(np.array(answers, object).reshape(shape).tolist())


def plain_rule(num_policies):
    """Rank by Q^pi alone."""
    return {"prover": provers.Prover.of(0, num_policies), "alpha": 0.0}


def effective_scores(values, rule):
    """[.. S P] -> (Q^pi of every step, Q^pi + alpha A^mu of every step): [.. H]."""
    q = values[..., 1:, 0]
    mu = np.asarray(provers.prover_values(values, rule["prover"]))
    return q, q + rule["alpha"] * (mu[..., 1:] - mu[..., :-1])
