"""The sizes in a config.json by what they mean: first of several names, alike in all layers."""

from collections.abc import Iterable, Mapping
from typing import Any

from specmd_jax.core.errors import InputError
from specmd_jax.core.names import near_names
from specmd_jax.core.schema import read_record
from specmd_jax.model_zoo.config_schema import KNOWN, ConfigRecord

# Every family has its own names for the same sizes; the first that is there counts.
LAYERS = ("num_hidden_layers", "n_layers", "num_layers")
HIDDEN_SIZE = ("hidden_size", "d_model")
_A_LAYER_EACH = ("hybrid_override_pattern", "layers_block_type", "layer_types")
_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_FLATTENED = ("attn_config", "ffn_config")  # DBRX's
_LONGEST_KEY = 80  # characters; a longer one is no slip of any


class ConfigSizes:
    """A checked config whose errors name the file and the key."""

    def __init__(self, config: Mapping[str, Any], origin: str):
        """Checks every key that is known.

        Args:
          config: as parsed; of a multimodal model the language part is taken.
          origin: as a message begins.

        Raises:
          InputError: a key holds a value of another type, or out of its bounds.
        """
        self.keys = text_part(config)
        self.origin = origin
        self._record = read_record(
            self.keys, ConfigRecord, origin, "mend the config.json", check_spelling=False
        )
        listed = next((v for key in _A_LAYER_EACH if (v := self.get(key))), None)
        self.num_layers: int = len(listed) if self.get(*LAYERS) is None and listed else 0
        self.num_layers = self.num_layers or self.need(*LAYERS)

    @property
    def model_type(self) -> str:
        return self.get("model_type", default="")

    def get(self, *keys: str, default: Any = None) -> Any:
        """Returns the value of the first key that is there and not null."""
        return next((v for k in keys if (v := getattr(self._record, k)) is not None), default)

    def need(self, *keys: str) -> Any:
        """Returns the value of the first key that is there, which must be above 0.

        Raises:
          InputError: there is none.
        """
        value = self.get(*keys)
        if not value:
            others = [key for key in self.keys if key not in KNOWN and len(key) < _LONGEST_KEY]
            slip = near_names(keys[0], others)
            hint = f"is {slip[0]} a slip of it?" if slip else "is it a MoE config.json?"
            raise InputError(f"{self.origin} lacks {' or '.join(keys[:2])}: {hint}")
        return value

    def by_layer(self, *keys: str, default: Any = None) -> list[Any]:
        """Returns the value of each decoder layer: those of a list, or one for all.

        Raises:
          InputError: the list has another length.
        """
        value = self.get(*keys, default=default)
        if not isinstance(value, list | str):
            return [value] * self.num_layers
        if len(value) != self.num_layers:
            raise InputError(
                f"{self.origin}: {self._given(keys)} has {len(value)} entries, "
                f"{self.num_layers} layers: give one a layer"
            )
        return list(value)

    def alike(self, layers: Iterable[int], *keys: str, default: int | None = None) -> int:
        """Returns the one value that all of `layers`, of which there are some, have.

        Raises:
          InputError: there is none, or they differ.
        """
        if default is None:
            self.need(*keys)
        values = self.by_layer(*keys, default=default)
        found = sorted({values[layer] for layer in layers})
        if len(found) > 1:
            raise InputError(
                f"{self.origin}: {self._given(keys)} differs among the layers with experts "
                f"({', '.join(map(str, found[:4]))}): one for all is supported"
            )
        if default is None and not found[0]:
            raise InputError(f"{self.origin}: {self._given(keys)} is 0: mend the config.json")
        return found[0]

    def _given(self, keys: tuple[str, ...]) -> str:
        return next(key for key in keys if self.get(key) is not None)


def text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the language model of a multimodal config, with nested parts laid flat."""
    flat = dict(config)
    for part in _PARTS:
        if isinstance(nested := flat.get(part), Mapping):
            flat = text_part(nested)
            break
    for part in _FLATTENED:
        if isinstance(nested := flat.get(part), Mapping):
            flat |= nested
    return flat
