"""Which model serves what, by the settings: pure answers for everybody who asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msearchd.domain.space import ModelKey
from msearchd.settings.model import EmbeddingModel, InferenceSettings


def wanted_models(settings: InferenceSettings) -> dict[str, ModelKey]:
    """The model of the settings for each modality that is embedded."""
    chosen = {
        "text": settings.text_model,
        "sparse": settings.sparse_model,
        "image": settings.image_model,
        "audio": settings.audio_model,
        "page": settings.page_model,
    }
    return {modality: ModelKey(name) for modality, name in chosen.items() if name}


def speech_model(settings: InferenceSettings) -> ModelKey | None:
    """The model that writes down speech; None where none does."""
    return ModelKey(settings.speech_model) if settings.speech_model else None


def served(settings: InferenceSettings) -> frozenset[str]:
    """What there is a model for: text, image, audio, page, speech."""
    return frozenset(wanted_models(settings)) | ({"speech"} if settings.speech_model else frozenset())


class Modalities:
    """What each model reads, those of former settings too."""

    def __init__(self, models: Iterable[EmbeddingModel]) -> None:
        self._serves: Mapping[ModelKey, str] = {ModelKey(model.name): model.serves for model in models}

    def of(self, model: ModelKey) -> str:
        """Its modality; an unknown model reads text."""
        return self._serves.get(model, "text")
