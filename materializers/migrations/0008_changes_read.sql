-- Live queries read which keys an epoch changed.

CALL serviceradar_base.isolate('serviceradar_base.view_changes', 'serviceradar', true);
