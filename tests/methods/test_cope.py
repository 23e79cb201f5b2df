"""cope against its formula, with the two models put together by peft and by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lampbench_methods.cope import Cope
from safetensors.torch import load_file
from support import TINY_MODEL, dataset, load_backbone, mini_run, task

from lampbench.backbone import Contrast
from lampbench.core import InputError, Query, RunContext, config_from

Logits = Callable[[list[int]], torch.Tensor]

ALPHA, PLAUSIBLE = 0.6, 0.2
# Tokens of an answer; the tiny model writes on until it is stopped.
LIMIT = 12
FAST = {"learning_rate": 3e-2, "clip": 10.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "oppu": {"task_epochs": 1, "user_epochs": 2},
    "user-lora": {"epochs": 2},
    "reft": {"epochs": 2, "layers": (1,)},
    "perfit": {"shared_epochs": 1, "user_epochs": 2, "layers": (1,), "shared_rank": 4, "user_rank": 4},
}


def build(over: str, backbone: Any, name: str = "lamp5", context: RunContext | None = None, **settings: Any) -> Cope:
    settings = {"over": over, "base": {**FAST, **SETTINGS[over]}, **settings}
    config = config_from(Cope.Config, settings, "cope")
    config = Cope.resolve(config, task(name), context or RunContext("folder", backbone.shape))
    return Cope(task=replace(task(name), max_new_tokens=LIMIT), config=config, seed=0, backbone=backbone)


def trained(over: str, backbone: Any, name: str = "lamp5", **settings: Any) -> Cope:
    data, method = dataset(name), build(over, backbone, name, **settings)
    method.fit_shared(data.shared)
    method.adapt(data.users)
    return method


def saved(method: Cope, folder: Path, user: str) -> tuple[Path, Path]:
    """The folders of the shared stage and of one user."""
    shared, own = folder / "shared", folder / user
    for path in (shared, own):
        path.mkdir(parents=True)
    method.save_shared(shared)
    method.save_user(user, own)
    return shared, own


def plain(model: Any) -> Logits:
    return lambda ids: model(torch.tensor([ids])).logits[0, -1]


def by_peft(*folders: Path) -> Logits:
    """The tiny model with each folder's LoRA merged in turn."""
    from peft import PeftModel

    model: Any = load_backbone().model
    for folder in folders:
        if any(folder.iterdir()):
            model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return plain(model)


def by_hand(*folders: Path) -> Logits:
    """The tiny model with each folder's intervention after layer 1, in turn."""
    backbone = load_backbone()
    for folder in folders:
        edit = load_file(folder / "interventions.safetensors")
        r, w, b = (edit[f"1.{part}"] for part in ("rotation", "weight", "bias"))

        def after(module: Any, given: Any, output: Any, r: Any = r, w: Any = w, b: Any = b) -> Any:
            h = output[0] if isinstance(output, tuple) else output
            h = h + (h @ w.T + b - h @ r.T) @ r
            return (h, *output[1:]) if isinstance(output, tuple) else h

        backbone.layers[1].register_forward_hook(after)
    return plain(backbone.model)


def models(over: str, shared: Path, own: Path) -> tuple[Logits, Logits]:
    """The user's model, and the same without the user."""
    if over == "perfit":
        first = shared / "collective"
        return by_hand(first, own), by_hand(first, shared / "user_start")
    if over == "reft":
        return by_hand(own), by_hand()
    return by_peft(shared, own), by_peft(shared)


def contrasted(own: Any, other: Any) -> Any:
    """CoPe's scores, from probabilities in float64."""
    p, q = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (own, other))
    kept = np.where(p >= PLAUSIBLE * p.max(), p, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(kept / kept.sum()) - ALPHA * np.log(q)


@torch.no_grad()
def written(backbone: Any, ids: list[int], user: Logits, unadapted: Logits) -> str:
    """One prompt's answer: no batch, no cache, no padding."""
    tokens: list[int] = []
    stop = backbone.stop_at_newline()
    while len(tokens) < LIMIT and not (tokens and stop[tokens[-1]]):
        own, other = (logits(ids + tokens).double().numpy() for logits in (user, unadapted))
        tokens.append(int(contrasted(own, other).argmax()))
    text = backbone.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text.split("\n")[0].strip())


@pytest.mark.parametrize("over", SETTINGS)
def test_answers_are_those_of_the_formula(over: str, tmp_path: Path) -> None:
    backbone, data = load_backbone(), dataset("lamp5")
    method = trained(over, backbone, alpha=ALPHA, plausible=PLAUSIBLE)
    queries = list({query.user_id: query for query in data.queries}.values())[:2]
    answers = list(method.predict(queries))
    for query, answer in zip(queries, answers, strict=True):
        user, unadapted = models(over, *saved(method, tmp_path / query.user_id, query.user_id))
        prompt = backbone.encoder.prompt(task("lamp5").prompt(query.text, query.id), LIMIT)
        assert answer == written(backbone, prompt, user, unadapted)
    # The contrast is no small change here, and each answer is its user's own.
    method._base.contrast = None
    assert list(method.predict(queries)) != answers


def test_answers_do_not_depend_on_the_batch_size_or_the_engine() -> None:
    found = []
    for size, engine in ((1, "stacked"), (32, "stacked"), (32, "solo")):
        method = build("user-lora", load_backbone(TINY_MODEL, batch_size=size), alpha=ALPHA)
        method.engine = engine
        method.adapt(dataset("lamp5").users)
        found.append(list(method.predict(dataset("lamp5").queries)))
    assert found[0] == found[1] == found[2]


def test_whole_labels_are_contrasted_where_labels_are_scored(tmp_path: Path) -> None:
    backbone, data, own_task = load_backbone(mode="labels"), dataset("lamp2n"), task("lamp2n")
    method = trained("user-lora", backbone, "lamp2n", alpha=ALPHA, plausible=PLAUSIBLE)
    query: Query = data.queries[0]
    (answer,) = method.predict([query])
    user, unadapted = models("user-lora", *saved(method, tmp_path, query.user_id))

    @torch.no_grad()
    def log_probability(logits: Logits, label: str) -> float:
        prompt = own_task.prompt(query.text, query.id)
        ids, added = backbone.encoder.prompt(prompt, 16), backbone.encoder.continuation(own_task.prompt(""), label)
        steps = range(len(added))
        return float(sum(logits(ids + added[:i]).double().log_softmax(-1)[added[i]] for i in steps))

    scores = [np.array([log_probability(model, label) for label in own_task.labels]) for model in (user, unadapted)]
    # Nothing but labels can be answered, so their probabilities are those among labels.
    assert answer == own_task.labels[int(contrasted(*scores).argmax())]


def test_what_no_model_can_write_has_no_score() -> None:
    own, other = torch.tensor([[1.0, -torch.inf, 0.9]]), torch.tensor([[2.0, -torch.inf, 0.0]])
    assert Contrast(0.5, 1e-9).scores(own, other).tolist()[0][1] == -torch.inf
    assert int(Contrast(0.5, 0.1).scores(own, other).argmax()) == 2
    assert int(Contrast(0.0, 0.1).scores(own, other).argmax()) == 0


def test_the_method_that_adapts_has_the_settings_of_its_own_row(llama_shaped: Any) -> None:
    context = mini_run("cope", llama_shaped.shape)
    config = Cope.resolve(config_from(Cope.Config, {"base.rank": "4"}, "cope"), task("lamp5"), context)
    assert isinstance(config.base, dict)
    assert (config.base["preset"], config.base["rank"], config.base["user_epochs"]) == ("mini", 4, 4)
    published = Cope.resolve(Cope.Config(), task("lamp5"), RunContext("folder", llama_shaped.shape, "cope"))
    assert (published.base["preset"], published.base["learning_rate"]) == ("lamp", 1e-4)
    assert (published.alpha, published.plausible) == (0.1, 0.1)
    method = Cope(task=task("lamp5"), config=published, seed=0, backbone=llama_shaped)
    assert (method.parameters().shared, method.parameters().per_user) == (6_291_456, 4_194_304)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1}, "cope: alpha must be at least 0, found -1"),
        ({"plausible": 0}, "cope: plausible must be above 0 and at most 1, found 0"),
        ({"over": "rag"}, "cope: over: expected 'oppu' | 'user-lora' | 'reft' | 'perfit', found 'rag'"),
        ({"base": "rank"}, "cope: base: expected table or none, found 'rank'"),
        ({"base.rnk": 4}, "unknown setting of cope: base of oppu 'rnk'; did you mean 'rank'?"),
        ({"over": "reft", "base.kind": "consreft"}, "cope: base.kind: consreft always changes the model"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_one_clear_line(settings: dict[str, Any], message: str, llama_shaped: Any) -> None:
    with pytest.raises(InputError) as caught:
        Cope.resolve(
            config_from(Cope.Config, settings, "cope"), task("lamp5"), RunContext("folder", llama_shaped.shape)
        )
    assert str(caught.value).startswith(message)
