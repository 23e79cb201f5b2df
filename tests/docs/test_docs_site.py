"""The documentation site: it builds, names everything, leads nowhere outside, and its commands exist."""

import ast
import html
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from documented import code_blocks, commands, fault
from support import PLUGINS

import lampbench
from lampbench.core import Registry, config_fields, methods, metrics, protocols, tasks
from lampbench.leaderboard import columns
from lampbench.testing import CHECKS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MARKDOWN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# Attributes from which a browser loads something by itself.
_LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
_CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
_BOARDS_PAGE = "<!doctype html><title>Boards</title><p>Boards."


class Page(HTMLParser):
    """What a page links to, what it loads, and the ids in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if _LOADED.get(tag) in values and values.get("rel") != "canonical":
            self.loaded.append(values[_LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly, with a page in the place of the boards."""
    for package in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason="the docs extra is not installed: pip install '.[docs]'")
    boards, target = tmp_path_factory.mktemp("boards"), tmp_path_factory.mktemp("site")
    (boards / "index.html").write_text(_BOARDS_PAGE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env=os.environ | {"LAMPBENCH_BOARDS": str(boards), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def text_of(page: Path) -> str:
    """A page's text, without tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("page", "registered"),
    [("methods", methods), ("tasks", tasks), ("metrics", metrics), ("protocols", protocols)],
    ids=("methods", "tasks", "metrics", "protocols"),
)
def test_a_made_page_names_every_plugin_and_every_setting(
    site: Path, page: str, registered: Callable[[], Registry]
) -> None:
    registry, path = registered(), site / page / "index.html"
    text = text_of(path)
    for name in registry.names():
        assert name.lower() in Page(path).ids
        config = getattr(registry.load(name), "Config", None)
        for field in config_fields(config) if config else ():
            assert f"{field.name}\n{field.type}" in text, (name, field.name)
            assert " ".join(field.help.split()) in " ".join(text.split()), (name, field.name)


def test_the_page_of_tasks_shows_prompts_labels_and_metrics(site: Path) -> None:
    text = text_of(site / "tasks" / "index.html")
    for name in tasks().names():
        task = tasks().load(name)
        assert task.prompt("<text>").text in text
        assert ", ".join(task.labels) in text
        assert all(metric.key in text for metric in task.metrics)


def test_the_page_of_columns_explains_every_column(site: Path) -> None:
    text = text_of(site / "columns" / "index.html")
    for column in columns(tasks().load("lamp2m")):
        assert not column.cell or (column.title in text and column.meaning in text)


def test_the_api_page_has_every_hook_and_every_name_that_plug_ins_import(site: Path) -> None:
    ids = Page(site / "api" / "index.html").ids
    hooks = {"Method.fit_shared", "Method.save_user", "PromptMethod.context", "AdapterMethod.recipe"}
    assert {f"lampbench.{name}" for name in hooks | set(lampbench.__all__)} <= ids
    for path in [*(ROOT / "methods").glob("*.py"), *PLUGINS.glob("*/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lampbench":
                assert {f"{node.module}.{alias.name}" for alias in node.names} <= ids, path.name


def test_every_link_leads_to_a_page_and_a_place_in_it(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 12
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            target, anchor = urldefrag(unquote(link))
            found = (path.parent / target).resolve() if target else path
            found = found / "index.html" if found.is_dir() else found
            assert found in pages, f"{path.relative_to(site)}: {link}"
            assert not anchor or anchor in pages[found].ids, f"{path.relative_to(site)}: {link}"


def test_the_picture_is_of_the_committed_board() -> None:
    made = runpy.run_path(str(ROOT / "docs_site" / "picture.py"))
    board = json.loads(made["BOARD"].read_text(encoding="utf-8"))[0]
    assert made["PICTURE"].read_text(encoding="utf-8") == made["picture"](board), "run docs_site/picture.py again"
    for entry in board["entries"]:
        value = entry["scores"][board["metrics"][0]["key"]]["micro"]["value"]
        assert f">{entry['name']}</text>" in made["picture"](board)
        assert f">{value:.3f}</text>" in made["picture"](board)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        for address in Page(path).loaded:
            assert not urlsplit(address).netloc, f"{path.relative_to(site)}: {address}"
    for path in site.rglob("*.css"):
        for match in _CSS_URL.findall(path.read_text(encoding="utf-8")):
            address = next(filter(None, match))
            assert not urlsplit(address).netloc, f"{path.relative_to(site)}: {address}"


def test_the_boards_are_part_of_the_site_and_in_its_menu(site: Path) -> None:
    assert (site / "leaderboards" / "index.html").read_text(encoding="utf-8") == _BOARDS_PAGE
    assert "../leaderboards/" in Page(site / "read-the-board" / "index.html").links
    assert "leaderboards/" in Page(site / "index.html").links


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_every_command_exists(path: Path) -> None:
    found = [words for _, text in code_blocks(path.read_text(encoding="utf-8")) for words in commands(text)]
    assert [fault(words) for words in found if fault(words)] == []


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("lampbench run --method rag --task lamp5 --seed 1", False),
        (".venv/bin/lampbench leaderboard add runs --root DIR", False),
        ("lampbench run --methods rag", True),
        ("lampbench leaderboard publish", True),
        ("lampbench publish", True),
        ("cd x && lampbench validate --until main leaderboards", True),
    ],
)
def test_a_wrong_command_is_found(command: str, wrong: bool) -> None:
    (words,) = commands(command)
    assert (fault(words) is not None) == wrong


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_repository(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        target, _ = urldefrag(link)
        # The boards are made: a checkout may be without.
        if target and not urlsplit(link).scheme and target != "../leaderboards/":
            assert (path.parent / target).exists(), link


def test_the_methods_of_the_guide_are_the_tested_ones() -> None:
    guide = (DOCS / "add-a-method.md").read_text(encoding="utf-8")
    blocks = [text for language, text in code_blocks(guide) if language in ("python", "toml")]
    for name in ("pyproject.toml", "lampbench_latest.py", "lampbench_bias.py", "test_contract.py"):
        assert (PLUGINS / "example" / name).read_text(encoding="utf-8") in blocks


def test_the_guide_explains_every_check_of_the_contract() -> None:
    guide = (DOCS / "add-a-method.md").read_text(encoding="utf-8")
    rows = [f"| `{check.name}` | {check.promise} |" for check in CHECKS.values()]
    assert "\n".join(rows) in guide


def test_the_test_of_the_guide_passes(tmp_path: Path) -> None:
    guide = (DOCS / "add-a-method.md").read_text(encoding="utf-8")
    (test,) = (text for language, text in code_blocks(guide) if language == "python" and "class Echo" in text)
    (tmp_path / "test_latest.py").write_text(test, encoding="utf-8")
    package = str(PLUGINS / "example")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
