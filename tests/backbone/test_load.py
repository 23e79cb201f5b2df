import json
import shutil
from pathlib import Path

import pytest
from support import TINY_MODEL, load_backbone

from lampbench.backbone import describe_backbone
from lampbench.core import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(TINY_MODEL, tmp_path / "copy"))


def test_a_backbone_is_described_without_its_weights(folder: Path) -> None:
    info = describe_backbone(str(folder), device="cpu")
    assert (info.shape.layers, info.shape.width, info.shape.context) == (3, 48, 512)
    assert (info.dtype, info.source.id) == ("float32", "copy")
    (folder / "model.safetensors").write_bytes(b"not weights")
    assert describe_backbone(str(folder), device="cpu").shape == info.shape


def test_what_is_known_of_a_model_is_kept_and_made_again_if_it_is_damaged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    first = describe_backbone(str(folder), device="cpu").shape
    (kept,) = (tmp_path / "cache" / "shapes").iterdir()
    text = kept.read_text()
    kept.write_text(text.replace('"width": 48', '"width": 49'))
    assert describe_backbone(str(folder), device="cpu").shape.width == 49
    for damaged in ("", "[]", text.replace("48", '"48"')):
        kept.write_text(damaged)
        assert describe_backbone(str(folder), device="cpu").shape == first
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert describe_backbone(str(folder), device="cpu").shape.layers == 2


def test_nothing_is_kept_of_a_model_with_code_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it finds may depend on anything, on installed packages for instance."""
    monkeypatch.setenv("LAMPBENCH_CACHE", str(tmp_path / "cache"))
    assert describe_backbone(str(folder), device="cpu", trust_remote_code=True).shape.layers == 3
    assert not (tmp_path / "cache" / "shapes").exists()


def test_the_revision_names_the_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = describe_backbone(str(folder), device="cpu").source.revision
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert describe_backbone(str(moved), device="cpu").source.revision == first
    weights = Path(moved) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert describe_backbone(str(moved), device="cpu").source.revision != first


def test_the_revision_names_all_code_that_may_run(folder: Path) -> None:
    def revision(trusted: bool) -> str:
        return describe_backbone(str(folder), device="cpu", trust_remote_code=trusted).source.revision

    plain = revision(False)
    assert revision(True) == plain
    (folder / "parts").mkdir()
    for code in (folder / "modeling.py", folder / "parts" / "layer.py"):
        before = revision(True)
        code.write_text("one = 1")
        first = revision(True)
        code.write_text("one = 2")
        assert len({before, first, revision(True)}) == 3
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "someone/model--modeling.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="names code of the repository someone/model, which may change"):
        revision(True)
    assert revision(False) != plain


def test_a_given_revision_of_a_folder_is_checked(folder: Path) -> None:
    revision = describe_backbone(str(folder)).source.revision
    assert describe_backbone(str(folder), revision=revision).source.revision == revision
    with pytest.raises(InputError, match="expected revision sha256:other"):
        describe_backbone(str(folder), revision="sha256:other")


def test_a_folder_without_config_or_weights_says_what_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"found pytorch_model\.bin, but pickled weights are never loaded"):
        describe_backbone(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        describe_backbone(str(folder))


def test_a_name_that_is_neither_a_folder_nor_in_the_cache_is_refused_without_network() -> None:
    found = (
        "model no/such: no such folder, and it cannot be loaded from the hub: the hub cannot be reached, and its cache"
    )
    with pytest.raises(InputError, match=found):
        describe_backbone("no/such")


@pytest.mark.parametrize("spelling", ["modle", "Model"])
def test_a_misspelt_folder_is_told_with_the_nearest_model_beside_it(folder: Path, spelling: str) -> None:
    (folder.parent / "models").mkdir()  # nearer by its name, but no model
    model = folder.rename(folder.parent / "my-model")
    with pytest.raises(InputError) as caught:
        describe_backbone(str(folder.parent / f"my-{spelling}"))
    assert f"no such folder; did you mean '{model}'?" in str(caught.value)


def test_a_path_is_never_looked_for_on_the_hub() -> None:
    with pytest.raises(InputError, match=r"model \./no/model: no such folder; name a folder"):
        describe_backbone("./no/model")


def test_damaged_weights_are_one_clear_line(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_eos_is_refused(folder: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((folder / name).read_text())
        settings.pop("eos_token", None)
        (folder / name).write_text(json.dumps(settings))
    with pytest.raises(InputError, match="no EOS token"):
        load_backbone(folder)


@pytest.mark.parametrize(("option", "value"), [("dtype", "int8"), ("device", "nonsense")])
def test_an_unusable_dtype_or_device_is_refused(option: str, value: str) -> None:
    with pytest.raises(InputError, match=f"--{option} {value}"):
        describe_backbone(str(TINY_MODEL), **{option: value})  # type: ignore[arg-type]
