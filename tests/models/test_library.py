"""Models by name: the bundled one, folders, and a hub that is played by a module of the test's.

Takes about 3 s.
"""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import specmd_jax
from specmd_jax.core.errors import InputError
from specmd_jax.model_zoo import bundled_folder
from specmd_jax.models import BUNDLED, open_model, open_tokenizer, save_olmoe
from tests.models.small import CONFIG, small_decoder

HUB_ID = "someone/a-model"


class HubError(Exception):
    """What huggingface-hub raises when the hub says no."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_olmoe(folder, *small_decoder())
    return folder


@pytest.fixture
def away(tmp_path, monkeypatch):
    """Works in an empty folder, so that no name is one of a folder by chance."""
    monkeypatch.chdir(tmp_path)


def play_hub(monkeypatch, answer) -> list[tuple[str, list[str]]]:
    """Puts a hub in place that answers `snapshot_download`; returns what it was asked."""
    asked = []

    def snapshot_download(repo_id, *, allow_patterns):
        asked.append((repo_id, allow_patterns))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    hub, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    hub.__dict__["snapshot_download"] = snapshot_download
    errors.__dict__.update(HfHubHTTPError=HubError, HFValidationError=HubError)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def test_a_folder_is_opened(folder):
    checkpoint = open_model(str(folder))
    assert checkpoint.folder == folder
    assert checkpoint.config.router == CONFIG.router


def test_the_bundled_model_lies_in_the_package():
    folder = open_model(BUNDLED).folder
    assert folder == bundled_folder()
    assert folder.is_relative_to(Path(specmd_jax.__file__).parent)


def test_a_folder_goes_before_the_hub(folder, away, tmp_path, monkeypatch):
    asked = play_hub(monkeypatch, HubError("the hub was asked"))
    (tmp_path / "someone").mkdir()
    (tmp_path / HUB_ID).symlink_to(folder)
    assert open_model(HUB_ID).config.router == CONFIG.router
    assert not asked


def test_a_hub_id_is_fetched(folder, away, monkeypatch):
    asked = play_hub(monkeypatch, folder)
    assert open_model(HUB_ID).folder == folder
    ((name, patterns),) = asked
    assert name == HUB_ID
    assert "*.safetensors" in patterns and "*.json" in patterns
    assert not any(pattern.endswith(("bin", "pt", "pkl")) for pattern in patterns)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (HubError("no such repository\n\nsee the documentation"), "no such repository"),
        (OSError("offline"), "offline"),
        (OSError(), "OSError"),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_line(away, monkeypatch, error, told):
    play_hub(monkeypatch, error)
    with pytest.raises(InputError, match=rf"^{HUB_ID} cannot be fetched from the hub: {told}$"):
        open_model(HUB_ID)


def test_a_hub_id_needs_the_extra(away, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    with pytest.raises(InputError, match=rf"^{HUB_ID} is no folder .*pip install .*\[hf\]'$"):
        open_model(HUB_ID)


@pytest.mark.parametrize(
    "name",
    ["nowhere", "./someone/a-model", "/nowhere/at-all", "~/models", "a/b/c", "owner/", "x" * 300],
)
def test_what_is_neither_folder_nor_hub_id_is_told(away, monkeypatch, name):
    asked = play_hub(monkeypatch, HubError("the hub was asked"))
    with pytest.raises(InputError, match=f"^{name} is not a folder: give one with config.json"):
        open_model(name)
    assert not asked


def test_a_file_is_no_model(folder):
    with pytest.raises(InputError, match=r"config\.json is not a folder"):
        open_model(str(folder / "config.json"))


def test_the_tokenizer_is_read(folder):
    path = folder / "tokenizer.json"
    Tokenizer(WordLevel({"one": 0, "two": 1}, unk_token="one")).save(str(path))
    tokenizer = open_tokenizer(open_model(str(folder)))
    path.unlink()
    assert tokenizer.encode("two").ids == [1]


def test_a_missing_tokenizer_is_told(folder):
    with pytest.raises(InputError, match=r"has no tokenizer\.json: put the model's own there"):
        open_tokenizer(open_model(str(folder)))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {}}'])
def test_a_broken_tokenizer_is_told_in_one_line(folder, text):
    path = folder / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer: ") as raised:
        open_tokenizer(open_model(str(folder)))
    path.unlink()
    assert "\n" not in str(raised.value)
