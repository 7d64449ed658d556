"""Which prover helps which base: a heat map over both, the paper's Fig. 5c."""

import numpy as np

from experiments.prover_names import AUTO, BASE, parse_name
from experiments.reporting import plotting
from experiments.reporting.curves import Missing

WIDTH = 16  # beams, as in the figure; or else the widest that was measured


def fits(point):
    """Whether the points of a sweep are pairs of a base and a prover."""
    return "base" in point and ("prover" in point or "provers" in point)


def prover_map(points, results):
    """-> (PNG, a sentence about it); `Missing` without any pair to show.

    points: [{field: value}]; results: what the search of each found, None if it is not
    there. The columns are the policies that the provers are made of: best-of-K of the
    base stands for the base.
    """
    names = [prover_of(point) for point in points]
    bases = list(dict.fromkeys(point["base"] for point in points))
    provers = [name for name in bases if name in names]
    provers += [name for name in dict.fromkeys(names) if name not in provers]
    found = np.full((len(bases), len(provers), 3), np.nan)
    seen, widths, own = set(), set(), set()
    for point, name, result in zip(points, names, results, strict=True):
        cell = bases.index(point["base"]), provers.index(name)
        if cell in seen:
            raise Missing("No picture: several points have the same base and prover.")
        seen.add(cell)
        gain = None if result is None else improvement(result, point)
        if gain is not None:
            interval, width = gain
            found[cell] = [np.nan if limit is None else limit for limit in interval]
            widths.add(width)
            if name == point["base"]:
                own.add(result["default_prover"].replace(f"({name})", f"({BASE})"))
    if np.isnan(found[..., 0]).all():
        raise Missing("No picture: no pair of base and prover has been searched with.")
    image = plotting.render_heat(
        found,
        bases,
        provers,
        "Which prover helps which base?",
        ("prover", "base policy", "% over ORM"),
    )
    return image, caption(found, widths, sorted(own))


def prover_of(point):
    """The column of a point."""
    wanted = wanted_of(point)
    if wanted == AUTO:
        return AUTO
    name = parse_name(wanted, point["base"])
    return point["base"] if set(name.policies) == {point["base"]} else str(name)


def wanted_of(point):
    """The prover that a point asks for: by its name, or as the last of its `provers`."""
    if "prover" in point:
        return point["prover"]
    provers = point["provers"]
    return provers if isinstance(provers, str) else provers[-1]


def improvement(results, point):
    """([estimate, low, high] of the relative improvement in %, N) of one pair; None if
    it was not measured: of the default prover, unless the point names a policy that is
    not the base."""
    if "over_orm" not in results:  # published verifiers have no ORM beside them
        return None
    label = results["default_prover"]
    if "prover" not in point and prover_of(point) != point["base"]:
        label = prover_of(point)
    gains = results["over_orm"].get(label, {"n": []})
    at = {
        n: interval
        for n, interval in zip(gains["n"], gains.get("percent", ()), strict=True)
        if interval[0] is not None
    }
    if not at:
        return None
    n = WIDTH if WIDTH in at else max(at)
    return at[n], n


def caption(found, widths, own):
    """What the numbers are, and what is not there."""
    at = " or ".join(map(str, sorted(widths)))
    text = (
        "Relative improvement in accuracy (%) of the PAV beam over ORM best-of-N, both "
        f"at N = {at}, with 95% intervals over the test problems, which both share."
    )
    if own:
        text += f" A base as its own prover is {' or '.join(own)}."
    missing = int(np.isnan(found[..., 0]).sum())
    if missing:
        pairs = found.shape[0] * found.shape[1]
        text += f" {missing} of {pairs} pairs are missing: hatched."
    return text
