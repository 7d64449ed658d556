"""The work directory, made ready: it can be written, and compiled programs stay there."""

from pathlib import Path

import jax

from pavjax.runtime import hardware
from pavjax.runtime.atomic import check_writable


def prepare(workdir):
    """Before any work: see that `workdir` can be written, and let JAX keep compiled
    programs there, so that a later stage or a second run does not compile them again.

    A folder per kind of processor, since the programs hold machine code. Entries that
    are damaged, as by a kill in mid-write, are compiled again with a warning.
    """
    check_writable(workdir)
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(workdir).absolute() / ".jax_cache" / hardware.machine_kind()
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
