"""The card of the bundled model: how it learned, how it routes, what it writes.

  python -m experiments.bundled_model.card --run RUN --corpus CORPUS

Writes README.md beside the weights in specmd_jax/models/bundled, and bundled_loss.png in
experiments/results. Routing is recorded on held-out text, teacher-forced, one pass a window.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.bundled_model import corpus
from experiments.shared.recordings import RECORDED, RESULTS, ROOT, load, short_name
from specmd_jax.models import (
    BUNDLED,
    ResidentModel,
    Sampling,
    empty_cache,
    generate,
    open_model,
    open_tokenizer,
)
from specmd_jax.report.plots import BLACK, GREY, VERMILION, house_style, save_picture
from specmd_jax.runtime.gates.scores import RecordOptions
from specmd_jax.runtime.record.model import RecordingModel
from specmd_jax.runtime.record.recorder import Recorder
from specmd_jax.traces import Provenance, Trace
from specmd_jax.traces.analysis import (
    chance_overlap,
    expert_counts,
    overlap,
    popularity_entropy,
)
from specmd_jax.traces.analysis.foresight import foreseen_recall_by_layer

LOOKAHEAD = 3
WINDOW = 256  # tokens, as in training
PROMPTS = (
    "In the beginning",
    "KING RICHARD:\n",
    "User: Tom has 3 boxes of 12 apples. He gives 6 apples to Ann. How many are left?\nAssistant:",
    "The system administrator",
    "def read_",
    "In 1998, the team",
)


@dataclass(frozen=True)
class Options:
    """Where the run lies."""

    run: Path
    corpus: Path
    windows: int = 24  # of each source's held-out text
    traces: tuple[Path, ...] = RECORDED  # that the routing is compared with

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The lines that training wrote."""
        return [json.loads(line) for line in (self.run / "log.jsonl").read_text().splitlines()]


def record(options: Options, text: corpus.Corpus) -> Trace:
    """Returns the routing of held-out text, each window a request of one pass a token."""
    checkpoint = open_model(BUNDLED)
    recorder = Recorder(RecordOptions(lookahead=LOOKAHEAD))
    model = RecordingModel(checkpoint.decoder(), checkpoint.all_experts(), recorder)
    for tokens in text.held_out.values():
        count = min(options.windows, len(tokens) // WINDOW)
        for row in np.asarray(tokens[: count * WINDOW], np.int32).reshape(count, WINDOW):
            recorder.begin([WINDOW])
            model(jnp.asarray(row[None]), _empty(checkpoint.config))
            recorder.finish()
    return recorder.trace(checkpoint.config.spec.num_experts, Provenance(model=BUNDLED))


def _empty(config: Any) -> Any:
    return empty_cache(config, 1, WINDOW, jnp.zeros(1, jnp.int32), jnp.float32)


@house_style()
def draw_loss(log: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the loss of training and of held-out text over the tokens seen."""
    figure = Figure(figsize=(6.4, 3.6))
    axis = figure.subplots()
    axis.plot([r["tokens"] / 1e6 for r in log], [r["nll"] for r in log], color="#cfcfcf", lw=0.7)
    looked = [row for row in log if "held_out" in row]
    seen = [row["tokens"] / 1e6 for row in looked]
    ends = {}
    for name in looked[-1]["held_out"]:
        values = [row["held_out"][name] for row in looked]
        axis.plot(seen, values, color=GREY, lw=0.9)
        ends[name] = values[-1]
    mean = [float(np.mean(list(row["held_out"].values()))) for row in looked]
    axis.plot(seen, mean, color=VERMILION, lw=1.8)
    for name in (min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)):
        axis.text(seen[-1], ends[name], f" {name}", size=7.5, color=GREY, va="center")
    axis.text(seen[-1], mean[-1], " mean", size=8, color=VERMILION, va="center")
    axis.set_xlim(0, seen[-1] * 1.16)
    axis.set_ylim(2, 7)
    axis.set_xlabel("million tokens")
    axis.set_ylabel("nats a token")
    axis.set_title("Held-out loss by source · MEASURED", loc="left", color=BLACK)
    save_picture(figure, path)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a Markdown table whose numbers stand to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def data_table(options: Options) -> list[str]:
    """Returns what each source gave, and the loss on what was held out of it."""
    held_out = next(row["held_out"] for row in reversed(options.log) if "held_out" in row)
    rows = []
    for source in json.loads((options.corpus / "corpus.json").read_text()):
        nats = held_out.get(source["source"])
        per_byte = source["held_out_tokens"] / source["held_out_characters"] / np.log(2)
        rows.append([
            source["source"], source["kind"], source["licence"],
            f"{source['characters'] / 1e6:.1f}", str(source["repeats"]),
            "-" if nats is None else f"{nats:.2f}",
            "-" if nats is None else f"{nats * per_byte:.2f}",
        ])  # fmt: skip
    head = ["source", "kind", "licence", "million characters", "times seen",
            "held-out nats a token", "bits a character"]  # fmt: skip
    return table(head, rows)


def routing_table(traces: dict[str, Trace]) -> list[str]:
    """Returns how evenly and how repetitively each trace routes."""
    rows = []
    for name, trace in traces.items():
        entropy = popularity_entropy(expert_counts(trace)) / np.log2(trace.num_experts)
        found, chance = overlap(trace), chance_overlap(trace)
        rows.append([
            name, f"{trace.shape.num_layers} x {trace.num_experts}, top {trace.shape.top_k}",
            f"{entropy.min():.3f} to {entropy.max():.3f}", f"{np.nanmean(found):.3f}",
            f"{np.nanmean(chance):.3f}", f"{np.nanmean(found) / np.nanmean(chance):.2f}",
        ])  # fmt: skip
    head = ["trace", "experts", "usage entropy by layer, share of the maximum",
            "overlap of neighbouring tokens", "by chance", "ratio"]  # fmt: skip
    return table(head, rows)


def layer_table(trace: Trace) -> list[str]:
    """Returns usage and foresight of each layer of the bundled model."""
    counts = expert_counts(trace)
    entropy = popularity_entropy(counts) / np.log2(trace.num_experts)
    recall = foreseen_recall_by_layer(trace).T
    fair = counts.sum(1, keepdims=True) / trace.num_experts
    least, most = (counts / fair).min(1), (counts / fair).max(1)
    rows = []
    for layer in range(trace.shape.num_layers):
        shares = ["-" if np.isnan(one) else f"{one:.1%}" for one in recall[layer]]
        rows.append([str(layer), f"{entropy[layer]:.3f}", f"{least[layer]:.2f}",
                     f"{most[layer]:.2f}", *shares])  # fmt: skip
    head = ["layer", "usage entropy", "least used", "most used",
            *(f"foresees {d} ahead" for d in range(1, LOOKAHEAD + 1))]  # fmt: skip
    return table(head, rows)


def samples(temperature: float = 0.7, top_p: float = 0.9) -> list[str]:
    """Returns what the model makes of a few prompts."""
    checkpoint = open_model(BUNDLED)
    tokenizer = open_tokenizer(checkpoint)
    model = ResidentModel(checkpoint.decoder(), checkpoint.all_experts())
    lines = []
    for prompt in PROMPTS:
        made = generate(
            model, checkpoint.config, [tokenizer.encode(prompt).ids], 100, stop=(0,),
            sampling=Sampling(temperature, top_p), seed=0,
        )[0]  # fmt: skip
        text = tokenizer.decode([token for token in made if token])
        lines += ["```text", f"{prompt}⟶{text}", "```", ""]
    return lines


def card(options: Options, trace: Trace) -> list[str]:
    """Returns the lines of the card."""
    log = options.log
    last, config = log[-1], open_model(BUNDLED).config
    spec = config.spec
    recall = np.nanmean(foreseen_recall_by_layer(trace), axis=1)
    traces = {f"{BUNDLED}, held-out text": trace}
    traces |= {short_name(n): t for n, t in load(options.traces, 4000).items()}
    folder = ROOT / "specmd_jax/models/bundled/model.safetensors"
    return [
        f"# {BUNDLED}",
        "",
        "A small mixture-of-experts language model, trained for this project so that caching can",
        "be tried on real routing, real text and real weights on any machine. It writes English",
        "that can be recognised as such; it knows nothing, and is no assistant.",
        "",
        f"* **Shape**: OLMoE's architecture; {spec.num_hidden_layers} layers of "
        f"{spec.num_experts} experts, top {spec.top_k}, weights of the chosen normalised;",
        f"  hidden size {spec.hidden_size}, expert width {spec.moe_intermediate_size}, "
        f"{getattr(spec.mixers[0], 'num_heads', 0)} heads, vocabulary {spec.vocab_size}.",
        f"* **Files**: {folder.stat().st_size / 1e6:.1f} MB of bfloat16 in the layout of Hugging "
        "Face's OLMoE,",
        "  and a byte-level BPE learned from the same text.",
        f"* **Training**: {last['tokens'] / 1e6:.1f} million tokens, each seen once but for the",
        "  repeats below; AdamW, sequences of 256, load-balancing loss 0.01, later 0.04, router",
        "  z-loss 0.001.",
        "  `experiments/bundled_model/corpus.py` makes the corpus, `train.py` beside it trains.",
        "* **Licence**: the weights are the project's own, Apache-2.0. The text is not included.",
        "",
        "## Data, and loss on what was held out",
        "",
        "MEASURED, in windows of 256 tokens; documents are held out whole.",
        "",
        *data_table(options),
        "",
        "![Held-out loss while it learned](../../../experiments/results/bundled_loss.png)",
        "",
        "## Routing",
        "",
        "MEASURED on held-out text, beside recorded traces of published models (of those, decoded",
        "tokens as recorded). Chance is the overlap of independent draws with the trace's own",
        "popularity.",
        "",
        *routing_table(traces),
        "",
        "By layer: usage as a share of an even share, and how many of a token's experts the gate",
        "of a layer to come names when it is asked 1, 2 or 3 layers early. Published for",
        "one layer ahead in larger models: 71 to 97 %, by model and method.",
        f"Here, over all layers: {', '.join(f'{one:.1%}' for one in recall)}.",
        "",
        *layer_table(trace),
        "",
        "## Samples",
        "",
        "Temperature 0.7, top-p 0.9, seed 0, the first draw of each; the arrow ends the prompt.",
        "",
        *samples(),
    ]


def main(options: Options) -> None:
    """Writes the card and the picture."""
    text = corpus.load(options.corpus)
    draw_loss(options.log, RESULTS / "bundled_loss.png")
    lines = card(options, record(options, text))
    path = ROOT / "specmd_jax/models/bundled/README.md"
    path.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options))
