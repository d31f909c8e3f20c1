"""JAX's compilation cache on disk: a short run is mostly compiling, and the next one need not."""

import os
from pathlib import Path


def compilation_cache() -> Path | None:
    """Returns where compiled programs are kept; None where `SPECMD_CACHE` is off.

    `SPECMD_CACHE` names another folder; else XDG_CACHE_HOME or ~/.cache is used.
    """
    chosen = os.environ.get("SPECMD_CACHE", "")
    if chosen.lower() in ("0", "off", "no", "none"):
        return None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "specmd-jax"


def enable_compilation_cache() -> None:
    """Lets JAX keep what it compiles; to be called before anything is."""
    folder = compilation_cache()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a cache is a convenience: a read-only home is no error
        return
    import jax  # late: not every verb that parses flags needs it

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
