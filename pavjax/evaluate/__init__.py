"""What the experiments report, in numpy float64 on the host.

Accuracies are returned per problem ([B K]: problems by budgets), so that the same
arrays give the curve (their mean), its interval and paired differences.
"""

from pavjax.evaluate.accuracy import (
    answer_ids,
    best_of_n_curve,
    pass_at_k_curve,
    vote_curve,
)
from pavjax.evaluate.calibration import (
    ReliabilityCurve,
    auc,
    expected_calibration_error,
    fit_thresholds,
    outcome_prediction_error_by_step,
    reliability_curve,
)
from pavjax.evaluate.complementarity import (
    Complementarity,
    complementarity_from_counts,
    completions_needed,
)
from pavjax.evaluate.cost import (
    ModelSize,
    flops_per_token,
    sequence_flops,
    train_flops,
)
from pavjax.evaluate.curves import (
    ComputeEfficiency,
    accuracy_at_equal_tokens,
    compute_efficiency,
    cost_to_reach,
    interpolate_log,
    sample_efficiency,
)
from pavjax.evaluate.intervals import (
    Interval,
    bootstrap,
    mean_interval,
    mean_interval_by_problem,
    paired_difference,
    student_interval,
    wilson,
)
from pavjax.evaluate.ranking import rank_correlation

__all__ = [
    "Complementarity",
    "ComputeEfficiency",
    "Interval",
    "ModelSize",
    "ReliabilityCurve",
    "accuracy_at_equal_tokens",
    "answer_ids",
    "auc",
    "best_of_n_curve",
    "bootstrap",
    "complementarity_from_counts",
    "completions_needed",
    "compute_efficiency",
    "cost_to_reach",
    "expected_calibration_error",
    "fit_thresholds",
    "flops_per_token",
    "interpolate_log",
    "mean_interval",
    "mean_interval_by_problem",
    "outcome_prediction_error_by_step",
    "paired_difference",
    "pass_at_k_curve",
    "rank_correlation",
    "reliability_curve",
    "sample_efficiency",
    "sequence_flops",
    "student_interval",
    "train_flops",
    "vote_curve",
    "wilson",
]
