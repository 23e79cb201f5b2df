"""The licences of data, so that everything made from it can name them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """Under which terms data may be used.

    Attributes:
        name: As people write it.
        tag: As model cards of the Hugging Face hub write it.
        url: Its text.
    """

    name: str
    tag: str
    url: str

    def __str__(self) -> str:
        return f"{self.name} ({self.url})"


# Of LaMP's texts, and so of OPPU's release, which is made of them.
LAMP = Licence("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/")
