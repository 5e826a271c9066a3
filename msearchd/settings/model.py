"""The settings as values. Field(description=...) is the sentence that people read in config/msearchd.toml."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class _Section(BaseModel):
    # No validate_default: strict JSON (settings.load) refuses a default that is a Path; a test checks the defaults.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


def _type_word(word: str) -> str:
    word = word.lower()
    if word in _TYPES or re.fullmatch(r"\.[^\s/*]+", word):
        return word
    message = f"{word!r} is neither one of {', '.join(_TYPES)} nor an extension with its dot, such as .pdf"
    raise ValueError(message)


_TYPES: Final = ("text", "document", "image", "audio", "video")
TypeWord = Annotated[str, AfterValidator(_type_word)]


def _default_data_dir() -> Path:
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/msearchd").expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()) / "msearchd"


def _default_socket() -> Path:
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "msearchd" / "control.sock"
    return _default_data_dir() / "control.sock"


class WatchSettings(_Section):
    """[watch]: which folders, which files in them, and how soon a change counts."""

    folders: tuple[Path, ...] = Field(
        default=(), description="Folders to watch; more can be added while running with `msearch add`."
    )
    backend: Literal["auto", "inotify", "watchdog", "polling", "fanotify"] = Field(
        default="auto", description="How changes are noticed; auto takes the best that this system has."
    )
    watch_modify: bool = Field(
        default=False,
        description="Also notice writes to files that stay open for days, such as logs; each write costs an event.",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="Patterns in gitignore syntax that hold in every folder, after the built-in list."
    )
    types: tuple[TypeWord, ...] = Field(
        default=(),
        description="Index only these types, told by name: text, document, image, audio, video, or .pdf and the like; none: all.",
    )
    exclude_types: tuple[TypeWord, ...] = Field(
        default=(), description="Leave out files of these types, written in the same way."
    )
    use_default_excludes: bool = Field(
        default=True,
        description="Leave out caches, package folders, virtual machines, keys and the like (`msearch explain` names the rule).",
    )
    include_hidden: bool = Field(default=False, description="Index files and folders whose name begins with a dot.")
    use_gitignore: bool = Field(
        default=False, description="Honour .gitignore files; .msearchignore files are always honoured."
    )
    max_file_bytes: int = Field(default=2 * 1024**3, ge=1, description="Larger files are found by name only.")
    settle_closed_s: float = Field(default=0.2, ge=0, le=60, description="Quiet time after a writer closed a file.")
    settle_created_s: float = Field(
        default=2.0, ge=0, le=600, description="Quiet time after a file appeared whose writer has not closed it."
    )
    settle_modified_s: float = Field(
        default=1.0, ge=0, le=600, description="Quiet time after a change without a close."
    )
    settle_gone_s: float = Field(
        default=0.1,
        ge=0,
        le=60,
        description="Quiet time after a deletion; a move back or an atomic save within it is seen as one change.",
    )
    settle_cap_s: float = Field(
        default=30.0, ge=1, le=3600, description="A file that never stops changing is taken as it is after this time."
    )
    rescan_interval_h: float = Field(
        default=24.0, ge=0, description="Hours between full comparisons of folder and index; 0 turns them off."
    )
    delete_grace_s: float = Field(
        default=604800.0,
        ge=0,
        description="Seconds that vectors of deleted files are kept, so that a restored file costs nothing.",
    )
    vanish_brake_percent: int = Field(
        default=50,
        ge=1,
        le=100,
        description="If more than this part of a folder's files vanishes at once, the folder is offline and nothing is deleted.",
    )


class QueueSettings(_Section):
    """[queue]: the persistent job queue."""

    is_durable: bool = Field(
        default=False,
        description="Sync every commit to the disk; off, a power cut may cost the last seconds, which the next scan finds again.",
    )
    max_attempts: int = Field(default=5, ge=1, le=100, description="Attempts at a job before it counts as failed.")
    retry_base_s: float = Field(
        default=2.0, gt=0, description="Wait after the first failed attempt; doubled at each further one."
    )
    retry_cap_s: float = Field(default=900.0, gt=0, description="Longest wait between attempts.")
    history_rows: int = Field(default=10_000, ge=0, description="Finished jobs remembered for `msearch explain`.")


class ExtractSettings(_Section):
    """[extract]: reading files in worker processes."""

    workers: int = Field(default=1, ge=1, le=32, description="Extract worker processes.")
    timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="Time limit for one file; a page or picture that needs longer fails, its file's other steps go on.",
    )
    memory_mb: int = Field(default=3072, ge=1024, description="Memory limit of one extract worker (address space).")
    recycle_after: int = Field(
        default=500,
        ge=1,
        description="Files after which an extract worker is replaced, so that no parser's leak lasts.",
    )
    max_text_chars: int = Field(
        default=10_000_000,
        ge=1000,
        description="Text beyond this many characters of one file is left out (explain says so).",
    )
    chunk_chars: int = Field(
        default=800,
        ge=100,
        le=20_000,
        description="Target length of a passage in characters; part of the vector space's fingerprint.",
    )
    chunk_overlap_chars: int = Field(default=100, ge=0, description="Characters that neighbouring passages share.")
    ocr: bool = Field(default=True, description="Read text in images and scanned pages.")
    ocr_max_pages: int = Field(default=200, ge=0, description="Scanned pages read per document.")
    max_image_pixels: int = Field(
        default=300_000_000, ge=1_000_000, description="Images with more pixels are not decoded."
    )


class EmbeddingModel(_Section):
    """[[inference.models]]: one model."""

    name: str = Field(
        description="Short name, part of the vector space's name.", pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$"
    )
    source: str = Field(description="Local folder, or model id of the hub.")
    revision: str = Field(default="", description="Revision of a hub model; empty takes the newest cached one.")
    serves: Literal["text", "sparse", "image", "audio", "page", "rerank", "speech"] = Field(
        default="text",
        description="What it is for: text, sparse, image, audio and page embed, rerank compares, speech writes down.",
    )
    engine: Literal["auto", "infinity", "sentence_transformers", "onnx", "whisper", "colpali", "openai", "vllm"] = (
        Field(
            default="auto",
            description="Which engine runs it; auto takes the first usable one of those that serve its kind.",
        )
    )
    urls: tuple[str, ...] = Field(
        default=(),
        description='Servers that run it, for engine = "openai" (vLLM, TEI, infinity, another msearchd): "http://host:port".',
    )
    api_key_file: str = Field(default="", description="File that holds the key of those servers.")
    python: str = Field(
        default="",
        description="Interpreter of the engine's environment; empty: the daemon's own (infinity: that of `make infinity`).",
    )
    device: str = Field(default="auto", description="cpu, cuda, cuda:1, mps; auto takes a GPU where there is one.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="float32", description="Number format of the weights; part of the vector space's fingerprint."
    )
    query_prompt: str = Field(default="", description="Text put before each question, as some models want it.")
    document_prompt: str = Field(default="", description="Text put before each passage.")
    max_tokens: int = Field(
        default=0, ge=0, description="Cut passages at this many tokens; 0 takes the model's own limit."
    )
    batch_tokens: int = Field(
        default=0,
        ge=0,
        description="Most padded tokens in one batch; 0 finds the best size by measuring, and remembers it.",
    )
    threads: int = Field(default=0, ge=0, description="CPU threads of the worker; 0 takes half of the cores.")
    pinned: bool = Field(default=False, description="Keep it loaded once it is, whoever else needs its memory.")
    idle_unload_s: float = Field(
        default=-1.0,
        ge=-1,
        description="Unload it when unused for this long; 0 keeps it, -1 takes that of [inference].",
    )
    group: str = Field(default="", description="Models of one group are never loaded at the same time.")
    copies: int = Field(
        default=1, ge=1, le=16, description="Most copies of it, each on a GPU of its own, while much work waits for it."
    )


class InferenceSettings(_Section):
    """[inference]: model workers."""

    text_model: str = Field(
        default="all-minilm-l6-v2", description="Name of the model that embeds text; empty turns search by meaning off."
    )
    sparse_model: str = Field(
        default="",
        description="Name of the model that weighs the words of texts and adds their kin (SPLADE); empty does without.",
    )
    image_model: str = Field(
        default="",
        description="Name of the model that embeds images (CLIP, SigLIP); empty leaves images to their words.",
    )
    audio_model: str = Field(
        default="", description="Name of the model that embeds sound (CLAP); empty leaves sound to its words."
    )
    page_model: str = Field(
        default="", description="Name of the model that embeds page images (ColPali); empty leaves pages to their text."
    )
    speech_model: str = Field(
        default="", description="Name of the model that writes down speech (Whisper); empty leaves speech unread."
    )
    rerank_model: str = Field(
        default="", description="Name of the model that ranks the best hits again (a cross-encoder); empty does not."
    )
    models: tuple[EmbeddingModel, ...] = Field(
        default=(EmbeddingModel(name="all-minilm-l6-v2", source="sentence-transformers/all-MiniLM-L6-v2"),),
        description="The models that may be used.",
    )
    switch_unasked: int = Field(
        default=5_000,
        ge=-1,
        description="A changed model embeds up to so many passages anew unasked, more after `msearch model switch`; -1: any.",
    )
    keep_replaced_h: float = Field(
        default=168.0,
        ge=0,
        description="Hours that the vectors of a replaced model are kept for `msearch model rollback`.",
    )
    allow_download: bool = Field(
        default=False,
        description="Fetch missing weights from the hub; off, missing weights block the jobs with the line to type.",
    )
    idle_unload_s: float = Field(
        default=900.0, ge=0, description="A model unused for this long is unloaded; 0 keeps it."
    )
    max_loaded: int = Field(default=0, ge=0, description="Most models in memory at a time; 0: as many as fit.")
    memory_bytes: int = Field(
        default=0, ge=0, description="Memory of all models together; 0 takes 0.8 of what is free."
    )
    device_memory_bytes: int = Field(
        default=0, ge=0, description="Memory of all models on each GPU; 0 takes 0.9 of what is free there."
    )
    load_timeout_s: float = Field(default=300.0, gt=0, description="Time limit for loading a model.")
    request_timeout_s: float = Field(
        default=120.0, gt=0, description="Time limit for one batch; on expiry the worker is replaced."
    )


class StoreSettings(_Section):
    """[store]: where vectors live."""

    backend: Literal["auto", "edge", "server", "memory"] = Field(
        default="auto",
        description="auto: server if a url is set, else the embedded Qdrant Edge; memory forgets at exit.",
    )
    url: str = Field(
        default="",
        description="URL of a Qdrant server or cluster; the API key is read from $QDRANT_API_KEY or api_key_file.",
    )
    api_key_file: str = Field(default="", description="File that holds the server's API key.")
    grpc_port: int = Field(default=6334, ge=0, le=65535, description="gRPC port for bulk traffic; 0 uses HTTP alone.")
    shard_number: int = Field(default=1, ge=1, description="Shards of a new collection on a cluster.")
    replication_factor: int = Field(default=1, ge=1, description="Copies of each shard on a cluster.")
    tenant: str = Field(
        default="", description="Name of this machine in a shared collection; empty takes the host name on a server."
    )
    min_free_mb: int = Field(
        default=1024, ge=0, description="Indexing pauses while the data folder's disk has less space free."
    )
    quantize_above: int = Field(
        default=20_000, ge=1000, description="Spaces with more points are quantized (TurboQuant 4 bit, rescored)."
    )
    timeout_s: float = Field(default=60.0, gt=0, description="Time limit for one store operation.")
    cache_mb: int = Field(
        default=512,
        ge=0,
        description="Vectors remembered beyond the index, so that known bytes are never embedded twice; 0 keeps none.",
    )


class SearchSettings(_Section):
    """[search]: fusion of the ranked lists."""

    rrf_k: float = Field(
        default=10.0, gt=0, description="Constant of reciprocal rank fusion; smaller trusts the first ranks more."
    )
    candidates: int = Field(default=100, ge=10, le=1000, description="Candidates taken from each list.")
    weight_words: float = Field(default=1.0, ge=0, description="Weight of the list of matching words.")
    weight_names: float = Field(default=1.0, ge=0, description="Weight of the list of matching file names.")
    weight_meaning: float = Field(default=1.0, ge=0, description="Weight of each list of near vectors.")
    weight_sparse: float = Field(
        default=1.0, ge=0, description="Weight of the list of learned words, that of sparse_model."
    )
    rerank_passages: int = Field(
        default=20, ge=2, le=200, description="Best passages that the model of rerank_model compares once more."
    )
    query_timeout_s: float = Field(
        default=10.0, gt=0, description="A list that has not answered by then is left out and named in the reply."
    )


class ApiSettings(_Section):
    """[api]: the control socket."""

    socket: Path = Field(default_factory=_default_socket, description="Unix socket of the control API.")
    listen: str = Field(
        default="",
        description='Address of a TCP listener for /v1 (models, OpenAI-shaped), such as "127.0.0.1:7683"; empty opens none.',
    )
    token_file: str = Field(
        default="",
        description="File with the token of TCP callers, made at the first start; empty: api.token in data_dir.",
    )
    hosts: tuple[str, ...] = Field(
        default=(), description="Further names by which TCP callers may call this machine; addresses are always taken."
    )


class LimitsSettings(_Section):
    """[limits]: being a quiet guest."""

    nice: int = Field(default=10, ge=0, le=19, description="Niceness of the child processes.")
    drain_s: float = Field(
        default=20.0,
        gt=0,
        description="Time for running work to end after SIGTERM; the rest resumes at the next start.",
    )


class LogSettings(_Section):
    """[log]: events on stderr or in the journal."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important events to log."
    )
    format: Literal["auto", "human", "json"] = Field(
        default="auto", description="auto: for people on a terminal, JSON lines otherwise."
    )


class Settings(_Section):
    """All of config/msearchd.toml."""

    data_dir: Path = Field(
        default_factory=_default_data_dir, description="Database, vectors and state; never inside a watched folder."
    )
    watch: WatchSettings = WatchSettings()
    queue: QueueSettings = QueueSettings()
    extract: ExtractSettings = ExtractSettings()
    inference: InferenceSettings = InferenceSettings()
    store: StoreSettings = StoreSettings()
    search: SearchSettings = SearchSettings()
    api: ApiSettings = Field(default_factory=ApiSettings)  # its socket depends on the environment of the moment
    limits: LimitsSettings = LimitsSettings()
    log: LogSettings = LogSettings()
