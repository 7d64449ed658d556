"""The search of a published verifier: the same measurements, asked on the host."""

import functools

import numpy as np

from experiments import drawing
from experiments.search_methods import SampleFlops, Searcher
from pavjax import guided_decoding
from pavjax.decoding import Sampling
from pavjax.tasks import encoding


class ExternalSearcher(Searcher):
    """The verifier is its own ORM: its score of the last step. Nothing of it is cached:
    it reads every candidate of every step from the first token on, which its own
    account shows (`read_tokens`, `read_flops` of each problem)."""

    def __init__(self, task, base, judge, section):
        super().__init__(task, base, judge, judge, section)

    def _scorer(self, judge):
        return None  # see `_scores`

    def _scores(self, flat):
        values = self.judge.trace_values(flat.tokens, flat.step_ids, flat.prompt_len)
        return {"values": values, "orm": values[:, -1, 0]}

    def _spent(self, tokens, prompt_len):
        tokens, flops = self.judge.reading_of(tokens, prompt_len)
        return {"read_tokens": tokens, "read_flops": flops}

    @functools.cached_property
    def compiled_search(self):
        @functools.cache
        def search_of(width):
            return guided_decoding.make_scored_search(
                self.judge.prefix_values,
                policy=self.base.policy,
                width=width,
                candidates=self.section["candidates"],
                limits=drawing.step_limits(self.task),
                distinct=self.section["distinct"],
                sampling=Sampling(temperature=self.section["temperature"]),
            )

        def search(base_params, judge_params, key, tokens, prompt_len, rule, *, width):
            beams, values, written = search_of(width)(
                *(base_params, key, tokens, prompt_len),
                guided_decoding.effective_reward_rule(base=0, **rule),
            )
            return beams.tokens, beams.length, values, written

        return search

    def _orm_values(self, rows, tokens, length, values):
        last = np.take_along_axis(tokens, length[..., None] - 1, axis=-1)[..., 0]
        ended = self.task.tokenizer.step_rule.ends_trace[last]
        return np.where(ended, values[..., 0], -np.inf)

    def trace_values(self, tokens, prompt_len, length):
        """V of every prefix of given traces [B T]: [B S P]."""
        step_ids = encoding.step_ids(self.task, tokens, prompt_len, length)
        return self.judge.trace_values(tokens, step_ids, prompt_len)

    def sample_flops(self, pool):
        """`SampleFlops`: the verifier reads the prompt anew with every sample."""
        own = super().sample_flops(pool)
        return SampleFlops(
            own.write, own.write_prompt, np.mean(pool["read_flops"]), 0.0
        )

    def pool_costs(self, pool):
        """What a pool adds to the cost account: one reading serves PAV and ORM."""
        return super().pool_costs(pool) | {
            "tokens_scored": round(pool["read_tokens"].sum()),
            "flops": self.sample_flops(pool).write * pool["length"].size
            + pool["read_flops"].sum(),
        }

    def beam_costs(self, found, width):
        """What a search adds to the cost account."""
        return super().beam_costs(found, width) | {
            "tokens_scored": round(found["read_tokens"].sum()),
            "flops": self.beam_flops(found, width) * len(found["written"]),
        }

    def beam_flops(self, found, width):
        """Mean FLOPs of a search: the policy reads prompt and candidates once, the
        verifier what it has counted."""
        own = self._once_flops(self.base.size, found, width)
        return own + float(np.mean(found["read_flops"]))

    def orm_pick_flops(self, found):
        """It has read the final traces already."""
        return 0.0
