-- The catalog: roots, folders, assets, contents, segments, spaces.
-- Paths and names are BLOBs (names that are not UTF-8 exist), times are integers: UTC ms, or ns where stat says ns.
-- Ids are never used twice (AUTOINCREMENT): points in the vector store and open jobs outlive rows.

CREATE TABLE root (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'online' CHECK (state IN ('online', 'offline')),
    reason TEXT NOT NULL DEFAULT '',
    added_ms INTEGER NOT NULL,
    removed_ms INTEGER            -- set: no longer watched, invisible at once; its rows go with the grace period
) STRICT;

-- One row a folder, no path text: renaming or moving a folder changes one row. A root's own folder has parent 0, name ''.
CREATE TABLE dir (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    root INTEGER NOT NULL REFERENCES root (id),
    parent INTEGER NOT NULL,      -- 0: a root's own folder; negative: cut off, waits for its assets to be purged
    name BLOB NOT NULL,
    inode INTEGER NOT NULL DEFAULT 0,
    mtime_ns INTEGER NOT NULL DEFAULT 0,
    ctime_ns INTEGER NOT NULL DEFAULT 0,
    signature INTEGER NOT NULL DEFAULT 0,
    scanned_ms INTEGER NOT NULL DEFAULT 0,
    is_gone INTEGER NOT NULL DEFAULT 0 CHECK (is_gone IN (0, 1)),
    UNIQUE (root, parent, name)
) STRICT;
CREATE INDEX dir_gone ON dir (id) WHERE is_gone = 1;

CREATE TABLE content (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    uuid BLOB NOT NULL UNIQUE CHECK (length(uuid) = 16),
    size INTEGER NOT NULL,
    mime TEXT NOT NULL,
    type_label TEXT NOT NULL,
    modality TEXT NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
    note TEXT NOT NULL DEFAULT '',
    extracted_ms INTEGER,         -- NULL: not extracted yet
    wants_ocr INTEGER NOT NULL DEFAULT 0 CHECK (wants_ocr IN (0, 1)),
    ocr_pages TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(ocr_pages)),
    ocr_ms INTEGER,               -- NULL: no OCR yet
    segments INTEGER NOT NULL DEFAULT 0,     -- those with text
    visible INTEGER NOT NULL DEFAULT 0,      -- assets that hold it and are not gone; kept by triggers
    orphan_ms INTEGER             -- since when `visible` is 0
) STRICT;
CREATE INDEX content_orphan ON content (orphan_ms) WHERE visible = 0;
CREATE INDEX content_type ON content (type_label);
CREATE INDEX content_size ON content (size);

CREATE TABLE asset (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dir INTEGER NOT NULL REFERENCES dir (id),
    name BLOB NOT NULL,
    name_key TEXT NOT NULL,       -- folded for search: see catalog/fold.py
    name_short TEXT NOT NULL,     -- what trigrams of name_key cannot find: words of one or two characters; mostly ''
    ext TEXT NOT NULL,            -- folded, without the dot; '' if there is none
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    content INTEGER REFERENCES content (id),
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('indexed', 'pending', 'blocked', 'failed', 'skipped')),
    reason TEXT NOT NULL DEFAULT '',
    gone_ms INTEGER,              -- set: out of every search; the row stays for the grace period
    UNIQUE (dir, name)
) STRICT;
CREATE INDEX asset_content ON asset (content);
CREATE INDEX asset_name_key ON asset (name_key);
CREATE INDEX asset_ext ON asset (ext) WHERE gone_ms IS NULL;
CREATE INDEX asset_mtime ON asset (mtime_ns) WHERE gone_ms IS NULL;
CREATE INDEX asset_pending ON asset (id) WHERE state = 'pending' AND gone_ms IS NULL;
CREATE INDEX asset_gone ON asset (gone_ms) WHERE gone_ms IS NOT NULL;

-- Type labels ever seen with an extension: only ever too many, so a filter by extension loses nothing.
CREATE TABLE ext_type (ext TEXT NOT NULL, type_label TEXT NOT NULL, PRIMARY KEY (ext, type_label)) STRICT, WITHOUT ROWID;

-- id = content << 32 | kind << 28 | seq: the segments of a content are neighbours, a full-text hit names its content
-- without a look-up, and (content, kind, seq) is unique by construction.
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    char_start INTEGER,
    char_end INTEGER,
    page INTEGER,
    t0_ms INTEGER,
    t1_ms INTEGER,
    content INTEGER GENERATED ALWAYS AS (id >> 32) VIRTUAL,
    kind INTEGER GENERATED ALWAYS AS ((id >> 28) & 15) VIRTUAL,
    seq INTEGER GENERATED ALWAYS AS (id & 268435455) VIRTUAL
) STRICT;

-- Words of segments. Contentless: what is indexed is catalog/fold.py's index_columns(segment.text), so whoever deletes a
-- row must hand in the same columns; only catalog/segments.py writes here. `parts` holds pieces of camelCase words.
CREATE VIRTUAL TABLE segment_words USING fts5 (
    text, parts, content = '', tokenize = 'porter unicode61 remove_diacritics 2'
);
INSERT INTO segment_words (segment_words, rank) VALUES ('rank', 'bm25(1.0, 0.5)');

-- Names of assets and of folders by trigram. A folder's name is held once, not in every path below it.
CREATE VIRTUAL TABLE asset_names USING fts5 (
    name_key, name_short, content = 'asset', content_rowid = 'id', tokenize = 'trigram', detail = none, columnsize = 0
);
CREATE TABLE dir_name (id INTEGER PRIMARY KEY, name_key TEXT NOT NULL, name_short TEXT NOT NULL) STRICT;
CREATE VIRTUAL TABLE dir_names USING fts5 (
    name_key, name_short, content = 'dir_name', content_rowid = 'id', tokenize = 'trigram', detail = none, columnsize = 0
);

CREATE TABLE space (
    name TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    dim INTEGER NOT NULL CHECK (dim > 0),
    distance TEXT NOT NULL,
    multi INTEGER NOT NULL CHECK (multi IN (0, 1)),
    modality TEXT NOT NULL,
    is_active INTEGER NOT NULL DEFAULT 0 CHECK (is_active IN (0, 1)),
    made_ms INTEGER NOT NULL,
    contents INTEGER NOT NULL DEFAULT 0,     -- live in it; kept by triggers
    points INTEGER NOT NULL DEFAULT 0        -- of live contents; kept by triggers
) STRICT;
CREATE UNIQUE INDEX space_active ON space (modality) WHERE is_active = 1;

-- A content whose points are in the store. Points without a row here are never shown.
CREATE TABLE content_space (
    content INTEGER NOT NULL REFERENCES content (id),
    space TEXT NOT NULL REFERENCES space (name),
    points INTEGER NOT NULL,
    live_ms INTEGER NOT NULL,
    is_complete INTEGER NOT NULL DEFAULT 1 CHECK (is_complete IN (0, 1)),   -- 0: segments came since; embed again
    PRIMARY KEY (content, space)
) STRICT, WITHOUT ROWID;
CREATE INDEX content_space_space ON content_space (space);

-- What was begun in the vector store and is not yet known to be on its disk.
CREATE TABLE intent (
    space TEXT NOT NULL,
    uuid BLOB NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('put', 'sweep')),
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (space, uuid)
) STRICT, WITHOUT ROWID;

-- Counters: whoever asks for totals never counts rows.
CREATE TABLE asset_count (
    root INTEGER NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (root, state)
) STRICT, WITHOUT ROWID;
CREATE TABLE type_count (
    type_label TEXT NOT NULL, mime TEXT NOT NULL, modality TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (type_label, mime, modality)
) STRICT, WITHOUT ROWID;
CREATE TABLE total (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO total VALUES ('contents', 0), ('segments', 0);

-- assets: counts per root and state -------------------------------------------------------------------------------------

CREATE TRIGGER asset_counted_insert AFTER INSERT ON asset WHEN NEW.gone_ms IS NULL BEGIN
    INSERT INTO asset_count VALUES ((SELECT root FROM dir WHERE id = NEW.dir), NEW.state, 1)
    ON CONFLICT (root, state) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER asset_counted_delete AFTER DELETE ON asset WHEN OLD.gone_ms IS NULL BEGIN
    UPDATE asset_count SET n = n - 1 WHERE root = (SELECT root FROM dir WHERE id = OLD.dir) AND state = OLD.state;
END;
CREATE TRIGGER asset_counted_update AFTER UPDATE OF state, gone_ms, dir ON asset
WHEN OLD.state <> NEW.state OR OLD.dir <> NEW.dir OR (OLD.gone_ms IS NULL) <> (NEW.gone_ms IS NULL) BEGIN
    UPDATE asset_count SET n = n - 1
    WHERE OLD.gone_ms IS NULL AND root = (SELECT root FROM dir WHERE id = OLD.dir) AND state = OLD.state;
    INSERT INTO asset_count SELECT root, NEW.state, 1 FROM dir WHERE id = NEW.dir AND NEW.gone_ms IS NULL
    ON CONFLICT (root, state) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER dir_counted_update AFTER UPDATE OF root ON dir WHEN OLD.root <> NEW.root BEGIN
    INSERT INTO asset_count SELECT OLD.root, state, -count(*) FROM asset
    WHERE dir = NEW.id AND gone_ms IS NULL GROUP BY state
    ON CONFLICT (root, state) DO UPDATE SET n = n + excluded.n;
    INSERT INTO asset_count SELECT NEW.root, state, count(*) FROM asset
    WHERE dir = NEW.id AND gone_ms IS NULL GROUP BY state
    ON CONFLICT (root, state) DO UPDATE SET n = n + excluded.n;
END;

-- contents: how many assets show them -----------------------------------------------------------------------------------

CREATE TRIGGER content_shown_insert AFTER INSERT ON asset WHEN NEW.content IS NOT NULL AND NEW.gone_ms IS NULL BEGIN
    UPDATE content SET visible = visible + 1, orphan_ms = NULL WHERE id = NEW.content;
END;
CREATE TRIGGER content_shown_delete AFTER DELETE ON asset WHEN OLD.content IS NOT NULL AND OLD.gone_ms IS NULL BEGIN
    UPDATE content SET visible = visible - 1,
        orphan_ms = CASE WHEN visible = 1 THEN CAST(strftime('%s', 'now') AS INTEGER) * 1000 END
    WHERE id = OLD.content;
END;
CREATE TRIGGER content_shown_update AFTER UPDATE OF content, gone_ms ON asset
WHEN OLD.content IS NOT NEW.content OR (OLD.gone_ms IS NULL) <> (NEW.gone_ms IS NULL) BEGIN
    UPDATE content SET visible = visible - 1,
        orphan_ms = CASE WHEN visible = 1 THEN coalesce(NEW.gone_ms, CAST(strftime('%s', 'now') AS INTEGER) * 1000) END
    WHERE id = OLD.content AND OLD.gone_ms IS NULL;
    UPDATE content SET visible = visible + 1, orphan_ms = NULL WHERE id = NEW.content AND NEW.gone_ms IS NULL;
END;

CREATE TRIGGER content_counted_insert AFTER INSERT ON content BEGIN
    UPDATE total SET n = n + 1 WHERE name = 'contents';
    INSERT INTO type_count VALUES (NEW.type_label, NEW.mime, NEW.modality, 1)
    ON CONFLICT (type_label, mime, modality) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER content_counted_delete AFTER DELETE ON content BEGIN
    UPDATE total SET n = n - 1 WHERE name = 'contents';
    UPDATE type_count SET n = n - 1
    WHERE type_label = OLD.type_label AND mime = OLD.mime AND modality = OLD.modality;
END;
CREATE TRIGGER content_counted_update AFTER UPDATE OF type_label, mime, modality ON content
WHEN OLD.type_label <> NEW.type_label OR OLD.mime <> NEW.mime OR OLD.modality <> NEW.modality BEGIN
    UPDATE type_count SET n = n - 1
    WHERE type_label = OLD.type_label AND mime = OLD.mime AND modality = OLD.modality;
    INSERT INTO type_count VALUES (NEW.type_label, NEW.mime, NEW.modality, 1)
    ON CONFLICT (type_label, mime, modality) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER content_segments_update AFTER UPDATE OF segments ON content WHEN OLD.segments <> NEW.segments BEGIN
    UPDATE total SET n = n + NEW.segments - OLD.segments WHERE name = 'segments';
END;
CREATE TRIGGER content_segments_delete AFTER DELETE ON content WHEN OLD.segments <> 0 BEGIN
    UPDATE total SET n = n - OLD.segments WHERE name = 'segments';
END;

CREATE TRIGGER live_insert AFTER INSERT ON content_space BEGIN
    UPDATE space SET contents = contents + 1, points = points + NEW.points WHERE name = NEW.space;
END;
CREATE TRIGGER live_delete AFTER DELETE ON content_space BEGIN
    UPDATE space SET contents = contents - 1, points = points - OLD.points WHERE name = OLD.space;
END;
CREATE TRIGGER live_update AFTER UPDATE OF points ON content_space BEGIN
    UPDATE space SET points = points + NEW.points - OLD.points WHERE name = NEW.space;
END;

-- names -----------------------------------------------------------------------------------------------------------------

CREATE TRIGGER asset_names_insert AFTER INSERT ON asset BEGIN
    INSERT INTO asset_names (rowid, name_key, name_short) VALUES (NEW.id, NEW.name_key, NEW.name_short);
END;
CREATE TRIGGER asset_names_delete AFTER DELETE ON asset BEGIN
    INSERT INTO asset_names (asset_names, rowid, name_key, name_short) VALUES ('delete', OLD.id, OLD.name_key, OLD.name_short);
END;
CREATE TRIGGER asset_names_update AFTER UPDATE OF name_key ON asset
WHEN OLD.name_key <> NEW.name_key BEGIN
    INSERT INTO asset_names (asset_names, rowid, name_key, name_short) VALUES ('delete', OLD.id, OLD.name_key, OLD.name_short);
    INSERT INTO asset_names (rowid, name_key, name_short) VALUES (NEW.id, NEW.name_key, NEW.name_short);
END;
CREATE TRIGGER dir_names_insert AFTER INSERT ON dir_name BEGIN
    INSERT INTO dir_names (rowid, name_key, name_short) VALUES (NEW.id, NEW.name_key, NEW.name_short);
END;
CREATE TRIGGER dir_names_delete AFTER DELETE ON dir_name BEGIN
    INSERT INTO dir_names (dir_names, rowid, name_key, name_short) VALUES ('delete', OLD.id, OLD.name_key, OLD.name_short);
END;
CREATE TRIGGER dir_names_update AFTER UPDATE OF name_key ON dir_name WHEN OLD.name_key <> NEW.name_key BEGIN
    INSERT INTO dir_names (dir_names, rowid, name_key, name_short) VALUES ('delete', OLD.id, OLD.name_key, OLD.name_short);
    INSERT INTO dir_names (rowid, name_key, name_short) VALUES (NEW.id, NEW.name_key, NEW.name_short);
END;
CREATE TRIGGER dir_gone_name AFTER DELETE ON dir BEGIN
    DELETE FROM dir_name WHERE id = OLD.id;
END;
