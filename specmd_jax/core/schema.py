"""What the fields of a record must be: one check, by types and bounds, for whatever comes in.

A schema is a dataclass or a `msgspec.Struct` whose fields are annotated with their bounds. Keys
that it does not have are left to people, unless they look like a slip of one that it has.
"""

import re
from collections.abc import Mapping
from functools import cache
from itertools import islice
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from specmd_jax.core.errors import InputError
from specmd_jax.core.json_files import shown
from specmd_jax.core.names import MOST, near_names

T = TypeVar("T")

Rate = Annotated[float, Meta(ge=1, le=1e24)]  # a second: bytes, FLOPs
Seconds = Annotated[float, Meta(ge=0, le=1e6)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 60)]

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_MESSAGE = re.compile(r"Expected (?P<types>`[^`]+`)(?P<bound>[^,]*)(, got `\w+`)?")
_LENGTHS = {"`str`": " characters", "`array`": " entries"}
_SIGNS = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}


def read_record(
    record: Mapping[str, Any],
    schema: type[T],
    where: str,
    advice: str,
    *,
    check_spelling: bool = True,
) -> T:
    """Returns a record as its schema has it.

    Args:
      record: as parsed.
      schema: of what it must be.
      where: it is from, as a message begins.
      advice: what the message says to do.
      check_spelling: whether an unknown key like one that is missing is refused.

    Raises:
      InputError: a field is missing, of another type or out of bounds, or a key is misspelt.
    """
    if check_spelling:
        _check_spelling(record, schema, where)
    try:
        return msgspec.convert(record, schema)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {_complaint(str(error), record)}: {advice}") from error


def check_fields(record: Any, where: str) -> None:
    """Checks the fields of a dataclass against their annotations.

    Raises:
      InputError: one is of another type or out of bounds.
    """
    for name, kind in _field_types(type(record)):
        value = getattr(record, name)
        value = float(value) if isinstance(value, float) else value  # NumPy's too
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            complaint = _complaint(f"{error} - at `$.{name}`", {name: value})
            raise InputError(f"{where}: {complaint}") from error


@cache
def _field_types(schema: type) -> tuple[tuple[str, Any], ...]:
    return tuple(get_type_hints(schema, include_extras=True).items())


def _check_spelling(record: Mapping[str, Any], schema: type, where: str) -> None:
    known = [name for name, _ in _field_types(schema)]
    missing = [name for name in known if name not in record]
    for key in islice(record, MOST):
        near = [] if key in known else near_names(key, missing)
        if near:
            raise InputError(f"{where} has {shown(key)}: is {near[0]} meant?")


def _complaint(message: str, record: Mapping[str, Any]) -> str:
    """Returns msgspec's message in the words of a user: the field, what it must be, what it is."""
    what, _, place = message.replace("`key` in ", "").partition(" - at `$")
    names = re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", place.rstrip("`"))
    field = ".".join(name or f"[{index}]" for name, index in names).replace(".[", "[")
    if missing := re.search(r"missing required field `(\w+)`", what):
        return f"it has no {missing[1]}"
    if "`key` in" in message:
        return f"{field} has a key that is none"
    value: Any = record
    for name, index in names:
        if index == "...":
            return f"{field.removesuffix('[...]')} holds a value of the wrong kind"
        value = value[name] if name else value[int(index)]
    return f"{field} must be {_expected(what)}, got {shown(value)}"


def _expected(message: str) -> str:
    match = _MESSAGE.match(message)
    if match is None:
        return "a value in range"  # of a number that fits no machine word
    kinds = [_KINDS.get(kind.strip(), kind) for kind in match["types"].strip("`").split("|")]
    text = " or ".join(kind for kind in kinds if kind.strip() != "null")
    for sign, words in _SIGNS.items():
        if bound := re.search(rf"(?<![<>]){sign} ?([\d.e+]+)", match["bound"]):
            number = float(bound[1])
            size = f"{number:,.0f}" if number.is_integer() and number < 1e15 else f"{number:g}"
            unit = _LENGTHS.get(match["types"], "") if "length" in match["bound"] else ""
            text += f" of {words} {size}{unit}"
            break
    return text
