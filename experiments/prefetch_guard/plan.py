"""Links, predictors and traces on which prefetching is tried with and without a guard."""

from experiments.shared.recordings import RECORDINGS
from specmd_jax.study.choice import Choice

RHOS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.1)
TRACES = tuple(RECORDINGS / "traces" / name for name in ("olmoe-sampled", "gpt-oss-20b"))
PREDICTORS: dict[str, Choice] = {
    "hottest": Choice(prefetch="hottest"),
    "transition": Choice(prefetch="transition"),
    "oracle of precision 0.8": Choice(
        prefetch="noisy-oracle",
        params=(("prefetch.recall", "0.8"), ("prefetch.precision", "0.8")),
    ),
}
MACHINE = "rtx-3060"
CAPACITY, PRECISION = "5%", "int4"
