"""Makes the table of docs/choose-a-method.md from the boards of the mini suite (synthetic).

python benchmarks/choosing.py            # after leaderboards/results changed
python benchmarks/choosing.py --check    # exit status 1 if the committed table is another one
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from lampbench.leaderboard import Section, boards, read_results, sections

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "choose-a-method.md"
START, END = "<!-- table: mini -->\n", "<!-- end -->"
USERS = 1000


def main() -> None:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{PAGE.name} has no place for the table: {START.strip()} … {END}")
    (mini,) = (own for own in sections(boards(read_results(ROOT / "leaderboards"))) if "mini" in own.title)
    made = f"{before}{start}\n" + "\n".join(lines(mini)) + f"\n\n{end}{after}"
    if not given.check:
        PAGE.write_text(made, encoding="utf-8")
    elif made != page:
        sys.exit(
            f"the table of {PAGE.name} is not what {Path(__file__).name} makes of the boards; run it without --check"
        )


def lines(section: Section) -> Iterator[str]:
    """A line of Markdown per method, the lowest mean rank first."""
    head = ("method", "mean rank", "better on", "worse on", "parameters per user", "MB of states", "hours to adapt")
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in section.rows:
        cells = [f"`{row.name}`", f"{row.mean_rank:.1f}"]
        for places in (row.better, row.worse):
            names = [board.task.name for place, board in enumerate(section.boards) if place in places]
            cells.append("all six tasks" if len(names) == len(section.boards) else ", ".join(names))
        size = fmean(entry.user_bytes or 0 for entry in row.known) * USERS / 1e6
        hours = fmean((own.shared_seconds or 0) + USERS * (own.seconds_per_user or 0) for own in row.known) / 3600
        yield f"| {' | '.join([*cells, f'{row.user_parameters:,.0f}', f'{size:,.1f}', f'{hours:.2f}'])} |"


if __name__ == "__main__":
    main()
