"""The spaces of one modality as values: which answers, which is built, who is owed embeddings, what a person should know.

In: records of the catalog and the model that the settings name. Out: model keys and sentences. No state, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msearchd import errors
from msearchd.domain.media import OF_TEXT
from msearchd.domain.space import ModelKey, SpaceName
from msearchd.store.catalog.space_book import Phase, SpaceRecord


@dataclass(frozen=True, slots=True)
class Line:
    """The spaces of one modality: what the settings ask for, and what is there, oldest first."""

    modality: str
    model: ModelKey | None  # of the settings; None: switched off
    wanted: SpaceName | None = None
    trouble: str = ""  # why `wanted` is not known
    records: tuple[SpaceRecord, ...] = ()

    def in_phase(self, *phases: Phase) -> SpaceRecord | None:
        """The newest space in one of *phases*."""
        return next((one for one in reversed(self.records) if one.phase in phases), None)

    @property
    def serving(self) -> SpaceRecord | None:
        """The space that answers."""
        return self.in_phase(Phase.SERVING)

    @property
    def question_key(self) -> ModelKey | None:
        """The model that questions are embedded with; where it is missing, asking it says why. None: switched off."""
        if self.model is None or self.serving is None:
            return self.model
        return self.serving.target or self.model

    @property
    def targets(self) -> tuple[ModelKey, ...]:
        """The models that every new content is embedded with."""
        building = self.in_phase(Phase.BUILDING)
        both = (self.question_key, None if building is None else building.target)
        return () if self.model is None else tuple(dict.fromkeys(key for key in both if key is not None))

    @property
    def filling(self) -> tuple[ModelKey, ...]:
        """Those of `targets` that are owed also what was there before."""
        unasked = {one.target for one in self.records if not one.is_filling}
        return tuple(key for key in self.targets if key not in unasked)

    @property
    def is_unclear(self) -> bool:
        """True where weights that come, or a first content, may change what is known."""
        serving = self.serving
        return bool(self.trouble) or not self.records or (serving is not None and serving.target is None)


def find(lines: Iterable[Line], name: str) -> tuple[Line, SpaceRecord]:
    """The space called *name*; else the one that the settings want of the model *name*, else its newest.

    Raises NotFound with the names there are.
    """
    known = [(line, record) for line in lines for record in line.records]
    by_name = [(line, one) for line, one in known if one.name == name]
    wanted = [(line, one) for line, one in known if line.model == name and one.name == line.wanted]
    of_model = [(line, one) for line, one in known if one.space.model == name]
    for found in (by_name, wanted, of_model):
        if found:
            return found[-1]
    names = ", ".join(one.name for _, one in known) or "none"
    message = f"there is no vector space {name!r} (there is: {names})"
    raise errors.NotFound(message, hint="ask with: msearch spaces")


def way_back(line: Line) -> SpaceRecord:
    """The space that a roll back makes answer: the last that stopped. Raises BadRequest where there is none to ask."""
    kept = [one for one in line.records if one.phase in {Phase.KEPT, Phase.DECLINED} and one.points]
    if not kept:
        message = "no space of another model is kept"
        raise errors.BadRequest(message, hint="name the old model in the settings and restart: it is built again")
    askable = [one for one in kept if one.target is not None]
    if not askable:
        message = f"the model of {kept[-1].name} is not on this machine any more, or its weights are others now"
        raise errors.BadRequest(message, hint="bring its weights back and ask again")
    return max(askable, key=lambda one: one.since_ms)


def sentence(line: Line, owed: Mapping[SpaceName, int]) -> str:
    """What a person should know or decide; "" where all is as it should be. *owed*: samples that each space lacks."""
    serving, waiting = line.serving, line.in_phase(Phase.WAITING)
    if serving is None or line.model is None:
        return ""
    if line.trouble:
        goes_on = serving.target is not None and serving.target != line.model
        way = f"{serving.space.model!r} goes on answering: {line.trouble}"
        return f"the model {line.model!r} cannot run, {way}" if goes_on else ""
    unit = "passages" if line.modality in OF_TEXT else "samples"
    say = f"type: msearch model switch {line.model} (what it costs: msearch model plan {line.model})"
    if waiting is not None and waiting.name == line.wanted:
        old = f"{serving.space.model!r}" if serving.space.model != line.model else "its space of before"
        return f"{owed.get(waiting.name, 0):,} {unit} await the model {line.model!r}, {old} answers until then; {say}"
    if serving.name == line.wanted and not serving.is_filling:
        return f"{owed.get(serving.name, 0):,} {unit} await the model {line.model!r}, that of before is gone; {say}"
    return ""
