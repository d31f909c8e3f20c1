"""The peers that an accelerator check compares with: transformers with accelerate's offloading."""

import importlib
import time
from typing import Any

from specmd_jax.model_zoo import GroupedQuery, ModelSpec

TOKENS = 16


def accelerate_tpot(spec: ModelSpec, tiny: bool) -> dict[str, Any]:
    """Returns TPOT of OLMoE's shape with random weights, all experts offloaded to the host.

    Args:
      spec: sizes of the model.
      tiny: on the CPU, where nothing is offloaded: only to see that it runs.
    """
    # Any: their types differ from release to release, and neither is a dependency.
    try:
        torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        return {"skipped": f"{error.name} is not installed"}
    mixer = spec.mixers[0]
    assert isinstance(mixer, GroupedQuery)
    config = transformers.OlmoeConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.moe_intermediate_size,
        num_hidden_layers=spec.num_hidden_layers,
        num_attention_heads=mixer.num_heads,
        num_key_value_heads=mixer.num_key_value_heads,
        num_experts=spec.num_experts,
        num_experts_per_tok=spec.top_k,
    )
    model = transformers.OlmoeForCausalLM(config).to(torch.bfloat16).eval()
    if not tiny:
        try:
            accelerate: Any = importlib.import_module("accelerate")
        except ImportError as error:
            return {"skipped": f"{error.name} is not installed"}
        accelerate.cpu_offload(model, execution_device=torch.device("cuda"))
    tokens = torch.arange(8)[None].to("cpu" if tiny else "cuda")
    with torch.no_grad():
        model.generate(tokens, max_new_tokens=2, do_sample=False)
        begun = time.perf_counter()
        model.generate(tokens, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
    return {"tpot_s": (time.perf_counter() - begun) / TOKENS, "offloaded": not tiny}
