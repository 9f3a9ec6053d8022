//! What nothing collects yet: known by name, so that who asks is told so.

use super::{Entity, Live, Standing};

const fn awaited(names: &'static [&'static str], label: &'static str) -> Entity {
    Entity {
        names,
        view: "",
        standing: Standing::Awaited,
        time: None,
        key: &[],
        latest: &[],
        order: &[],
        texts: &[],
        search: None,
        device: None,
        fields: &[],
        live: Live::None,
        label,
    }
}

pub(super) const ENTITIES: &[Entity] = &[
    awaited(&["interfaces"], "network interfaces come from agents that read them by SNMP"),
    awaited(&["sweep_hosts"], "hosts of sweeps come from agents that sweep"),
    awaited(&["services"], "states of services come from agents that check them"),
    awaited(&["gateways"], "gateways report themselves"),
    awaited(&["agents"], "agents report themselves"),
    awaited(&["cpu_metrics", "cpu"], "metrics come from agents"),
    awaited(&["memory_metrics", "memory"], "metrics come from agents"),
    awaited(&["disk_metrics", "disk"], "metrics come from agents"),
    awaited(&["process_metrics", "processes"], "metrics come from agents"),
    awaited(&["metrics", "timeseries_metrics", "snmp_metrics", "rperf_metrics"], "metrics come from agents"),
    awaited(&["events", "activity", "ocsf_events"], "events come from syslog and traps"),
    awaited(&["logs"], "logs come from syslog and OpenTelemetry"),
    awaited(&["flows"], "flows come from routers that export them"),
    awaited(&["alerts"], "alerts come from rules over events"),
    awaited(&["otel_traces"], "traces come from OpenTelemetry"),
    awaited(&["otel_trace_summaries"], "traces come from OpenTelemetry"),
    awaited(&["otel_metrics"], "metrics come from OpenTelemetry"),
    awaited(&["device_graph"], "links between devices come from discovery of topology"),
    awaited(&["possible_matches"], "likenesses of devices are not computed"),
];
