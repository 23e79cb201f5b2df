"""style-vector against its formulas: states and answers of one row at a time, and scikit-learn's regression."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lampbench_methods.style_vector import StyleVector, direction
from safetensors.torch import load_file, save_file
from support import TINY_MODEL, dataset, load_backbone, task

from lampbench.core import BackboneShape, InputError, RunContext, User, config_from

LIMIT, LAYER, ALPHA = 10, 1, 3.0


def build(backbone: Any, name: str = "lamp5", **settings: Any) -> StyleVector:
    config = config_from(StyleVector.Config, {"layer": LAYER, "alpha": ALPHA, **settings}, "style-vector")
    own = replace(task(name), max_new_tokens=LIMIT)
    config = StyleVector.resolve(config, own, RunContext("folder", backbone.shape))
    return StyleVector(task=own, config=config, seed=0, backbone=backbone)


@torch.no_grad()
def greedy(backbone: Any, ids: list[int], vector: torch.Tensor | None = None, since: int = 0) -> tuple[list[int], str]:
    """One row without cache or padding; ``vector`` is added after the layer at tokens from ``since`` on."""

    def steer(module: Any, given: Any, output: Any) -> Any:
        h = (output[0] if isinstance(output, tuple) else output).clone()
        if vector is not None:
            h[:, since:] += vector
        return (h, *output[1:]) if isinstance(output, tuple) else h

    tokens: list[int] = []
    stop = backbone.stop_at_newline()
    with backbone.layers[LAYER].register_forward_hook(steer):
        while len(tokens) < LIMIT and not (tokens and stop[tokens[-1]]):
            tokens.append(int(backbone.model(torch.tensor([ids + tokens])).logits[0, -1].argmax()))
    text = backbone.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return tokens, text.split("\n")[0].strip()


def encoded(backbone: Any, text: str) -> list[int]:
    """As a model with these tokenizer files reads it."""
    bos = backbone.tokenizer.bos_token_id
    first = [bos] if bos is not None and bos != backbone.tokenizer.eos_token_id else []
    return first + list(backbone.tokenizer(text, add_special_tokens=False).input_ids)


@torch.no_grad()
def state(backbone: Any, text: str) -> Any:
    hidden = backbone.model(torch.tensor([encoded(backbone, text)]), output_hidden_states=True).hidden_states
    return hidden[LAYER + 1][0, -1].double().numpy()


@pytest.mark.parametrize("name", ["lamp5", "lamp7"])
def test_a_users_vector_is_the_mean_difference_to_the_models_own_answers(name: str, tmp_path: Path) -> None:
    backbone = load_backbone()
    user = User("somebody", dataset(name).users[0].history[:4])
    method = build(backbone, name)
    method.adapt([user])
    method.save_user(user.id, tmp_path)
    differences = []
    for item in user.history:
        asked = task(name).pair(item).prompt.text
        _, answer = greedy(backbone, encoded(backbone, asked))
        # An answer follows after a space; what the task trains on has its newlines replaced.
        text = " ".join(item.target.split())
        differences.append(state(backbone, f"{asked} {text}") - state(backbone, f"{asked} {answer}"))
    found = load_file(tmp_path / "style.safetensors")["vector"]
    np.testing.assert_allclose(found.double().numpy(), np.mean(differences, axis=0), atol=2e-5)
    assert float(found.norm()) > 0.1
    assert (tmp_path / "style.safetensors").stat().st_size < 4 * backbone.shape.width + 200


@pytest.mark.parametrize("first", ["answer", "prompt"])
def test_answers_are_steered_from_the_first_token_on(first: str, tmp_path: Path) -> None:
    backbone, data = load_backbone(), dataset("lamp5")
    method = build(backbone, first=first)
    plain = list(method.predict(data.queries))
    method.adapt(data.users)
    answers = list(method.predict(data.queries))
    for query, answer in list(zip(data.queries, answers, strict=True))[:4]:
        folder = tmp_path / query.id
        folder.mkdir()
        method.save_user(query.user_id, folder)
        vector = ALPHA * load_file(folder / "style.safetensors")["vector"]
        ids = backbone.encoder.prompt(task("lamp5").prompt(query.text, query.id), LIMIT)
        assert answer == greedy(backbone, ids, vector, len(ids) - (first == "prompt"))[1]
    assert answers != plain


@pytest.mark.parametrize("mode", ["greedy", "labels"])
def test_answers_do_not_depend_on_the_batch_size_or_on_others(mode: str) -> None:
    data, found = dataset("lamp2n"), []
    for size, users in ((1, data.users), (32, data.users), (32, data.users[::-1])):
        method = build(load_backbone(TINY_MODEL, batch_size=size, mode=mode), "lamp2n", items=3)
        method.adapt(users)
        found.append(list(method.predict(data.queries)))
    assert found[0] == found[1] == found[2]


def states(items: int, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(items)
    own, model = torch.randn(2, items, width, generator=generator, dtype=torch.float64)
    return own + torch.linspace(0, 1, width, dtype=torch.float64), model


@pytest.mark.parametrize("items", [1, 5, 30])
def test_the_other_directions_are_scikit_learns_and_numpys(items: int) -> None:
    from sklearn.linear_model import LogisticRegression

    own, model = states(items)
    mean = (own - model).mean(0).numpy()
    fitted = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000)
    fitted.fit(np.concatenate([own, model]), [1] * items + [0] * items)
    differences = (own - model).numpy()
    _, vectors = np.linalg.eigh(differences.T @ differences)
    for kind, expected in (("logistic", fitted.coef_[0]), ("component", vectors[:, -1])):
        found = direction(own, model, kind).numpy()  # type: ignore[arg-type]
        np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(mean), rtol=1e-9)
        cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
        assert abs(cosine) > 1 - 1e-7
        # Towards the user, whichever way the vector was found.
        assert found @ mean > 0


def test_without_a_difference_there_is_no_direction() -> None:
    own, _ = states(3)
    for kind in ("mean", "logistic", "component"):
        assert not direction(own, own, kind).any()


def test_what_no_source_settles_is_said_in_the_resolved_settings() -> None:
    def resolved(name: str, **values: Any) -> Any:
        context = RunContext("folder", BackboneShape(32, 4096, 4096), "style-vector", values)
        return StyleVector.resolve(StyleVector.Config(), task(name), context)

    assert (resolved("lamp5").layer, resolved("lamp5").alpha, resolved("lamp5").first) == (16, 0.02, "answer")
    assert (resolved("lamp7").alpha, resolved("lamp3").alpha, resolved("lamp3").first) == (0.5, 1.0, "prompt")
    assert resolved("lamp5", alpha=2.0).alpha == 2.0


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    method, user = build(load_backbone()), dataset("lamp5").users[0]
    save_file({"vector": torch.zeros(3)}, tmp_path / "style.safetensors")
    with pytest.raises(InputError, match=r"style\.safetensors: expected one vector of \d+ numbers"):
        method.load_user(user, tmp_path)
    (tmp_path / "style.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not a saved style vector"):
        method.load_user(user, tmp_path)
