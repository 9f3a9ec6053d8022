-- Keys of changes live an hour: compressing them took longer than the rest of their writing.

ALTER TABLE serviceradar_base.view_changes ALTER COLUMN keys SET STORAGE EXTERNAL;
