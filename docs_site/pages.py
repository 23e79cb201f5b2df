"""Pages that are made when the site is built, and the boards' site beside the docs: a hook of mkdocs.

The pages of methods, tasks, metrics, protocols and columns come from what is installed, as ``lampbench describe`` does.
Nothing is written into the repository.

If ``LAMPBENCH_BOARDS`` names a folder that ``lampbench leaderboard build --site`` made, it becomes ``leaderboards/``
of the site, with an entry in the menu.
"""

from __future__ import annotations

import html
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation

from lampbench import Method, Task
from lampbench.core import HistoryItem, Metric, Registry, config_fields, methods, metrics, protocols, tasks
from lampbench.leaderboard import column_list

_BOARDS = "leaderboards"
_DOCS = Path(__file__).parents[1] / "docs"
_STYLE = """
/* Prompts are long lines, and all of them should be seen. */
.language-text pre code { white-space: pre-wrap; }
/* Names of settings and options are not broken in the middle, and a wide table scrolls by itself. */
.md-typeset td:first-child code { white-space: nowrap; }
.md-typeset table:not([class]) { font-size: .68rem; }
.md-typeset .doc-heading code { font-size: .9em; }
@media (max-width: 44em) {
  .md-typeset table:not([class]) th, .md-typeset table:not([class]) td { min-width: 0; padding: .5em .6em; }
}
"""
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
_ENTRY = re.compile(r"^    (\S.*?): (.*)$")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the site of the boards if there is one."""
    for name, page in _PAGES.items():
        files.append(File.generated(config, name, content=page()))
    files.append(File.generated(config, "site.css", content=_STYLE))
    config.extra_css.append("site.css")
    for path in _board_files(config):
        target = f"{_BOARDS}/{path.relative_to(_boards_folder(config)).as_posix()}"
        files.append(File.generated(config, target, abs_src_path=str(path)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Put the boards into the menu if they are part of the site."""
    if _board_files(config):
        nav.items.append(Link("Boards", f"{_BOARDS}/"))
    return nav


def methods_page() -> str:
    """Every installed method: what it is, where it comes from, what can be set."""
    return _plugin_page(
        "Methods",
        "What is installed, as `lampbench describe NAME` shows it. Settings are given by `--set KEY=VALUE`, or\n"
        "`--set METHOD.KEY=VALUE` where a command runs several methods. A default of none is\n"
        "filled when a run is planned: as the protocol recommends, else as published.",
        methods(),
        _method_parts,
    )


def tasks_page() -> str:
    """Every installed task: what is asked, how, and how answers are scored."""
    return _plugin_page("Tasks", "The first metric is the one that boards rank by.", tasks(), _task_parts)


def metrics_page() -> str:
    """Every installed metric: what it is and what it scores."""
    return _plugin_page(
        "Metrics",
        "What answers are scored by. A task names its metrics; [Add a task](add-a-task.md) shows how to add one.",
        metrics(),
        _metric_parts,
    )


def protocols_page() -> str:
    """Every installed protocol: which users and queries it stands for."""
    return _plugin_page(
        "Protocols",
        "Which users and queries a number stands for. Settings follow the name: `--protocol cold-k,k=4,base=mini`.\n"
        "More in [Data](data.md#protocols).",
        protocols(),
        _protocol_parts,
    )


def columns_page() -> str:
    """Every column of the boards of the installed tasks."""
    return _page(
        [
            "# Columns of the boards",
            "What every column says. [Read the board](read-the-board.md) shows how to use them.",
            column_list(tasks().load(name) for name in tasks().names()),
        ]
    )


def _plugin_page(title: str, about: str, registry: Registry, parts: Callable[[Any], Iterable[str]]) -> str:
    """A page with a section for each plug-in; one that cannot be imported fails the build."""
    page = [f"# {title}", about]
    for name in registry.names():
        plugin = registry.plugin(name)
        own = f"{registry.kind}s/{name}.md"
        more = [f"[How it works, and what was chosen]({own})"] if (_DOCS / own).exists() else []
        page += [f"## {name}", *parts(plugin.load()), *more, f"From {plugin.distribution}: `{plugin.value}`."]
    return _page(page)


def _method_parts(method: type[Method]) -> Iterator[str]:
    yield _markdown(inspect.getdoc(method) or "")
    facts = {
        "Paper": _text(method.paper),
        "Version": str(method.version),
        "Language model": "needed" if method.needs_backbone else "none",
        "Engines": ", ".join(f"`{engine}`" for engine in method.engines),
    }
    yield _list(facts)
    yield _settings(method.Config)


def _task_parts(task: Task) -> Iterator[str]:
    item = HistoryItem("id", "<text>" if task.item_source else "", "<target>")
    yield _text(task.about[:1].upper() + task.about[1:]) + "."
    facts = {
        "Files": ", ".join(f"`{name}`" for name in task.official),
        "Version": str(task.version),
        "Longest answer": f"{task.max_new_tokens} tokens",
        "Metrics": ", ".join(
            f"{m.key} ({'higher' if m.higher_is_better else 'lower'} is better)" for m in task.metrics
        ),
        "Labels": ", ".join(f"`{label}`" for label in task.labels),
    }
    yield _list(facts)
    yield f"Instruction:\n\n{_code(task.instruction)}"
    yield f"Prompt:\n\n{_code(task.prompt('<text>').text)}"
    yield f"A history item in a prompt:\n\n{_code(task.render(item).rstrip())}"


def _metric_parts(metric: Metric) -> Iterator[str]:
    yield _text(metric.about[:1].upper() + metric.about[1:]) + "."
    low, high = metric.bounds
    yield _list(
        {
            "Direction": f"{'higher' if metric.higher_is_better else 'lower'} is better",
            "Values": f"from {low:g} to {high:g}" if high < math.inf else f"from {low:g}",
            "Scores": ", ".join(sorted(metric.kinds)),
            "Average over users": "yes" if metric.per_user else "no: one user's own value says nothing",
        }
    )


def _protocol_parts(protocol: Any) -> Iterator[str]:
    yield _markdown(inspect.getdoc(protocol) or "")
    yield _settings(protocol.Config)


def _settings(config: type) -> str:
    rows = [
        (f"`{field.name}`", f"`{field.type}`", f"`{_default(field.default)}`", _text(field.help))
        for field in config_fields(config)
    ]
    return _table(("setting", "type", "default", "what it does"), rows) if rows else "Nothing can be set."


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _list(facts: Mapping[str, str]) -> str:
    return "\n".join(f"* {name}: {value}" for name, value in facts.items() if value)


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def _text(text: str) -> str:
    """Plain text as Markdown, outside code."""
    return re.sub(r"([\\`*|\[\]])", r"\\\1", html.escape(text, quote=False))


def _markdown(docstring: str) -> str:
    """A docstring as Markdown: sections of names become lists."""
    lines: list[str] = []
    in_section = False
    for line in docstring.splitlines():
        if header := _SECTION.match(line):
            in_section = True
            lines += [f"**{header[1]}**", ""]
        elif in_section and (entry := _ENTRY.match(line)):
            lines.append(f"* `{entry[1]}`: {entry[2]}")
        elif in_section:
            lines.append(line.strip())
        else:
            lines.append(line)
    return "\n".join(lines)


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _boards_folder(config: MkDocsConfig) -> Path:
    root = Path(config.config_file_path).parent
    return root / os.environ["LAMPBENCH_BOARDS"]


def _board_files(config: MkDocsConfig) -> list[Path]:
    if not os.environ.get("LAMPBENCH_BOARDS"):
        return []
    folder = _boards_folder(config)
    if not (folder / "index.html").is_file():
        raise PluginError(f"{folder}: no site of the boards; expected one made by lampbench leaderboard build --site")
    return sorted(path for path in folder.rglob("*") if path.is_file())


_PAGES: Mapping[str, Callable[[], str]] = {
    "methods.md": methods_page,
    "tasks.md": tasks_page,
    "metrics.md": metrics_page,
    "protocols.md": protocols_page,
    "columns.md": columns_page,
}
