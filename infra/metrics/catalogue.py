"""Every metric there is. Dashboards and alerts may name these and no others, which a test checks."""

from __future__ import annotations

from infra.metrics.spec import FAST, SIZES, SLOW, Counter, Gauge, Histogram, Spec

BUILD_INFO = Gauge("skyagent_build_info", "1, with what this process runs.", ("version", "node"))

JOURNAL_APPEND = Histogram("skyagent_journal_append_seconds", "From an append to its durable answer.", FAST)
JOURNAL_COMMIT = Histogram("skyagent_database_commit_seconds", "One transaction of the writer.", FAST)
JOURNAL_BATCH = Histogram("skyagent_database_batch_writes", "Writes in one transaction.", SIZES)
JOURNAL_QUEUE = Gauge("skyagent_database_queue_writes", "Writes that wait for the next transaction.")
JOURNAL_EVENTS = Counter("skyagent_journal_events_total", "Events that were committed.")
JOURNAL_REFUSALS = Counter("skyagent_journal_refusals_total", "Appends that were refused.", ("reason",))

STEPS_INTENDED = Counter("skyagent_steps_intended_total", "Attempts whose intent is durable.", ("kind", "effect_class"))
STEPS_FINISHED = Counter(
    "skyagent_steps_finished_total", "Attempts whose outcome is durable.", ("kind", "effect_class", "outcome")
)
STEP_DURATION = Histogram("skyagent_step_duration_seconds", "From durable intent to durable outcome.", SLOW, ("kind",))
STEPS_UNCERTAIN = Counter("skyagent_steps_uncertain_total", "Steps of which nobody could tell whether they happened.")
STEPS_UNCERTAIN_OPEN = Gauge("skyagent_steps_uncertain", "Of them, in runs of this node, those that wait for a person.")

RUNS_OWNED = Gauge("skyagent_runs_owned", "Runs that this node drives.")
RUNS = Gauge("skyagent_runs", "Runs that have not ended.", ("tenant", "phase"))
RUNS_FINISHED = Counter("skyagent_runs_finished_total", "Runs that ended under this node.", ("phase",))
RUNS_BLOCKED = Counter("skyagent_runs_blocked_total", "Times that a run could not go on, by its reason.", ("reason",))
RUNS_BROKEN = Counter("skyagent_runs_broken_total", "How often the driver of a run broke; it is tried again.")
RUNS_ARCHIVED = Counter("skyagent_runs_archived_total", "Journals that were moved into a file.")
RUNS_ERASED = Counter("skyagent_runs_erased_total", "Erasures, of a whole run or of some of its events.")
TAKEOVERS = Counter("skyagent_run_takeovers_total", "Runs that had another owner before this node claimed them.")

WORKERS = Gauge("skyagent_workers", "Workers whose stream ends here.", ("kind",))
WORKER_CREDITS = Gauge("skyagent_worker_credits", "Steps that workers would still take.", ("kind",))
WORKERS_WANTED = Gauge("skyagent_runs_waiting_for_worker", "Runs that wait for a worker with room.", ("kind",))
LEASES_RENEWED = Counter("skyagent_leases_renewed_total", "Leases of steps that a heartbeat renewed.")
LEASES_EXPIRED = Counter("skyagent_leases_expired_total", "Attempts whose worker was away for longer than its lease.")
ATTEMPTS_LOST = Counter("skyagent_attempts_lost_total", "Attempts that were begun and lost.", ("effect_class",))

BUDGET_GRANTED = Counter("skyagent_budget_granted_total", "What runs were granted, in the kind's own unit.", ("kind",))
SCHEDULE_FIRINGS = Counter("skyagent_schedule_firings_total", "Due times, by what came of them.", ("outcome",))

APPROVALS_OPEN = Gauge("skyagent_approvals_open", "Questions that wait for a person.", ("tenant",))
APPROVAL_OLDEST = Gauge("skyagent_approval_oldest_seconds", "How long the oldest open question has waited.")
APPROVALS_DECIDED = Counter("skyagent_approvals_decided_total", "Questions that were answered.", ("outcome",))

BLOBS_STORED = Counter("skyagent_blobs_stored_total", "Times that bytes were stored.")
BLOB_BYTES = Counter("skyagent_blob_bytes_total", "Bytes that were stored.")
WATCHERS = Gauge("skyagent_watchers", "Streams that follow a run.")

RPCS = Counter("skyagent_rpc_requests_total", "Unary calls that were served.", ("method", "code"))
RPC_DURATION = Histogram("skyagent_rpc_duration_seconds", "How long they took.", FAST, ("method",))

DISK_FREE = Gauge("skyagent_disk_free_bytes", "Room on the file system of the data folder.")
DISK_SIZE = Gauge("skyagent_disk_size_bytes", "Size of that file system.")
HEALTH = Gauge("skyagent_health", "1 well, 0.5 degraded, 0 failing.", ("check",))


def every_metric() -> tuple[Spec, ...]:
    """All of them, in order."""
    return tuple(value for value in globals().values() if isinstance(value, Spec))
