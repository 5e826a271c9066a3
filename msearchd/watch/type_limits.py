"""Which files are left out for their type, told by their names: `watch.types` and `watch.exclude_types`.

In: the two settings, names. Out: the rule that leaves a name out, with the setting that says so. Pure; what a name is (an
image, a video) is asked of a function, because the table of types belongs to another stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msearchd.settings import WatchSettings
from msearchd.watch.patterns import Rule


@dataclass(frozen=True, slots=True)
class TypeLimits:
    """Asked as a PatternSet is. `kind_of`: name -> "image", "video", ...; "" where the name does not tell."""

    only: tuple[str, ...]
    never: tuple[str, ...]
    kind_of: Callable[[str], str]

    @classmethod
    def of(cls, settings: WatchSettings, kind_of: Callable[[str], str]) -> TypeLimits | None:
        """Those of the settings; None where there are none."""
        if not settings.types and not settings.exclude_types:
            return None
        return cls(settings.types, settings.exclude_types, kind_of)

    def check(self, path: str, name: str, *, is_dir: bool) -> tuple[Rule, bool] | None:
        """(rule, True) if the file *name* is left out; None for folders, and for all that may be indexed."""
        del path
        if is_dir:
            return None
        text, kind = name.lower(), self.kind_of(name)
        for word in self.never:
            if _means(word, text, kind):
                return Rule(word, "watch.exclude_types"), True
        if self.only and not any(_means(word, text, kind) for word in self.only):
            return Rule(f"none of {', '.join(self.only)}", "watch.types"), True
        return None


def _means(word: str, text: str, kind: str) -> bool:
    return text.endswith(word) if word.startswith(".") else word == kind
