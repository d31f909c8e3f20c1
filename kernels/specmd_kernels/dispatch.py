"""Which backend computes an op.

A backend is a module `specmd_kernels.<op>.<backend>` with a function called `<op>`. It declines
what it cannot do with NotImplementedError and the reason. It is imported when it is first asked
for: Mosaic GPU needs a package that JAX does not install.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Literal

import jax

Implementation = Literal["xla", "pallas_tpu", "pallas_gpu", "interpret"]
_PREFERRED: dict[str, Implementation] = {"tpu": "pallas_tpu", "gpu": "pallas_gpu"}


def preferred() -> Implementation | None:
    """Returns the kernels of JAX's default platform, None if it has none."""
    return _PREFERRED.get(jax.default_backend())


def call(op: str, implementation: Implementation | None, *args: Any) -> Any:
    """Returns what a backend makes of `args`.

    Args:
      op: name of the op's folder.
      implementation: the one to use; None: the kernel of JAX's default platform if there is one
        and it does not decline, else XLA. "interpret" runs the TPU's kernel anywhere, slowly.

    Raises:
      NotImplementedError: the implementation asked for by name declines.
    """
    if implementation is not None:
        return _backend(op, implementation)(*args)
    kernel = preferred()
    if kernel is not None:
        try:
            return _backend(op, kernel)(*args)
        except NotImplementedError:
            pass  # XLA declines nothing
    return _backend(op, "xla")(*args)


def _backend(op: str, implementation: Implementation) -> Callable[..., Any]:
    interpret = implementation == "interpret"
    name = "pallas_tpu" if interpret else implementation
    try:
        module = import_module(f"specmd_kernels.{op}.{name}")
    except ImportError as error:
        raise NotImplementedError(f"{name} cannot be imported: {error}") from error
    function = getattr(module, op)
    return partial(function, interpret=True) if interpret else function
