"""FLOP formulas, against counting token by token."""

import numpy as np
import pytest

from pavjax import evaluate

SMALL = evaluate.ModelSize(
    depth=2, width=8, mlp_width=20, num_heads=4, num_kv_heads=2, head_dim=3,
    vocab_size=11, mlp="gated",
)  # fmt: skip


def test_flops_are_twice_the_matrix_entries_plus_attention_to_the_context():
    q, k, v, out = 8 * 12, 8 * 6, 8 * 6, 12 * 8
    matrices = 2 * (q + k + v + out + 3 * 8 * 20) + 8 * 11
    scores_and_values = 2 * 2 * (4 * 3)  # 2 layers, 4 heads of 3, per context token
    flops = evaluate.flops_per_token(SMALL, 5)
    assert flops == 2 * matrices + 2 * scores_and_values * 5
    plain = evaluate.flops_per_token(SMALL._replace(mlp="plain"), 5)
    assert flops - plain == 2 * 2 * 8 * 20


def test_sequence_flops_count_causal_attention_token_by_token():
    lengths = np.array([1, 4, 9])
    by_token = [
        sum(evaluate.flops_per_token(SMALL, t + 1) for t in range(n)) for n in lengths
    ]
    np.testing.assert_allclose(evaluate.sequence_flops(SMALL, lengths), by_token)
    np.testing.assert_allclose(evaluate.train_flops(SMALL, 9), 3 * by_token[-1])


def test_a_cached_prefix_is_not_paid_twice():
    whole = evaluate.sequence_flops(SMALL, 9)
    parts = evaluate.sequence_flops(SMALL, 4) + evaluate.sequence_flops(SMALL, 9, 4)
    np.testing.assert_allclose(parts, whole)


def test_an_unknown_kind_of_mlp_is_named():
    with pytest.raises(ValueError, match="'gate'"):
        evaluate.flops_per_token(SMALL._replace(mlp="gate"), 1)
