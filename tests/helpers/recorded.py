"""The recordings that tests use where they are at hand: SPECMD_RECORDINGS, or beside the checkout.

traces/ holds real routing traces, conformance/ counts that another program made of them.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specmd_jax.traces.trace import DECODE, Trace

RECORDINGS = Path(os.environ.get("SPECMD_RECORDINGS", Path(__file__).parents[3] / "shared"))
FOLDER = RECORDINGS / "traces"
CONFORMANCE = RECORDINGS / "conformance"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/trace.npz"))
needs_recorded = pytest.mark.skipif(not NAMES, reason="no recorded traces here")
needs_conformance = pytest.mark.skipif(
    not CONFORMANCE.is_dir(), reason="no recorded counts here: name their folder SPECMD_RECORDINGS"
)


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


def conformance(name: str) -> Any:
    """Returns the counts in one file of the recordings, [] where there are none."""
    path = CONFORMANCE / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else []
