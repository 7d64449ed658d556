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
    complementarity_of_best_of_k,
    complementarity_of_policy,
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
from pavjax.evaluate.value_error import (
    ReferenceValues,
    rank_correlations,
    reference_values,
    root_mean_interval,
    squared_advantage_error,
    squared_value_error,
)

__all__ = [
    "Complementarity",
    "ComputeEfficiency",
    "Interval",
    "ModelSize",
    "ReferenceValues",
    "ReliabilityCurve",
    "accuracy_at_equal_tokens",
    "answer_ids",
    "auc",
    "best_of_n_curve",
    "bootstrap",
    "complementarity_of_best_of_k",
    "complementarity_of_policy",
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
    "rank_correlations",
    "reference_values",
    "reliability_curve",
    "root_mean_interval",
    "sample_efficiency",
    "sequence_flops",
    "squared_advantage_error",
    "squared_value_error",
    "student_interval",
    "train_flops",
    "vote_curve",
    "wilson",
]
