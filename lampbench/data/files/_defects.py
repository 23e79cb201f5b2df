"""Known defects of official files, and how those are mended whose meaning is beyond doubt.

A change here changes what the same files are read as: raise ``CONVERTER_VERSION`` of the store with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Defect:
    """A record of an official file that violates the format.

    Attributes:
        file: The file in LaMP's layout.
        id: The question's id.
        wrong: What is wrong with it.
        begins: How its ``input`` begins; a record that begins otherwise does not have the defect.
        junk: What is before the text that is asked about, where an instruction should.
    """

    file: str
    id: str
    wrong: str
    begins: str
    junk: str

    def text(self, raw_input: object) -> str | None:
        """The text that the defective input asks about, or None if the input does not have the defect."""
        if not isinstance(raw_input, str) or not raw_input.startswith(self.begins):
            return None
        return raw_input.removeprefix(self.junk)


KNOWN_DEFECTS = (
    # User-based split. That the film's description follows the "x" is seen in the plot summary, which is that of
    # "Roman Holiday"; others who evaluate on the file complete it in the same way.
    Defect(
        file="LaMP_2M/dev/dev_questions.json",
        id="110",
        wrong="the input has no instruction and no tags, only 'x ' before the description",
        begins="x Overwhelmed by her ",
        junk="x ",
    ),
)


def defects_of(file: str) -> Mapping[str, Defect]:
    """The known defects of a file in LaMP's layout, by the question's id."""
    return {defect.id: defect for defect in KNOWN_DEFECTS if defect.file == file}
