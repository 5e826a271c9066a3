"""What each type of file is and who reads it: one table, pure, importable anywhere.

In: a type label or a file name's extension. Out: a `FileType` row, the steps that a content owes, the reason why its
bytes are left alone. A new type is a row here; a new way of reading is a module with `read` and a `Reader` value.
Never opens a file, never imports a decoder: readers are named, and imported by the extract worker alone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msearchd.domain.job import Step
from msearchd.domain.media import Identified, Modality

if TYPE_CHECKING:
    from msearchd.settings.model import ExtractSettings


class Reader(enum.StrEnum):
    """Who reads a type: the value names a module below msearchd.media that has `read(source, kind, rules) ->
    Reading`.
    """

    TEXT = "text"
    MARKUP = "markup"
    NOTEBOOK = "notebook"
    DOCUMENT = "document"
    MAIL = "mail"
    ARCHIVE = "archive"
    IMAGE = "image"
    AUDIO = "audio"  # sound, and the sound track of films
    NOTHING = ""  # found by name only


class Structure(enum.StrEnum):
    """Where a text likes to be cut."""

    PROSE = "prose"  # paragraphs, sentences
    MARKDOWN = "markdown"  # headings first
    CODE = "code"  # top-level definitions, then blank lines
    ROWS = "rows"  # lines


@dataclass(frozen=True, slots=True)
class FileType:
    """One type of file. `label` is what people filter by; extensions are lower case with their dot."""

    label: str
    mime: str
    modality: Modality
    reader: Reader
    structure: Structure = Structure.PROSE
    extensions: tuple[str, ...] = ()


def _text(
    label: str, mime: str, extensions: str, structure: Structure = Structure.PROSE, reader: Reader = Reader.TEXT
) -> FileType:
    return FileType(label, mime, Modality.TEXT, reader, structure, tuple(extensions.split()))


def _code(label: str, extensions: str, mime: str = "") -> FileType:
    return _text(label, mime or f"text/x-{label}", extensions, Structure.CODE)


def _document(label: str, mime: str, extensions: str, reader: Reader = Reader.DOCUMENT) -> FileType:
    return FileType(label, mime, Modality.DOCUMENT, reader, Structure.PROSE, tuple(extensions.split()))


def _image(label: str, mime: str, extensions: str, reader: Reader = Reader.IMAGE) -> FileType:
    return FileType(label, mime, Modality.IMAGE, reader, Structure.PROSE, tuple(extensions.split()))


def _sound(modality: Modality, label: str, mime: str, extensions: str) -> FileType:
    return FileType(label, mime, modality, Reader.AUDIO, Structure.PROSE, tuple(extensions.split()))


def _unread(modality: Modality, label: str, mime: str, extensions: str) -> FileType:
    return FileType(label, mime, modality, Reader.NOTHING, Structure.PROSE, tuple(extensions.split()))


_OOXML: Final = "application/vnd.openxmlformats-officedocument"
_OPEN: Final = "application/vnd.oasis.opendocument"

#: Labels are those of magika (https://github.com/google/magika), so that its answers need no translation.
TYPES: Final[tuple[FileType, ...]] = (
    _text("empty", "inode/x-empty", ""),
    _text("txt", "text/plain", ".txt .text .log .asc .nfo .me .readme .srt .vtt .tex.txt"),
    _text("markdown", "text/markdown", ".md .markdown .mdown .mkd .mdx .qmd .rmd", Structure.MARKDOWN),
    _text("rst", "text/x-rst", ".rst .rest"),
    _text("org", "text/x-org", ".org"),
    _text("asciidoc", "text/asciidoc", ".adoc .asciidoc"),
    _text("latex", "text/x-tex", ".tex .sty .cls .ltx"),
    _text("bibtex", "text/x-bibtex", ".bib"),
    _text("typst", "text/x-typst", ".typ"),
    _text("html", "text/html", ".html .htm .xhtml .shtml", reader=Reader.MARKUP),
    _text("ipynb", "application/x-ipynb+json", ".ipynb", Structure.CODE, Reader.NOTEBOOK),
    _text("csv", "text/csv", ".csv", Structure.ROWS),
    _text("tsv", "text/tab-separated-values", ".tsv .tab", Structure.ROWS),
    _text("json", "application/json", ".json .geojson .webmanifest .json5", Structure.ROWS),
    _text("jsonl", "application/json", ".jsonl .ndjson", Structure.ROWS),
    _text("xml", "text/xml", ".xml .xsd .xsl .xslt .rss .atom .gpx .kml .plist .opml", Structure.ROWS),
    _text("yaml", "application/x-yaml", ".yaml .yml", Structure.ROWS),
    _text("toml", "application/toml", ".toml", Structure.ROWS),
    _text("ini", "text/plain", ".ini .cfg .conf .properties .desktop .service .env", Structure.ROWS),
    _text("diff", "text/plain", ".diff .patch", Structure.ROWS),
    _text("ics", "text/calendar", ".ics", Structure.ROWS),
    _text("vcard", "text/vcard", ".vcf", Structure.ROWS),
    _text("css", "text/css", ".css .scss .sass .less", Structure.CODE),
    _code("python", ".py .pyi .pyw"),
    _code("javascript", ".js .mjs .cjs .jsx", "application/javascript"),
    _code("typescript", ".ts .tsx .mts .cts", "application/typescript"),
    _code("c", ".c .h"),
    _code("cpp", ".cc .cpp .cxx .hpp .hh .hxx .ino .cu .cuh", "text/x-c++"),
    _code("cs", ".cs", "text/x-csharp"),
    _code("java", ".java"),
    _code("kotlin", ".kt .kts"),
    _code("scala", ".scala .sc"),
    _code("groovy", ".groovy .gradle"),
    _code("go", ".go"),
    _code("rust", ".rs"),
    _code("swift", ".swift"),
    _code("objectivec", ".m .mm"),
    _code("dart", ".dart"),
    _code("ruby", ".rb .rake .gemspec"),
    _code("php", ".php .phtml"),
    _code("perl", ".pl .pm"),
    _code("lua", ".lua"),
    _code("r", ".r"),
    _code("julia", ".jl"),
    _code("haskell", ".hs"),
    _code("ocaml", ".ml .mli"),
    _code("erlang", ".erl .hrl"),
    _code("elixir", ".ex .exs"),
    _code("clojure", ".clj .cljs .edn"),
    _code("lisp", ".lisp .el .scm"),
    _code("fortran", ".f .f90 .f95 .for"),
    _code("pascal", ".pas .pp"),
    _code("vba", ".vb .vbs .bas"),
    _code("zig", ".zig"),
    _code("nim", ".nim"),
    _code("shell", ".sh .bash .zsh .fish .ksh"),
    _code("powershell", ".ps1 .psm1"),
    _code("batch", ".bat .cmd"),
    _code("sql", ".sql"),
    _code("makefile", ".mk"),
    _code("cmake", ".cmake"),
    _code("dockerfile", ".dockerfile"),
    _code("proto", ".proto"),
    _code("graphql", ".graphql .gql"),
    _code("hcl", ".tf .hcl"),
    _code("vue", ".vue"),
    _code("svelte", ".svelte"),
    _code("asm", ".s .asm"),
    _code("verilog", ".v .sv .vhd .vhdl"),
    _document("pdf", "application/pdf", ".pdf"),
    _document("docx", f"{_OOXML}.wordprocessingml.document", ".docx .docm .dotx"),
    _document("xlsx", f"{_OOXML}.spreadsheetml.sheet", ".xlsx .xlsm .xltx"),
    _document("pptx", f"{_OOXML}.presentationml.presentation", ".pptx .pptm .ppsx"),
    _document("doc", "application/msword", ".doc .dot"),
    _document("xls", "application/vnd.ms-excel", ".xls"),
    _document("ppt", "application/vnd.ms-powerpoint", ".ppt .pps"),
    _document("odt", f"{_OPEN}.text", ".odt"),
    _document("ods", f"{_OPEN}.spreadsheet", ".ods"),
    _document("odp", f"{_OPEN}.presentation", ".odp"),
    _document("epub", "application/epub+zip", ".epub"),
    _document("rtf", "application/rtf", ".rtf"),
    _document("outlook", "application/vnd.ms-outlook", ".msg"),
    _document("eml", "message/rfc822", ".eml .mht .mhtml", Reader.MAIL),
    _document("zip", "application/zip", ".zip .cbz", Reader.ARCHIVE),
    _document("jar", "application/java-archive", ".jar .war", Reader.ARCHIVE),
    _document("apk", "application/vnd.android.package-archive", ".apk", Reader.ARCHIVE),
    _document("tar", "application/x-tar", ".tar", Reader.ARCHIVE),
    _document("gzip", "application/gzip", ".gz .tgz", Reader.ARCHIVE),
    _document("bzip", "application/x-bzip2", ".bz2 .tbz2", Reader.ARCHIVE),
    _document("xz", "application/x-xz", ".xz .txz", Reader.ARCHIVE),
    _document("sevenzip", "application/x-7z-compressed", ".7z", Reader.ARCHIVE),
    _unread(Modality.DOCUMENT, "rar", "application/vnd.rar", ".rar .cbr"),
    _unread(Modality.DOCUMENT, "zst", "application/zstd", ".zst"),
    _image("png", "image/png", ".png .apng"),
    _image("jpeg", "image/jpeg", ".jpg .jpeg .jpe .jfif"),
    _image("gif", "image/gif", ".gif"),
    _image("webp", "image/webp", ".webp"),
    _image("tiff", "image/tiff", ".tif .tiff"),
    _image("bmp", "image/bmp", ".bmp .dib"),
    _image("avif", "image/avif", ".avif"),
    _image("jp2", "image/jp2", ".jp2 .j2k"),
    _image("ico", "image/x-icon", ".ico"),
    _image("ppm", "image/x-portable-pixmap", ".ppm .pgm .pbm .pnm"),
    _image("svg", "image/svg+xml", ".svg", Reader.MARKUP),
    _unread(Modality.IMAGE, "heif", "image/heic", ".heic .heif"),
    _unread(Modality.IMAGE, "psd", "image/vnd.adobe.photoshop", ".psd"),
    _sound(Modality.AUDIO, "mp3", "audio/mpeg", ".mp3"),
    _sound(Modality.AUDIO, "wav", "audio/x-wav", ".wav"),
    _sound(Modality.AUDIO, "flac", "audio/flac", ".flac"),
    _sound(Modality.AUDIO, "ogg", "audio/ogg", ".ogg .oga .opus"),
    _sound(Modality.AUDIO, "m4a", "audio/mp4", ".m4a .m4b"),
    _sound(Modality.AUDIO, "aiff", "audio/aiff", ".aiff .aif .aifc"),
    _sound(Modality.VIDEO, "mp4", "video/mp4", ".mp4 .m4v"),
    _sound(Modality.VIDEO, "quicktime", "video/quicktime", ".mov .qt"),
    _sound(Modality.VIDEO, "mkv", "video/x-matroska", ".mkv"),
    _sound(Modality.VIDEO, "webm", "video/webm", ".webm"),
    _sound(Modality.VIDEO, "avi", "video/x-msvideo", ".avi"),
    _unread(Modality.OTHER, "sqlite", "application/vnd.sqlite3", ".sqlite .db3"),
    _unread(Modality.OTHER, "elf", "application/x-executable-elf", ""),
    _unread(Modality.OTHER, "macho", "application/x-mach-o", ""),
    _unread(Modality.OTHER, "pebin", "application/vnd.microsoft.portable-executable", ".exe .dll"),
    _unread(Modality.OTHER, "unknown", "application/octet-stream", ""),
)

_BY_LABEL: Final = {row.label: row for row in TYPES}
_BY_EXTENSION: Final = {extension: row for row in TYPES for extension in row.extensions}
#: Whole names that say more than their extension.
_BY_NAME: Final = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "dockerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "readme": "txt",
    "license": "txt",
    "copying": "txt",
    "authors": "txt",
    "changelog": "txt",
}
_UNKNOWN: Final = _BY_LABEL["unknown"]


def by_label(label: str) -> FileType | None:
    """The row of a type label; None where we have none."""
    return _BY_LABEL.get(label)


def by_name(name: str) -> FileType | None:
    """The row that a file's name suggests (its extension, or a name such as `Makefile`); None where it suggests
    nothing.
    """
    lowered = name.lower()
    if (label := _BY_NAME.get(lowered)) is not None:
        return _BY_LABEL[label]
    dot = lowered.rfind(".")
    return _BY_EXTENSION.get(lowered[dot:]) if dot >= 0 else None


def of(identified: Identified) -> FileType:
    """The row of an identified content; labels without a row are text if their modality says so, else unread."""
    if (row := _BY_LABEL.get(identified.type_label)) is not None:
        return row
    if identified.modality is Modality.TEXT:
        return FileType(identified.type_label, identified.mime, Modality.TEXT, Reader.TEXT, Structure.CODE)
    return FileType(identified.type_label, identified.mime, identified.modality, Reader.NOTHING)


def steps_for(identified: Identified, settings: ExtractSettings) -> tuple[Step, ...]:
    """The reading steps that this content's type can have; () where it is found by name only.

    OCR and TRANSCRIBE are possibilities here: whether a content owes OCR is said by its `Extraction` (`wants_ocr`,
    `ocr_pages`), and speech by its windows of sound and the model that is configured.
    """
    row = of(identified)
    if row.reader is Reader.NOTHING:
        return ()
    if settings.ocr and (row.reader is Reader.IMAGE or row.label == "pdf"):
        return (Step.EXTRACT, Step.OCR)
    if row.reader is Reader.AUDIO:
        return (Step.EXTRACT, Step.TRANSCRIBE)
    return (Step.EXTRACT,)


def skip_reason(identified: Identified, settings: ExtractSettings) -> str:
    """Why the bytes of this content are left alone, as a sentence for `explain`; "" where they are read."""
    if steps_for(identified, settings):
        return ""
    if identified.modality in {Modality.AUDIO, Modality.VIDEO}:
        return f"there is no reader for {identified.modality.value} of the type {identified.type_label}: found by name only"
    if identified.type_label == "unknown":
        return "no type was recognised in its bytes: found by name only"
    return f"there is no reader for {identified.type_label} files: found by name only"
