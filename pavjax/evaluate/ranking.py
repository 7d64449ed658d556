"""How well one quantity ranks things by another, with an interval."""

import numpy as np

from pavjax.evaluate.intervals import Interval


def rank_correlation(
    predicted, realised, *, confidence=0.95, num_resamples=1000, seed=0
):
    """Spearman's rank correlation over F things whose two scores are both estimated.

    predicted [F B], realised [F R]: the score of a thing is its mean over the columns,
    which are independent draws (problems, seeds) that all things of a row block share,
    so that columns are resampled as a whole, those of the two arrays independently: the
    interval is a percentile bootstrap. NaN where all things tie on either side: then
    nothing is ranked. Ties get their mean rank.
    """
    predicted, realised = (np.asarray(x, np.float64) for x in (predicted, realised))
    if predicted.ndim != 2 or realised.ndim != 2 or len(predicted) != len(realised):
        raise ValueError(
            f"{predicted.shape=} and {realised.shape=} must be [F B] and [F R] of the "
            "same F things"
        )
    rng = np.random.default_rng(seed)
    left = _resampled_means(predicted, rng, num_resamples)
    right = _resampled_means(realised, rng, num_resamples)
    tail = (1 - confidence) / 2
    values = spearman(left, right)
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, [tail, 1 - tail]) if known.size else (np.nan,) * 2
    return Interval(spearman(predicted.mean(1), realised.mean(1)), low, high)


def _resampled_means(columns, rng, num_resamples):
    """Means over resampled columns: [F B] -> [resamples F]."""
    count = columns.shape[1]
    times = rng.multinomial(count, np.full(count, 1 / count), size=num_resamples)
    return times @ columns.T / count


def spearman(x, y):
    """Correlation of the ranks along the last axis, of floats of one shape; ties have
    their mean rank. NaN where either is constant."""
    from scipy import stats  # three quarters of a second, which planning need not wait

    # Means of equal numbers may differ in the last digit: those are ties.
    x, y = (stats.rankdata(np.round(v, 12), axis=-1) for v in (x, y))
    x, y = (v - v.mean(-1, keepdims=True) for v in (x, y))
    scale = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    with np.errstate(invalid="ignore"):
        return np.where(
            scale > 0, (x * y).sum(-1) / np.where(scale > 0, scale, 1), np.nan
        )
