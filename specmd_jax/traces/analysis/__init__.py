"""What a trace is like before any policy is run: skew, locality, reuse, working set, loops."""

from specmd_jax.traces.analysis.accesses import Accesses as Accesses
from specmd_jax.traces.analysis.accesses import accesses as accesses
from specmd_jax.traces.analysis.accesses import demand_sizes as demand_sizes
from specmd_jax.traces.analysis.facts import describe_trace as describe_trace
from specmd_jax.traces.analysis.foresight import foreseen_recall as foreseen_recall
from specmd_jax.traces.analysis.foresight import (
    foreseen_recall_by_layer as foreseen_recall_by_layer,
)
from specmd_jax.traces.analysis.locality import chance_overlap as chance_overlap
from specmd_jax.traces.analysis.locality import expert_counts as expert_counts
from specmd_jax.traces.analysis.locality import jaccard as jaccard
from specmd_jax.traces.analysis.locality import overlap as overlap
from specmd_jax.traces.analysis.locality import popularity_entropy as popularity_entropy
from specmd_jax.traces.analysis.locality import successive as successive
from specmd_jax.traces.analysis.locality import top_share as top_share
from specmd_jax.traces.analysis.locality import topic_chance_overlap as topic_chance_overlap
from specmd_jax.traces.analysis.locality import uniform_chance_overlap as uniform_chance_overlap
from specmd_jax.traces.analysis.loops import Loop as Loop
from specmd_jax.traces.analysis.loops import LoopReport as LoopReport
from specmd_jax.traces.analysis.loops import find_loops as find_loops
from specmd_jax.traces.analysis.reuse import ReuseProfile as ReuseProfile
from specmd_jax.traces.analysis.reuse import exact_from as exact_from
from specmd_jax.traces.analysis.reuse import hit_curve as hit_curve
from specmd_jax.traces.analysis.reuse import miss_curve as miss_curve
from specmd_jax.traces.analysis.reuse import reuse_profile as reuse_profile
from specmd_jax.traces.analysis.summary import TraceSummary as TraceSummary
from specmd_jax.traces.analysis.summary import summarise as summarise
from specmd_jax.traces.analysis.working_set import cycles as cycles
from specmd_jax.traces.analysis.working_set import mean_working_set as mean_working_set
from specmd_jax.traces.analysis.working_set import working_set as working_set
