"""A handful of traces, step by step, with Q and A written on them and A coloured in."""

import html
import math

from experiments.reporting.curves import Missing

RED, WHITE, GREEN = (214, 96, 77), (255, 255, 255), (77, 166, 100)


def to_html(results):
    """All traces; Missing if the search kept none."""
    traces = results.search.get("traces") or []
    traces = traces[: results.config["report"]["num_traces"]]
    if not traces:
        raise Missing("The search results hold no traces.")
    known = [
        abs(step["A"])
        for trace in traces
        for step in trace["steps"]
        if is_number(step["A"])
    ]
    scale = max([0.05, *known])
    shown = "\n".join(trace_html(trace, scale) for trace in traces)
    return f'{key(scale)}<div class="traces">{shown}</div>'


def is_number(value):
    return value is not None and math.isfinite(value)


def key(scale):
    return (
        '<p class="key"><span class="ramp"></span> A from '
        f"−{scale:.2f} (red: the step lost ground) over 0 (white) to +{scale:.2f} "
        "(green: progress). ✓ and ✗: the task's exact step oracle, which no verifier "
        "sees. Hover over a step for its numbers.</p>"
    )


def trace_html(trace, scale):
    graded = "right" if trace["graded"] else "wrong"
    steps = "\n".join(
        step_html(index, step, scale) for index, step in enumerate(trace["steps"])
    )
    return (
        f'<article class="trace"><h4><code>{html.escape(trace["prompt"].strip())}</code>'
        f" <small>chosen by {html.escape(str(trace['chosen_by']))}; expected "
        f"<code>{html.escape(str(trace['answer']))}</code>; graded "
        f'<b class="{graded}">{graded}</b></small></h4>'
        f"<ol>{steps}</ol></article>"
    )


def step_html(index, step, scale):
    q, a = number(step["Q"], "{:.2f}"), number(step["A"], "{:+.2f}")
    correct = step.get("correct")
    mark = {True: "✓", False: "✗"}.get(correct, "")
    tip = f"step {index + 1}: Q = {number(step['Q'], '{:.4f}')}, "
    tip += f"A = {number(step['A'], '{:+.4f}')}"
    if mark:
        tip += ", correct so far" if correct else ", wrong by the step oracle"
    return (
        f'<li style="background:{colour(step["A"], scale)}" title="{tip}">'
        f"<code>{html.escape(step['text'].strip())}</code>"
        f'<span class="mark">{mark}</span>'
        f'<span class="numbers">Q {q} &nbsp; A {a}</span></li>'
    )


def number(value, pattern):
    return pattern.format(value).replace("-", "−") if is_number(value) else "–"


def colour(advantage, scale):
    """Red - white - green, as a CSS colour; grey where there is no number."""
    if not is_number(advantage):
        return "#eeeeee"
    share = max(-1.0, min(1.0, advantage / scale))
    end = GREEN if share > 0 else RED
    mixed = (
        round(w + (e - w) * abs(share) ** 0.7) for w, e in zip(WHITE, end, strict=True)
    )
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
