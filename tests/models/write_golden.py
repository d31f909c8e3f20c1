"""Writes tests/models/golden/*.json: what `transformers` computes for the tiny models.

Run in the repository with the extra `oracles` installed; takes a minute:

    python -m tests.models.write_golden
"""

import json
import re
import tempfile
from pathlib import Path

import numpy as np

from tests.models.architectures import ARCHITECTURES
from tests.models.oracle import GENERATED, PROMPTS, reference, tensor_shapes, write_checkpoint

_OF_LATER_EXPERT = re.compile(r"experts\.[1-9]\d*\.")
GOLDEN = Path(__file__).parent / "golden"


def main() -> None:
    """Writes one file an architecture."""
    GOLDEN.mkdir(exist_ok=True)
    for name, config in ARCHITECTURES.items():
        shapes = tensor_shapes(config)
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), config, shapes)
            logits, generated, margin = reference(Path(folder), PROMPTS, GENERATED)
        golden = {
            "tensors": {
                tensor: list(shape)
                for tensor, shape in shapes.items()
                if not _OF_LATER_EXPERT.search(tensor)
            },
            "prompts": PROMPTS,
            "logits": [np.round(of_prompt, 6).tolist() for of_prompt in logits],
            "generated": generated,
        }
        text = json.dumps(golden, separators=(",", ":")) + "\n"
        (GOLDEN / f"{name}.json").write_text(text, encoding="utf-8")
        scale = max(float(np.abs(of_prompt).max()) for of_prompt in logits)
        different = len({token for made in generated for token in made})
        print(
            f"{name:22} {len(text):6} B  max|logit| {scale:.2f}  least margin {margin:.1e}  "
            f"{different} different tokens"
        )


if __name__ == "__main__":
    main()
