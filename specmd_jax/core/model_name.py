"""The plain name of a model, without the place where somebody's machine kept it."""

import re

_HUB = re.compile(r"models--([\w.-]+?)--([\w.-]+)")  # a folder of Hugging Face's cache
_REMARK = re.compile(r"\s*[(\[][^()\[\]]*[)\]]$")  # " (GGUF)"
_WEIGHTS = re.compile(r"(-\d{5}-of-\d{5})?\.(gguf|ggml|safetensors|bin|pth?)$", re.I)
_QUANTISED = re.compile(
    r"[-_. ]((ud|i1|imat)[-_.])?("
    r"i?q\d(_\w+)?|b?f(p|loat)?(8|16|32)|(mx|nv)fp4|int[48]|[48]-?bit|w4a16|awq|gptq|gguf|mlx|exl[23]"
    r")$",
    re.I,
)
_VAGUE = re.compile(r"|model|consolidated|ggml-model.*|pytorch_model|snapshots|[0-9a-f]{20,}", re.I)


def plain_model_name(text: str) -> str:
    """A model's name without the place where somebody's machine kept it.

    `/srv/models/Qwen3-30B-A3B-Q4_K_M.gguf (GGUF)` is `Qwen3-30B-A3B`; a name that is no path, as
    `Qwen/Qwen3-30B-A3B-FP8`, stays what it is.
    """
    name = " ".join(text.split())
    while _REMARK.search(name):
        name = _REMARK.sub("", name)
    hub = _HUB.search(name)
    if hub is not None:
        return f"{hub[1]}/{hub[2]}"
    place = re.match(r"[/~.]|[A-Za-z]:[/\\]|\w+://", name) or "\\" in name or name.count("/") > 1
    if not place and not _WEIGHTS.search(name):
        return name
    parts = [_stem(part) for part in re.split(r"[/\\]", name)]
    return next((part for part in reversed(parts) if not _VAGUE.fullmatch(part)), "")


def _stem(name: str) -> str:
    """The name of a file of weights without its ending and its precision."""
    name = _WEIGHTS.sub("", name)
    while _QUANTISED.search(name):
        name = _QUANTISED.sub("", name)
    return name
