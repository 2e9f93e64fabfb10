// Owns the one list of metrics: name, type, labels, meaning. docs/operations.md prints the same list (a test compares them).

export interface MetricAbout {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly labels: readonly string[];
  readonly help: string;
}

/** Every metric that weir exposes of its own; process metrics (prom-client) stand beside them. Labels are low in cardinality. */
export const METRICS = {
  weir_downstream_connections: { type: 'gauge', labels: ['listener'], help: 'Open client connections.' },
  weir_downstream_refused_total: {
    type: 'counter',
    labels: ['status'],
    help: 'Requests that the HTTP/1.1 codec refused, by status.',
  },
  weir_requests_total: {
    type: 'counter',
    labels: ['service', 'class'],
    help: 'Requests answered, by service and status class (2xx, …, error).',
  },
  weir_request_duration_ms: {
    type: 'histogram',
    labels: ['service'],
    help: 'Time from the whole request head to the end of the reply.',
  },
  weir_local_replies_total: { type: 'counter', labels: ['code'], help: 'Replies of our own making, by x-weir-error code.' },
  weir_requests_active: { type: 'gauge', labels: [], help: 'Requests in flight.' },
  weir_upstream_cx_overflow_total: {
    type: 'counter',
    labels: ['service'],
    help: 'Connections refused by limits.maxConnections.',
  },
  weir_upstream_rq_overflow_total: {
    type: 'counter',
    labels: ['service'],
    help: 'Requests refused by limits.maxRequests or maxPendingRequests.',
  },
  weir_upstream_failures_total: {
    type: 'counter',
    labels: ['service', 'cause'],
    help: 'Failed attempts, by cause (connect, reset, protocol, timeout).',
  },
  weir_retries_total: { type: 'counter', labels: ['service'], help: 'Retries started.' },
  weir_retry_overflow_total: {
    type: 'counter',
    labels: ['service'],
    help: 'Retries not started because the budget was used up.',
  },
  weir_lb_panic: { type: 'gauge', labels: ['service'], help: '1 while a cluster is in panic: health is ignored.' },
  weir_ejections_total: {
    type: 'counter',
    labels: ['service', 'type', 'applied'],
    help: 'Outlier detections by type; applied is enforced, overflow or detected.',
  },
  weir_ejections_active: { type: 'gauge', labels: ['service'], help: 'Endpoints that are ejected now.' },
  weir_breaker_opened_total: { type: 'counter', labels: ['service'], help: 'Breakers that opened.' },
  weir_fields_dropped_total: {
    type: 'counter',
    labels: ['reason'],
    help: 'Header fields dropped by the filters (look-alikes, identity, hop-by-hop named).',
  },
  weir_access_log_dropped_total: { type: 'counter', labels: [], help: 'Access-log lines dropped because the sink was slow.' },
  weir_log_dropped_total: { type: 'counter', labels: [], help: 'Log lines dropped because the sink was slow.' },
  weir_source_state: { type: 'gauge', labels: ['source', 'state'], help: '1 for the state that the source is in.' },
  weir_source_age_ms: { type: 'gauge', labels: ['source'], help: 'Time since the source was last heard from.' },
  weir_source_errors_total: { type: 'counter', labels: ['source', 'cause'], help: 'Failures of the source, by cause.' },
  weir_source_rejected_records_total: {
    type: 'counter',
    labels: ['source'],
    help: 'Records that were refused while their list was kept.',
  },
  weir_source_oddities_total: {
    type: 'counter',
    labels: ['source', 'what'],
    help: 'Oddities an adapter counted (cut metadata, undecodable keys, resynchronised events).',
  },
  weir_addresses_refused_total: {
    type: 'counter',
    labels: ['source', 'rule'],
    help: 'Addresses refused by the outbound policy, by rule.',
  },
  weir_catalog_services: { type: 'gauge', labels: [], help: 'Services in the catalog.' },
  weir_catalog_instances: { type: 'gauge', labels: [], help: 'Instances in the catalog.' },
  weir_catalog_held_instances: { type: 'gauge', labels: [], help: 'Instances kept though a source dropped them (R2).' },
  weir_catalog_conflicts: { type: 'gauge', labels: [], help: 'Fields on which live sources differ.' },
  weir_catalog_revision: { type: 'gauge', labels: [], help: 'The newest index that was given out.' },
  weir_holds_total: { type: 'counter', labels: ['outcome'], help: 'Holds by outcome: started, released, confirmed.' },
  weir_last_good_write_errors_total: { type: 'counter', labels: [], help: 'Failed writes of the last-good file.' },
  weir_last_good_bad_records_total: {
    type: 'counter',
    labels: [],
    help: 'Records or generations of the last-good file that were refused at load.',
  },
  weir_health_checks_total: { type: 'counter', labels: ['result'], help: 'Active checks by result.' },
  weir_health_check_targets: { type: 'gauge', labels: [], help: 'Targets that are being checked.' },
  weir_self_suspect: { type: 'gauge', labels: [], help: '1 while verdicts are frozen because most checks failed at once.' },
  weir_registrations: { type: 'gauge', labels: ['state'], help: 'Registration targets by state.' },
  weir_registry_writes_total: { type: 'counter', labels: ['source', 'what', 'result'], help: 'Writes to registries.' },
  weir_migration_weight: {
    type: 'gauge',
    labels: ['migration'],
    help: 'Per cent of requests that are drawn over the records of `to`.',
  },
  weir_migration_copies: {
    type: 'gauge',
    labels: ['migration', 'source', 'state'],
    help: 'Copies of ours by the source that they stand in and their state in the ledger.',
  },
  weir_migration_queue: { type: 'gauge', labels: ['migration'], help: 'Services that wait for their pass.' },
  weir_migration_lag_ms: {
    type: 'gauge',
    labels: ['migration'],
    help: 'How long the oldest change that is not written yet has waited.',
  },
  weir_config_reloads_total: { type: 'counter', labels: ['result'], help: 'Config reloads by result.' },
  weir_event_loop_delay_p99_ms: { type: 'gauge', labels: [], help: 'p99 of the event-loop delay since the last scrape.' },
  weir_events_total: { type: 'counter', labels: ['type'], help: 'Events by type.' },
} as const satisfies Record<string, MetricAbout>;

export type MetricName = keyof typeof METRICS;
