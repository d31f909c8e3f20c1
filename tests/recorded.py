"""The recorded traces that tests may use where they are at hand: SPECMD_SHARED/traces."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from specmd_jax.traces.trace import DECODE, Trace

FOLDER = Path(os.environ.get("SPECMD_SHARED", Path(__file__).parents[2] / "shared")) / "traces"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/trace.npz"))
needs_recorded = pytest.mark.skipif(not NAMES, reason="no recorded traces here")


def recorded(name: str) -> Trace:
    """Read one as a decode of one token a pass, which all of them are."""
    meta = json.loads((FOLDER / name / "meta.json").read_text())
    with np.load(FOLDER / name / "trace.npz") as file:
        experts, request = file["experts"], file["request"]
    tokens = len(experts)
    return Trace(
        experts,
        meta["experts"],
        step=np.arange(tokens, dtype=np.int32),
        request=request,
        phase=np.full(tokens, DECODE, np.uint8),
    )
