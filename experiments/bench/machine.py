"""What this device reaches: products of large matrices, and moving large arrays."""

import functools

import jax
import jax.numpy as jnp

from experiments.bench import sizes, timing
from pavjax.runtime import local_work, sharding

REPETITIONS = 5


class Machine:
    """Peaks of all devices, measured when they are first asked for and then kept. A
    large product or array keeps every core of a CPU busy, however many devices its
    cores are divided into; of accelerators one is measured and multiplied.

    flops(itemsize): FLOP/s of the product of square matrices in float32 or bfloat16.
    shaped_flops(size, rows): the same of [rows, width] with the MLP's matrices of a
    model, each device with its share of rows, which is what a small batch through a
    narrow model allows at best.
    bandwidth: bytes/s of a + s b over large arrays: two reads and one write.
    Each is the best of a few repetitions: a peak.
    """

    def __init__(self, *, quick=False):
        is_cpu = jax.default_backend() == "cpu"
        self.num_alike = 1 if is_cpu else sizes.mesh().size
        self.quick = quick
        # Large enough that neither the caches of a CPU nor the time of a launch count.
        self.matrix = 256 if quick else 2048 if is_cpu else 8192
        self.array = 2**20 if quick else 2**26 if is_cpu else 2**29
        self.flops = functools.cache(self._flops)
        self.shaped_flops = functools.cache(self._shaped_flops)

    def _flops(self, itemsize):
        n = self.matrix
        dtype = jnp.bfloat16 if itemsize == 2 else jnp.float32

        @jax.jit
        def chain(x):
            return jax.lax.fori_loop(0, 4, lambda _, y: y @ a, x)

        with one_device():
            a = jax.random.normal(jax.random.key(0), (n, n), dtype) * n**-0.5
            seconds = best_seconds(lambda: chain(a))
        return self.num_alike * 4 * 2 * n**3 / seconds

    def _shaped_flops(self, size, rows):
        model = sizes.load(size)
        width, inner = model.config.width, model.config.mlp_width
        dtype = jnp.dtype(model.config.dtype)
        keys = jax.random.split(jax.random.key(0), 3)
        shapes = ((rows, width), (width, inner), (inner, width))
        x, up, down = (
            jax.random.normal(key, shape, dtype) * shape[0] ** -0.5
            for key, shape in zip(keys, shapes, strict=True)
        )
        flops = 4 * rows * width * inner
        times = max(1, int((1e7 if self.quick else 2e9) / flops))

        def chain(matrices, x):
            up, down = matrices
            return jax.lax.fori_loop(0, times, lambda _, y: (y @ up) @ down, x)

        chain = jax.jit(local_work.by_rows(chain))
        with jax.set_mesh(sizes.mesh()):
            return times * flops / best_seconds(lambda: chain((up, down), x))

    @functools.cached_property
    def bandwidth(self):
        """Bytes per second."""

        @jax.jit
        def triad(a, b):
            return jax.lax.fori_loop(0, 4, lambda _, x: a + 0.5 * x, b)

        with one_device():
            a, b = jnp.ones(self.array), jnp.ones(self.array)
            seconds = best_seconds(lambda: triad(a, b))
        return self.num_alike * 4 * 3 * a.nbytes / seconds

    def describe(self):
        """Everything that was measured so far is in the lines; this is for their head."""
        return {
            "backend": jax.default_backend(),
            "devices": sizes.mesh().size,
            "square_matrix": self.matrix,
            "array_bytes": self.array * 4,
        }


def one_device():
    """A mesh of one device, where else all devices would compute the same."""
    return jax.set_mesh(sharding.make_mesh(devices=jax.devices()[:1]))


def best_seconds(call):
    """Of some repetitions, the first aside."""
    timing.seconds_of(call)
    return min(timing.seconds_of(call) for _ in range(REPETITIONS))
