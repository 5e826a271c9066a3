-- The index of names follows what is folded out of a name, also where a newer program folds more out of the same one:
-- FTS5 must be told the columns that it holds, or it goes wrong at the next move or end of the file.

DROP TRIGGER asset_names_update;
CREATE TRIGGER asset_names_update AFTER UPDATE OF name_key, name_short ON asset
WHEN OLD.name_key <> NEW.name_key OR OLD.name_short <> NEW.name_short BEGIN
    INSERT INTO asset_names (asset_names, rowid, name_key, name_short) VALUES ('delete', OLD.id, OLD.name_key, OLD.name_short);
    INSERT INTO asset_names (rowid, name_key, name_short) VALUES (NEW.id, NEW.name_key, NEW.name_short);
END;
DROP TRIGGER dir_names_update;
CREATE TRIGGER dir_names_update AFTER UPDATE OF name_key, name_short ON dir_name
WHEN OLD.name_key <> NEW.name_key OR OLD.name_short <> NEW.name_short BEGIN
    INSERT INTO dir_names (dir_names, rowid, name_key, name_short) VALUES ('delete', OLD.id, OLD.name_key, OLD.name_short);
    INSERT INTO dir_names (rowid, name_key, name_short) VALUES (NEW.id, NEW.name_key, NEW.name_short);
END;
