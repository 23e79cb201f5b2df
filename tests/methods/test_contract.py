"""What every built-in method must hold, on every task it supports."""

from pathlib import Path
from typing import Any

import pytest
from support import TASK_NAMES, dataset, load_backbone, task

from lampbench.core import Method, Query, RunContext, User, config_from, methods

NAMES = ("zero-shot", "majority", "rag", "pag", "perfit", "lora", "user-lora", "oppu", "reft")
# What these know of a user does not change their answers.
IMPERSONAL = ("zero-shot", "lora")

# A rate at which three users with a handful of items move.
SETTINGS: dict[str, dict[str, Any]] = {
    "perfit": {"learning_rate": 3e-2, "shared_epochs": 2, "user_epochs": 3, "clip": 10.0},
    "lora": {"learning_rate": 3e-2, "epochs": 2, "clip": 10.0},
    "user-lora": {"learning_rate": 3e-2, "epochs": 3, "clip": 10.0},
    "oppu": {"learning_rate": 3e-2, "task_epochs": 2, "user_epochs": 3, "clip": 10.0},
    "reft": {"learning_rate": 3e-2, "epochs": 3, "clip": 10.0},
    "pag": {"max_new_tokens": 20},
}


@pytest.fixture(scope="module")
def backbone() -> Any:
    return load_backbone()


def build(name: str, task_name: str, backbone: Any, **settings: Any) -> Method:
    kind: type[Method] = methods().load(name)
    the_task = task(task_name)
    config = config_from(kind.Config, {**SETTINGS.get(name, {}), **settings}, name)
    context = RunContext("folder", backbone.shape if kind.needs_backbone else None)
    return kind(
        task=the_task,
        config=kind.resolve(config, the_task, context),
        seed=0,
        backbone=backbone if kind.needs_backbone else None,
    )


def adapted(name: str, task_name: str, backbone: Any, users: Any = None, **settings: Any) -> Method:
    data = dataset(task_name)
    method = build(name, task_name, backbone, **settings)
    method.fit_shared(data.shared)
    method.adapt(data.users if users is None else users)
    return method


@pytest.mark.parametrize("task_name", TASK_NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_one_string_a_query_and_the_same_again(name: str, task_name: str, backbone: Any) -> None:
    queries = dataset(task_name).queries
    first, second = (adapted(name, task_name, backbone).predict(queries) for _ in range(2))
    assert list(first) == list(second)
    assert len(first) == len(queries)
    assert all(isinstance(output, str) for output in first)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task_name", ["lamp2m", "lamp5", "lamp7"])
def test_order_and_company_of_users_and_queries_do_not_matter(name: str, task_name: str, backbone: Any) -> None:
    data = dataset(task_name)
    together = dict(zip(data.queries, adapted(name, task_name, backbone).predict(data.queries), strict=True))
    reverse = adapted(name, task_name, backbone, data.users[::-1]).predict(data.queries[::-1])
    assert dict(zip(data.queries[::-1], reverse, strict=True)) == together
    for user in data.users:
        own = [query for query in data.queries if query.user_id == user.id]
        alone = adapted(name, task_name, backbone, [user])
        assert list(alone.predict(own)) == [together[query] for query in own]


@pytest.mark.parametrize("name", NAMES)
def test_forgetting_gives_what_a_user_never_adapted_gets(name: str, backbone: Any) -> None:
    data = dataset("lamp5")
    never = list(adapted(name, "lamp5", backbone, []).predict(data.queries))
    method = adapted(name, "lamp5", backbone)
    known = list(method.predict(data.queries))
    if name not in IMPERSONAL:
        assert known != never
    for user in data.users:
        method.forget(user.id)
    assert list(method.predict(data.queries)) == never


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task_name", ["lamp3", "lamp5"])
def test_reloaded_state_predicts_the_same(name: str, task_name: str, backbone: Any, tmp_path: Path) -> None:
    data = dataset(task_name)
    method = adapted(name, task_name, backbone)
    method.save_shared(folder(tmp_path / "shared"))
    for user in data.users:
        method.save_user(user.id, folder(tmp_path / user.id))
    again = build(name, task_name, backbone)
    again.load_shared(tmp_path / "shared", data.shared)
    for user in data.users:
        again.load_user(user, tmp_path / user.id)
    assert list(again.predict(data.queries)) == list(method.predict(data.queries))


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("name", NAMES)
def test_one_users_data_never_moves_another(name: str, backbone: Any) -> None:
    data = dataset("lamp5")
    other = User(data.users[0].id, data.users[0].history[:1])
    own = [query for query in data.queries if query.user_id != other.id]
    before = adapted(name, "lamp5", backbone).predict(own)
    assert list(adapted(name, "lamp5", backbone, [other, *data.users[1:]]).predict(own)) == list(before)


@pytest.mark.parametrize("name", NAMES)
def test_a_query_of_an_unknown_user_is_answered(name: str, backbone: Any) -> None:
    for task_name in ("lamp2n", "lamp3", "lamp5"):
        answer = adapted(name, task_name, backbone).predict([Query("q", "stranger", "A text.")])
        assert isinstance(answer[0], str)
