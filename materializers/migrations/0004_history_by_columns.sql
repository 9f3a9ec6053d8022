-- What changed of a device is found column by column, before its row is written over.

DROP FUNCTION serviceradar_base.changed_fields(jsonb, jsonb);
