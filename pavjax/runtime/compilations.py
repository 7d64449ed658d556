"""How many programs JAX has compiled, and what to say of steps that compile again."""

import functools

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"
SETTLED = 3  # calls after which a step should have all of its programs


class Compilations:
    """Counts what JAX compiles, anywhere in the process, and the seconds it takes
    (tracing and lowering included)."""

    def __init__(self):
        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event, seconds, **_):
        if event.startswith("/jax/core/compile/"):
            self.seconds += seconds
            self.count += event == COMPILED


@functools.cache
def compilations():
    """The one counter of this process."""
    return Compilations()


def watched(step_fn, log):
    """`step_fn(state, step)`, which says so when it compiles after its first calls: a
    shape that changes from step to step can cost more than the step itself."""
    counter, num_calls = compilations(), 0

    def watching(state, step):
        nonlocal num_calls
        before, result = counter.count, step_fn(state, step)
        num_calls += 1
        if num_calls > SETTLED and counter.count > before:
            log(f"step {step} compiled {counter.count - before} programs anew")
        return result

    return watching
