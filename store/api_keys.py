"""Keys of the network's callers: kept as digests, never as they are; revoked by a row of their own."""

from store import witness
from store.audit import AuditChain
from store.connection import Connection
from store.database import Database, StoreError
from store.records import ApiKey
from store.rows import fetch, fetch_one, from_row, to_row


class UnknownApiKey(StoreError):
    """There is no such key, or it was revoked before."""


class ApiKeys:
    def __init__(self, db: Database, audit: AuditChain) -> None:
        self._db = db
        self._audit = audit

    def add(self, key: ApiKey) -> None:
        body = {"key": key.id, "principal": key.principal}
        self._db.write(lambda conn: witness.record(conn, self._audit, "api_keys", to_row(key), "api_key.added", body))

    def revoke(self, id: str, at: float) -> ApiKey:  # noqa: A002
        """From now on it opens nothing. UnknownApiKey when there is none to revoke."""

        def job(conn: Connection) -> ApiKey:
            row = fetch_one(conn, f"SELECT * FROM api_keys WHERE id = ? AND {_VALID}", [id])  # noqa: S608
            if row is None:
                raise UnknownApiKey(f"no key {id} is valid; `honed key list` shows those that are")
            key = from_row(ApiKey, row)
            revocation = {"id": id, "created_at": float(at)}
            body = {"key": id, "principal": key.principal}
            witness.record(conn, self._audit, "api_key_revocations", revocation, "api_key.revoked", body)
            return key

        return self._db.write(job)

    def find(self, digest: str) -> ApiKey | None:
        """The valid key with this digest."""
        with self._db.read() as conn:
            row = fetch_one(conn, f"SELECT * FROM api_keys WHERE digest = ? AND {_VALID}", [digest])  # noqa: S608
        return from_row(ApiKey, row) if row else None

    def valid(self) -> list[ApiKey]:
        """In the order they were made."""
        with self._db.read() as conn:
            return [from_row(ApiKey, row) for row in fetch(conn, f"SELECT * FROM api_keys WHERE {_VALID} ORDER BY seq")]  # noqa: S608


_VALID = "NOT EXISTS (SELECT 1 FROM api_key_revocations AS r WHERE r.id = api_keys.id)"
