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
from pavjax.evaluate.floors import (
    Work,
    cache_entry_bytes,
    floor_seconds,
    generate_work,
    matrix_parameters,
    pass_work,
    read_work,
    total_work,
    update_work,
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
from pavjax.evaluate.prm_score import confusion_counts, prm_bench, prm_score
from pavjax.evaluate.process_benchmarks import (
    ProcessBenchResult,
    StepQuality,
    best_threshold,
    first_errors,
    harmonic_mean,
    mean_process_bench,
    process_bench,
    step_quality,
)
from pavjax.evaluate.ranking import rank_correlation
from pavjax.evaluate.step_scores import (
    aggregate,
    as_probabilities,
    checked,
    prefix_values,
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
    "ProcessBenchResult",
    "ReferenceValues",
    "ReliabilityCurve",
    "StepQuality",
    "Work",
    "accuracy_at_equal_tokens",
    "aggregate",
    "answer_ids",
    "as_probabilities",
    "auc",
    "best_of_n_curve",
    "best_threshold",
    "bootstrap",
    "cache_entry_bytes",
    "checked",
    "complementarity_from_counts",
    "completions_needed",
    "compute_efficiency",
    "confusion_counts",
    "cost_to_reach",
    "expected_calibration_error",
    "first_errors",
    "fit_thresholds",
    "floor_seconds",
    "flops_per_token",
    "generate_work",
    "harmonic_mean",
    "interpolate_log",
    "matrix_parameters",
    "mean_interval",
    "mean_interval_by_problem",
    "mean_process_bench",
    "outcome_prediction_error_by_step",
    "paired_difference",
    "pass_at_k_curve",
    "pass_work",
    "prefix_values",
    "prm_bench",
    "prm_score",
    "process_bench",
    "rank_correlation",
    "rank_correlations",
    "read_work",
    "reference_values",
    "reliability_curve",
    "root_mean_interval",
    "sample_efficiency",
    "sequence_flops",
    "squared_advantage_error",
    "squared_value_error",
    "step_quality",
    "student_interval",
    "total_work",
    "train_flops",
    "update_work",
    "vote_curve",
    "wilson",
]
