"""The schema, as numbered steps that are never edited after release.

Chat log and ledger are separate files, so that erasing chats, or a fault there, can't touch the record of decisions.
"""

from collections.abc import Callable, Iterable

import sqlite_utils

from store.connection import Connection

Step = Callable[[Connection], None]

log = sqlite_utils.Migrations("log")
ledger = sqlite_utils.Migrations("ledger")


def _step(migrations: sqlite_utils.Migrations) -> Callable[[Step], Step]:
    """`migrations()`, with a type."""
    register: Callable[[Step], Step] = migrations()
    return register


@_step(log)
def m001_interactions(db: Connection) -> None:
    db.execute(
        """CREATE TABLE interactions (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, conversation_id TEXT NOT NULL, created_at REAL NOT NULL,
            principal TEXT NOT NULL, checkpoint_id TEXT NOT NULL, messages TEXT NOT NULL, reply TEXT NOT NULL,
            finish_reason TEXT NOT NULL, tokens BLOB NOT NULL, prompt_tokens INTEGER NOT NULL,
            latency_seconds REAL NOT NULL, uncertainty REAL, sampling TEXT NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX interactions_scorable ON interactions (seq, id) WHERE finish_reason IN ('stop', 'length')")
    db.execute(
        """CREATE INDEX interactions_confident ON interactions (checkpoint_id, uncertainty)
           WHERE uncertainty IS NOT NULL AND finish_reason = 'stop'"""
    )
    _append_only(db, "interactions", ["seq", "id"])
    db.execute(
        """CREATE TABLE embeddings (
            interaction_id TEXT PRIMARY KEY REFERENCES interactions (id), created_at REAL NOT NULL,
            vector BLOB NOT NULL, score REAL NOT NULL, novelty REAL NOT NULL
        ) STRICT"""
    )


@_step(log)
def m002_feedback(db: Connection) -> None:
    db.execute(
        """CREATE TABLE feedback (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
            interaction_id TEXT NOT NULL REFERENCES interactions (id), created_at REAL NOT NULL,
            principal TEXT NOT NULL, source TEXT NOT NULL, rating TEXT, correction TEXT, comment TEXT,
            is_excluded INTEGER NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX feedback_interaction ON feedback (interaction_id)")
    _append_only(db, "feedback", ["seq", "id"])


@_step(log)
def m003_labels(db: Connection) -> None:
    db.execute(
        """CREATE TABLE labels (
            id TEXT PRIMARY KEY, interaction_id TEXT NOT NULL UNIQUE REFERENCES interactions (id),
            created_at REAL NOT NULL, score REAL NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, resolved_at REAL
        ) STRICT"""
    )
    db.execute("CREATE INDEX labels_open ON labels (score DESC, created_at) WHERE state = 'open'")
    db.execute("CREATE INDEX labels_added ON labels (created_at)")
    _guard(db, "labels", "UPDATE", "OLD.state <> 'open'", "a resolved label task does not change")
    _guard(db, "labels", "DELETE", "TRUE", "label tasks are not deleted")


@_step(log)
def m004_runs(db: Connection) -> None:
    db.execute(
        """CREATE TABLE snapshots (
            id TEXT PRIMARY KEY, created_at REAL NOT NULL, num_train INTEGER NOT NULL, num_holdout INTEGER NOT NULL,
            num_replay INTEGER NOT NULL, sources TEXT NOT NULL
        ) STRICT"""
    )
    _append_only(db, "snapshots", ["id"])
    db.execute(
        """CREATE TABLE runs (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, "trigger" TEXT NOT NULL,
            base_id TEXT NOT NULL, snapshot_id TEXT NOT NULL REFERENCES snapshots (id), recipe TEXT NOT NULL,
            state TEXT NOT NULL, attempt INTEGER NOT NULL, pid INTEGER, pid_started_at REAL, heartbeat_at REAL,
            finished_at REAL, checkpoint_id TEXT, error TEXT
        ) STRICT"""
    )
    over = "OLD.state IN ('judged', 'failed', 'interrupted')"
    _guard(db, "runs", "UPDATE", over, "a run that is over does not change")
    _guard(db, "runs", "DELETE", "TRUE", "runs are not deleted")


@_step(log)
def m005_asking(db: Connection) -> None:
    """What chooses questions reads narrow rows: those of `interactions` lie behind their texts, those of `embeddings`
    behind their vectors. Answers scored before have questions unlike any other.
    """
    db.execute("ALTER TABLE labels ADD COLUMN arm TEXT")
    db.execute("CREATE INDEX labels_arm ON labels (arm, state)")
    db.execute(
        """CREATE TABLE pool (
            seq INTEGER PRIMARY KEY REFERENCES interactions (seq), checkpoint_id TEXT NOT NULL, principal TEXT NOT NULL,
            uncertainty REAL, question INTEGER NOT NULL, is_askable INTEGER NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX pool_checkpoint ON pool (checkpoint_id)")
    db.execute("CREATE TABLE pool_signal (name TEXT NOT NULL) STRICT")
    db.execute(
        """INSERT INTO pool SELECT seq, checkpoint_id, principal, uncertainty, -seq,
               uncertainty IS NOT NULL AND trim(reply, char(9, 10, 13, 32)) <> ''
           FROM interactions WHERE id IN (SELECT interaction_id FROM embeddings)"""
    )


@_step(log)
def m006_comparisons(db: Connection) -> None:
    db.execute(
        """CREATE TABLE comparisons (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
            first_id TEXT NOT NULL REFERENCES interactions (id), second_id TEXT NOT NULL REFERENCES interactions (id),
            created_at REAL NOT NULL, principal TEXT NOT NULL, source TEXT NOT NULL, choice TEXT NOT NULL
        ) STRICT"""
    )
    _append_only(db, "comparisons", ["seq", "id"])
    db.execute("ALTER TABLE labels ADD COLUMN other_id TEXT REFERENCES interactions (id)")
    db.execute("CREATE INDEX labels_other ON labels (other_id) WHERE other_id IS NOT NULL")
    db.execute("CREATE INDEX interactions_conversation ON interactions (conversation_id)")


@_step(log)
def m007_documents(db: Connection) -> None:
    db.execute("ALTER TABLE feedback ADD COLUMN document TEXT")


@_step(ledger)
def m001_audit(db: Connection) -> None:
    db.execute(
        """CREATE TABLE audit (
            seq INTEGER PRIMARY KEY, created_at REAL NOT NULL, event TEXT NOT NULL, body TEXT NOT NULL,
            prev_hash TEXT NOT NULL, hash TEXT NOT NULL
        ) STRICT"""
    )
    _append_only(db, "audit", ["seq"])


@_step(ledger)
def m002_candidates(db: Connection) -> None:
    db.execute(
        """CREATE TABLE checkpoints (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created_at REAL NOT NULL, run_id TEXT NOT NULL,
            base_id TEXT NOT NULL, parent_id TEXT NOT NULL, dataset_id TEXT NOT NULL, manifest TEXT NOT NULL
        ) STRICT"""
    )
    db.execute(
        """CREATE TABLE evaluations (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created_at REAL NOT NULL,
            checkpoint_id TEXT NOT NULL REFERENCES checkpoints (id), champion_id TEXT NOT NULL, base_id TEXT NOT NULL,
            results TEXT NOT NULL
        ) STRICT"""
    )
    db.execute(
        """CREATE TABLE verdicts (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created_at REAL NOT NULL,
            checkpoint_id TEXT NOT NULL REFERENCES checkpoints (id),
            evaluation_id TEXT NOT NULL REFERENCES evaluations (id), outcome TEXT NOT NULL, rules TEXT NOT NULL,
            facts TEXT NOT NULL, policy_id TEXT NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX evaluations_checkpoint ON evaluations (checkpoint_id)")
    db.execute("CREATE INDEX verdicts_checkpoint ON verdicts (checkpoint_id)")
    for table in ("checkpoints", "evaluations", "verdicts"):
        _append_only(db, table, ["seq", "id"])


@_step(ledger)
def m003_decisions(db: Connection) -> None:
    db.execute(
        """CREATE TABLE operators (
            seq INTEGER PRIMARY KEY, key_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, public_key TEXT NOT NULL,
            created_at REAL NOT NULL, envelope TEXT NOT NULL
        ) STRICT"""
    )
    db.execute(
        """CREATE TABLE approvals (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created_at REAL NOT NULL,
            checkpoint_id TEXT NOT NULL REFERENCES checkpoints (id), decision TEXT NOT NULL,
            key_id TEXT NOT NULL REFERENCES operators (key_id), operator TEXT NOT NULL, reason TEXT NOT NULL,
            expires_at REAL NOT NULL, envelope TEXT NOT NULL
        ) STRICT"""
    )
    db.execute(
        """CREATE TABLE promotions (
            id INTEGER PRIMARY KEY, created_at REAL NOT NULL, checkpoint_id TEXT NOT NULL, previous_id TEXT NOT NULL,
            kind TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL, approval_ids TEXT NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX approvals_checkpoint ON approvals (checkpoint_id)")
    db.execute("CREATE INDEX promotions_checkpoint ON promotions (checkpoint_id)")
    _append_only(db, "operators", ["seq", "key_id"])
    _append_only(db, "approvals", ["seq", "id"])
    _append_only(db, "promotions", ["id"])


@_step(ledger)
def m004_api_keys(db: Connection) -> None:
    db.execute(
        """CREATE TABLE api_keys (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, principal TEXT NOT NULL, digest TEXT NOT NULL UNIQUE,
            created_at REAL NOT NULL
        ) STRICT"""
    )
    db.execute(
        """CREATE TABLE api_key_revocations (
            seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE REFERENCES api_keys (id), created_at REAL NOT NULL
        ) STRICT"""
    )
    _append_only(db, "api_keys", ["seq", "id", "digest"])
    _append_only(db, "api_key_revocations", ["seq", "id"])


def _append_only(db: Connection, table: str, keys: Iterable[str]) -> None:
    """A seat belt: a tool that drops the triggers gets past it, and the audit chain is what finds that.

    INSERT OR REPLACE deletes without firing triggers on connections that lack recursive_triggers,
    so an insert over any key that is taken is refused as well.
    """
    message = f"{table} is append-only"
    _guard(db, table, "UPDATE", "TRUE", message)
    _guard(db, table, "DELETE", "TRUE", message)
    taken = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})" for key in keys)  # noqa: S608
    _guard(db, table, "INSERT", taken, f"{message}: that key is taken")


def _guard(db: Connection, table: str, verb: str, condition: str, message: str) -> None:
    db.execute(
        f"""CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} WHEN {condition}
            BEGIN SELECT RAISE(ABORT, '{message}'); END"""
    )
