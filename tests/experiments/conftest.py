"""A trace of a few passes, of OLMoE's shape and name."""

from dataclasses import replace
from pathlib import Path

import pytest

from specmd_jax.model_zoo import get_model
from specmd_jax.traces import Provenance, Trace, write_trace
from specmd_jax.traces.synthetic.generator import SyntheticSpec, generate


@pytest.fixture(scope="package")
def trace() -> Trace:
    model = get_model("olmoe-1b-7b-0924")
    spec = SyntheticSpec(model.shape, requests=2, tokens=5, prompt_tokens=1)
    return replace(generate(spec, seed=1), provenance=Provenance(model=model.hf_id))


@pytest.fixture
def recorded(trace: Trace, tmp_path: Path) -> Path:
    path = tmp_path / "trace.safetensors"
    write_trace(trace, path)
    return path
