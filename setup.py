"""Installs pavjax: `pip install -e .`, for development `pip install -e ".[test]"`."""

from setuptools import find_packages, setup

setup(
    name="pavjax",
    version="0.1.0",
    description="Process advantage verifiers in JAX: rewarding progress in search and "
    "reinforcement learning (arXiv:2410.08146)",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The library alone: experiments/ and configs/ are run from a checkout.
    packages=find_packages(include=["pavjax", "pavjax.*"]),
    install_requires=[
        # jax 0.11 ended support for Python 3.11, and flax 0.12.12 needs jax 0.11:
        # the two go in step.
        "jax>=0.10.2,<0.11; python_version < '3.12'",
        "flax==0.12.8; python_version < '3.12'",
        "jax>=0.11.1; python_version >= '3.12'",
        "flax>=0.12.12; python_version >= '3.12'",
        "array_record>=0.8",
        "chex>=0.1.92",
        "jinja2>=3.1",  # chat templates; transformers does not bring it
        "math-verify>=0.9,<0.10",
        "matplotlib>=3.9",
        "ml-collections>=1.1",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "rich>=13",
        "safetensors>=0.8",
        "scipy>=1.13",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "transformers>=5.17",  # tokenizers and model folders; needs no torch for them
    ],
    extras_require={
        # torch is what transformers runs on: parity tests, and check_model.
        "test": [
            "pytest>=8",
            "ruff>=0.12",
            "sentencepiece",
            "tiktoken",
            "torch==2.13.0",
        ],
        "reasoning_gym": ["reasoning-gym"],
        "wandb": ["wandb"],
        "cuda": ["jax[cuda13]; python_version >= '3.12'"],
        "tpu": ["jax[tpu]"],
        # The compiler for TPUs, to plan a run without one: of jax's own choice, for each
        # release goes with one of libtpu (0.10.2 with 0.0.42, 0.12.0 with 0.0.50).
        "aot": ["jax[tpu]"],
    },
)
