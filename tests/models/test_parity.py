"""The decoder beside `transformers`: the same logits and the same generated tokens.

The golden files were written by `write_golden.py`. Where torch and transformers are installed,
other weights and longer prompts are compared live as well. Takes about 60 s without them.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from specmd_jax.models import Checkpoint, ResidentModel, generate
from tests.models.architectures import ARCHITECTURES
from tests.models.oracle import GENERATED, expanded, reference, write_checkpoint

pytestmark = pytest.mark.parity

EXACT = 1e-5  # of logits around 4, in float32
GOLDEN = Path(__file__).parent / "golden"
LIVE = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def checkpoint(folder, name, seed=0):
    config = ARCHITECTURES[name]
    write_checkpoint(folder, config, expanded(golden(name)["tensors"], config), seed)
    return Checkpoint(folder)


class Listening:
    """A model whose logits of every pass are kept."""

    def __init__(self, model):
        self.model, self.config, self.logits = model, model.config, []

    def __call__(self, tokens, cache):
        made = self.model(tokens, cache)
        self.logits.append(made.logits)
        return made

    def of_prompts(self, prompts, chunk):
        """Returns the logits of each prompt, without its padding."""
        passes = -(-max(len(prompt) for prompt in prompts) // chunk)
        whole = np.concatenate(self.logits[:passes], axis=1)
        return [row[-len(prompt) :] for row, prompt in zip(whole, prompts, strict=True)]


def compare(opened, prompts, chunk, logits, generated):
    """Prefill in chunks and decode through the cache, three unequal prompts in one batch."""
    model = Listening(ResidentModel(opened.decoder(), opened.all_experts()))
    assert generate(model, opened.config, prompts, GENERATED, chunk=chunk) == generated
    for found, wanted in zip(model.of_prompts(prompts, chunk), logits, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_golden_logits_and_64_greedy_tokens(tmp_path, name):
    wanted = golden(name)
    opened = checkpoint(tmp_path, name)
    compare(opened, wanted["prompts"], 8, wanted["logits"], wanted["generated"])


@pytest.mark.skipif(not LIVE, reason="torch and transformers are not installed")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_live_logits_and_64_greedy_tokens(tmp_path, name):
    rng = np.random.default_rng(len(name))
    prompts = [rng.integers(0, 48, length).tolist() for length in (50, 9, 31)]
    opened = checkpoint(tmp_path, name, seed=1)
    logits, generated, margin = reference(tmp_path, prompts, GENERATED)
    assert margin > 2 * EXACT, "too near a tie to tell: choose another seed"
    compare(opened, prompts, 16, logits, generated)
