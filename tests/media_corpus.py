"""Real files of every type that msearchd reads, made by code: for the tests and for the demo.

In: nothing. Out: `corpus()` -> CorpusFile values, or `write_corpus(folder)` -> files on the disk. Nothing is fetched; the
same bytes come out each time. Each file knows the type that must be found in it and words that must be read from it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import textwrap
import zipfile
import zlib
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file: its bytes, and what a reader must find in them."""

    name: str
    data: bytes
    type_label: str
    modality: str
    words: tuple[str, ...] = ()  # each must occur in the text of some BODY or METADATA segment
    ocr_words: tuple[str, ...] = ()  # each must occur in the text of some OCR segment
    pages: int = 0  # pages that BODY segments must name (0: none)
    metadata: dict[str, object] = field(default_factory=dict)


INVOICE = """Invoice 2024-117

North Sea Ferry Company, Harbour Road 12, Esbjerg

Crossing Esbjerg to Harwich, two adults, one car and a dog cabin.
The amount of 482.50 euro is due within fourteen days. Please quote the invoice number with your payment.
"""

LETTER = """Dear Margarethe,

the orchard behind the mill has finally been sold. The new owners want to keep the old pear trees and to plant
walnuts along the stream. Father would have liked that, though he never trusted walnuts.

Yours, Friedrich
"""

RECIPE = """# Sourdough bread

A loaf for two days, with a dark crust.

## Ingredients

- 500 g strong wheat flour
- 350 ml water
- 100 g active starter

## Method

Mix flour and water, wait half an hour. Add starter and salt, fold every thirty minutes for three hours.
Bake in a hot cast iron pot at 250 degrees until the crust is chestnut brown.
"""

PYTHON = '''"""Tide tables from harmonic constituents."""

import math


class TideGauge:
    """Predicts the water level of one harbour."""

    def __init__(self, constituents):
        self.constituents = constituents

    def level_at(self, hours):
        """Metres above chart datum."""
        return sum(a * math.cos(w * hours + p) for a, w, p in self.constituents)


def spring_neap_ratio(gauge):
    """How much larger a spring tide is than a neap tide."""
    return max(gauge.level_at(h) for h in range(720)) / 2.0
'''

JAVASCRIPT = """// Draws the departure board.
export function renderDepartures(rows, element) {
  const sorted = [...rows].sort((a, b) => a.leaves - b.leaves);
  element.replaceChildren(...sorted.map((row) => departureLine(row)));
}

function departureLine(row) {
  const line = document.createElement("li");
  line.textContent = `${row.leaves} ${row.destination} platform ${row.platform}`;
  return line;
}
"""

HTML = """<!doctype html><html lang="en"><head><title>Lighthouse keepers' diary</title>
<meta name="author" content="Ingrid Solheim"><style>p {color: red}</style>
<script>var secretvariable = "not for readers";</script></head>
<body><nav>Home | About</nav><h1>Lighthouse keepers' diary</h1>
<p>The storm of November took the jetty and half of the coal shed. We kept the lamp burning for three nights.</p>
<p>On the fourth morning a trawler signalled its thanks &amp; went on to Bod&oslash;.</p></body></html>
"""

GERMAN = (
    "Die Prüfung der Brücke über den Fluß wurde für März verschoben. Größere Schäden an den Pfeilern sind möglich.\n"
)
RUSSIAN = "Поезд из Мурманска опоздал на три часа, потому что рельсы занесло снегом. Пассажиры пили чай в вагоне.\n"
JAPANESE = "京都の古い寺で秋の紅葉を見た。池の水に赤い葉が映っていて、とても静かだった。\n"

CSV = "station,river,level_cm,date\nDresden,Elbe,612,2024-09-18\nPassau,Danube,745,2024-06-04\nCologne,Rhine,830,2024-01-12\n"


def corpus() -> list[CorpusFile]:
    """Every file of the corpus, in memory."""
    return [*_texts(), *_documents(), *_mails(), *_archives(), *_images()]


def write_corpus(folder: Path) -> list[Path]:
    """Write the corpus below *folder* (made if need be); return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for item in corpus():
        path = folder / item.name
        path.write_bytes(item.data)
        paths.append(path)
    return paths


# -- text -----------------------------------------------------------------------------------------------------------------


def _texts() -> list[CorpusFile]:
    return [
        CorpusFile("invoice.txt", INVOICE.encode(), "txt", "text", ("North Sea Ferry", "482.50")),
        CorpusFile("letter", LETTER.encode(), "txt", "text", ("orchard", "walnuts")),
        CorpusFile("recipe.md", RECIPE.encode(), "markdown", "text", ("Sourdough", "chestnut brown")),
        CorpusFile("tides.py", PYTHON.encode(), "python", "text", ("spring_neap_ratio", "chart datum")),
        CorpusFile("board.js", JAVASCRIPT.encode(), "javascript", "text", ("renderDepartures",)),
        CorpusFile("diary.html", HTML.encode(), "html", "text", ("storm of November", "Bodø", "Ingrid Solheim")),
        CorpusFile("levels.csv", CSV.encode(), "csv", "text", ("Passau", "745")),
        CorpusFile("bridge-utf8-bom.txt", b"\xef\xbb\xbf" + GERMAN.encode(), "txt", "text", ("Brücke", "Schäden")),
        CorpusFile("bridge-utf16.txt", GERMAN.encode("utf-16"), "txt", "text", ("Brücke", "Schäden")),
        CorpusFile("bridge-utf16le-nobom.txt", GERMAN.encode("utf-16-le"), "txt", "text", ("Brücke", "Schäden")),
        CorpusFile("bridge-utf16be-nobom.txt", GERMAN.encode("utf-16-be"), "txt", "text", ("Brücke", "Schäden")),
        CorpusFile("bridge-cp1252.txt", (GERMAN * 3).encode("cp1252"), "txt", "text", ("Brücke", "Schäden")),
        CorpusFile("train-koi8.txt", (RUSSIAN * 4).encode("koi8-r"), "txt", "text", ("Мурманска",)),
        CorpusFile("kyoto-sjis.txt", (JAPANESE * 4).encode("shift_jis"), "txt", "text", ("京都",)),
        CorpusFile(
            "ferry.json",
            json.dumps({"ferry": {"name": "Queen of the Fjords", "berths": 312}}, indent=1).encode(),
            "json",
            "text",
            ("Queen of the Fjords",),
        ),
        CorpusFile(
            "analysis.ipynb", _notebook(), "ipynb", "text", ("Tidal analysis", "harmonic_fit", "residual 0.031")
        ),
        CorpusFile("empty.txt", b"", "empty", "text", ()),
    ]


def _notebook() -> bytes:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Tidal analysis\n", "We fit the gauge of Cuxhaven."]},
        {
            "cell_type": "code",
            "metadata": {},
            "execution_count": 1,
            "source": ["coefficients = harmonic_fit(levels)"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["residual 0.031\n"]},
                {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0KGgoAAAANSUhEUg" * 9}},
            ],
        },
    ]
    return json.dumps(
        {"cells": cells, "metadata": {"kernelspec": {"name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    ).encode()


# -- documents ------------------------------------------------------------------------------------------------------------


def _documents() -> list[CorpusFile]:
    pages = (
        "The annual report of the beekeepers begins with the losses of a wet spring.",
        "In summer the linden trees along the avenue gave a record harvest of honey.",
    )
    return [
        CorpusFile(
            "bees.pdf",
            pdf(pages, title="Beekeepers annual report", author="Astrid Holm"),
            "pdf",
            "document",
            ("losses of a wet spring", "linden trees", "Astrid Holm"),
            pages=2,
        ),
        CorpusFile(
            "scanned.pdf",
            scanned_pdf(("RECEIPT OF THE GLASS WORKSHOP", "SECOND PAGE ABOUT LANTERNS")),
            "pdf",
            "document",
            ocr_words=("GLASS", "LANTERNS"),
        ),
        CorpusFile(
            "contract.docx",
            docx(
                ("Lease contract", "The tenant of the windmill pays 900 euro each month."),
                title="Windmill lease",
                author="Notary Bakker",
            ),
            "docx",
            "document",
            ("windmill pays 900", "Notary Bakker"),
        ),
        CorpusFile(
            "budget.xlsx",
            xlsx((("Item", "Cost"), ("Theodolite repair", 1250), ("Survey boat", 8800))),
            "xlsx",
            "document",
            ("Theodolite repair", "8800"),
        ),
        CorpusFile(
            "slides.pptx",
            pptx(("Glacier retreat since 1950", "Meltwater feeds the lower reservoir")),
            "pptx",
            "document",
            ("Glacier retreat", "lower reservoir"),
        ),
        CorpusFile(
            "poem.odt",
            odt(("Autumn poem", "The heron stands in the silver reeds and waits.")),
            "odt",
            "document",
            ("silver reeds",),
        ),
        CorpusFile(
            "talk.odp",
            odp(("Tidal power", "Turbines turn with every tide of the strait.")),
            "odp",
            "document",
            ("Turbines turn",),
        ),
        CorpusFile(
            "novel.epub",
            epub(
                "The Cartographer",
                "Elena Marquez",
                (
                    "Chapter one. The map showed an island that nobody had ever visited.",
                    "Chapter two. At dawn the schooner anchored off the coral reef.",
                ),
            ),
            "epub",
            "document",
            ("nobody had ever visited", "coral reef", "Elena Marquez"),
        ),
        CorpusFile("memo.rtf", RTF, "rtf", "document", ("violin workshop", "spruce")),
    ]


RTF = (
    rb"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Times New Roman;}}\f0\fs24 {\b Memo of the violin workshop}\par "
    rb"The spruce for the new instruments has to dry for f\'fcnf more years.\par}"
)


def pdf(pages: tuple[str, ...], *, title: str = "", author: str = "", password: str = "") -> bytes:
    """A PDF 1.4 of text pages set in Helvetica; with *password*, encrypted by RC4-40 (PDF 1.4 reference, 3.5)."""
    objects: list[bytes] = [b"", b""]
    font = _add(objects, b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    kids = []
    for text in pages:
        lines = " ".join(f"({_pdf_escape(line)}) Tj T*" for line in textwrap.wrap(text, 80))
        content = _add_stream(objects, f"BT /F1 12 Tf 14 TL 60 760 Td {lines} ET".encode("cp1252"))
        kids.append(
            _add(
                objects,
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 "
                b"%d 0 R >> >> /Contents %d 0 R >>" % (font, content),
            )
        )
    facts = b"<< /Title (%s) /Author (%s) /CreationDate (D:20240301120000Z) >>" % (title.encode(), author.encode())
    return _pdf_file(objects, kids, b"" if password else facts, password=password)


def scanned_pdf(pages: tuple[str, ...]) -> bytes:
    """A PDF whose pages are pictures of text, as a scanner makes them."""
    objects: list[bytes] = [b"", b""]
    kids = []
    for text in pages:
        picture = io.BytesIO()
        text_image(text, size=(900, 300)).convert("L").save(picture, "JPEG", quality=85)
        image = _add_stream(
            objects,
            picture.getvalue(),
            b"/Type /XObject /Subtype /Image /Width 900 /Height 300 "
            b"/ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /DCTDecode ",
        )
        content = _add_stream(objects, b"q 450 0 0 150 70 600 cm /Im1 Do Q")
        kids.append(
            _add(
                objects,
                b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /XObject << /Im1 "
                b"%d 0 R >> >> /Contents %d 0 R >>" % (image, content),
            )
        )
    return _pdf_file(objects, kids, b"")


def _add(objects: list[bytes], body: bytes) -> int:
    objects.append(body)
    return len(objects)


def _add_stream(objects: list[bytes], data: bytes, entries: bytes = b"") -> int:
    return _add(objects, b"<< %s/Length %d >>\nstream\n%s\nendstream" % (entries, len(data), data))


def _pdf_escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _pdf_file(objects: list[bytes], kids: list[int], facts: bytes, *, password: str = "") -> bytes:
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    trailer = b""
    if facts:
        trailer += b" /Info %d 0 R" % _add(objects, facts)
    file_id = hashlib.md5(b"msearchd corpus", usedforsecurity=False).digest()
    if password:
        key, entry = _pdf_key(password, file_id)
        objects[:] = [_encrypted(body, number, key) for number, body in enumerate(objects, 1)]
        trailer += b" /Encrypt %d 0 R /ID [<%s> <%s>]" % (_add(objects, entry), *(file_id.hex().encode(),) * 2)
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start)
    return bytes(out)


_PDF_PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def _pdf_key(password: str, file_id: bytes) -> tuple[bytes, bytes]:
    padded = (password.encode() + _PDF_PAD)[:32]
    owner = _rc4(hashlib.md5(padded, usedforsecurity=False).digest()[:5], padded)
    permissions = (-44).to_bytes(4, "little", signed=True)
    key = hashlib.md5(padded + owner + permissions + file_id, usedforsecurity=False).digest()[:5]
    user = _rc4(key, _PDF_PAD)
    return key, b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -44 >>" % (
        owner.hex().encode(),
        user.hex().encode(),
    )


def _encrypted(body: bytes, number: int, key: bytes) -> bytes:
    if b"stream\n" not in body:
        return body
    head, rest = body.split(b"stream\n", 1)
    data = rest.rsplit(b"\nendstream", 1)[0]
    object_key = hashlib.md5(key + number.to_bytes(3, "little") + b"\0\0", usedforsecurity=False).digest()[:10]
    return head + b"stream\n" + _rc4(object_key, data) + b"\nendstream"


def _rc4(key: bytes, data: bytes) -> bytes:
    box, j = list(range(256)), 0
    for i in range(256):
        j = (j + box[i] + key[i % len(key)]) % 256
        box[i], box[j] = box[j], box[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + box[i]) % 256
        box[i], box[j] = box[j], box[i]
        out.append(byte ^ box[(box[i] + box[j]) % 256])
    return bytes(out)


def zip_of(files: dict[str, str | bytes], *, stored_first: bool = False) -> bytes:
    """A zip with fixed times; with *stored_first* its first member is not compressed (as EPUB and ODF ask)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, (name, data) in enumerate(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(2024, 3, 1, 12, 0, 0))
            entry.compress_type = zipfile.ZIP_STORED if stored_first and index == 0 else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return out.getvalue()


_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE_TYPE = "application/vnd.openxmlformats-officedocument"


def _ooxml(
    parts: dict[str, tuple[str, str]],
    main: str,
    *,
    title: str = "",
    author: str = "",
    relations: dict[str, list[tuple[str, str]]] | None = None,
) -> bytes:
    overrides = "".join(f'<Override PartName="/{name}" ContentType="{kind}"/>' for name, (kind, _) in parts.items())
    files: dict[str, str | bytes] = {
        "[Content_Types].xml": f'{_XML}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" '
        f'ContentType="application/xml"/>{overrides}<Override PartName="/docProps/core.xml" '
        f'ContentType="application/vnd.openxmlformats-package.core-properties+xml"/></Types>',
        "_rels/.rels": _rels(
            [
                (f"{_OFFICE}/relationships/officeDocument", main),
                (f"{_PACKAGE}/relationships/metadata/core-properties", "docProps/core.xml"),
            ]
        ),
        "docProps/core.xml": f'{_XML}<cp:coreProperties xmlns:cp="{_PACKAGE}/metadata/core-properties" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><dc:title>{title}</dc:title>'
        f'<dc:creator>{author}</dc:creator><dcterms:created xsi:type="dcterms:W3CDTF">2024-03-01T12:00:00Z'
        f"</dcterms:created></cp:coreProperties>",
    }
    for name, (_, body) in parts.items():
        files[name] = _XML + body
    for name, targets in (relations or {}).items():
        files[name] = _rels(targets)
    return zip_of(files)


def _rels(targets: list[tuple[str, str]]) -> str:
    rows = "".join(
        f'<Relationship Id="rId{i}" Type="{kind}" Target="{target}"/>' for i, (kind, target) in enumerate(targets, 1)
    )
    return f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">{rows}</Relationships>'


def docx(paragraphs: tuple[str, ...], *, title: str = "", author: str = "") -> bytes:
    """A Word document of plain paragraphs."""
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    document = f'<w:document xmlns:w="{space}"><w:body>{body}</w:body></w:document>'
    return _ooxml(
        {"word/document.xml": (f"{_OFFICE_TYPE}.wordprocessingml.document.main+xml", document)},
        "word/document.xml",
        title=title,
        author=author,
    )


def xlsx(rows: tuple[tuple[str | int, ...], ...]) -> bytes:
    """A workbook of one sheet, strings inline."""
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"

    def cell(value: str | int, where: str) -> str:
        if isinstance(value, int):
            return f'<c r="{where}"><v>{value}</v></c>'
        return f'<c r="{where}" t="inlineStr"><is><t>{value}</t></is></c>'

    data = "".join(
        f'<row r="{r}">' + "".join(cell(v, f"{chr(65 + c)}{r}") for c, v in enumerate(row)) + "</row>"
        for r, row in enumerate(rows, 1)
    )
    sheet = f'<worksheet xmlns="{space}"><sheetData>{data}</sheetData></worksheet>'
    book = (
        f'<workbook xmlns="{space}" xmlns:r="{_OFFICE}/relationships"><sheets><sheet name="Costs" sheetId="1" '
        f'r:id="rId1"/></sheets></workbook>'
    )
    kind = f"{_OFFICE_TYPE}.spreadsheetml"
    return _ooxml(
        {
            "xl/workbook.xml": (f"{kind}.sheet.main+xml", book),
            "xl/worksheets/sheet1.xml": (f"{kind}.worksheet+xml", sheet),
        },
        "xl/workbook.xml",
        relations={"xl/_rels/workbook.xml.rels": [(f"{_OFFICE}/relationships/worksheet", "worksheets/sheet1.xml")]},
    )


def pptx(texts: tuple[str, ...]) -> bytes:
    """A presentation, one slide per text."""
    spaces = (
        'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
        'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
        f'xmlns:r="{_OFFICE}/relationships"'
    )
    kind = f"{_OFFICE_TYPE}.presentationml"
    ids = "".join(f'<p:sldId id="{255 + i}" r:id="rId{i}"/>' for i in range(1, len(texts) + 1))
    parts = {
        "ppt/presentation.xml": (
            f"{kind}.presentation.main+xml",
            f"<p:presentation {spaces}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        )
    }
    for i, text in enumerate(texts, 1):
        parts[f"ppt/slides/slide{i}.xml"] = (
            f"{kind}.slide+xml",
            (
                f'<p:sld {spaces}><p:cSld><p:spTree><p:nvGrpSpPr><p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr>'
                f'<p:grpSpPr/><p:sp><p:nvSpPr><p:cNvPr id="2" name="Text"/><p:cNvSpPr/><p:nvPr/></p:nvSpPr><p:spPr/><p:txBody>'
                f"<a:bodyPr/><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp></p:spTree></p:cSld></p:sld>"
            ),
        )
    return _ooxml(
        parts,
        "ppt/presentation.xml",
        relations={
            "ppt/_rels/presentation.xml.rels": [
                (f"{_OFFICE}/relationships/slide", f"slides/slide{i}.xml") for i in range(1, len(texts) + 1)
            ]
        },
    )


def odt(paragraphs: tuple[str, ...]) -> bytes:
    """An OpenDocument text."""
    body = "".join(f"<text:p>{text}</text:p>" for text in paragraphs)
    return _open_document("text", f"<office:text>{body}</office:text>")


def odp(slides: tuple[str, ...]) -> bytes:
    """An OpenDocument presentation, one slide per text."""
    pages = "".join(
        f'<draw:page draw:name="{i}"><draw:frame><draw:text-box><text:p>{text}</text:p></draw:text-box></draw:frame></draw:page>'
        for i, text in enumerate(slides, 1)
    )
    return _open_document("presentation", f"<office:presentation>{pages}</office:presentation>")


def _open_document(kind: str, body: str) -> bytes:
    mime = f"application/vnd.oasis.opendocument.{kind}"
    space = "urn:oasis:names:tc:opendocument:xmlns"
    files: dict[str, str | bytes] = {
        "mimetype": mime,
        "META-INF/manifest.xml": f'{_XML}<manifest:manifest xmlns:manifest="{space}:manifest:1.0"><manifest:file-entry '
        f'manifest:full-path="/" manifest:media-type="{mime}"/><manifest:file-entry manifest:full-path="content.xml" '
        f'manifest:media-type="text/xml"/></manifest:manifest>',
        "content.xml": f'{_XML}<office:document-content xmlns:office="{space}:office:1.0" xmlns:text="{space}:text:1.0" '
        f'xmlns:draw="{space}:drawing:1.0" office:version="1.2"><office:body>{body}</office:body></office:document-content>',
    }
    return zip_of(files, stored_first=True)


def epub(title: str, author: str, chapters: tuple[str, ...]) -> bytes:
    """An EPUB 3 book, one file per chapter."""
    names = [f"chapter{i}.xhtml" for i in range(1, len(chapters) + 1)]
    items = "".join(f'<item id="{name[:-6]}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name[:-6]}"/>' for name in names)
    files: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": f'{_XML}<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        "OEBPS/content.opf": f'{_XML}<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">urn:uuid:1</dc:identifier>'
        f"<dc:title>{title}</dc:title><dc:creator>{author}</dc:creator><dc:language>en</dc:language></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
    }
    for name, text in zip(names, chapters, strict=True):
        files[f"OEBPS/{name}"] = (
            f'{_XML}<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{title}</title></head>'
            f"<body><p>{text}</p></body></html>"
        )
    return zip_of(files, stored_first=True)


# -- mail and archives ----------------------------------------------------------------------------------------------------


def _mails() -> list[CorpusFile]:
    return [
        CorpusFile(
            "meeting.eml",
            mail(),
            "eml",
            "document",
            ("telescope mirror", "ludmila@observatory.example", "agenda.txt", "Sternwarte"),
        )
    ]


def mail() -> bytes:
    """A message with text, HTML and an attachment."""
    message = EmailMessage()
    message["From"] = "Ludmila Novak <ludmila@observatory.example>"
    message["To"] = "team@observatory.example"
    message["Subject"] = "Besuch der Sternwarte und der neue Spiegel für März"
    message["Date"] = "Fri, 01 Mar 2024 12:00:00 +0000"
    message["Message-ID"] = "<1@observatory.example>"
    message.set_content(
        "Hello all,\n\nthe telescope mirror arrives on Tuesday. Please keep the dome clear.\n\nLudmila\n"
    )
    message.add_alternative("<p>Hello all,</p><p>the telescope mirror arrives on <b>Tuesday</b>.</p>", subtype="html")
    message.add_attachment("1. Mirror\n2. Dome motors\n", filename="agenda.txt")
    for index, part in enumerate(message.walk()):  # a boundary that is the same each time
        if part.is_multipart():
            part.set_boundary(f"boundary-{index}")
    return message.as_bytes()


def _archives() -> list[CorpusFile]:
    names = ("photos/harbour-at-dusk.jpg", "notes/packing-list.txt")
    plain = tar_of(dict.fromkeys(names, b"content"))
    return [
        CorpusFile(
            "backup.zip",
            zip_of(dict.fromkeys(names, "content")),
            "zip",
            "document",
            ("harbour-at-dusk", "packing-list"),
        ),
        CorpusFile("backup.tar", plain, "tar", "document", ("harbour-at-dusk", "packing-list")),
        CorpusFile(
            "backup.tar.gz", gzip.compress(plain, mtime=0), "gzip", "document", ("harbour-at-dusk", "packing-list")
        ),
    ]


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar with fixed times."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), 1_709_294_400
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


# -- images ---------------------------------------------------------------------------------------------------------------


def _images() -> list[CorpusFile]:
    jpeg = {"camera": "Leica Q2", "taken": "2024-03-01T12:30:00", "width": 400, "height": 900}
    return [
        CorpusFile(
            "sign.png",
            png("FERRY TERMINAL CLOSED"),
            "png",
            "image",
            ocr_words=("FERRY", "CLOSED"),
            metadata={"width": 900, "height": 300},
        ),
        CorpusFile("photo.jpg", photo("WELCOME TO TROMSO"), "jpeg", "image", ("Leica Q2",), ("TROMSO",), metadata=jpeg),
        CorpusFile("note.webp", webp("REMEMBER THE LIBRARY BOOKS"), "webp", "image", ocr_words=("LIBRARY",)),
    ]


def text_image(text: str, *, size: tuple[int, int] = (900, 300)) -> Image.Image:
    """Black letters on white."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=44)
    for row, line in enumerate(textwrap.wrap(text, size[0] // 34)):
        draw.text((40, 60 + 80 * row), line, fill="black", font=font)
    return image


def png(text: str) -> bytes:
    """A PNG of *text*."""
    out = io.BytesIO()
    text_image(text).save(out, "PNG")
    return out.getvalue()


def webp(text: str) -> bytes:
    """A WebP of *text*."""
    out = io.BytesIO()
    text_image(text).save(out, "WEBP", quality=90)
    return out.getvalue()


def photo(text: str) -> bytes:
    """A JPEG of *text* with camera, time, place and an EXIF orientation: stored on its side, to be shown upright."""
    image = text_image(text, size=(400, 900)).transpose(Image.Transpose.ROTATE_90)  # orientation 6 turns it back
    exif = Image.Exif()
    exif[0x0110] = "Q2"
    exif[0x010F] = "Leica"
    exif[0x0112] = 6
    exif[0x010E] = "Arrival in the harbour"
    exif.get_ifd(0x8769)[0x9003] = "2024:03:01 12:30:00"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "N", (69.0, 38.0, 56.0), "E", (18.0, 57.0, 18.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92, exif=exif)
    return out.getvalue()


# -- files that want to do harm -------------------------------------------------------------------------------------------


def png_bomb(*, side: int = 24_000) -> bytes:
    """A small PNG that says it is *side* x *side* pixels; its data inflates to all of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    row = b"\0" + b"\0" * (side // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def docx_bomb(*, inflated_bytes: int = 2 * 1024**3) -> bytes:
    """A docx of a few MB whose document.xml inflates to *inflated_bytes*."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'{_XML}<Types xmlns="{_PACKAGE}/content-types"><Override '
            f'PartName="/word/document.xml" ContentType="{_OFFICE_TYPE}.wordprocessingml.document.main+xml"/></Types>',
        )
        archive.writestr("_rels/.rels", _rels([(f"{_OFFICE}/relationships/officeDocument", "word/document.xml")]))
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            part.write(b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>')
            paragraph = b"<w:p><w:r><w:t>bomb bomb bomb bomb</w:t></w:r></w:p>" * 20_000
            for _ in range(max(1, inflated_bytes // len(paragraph))):
                part.write(paragraph)
            part.write(b"</w:body></w:document>")
    return out.getvalue()


def xml_bomb() -> bytes:
    """An SVG of nested entities (billion laughs)."""
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 11))
    return f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY l0 "lol">{entities}]><svg><text>&l10;</text></svg>'.encode()


if __name__ == "__main__":
    import sys

    print(*write_corpus(Path(sys.argv[1])), sep="\n")
