"""One statement for one group of commits: how writes become rows of arrays, and the function that applies them.

Rules: the whole group is one statement and so one transaction, one round trip and one flush of the log. The function
checks the epoch first, on the desk's row, which it locks: a commit under an old epoch fails as a whole, and taking over
waits for a commit under way. Each caller's writes stand in a block of their own with an exception clause, which is a
savepoint: a refusal undoes that caller's writes alone. The function belongs to the session (pg_temp), so that it is
always the one of this program. All values are checked here before they are sent: one caller's nonsense must not spoil a
group.

SQLSTATEs of refusals: X6001 double signature, X6002 conflict, X6003 unknown channel (see core/records.py); and, failing
the whole group, X6021 fenced, X6023 unsafe server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from channeld.core import records
from channeld.core.records import MAX_VERSION, RecordValueError
from channeld.store.refusals import conflict, double_sign, other_particulars, unknown_channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from channeld.core.errors import StoreError

MAX_VALUE_BYTES = 64 << 20  # of one value; the protocol's own limits lie far below

# operation, channel, three numbers, two texts, four blobs
Row = tuple[
    int, bytes | None, int | None, int | None, int | None, str | None, str | None,
    bytes | None, bytes | None, bytes | None, bytes | None,
]  # fmt: skip

(
    _PUT_SIGNED, _PUT_STATE, _PUT_BATCH, _PUT_OUTSTANDING, _DROP_OUTSTANDING, _APPEND_EVENT, _PUT_DOCUMENT,
    _DROP_DOCUMENT, _PUT_CHANNEL, _SET_STATUS, _DROP_EVENTS,
) = range(11)  # fmt: skip
_PROPOSAL, _REJECTION = 0, 1

FUNCTION = """
CREATE OR REPLACE FUNCTION pg_temp.channeld_commit(
    _held bigint, _jobs integer[], _ops integer[], _channels bytea[], _n1 bigint[], _n2 bigint[], _n3 bigint[],
    _t1 text[], _t2 text[], _b1 bytea[], _b2 bytea[], _b3 bytea[], _b4 bytea[])
RETURNS TABLE (r_job integer, r_code text, r_place integer, r_detail text, r_sequences bigint[])
LANGUAGE plpgsql AS $function$
DECLARE
    _total integer := coalesce(array_length(_jobs, 1), 0);
    _i integer := 1;
    _first integer;
    _job integer;
    _op integer;
    _epoch bigint;
    _event bigint;
    _event_at_start bigint;
    _event_before bigint;
    _sequences bigint[];
    _known bytea;
    _number bigint;
    _top bigint;
    _fresh boolean;
    _stored bytea;
BEGIN
    IF current_setting('fsync') = 'off' THEN
        RAISE EXCEPTION 'the server was switched to fsync = off' USING ERRCODE = 'X6023';
    END IF;
    SELECT d.epoch, d.last_event INTO _epoch, _event FROM desk d FOR NO KEY UPDATE;
    IF _epoch IS DISTINCT FROM _held THEN
        RAISE EXCEPTION 'another daemon took this desk over (its epoch is %, ours is %)', _epoch, _held
            USING ERRCODE = 'X6021';
    END IF;
    _event_at_start := _event;
    WHILE _i <= _total LOOP
        _job := _jobs[_i];
        _first := _i;
        _event_before := _event;
        _sequences := '{}';
        BEGIN
            WHILE _i <= _total AND _jobs[_i] = _job LOOP
                _op := _ops[_i];
                IF _op IN (1, 2, 3, 4, 9) AND _known IS DISTINCT FROM _channels[_i] THEN
                    SELECT c.id INTO _number FROM channels c WHERE c.channel = _channels[_i];
                    IF NOT FOUND THEN
                        RAISE EXCEPTION 'unknown channel' USING ERRCODE = 'X6003';
                    END IF;
                    _known := _channels[_i];
                END IF;
                IF _op = 0 THEN -- a signature; n2 = 1: its versions must rise
                    _top := NULL;
                    IF _n2[_i] = 1 THEN
                        SELECT max(s.version) INTO _top FROM signed s
                            WHERE s.channel = _channels[_i] AND s.kind = _t1[_i];
                    END IF;
                    _fresh := false;
                    IF _top IS NULL OR _n1[_i] > _top THEN
                        INSERT INTO signed VALUES (_channels[_i], _t1[_i], _n1[_i], _b1[_i], _b2[_i])
                            ON CONFLICT DO NOTHING;
                        _fresh := FOUND;
                    END IF;
                    IF NOT _fresh THEN
                        SELECT s.digest INTO _stored FROM signed s
                            WHERE s.channel = _channels[_i] AND s.kind = _t1[_i] AND s.version = _n1[_i];
                        IF _stored IS DISTINCT FROM _b1[_i] THEN
                            RAISE EXCEPTION 'double signature' USING ERRCODE = 'X6001',
                                DETAIL = CASE WHEN _stored IS NULL THEN _top::text ELSE 'stored' END;
                        END IF;
                    END IF;
                ELSIF _op = 1 THEN -- a co-signed state
                    INSERT INTO states VALUES (_number, _n1[_i], _b1[_i], _b2[_i], _b3[_i]) ON CONFLICT DO NOTHING;
                    IF NOT FOUND THEN
                        PERFORM FROM states s WHERE s.channel = _number AND s.version = _n1[_i]
                            AND s.body_hash = _b1[_i] AND s.signature_a = _b2[_i] AND s.signature_b = _b3[_i];
                        IF NOT FOUND THEN
                            RAISE EXCEPTION 'another state' USING ERRCODE = 'X6002', DETAIL = 'co-signed state';
                        END IF;
                    END IF;
                    IF _b4[_i] IS NOT NULL THEN
                        INSERT INTO snapshots AS p VALUES (_number, _n1[_i], _b4[_i]) ON CONFLICT (channel)
                            DO UPDATE SET version = excluded.version, body = excluded.body
                            WHERE excluded.version >= p.version;
                    END IF;
                ELSIF _op = 2 THEN -- a batch
                    INSERT INTO batches VALUES (_number, _n1[_i], _b1[_i]) ON CONFLICT DO NOTHING;
                    IF NOT FOUND THEN
                        PERFORM FROM batches t WHERE t.channel = _number AND t.version = _n1[_i] AND t.raw = _b1[_i];
                        IF NOT FOUND THEN
                            RAISE EXCEPTION 'another batch' USING ERRCODE = 'X6002', DETAIL = 'batch';
                        END IF;
                    END IF;
                ELSIF _op = 3 THEN -- an outstanding message; n2: its kind
                    INSERT INTO outstanding VALUES (_number, _n2[_i], _n1[_i], _b1[_i]) ON CONFLICT DO NOTHING;
                    IF NOT FOUND THEN
                        PERFORM FROM outstanding t WHERE t.channel = _number AND t.kind = _n2[_i]
                            AND t.version = _n1[_i] AND t.raw = _b1[_i];
                        IF NOT FOUND THEN
                            RAISE EXCEPTION 'another message' USING ERRCODE = 'X6002', DETAIL = 'outstanding message';
                        END IF;
                    END IF;
                ELSIF _op = 4 THEN
                    DELETE FROM outstanding t WHERE t.channel = _number AND t.kind = _n3[_i]
                        AND t.version BETWEEN _n1[_i] AND _n2[_i];
                ELSIF _op = 5 THEN
                    _event := _event + 1;
                    INSERT INTO events VALUES (_event, _n1[_i], _t1[_i], _channels[_i], _t2[_i]);
                    _sequences := _sequences || _event;
                ELSIF _op = 6 THEN
                    INSERT INTO documents VALUES (_t1[_i], _t2[_i], _b1[_i])
                        ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value;
                ELSIF _op = 7 THEN
                    DELETE FROM documents t WHERE t.kind = _t1[_i] AND t.key = _t2[_i];
                ELSIF _op = 8 THEN -- a channel; again: its status alone
                    INSERT INTO channels (channel, peer, side, terms, chain_id, adjudicator, status, opened_at)
                        VALUES (_channels[_i], _b1[_i], _n1[_i], _b2[_i], _n2[_i], _b3[_i], _t1[_i], _n3[_i])
                        ON CONFLICT (channel) DO NOTHING;
                    IF NOT FOUND THEN
                        UPDATE channels c SET status = _t1[_i] WHERE c.channel = _channels[_i] AND c.peer = _b1[_i]
                            AND c.side = _n1[_i] AND c.terms = _b2[_i] AND c.chain_id = _n2[_i]
                            AND c.adjudicator = _b3[_i] AND c.opened_at = _n3[_i];
                        IF NOT FOUND THEN
                            RAISE EXCEPTION 'other particulars' USING ERRCODE = 'X6002', DETAIL = 'particulars';
                        END IF;
                    END IF;
                ELSIF _op = 9 THEN
                    UPDATE channels c SET status = _t1[_i] WHERE c.id = _number;
                ELSE
                    DELETE FROM events t WHERE t.sequence <= _n1[_i];
                END IF;
                _i := _i + 1;
            END LOOP;
            IF cardinality(_sequences) > 0 THEN
                r_job := _job; r_code := NULL; r_place := NULL; r_detail := NULL; r_sequences := _sequences;
                RETURN NEXT;
            END IF;
        EXCEPTION
            -- Categories: X6 is ours; a value that the schema refuses is its caller's error too, not the server's.
            WHEN SQLSTATE 'X6000' OR integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
                GET STACKED DIAGNOSTICS r_code = RETURNED_SQLSTATE, r_detail = PG_EXCEPTION_DETAIL;
                IF r_code NOT LIKE 'X6%' THEN
                    r_detail := SQLERRM;
                END IF;
                r_job := _job; r_place := _i - _first; r_sequences := NULL;
                RETURN NEXT;
                _event := _event_before;
                _known := NULL; -- a channel of this caller may have gone with its writes
                WHILE _i <= _total AND _jobs[_i] = _job LOOP
                    _i := _i + 1;
                END LOOP;
        END;
    END LOOP;
    IF _event <> _event_at_start THEN
        UPDATE desk SET last_event = _event;
    END IF;
END
$function$
"""
CALL = "SELECT * FROM pg_temp.channeld_commit($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13)"


# --- values ---


def _number(value: object) -> int:
    if type(value) is not int or not -MAX_VERSION - 1 <= value <= MAX_VERSION:
        raise RecordValueError("a number of a record is an integer of 64 bits")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise RecordValueError("a text of a record is a str")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise RecordValueError(f"a text that is not Unicode: {error.reason}") from error
    if "\x00" in value or size > MAX_VALUE_BYTES:
        raise RecordValueError(f"a text may not hold NUL, nor be longer than {MAX_VALUE_BYTES} bytes")
    return value


def _blob(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) > MAX_VALUE_BYTES:
        raise RecordValueError(f"a value of a record is bytes, at most {MAX_VALUE_BYTES}")
    return value


# --- rows ---


def _put_channel(w: records.PutChannel) -> Row:
    r = w.record
    return (
        _PUT_CHANNEL, _blob(r.channel), int(r.side), _number(r.chain_id), _number(r.opened_at), _text(r.status), None,
        _blob(r.peer), _blob(r.terms), _blob(r.adjudicator), None,
    )  # fmt: skip


def _set_status(w: records.SetStatus) -> Row:
    return (_SET_STATUS, _blob(w.channel), None, None, None, _text(w.status), None, None, None, None, None)


def _put_state(w: records.PutState) -> Row:
    s, body = w.state, w.body_bytes()
    return (
        _PUT_STATE, _blob(s.channel), _number(s.version), None, None, None, None,
        _blob(s.body_hash), _blob(s.signature_a), _blob(s.signature_b), None if body is None else _blob(body),
    )  # fmt: skip


def _put_batch(w: records.PutBatch) -> Row:
    return (_PUT_BATCH, _blob(w.channel), _number(w.version), None, None, None, None, _blob(w.raw), None, None, None)


def _put_outstanding(kind: int, w: records.PutProposal | records.PutRejection) -> Row:
    return (
        _PUT_OUTSTANDING, _blob(w.channel), _number(w.version), kind, None, None, None, _blob(w.raw), None, None, None,
    )  # fmt: skip


def _drop_outstanding(kind: int, w: records.DropProposals | records.DropRejections) -> Row:
    return (
        _DROP_OUTSTANDING, _blob(w.channel), _number(w.first), _number(w.last), kind,
        None, None, None, None, None, None,
    )  # fmt: skip


def _put_signed(w: records.PutSigned) -> Row:
    return (
        _PUT_SIGNED, _blob(w.channel), _number(w.version), int(w.kind in records.RISING_KINDS), None,
        _text(w.kind), None, _blob(w.digest), _blob(w.signature), None, None,
    )  # fmt: skip


def _put_document(w: records.PutDocument) -> Row:
    return (_PUT_DOCUMENT, None, None, None, None, _text(w.kind), _text(w.key), _blob(w.value), None, None, None)


def _drop_document(w: records.DropDocument) -> Row:
    return (_DROP_DOCUMENT, None, None, None, None, _text(w.kind), _text(w.key), None, None, None, None)


def _append_event(w: records.AppendEvent) -> Row:
    channel = None if w.channel is None else _blob(w.channel)
    return (
        _APPEND_EVENT,
        channel,
        _number(w.time_ms),
        None,
        None,
        _text(w.kind),
        _text(w.data),
        None,
        None,
        None,
        None,
    )


def _drop_events(w: records.DropEvents) -> Row:
    return (_DROP_EVENTS, None, _number(w.last), None, None, None, None, None, None, None, None)


_ENCODERS: dict[type, Callable[[Any], Row]] = {
    records.PutChannel: _put_channel,
    records.SetStatus: _set_status,
    records.PutState: _put_state,
    records.PutBatch: _put_batch,
    records.PutProposal: lambda w: _put_outstanding(_PROPOSAL, w),
    records.DropProposals: lambda w: _drop_outstanding(_PROPOSAL, w),
    records.PutRejection: lambda w: _put_outstanding(_REJECTION, w),
    records.DropRejections: lambda w: _drop_outstanding(_REJECTION, w),
    records.PutSigned: _put_signed,
    records.PutDocument: _put_document,
    records.DropDocument: _drop_document,
    records.AppendEvent: _append_event,
    records.DropEvents: _drop_events,
}
_ALIKE = {_PUT_STATE: "co-signed state", _PUT_BATCH: "batch", _PUT_OUTSTANDING: "outstanding message"}


def encode(writes: Sequence[records.Write]) -> list[Row]:
    """The rows of one caller's writes.

    Raises:
        RecordValueError: something that is no write, or a value that no database may hold.

    """
    rows = []
    for write in writes:
        encoder = _ENCODERS.get(type(write))
        if encoder is None:
            raise RecordValueError(f"{type(write).__name__} is no write")
        rows.append(encoder(write))
    return rows


def size_of(rows: list[Row]) -> int:
    """Roughly the bytes that rows take in a message, of the larger values."""
    return sum(64 + len(row[6] or "") + sum(len(blob) for blob in row[7:] if blob is not None) for row in rows)


def arguments(epoch: int, group: Sequence[list[Row]]) -> tuple[Any, ...]:
    """The arguments of CALL for the rows of several callers."""
    jobs = [job for job, rows in enumerate(group) for _ in rows]
    rows = [row for rows in group for row in rows]
    columns = list(zip(*rows, strict=True)) if rows else [()] * 11
    return (epoch, jobs, *columns)


def refusal(write: records.Write, row: Row, code: str, detail: str) -> StoreError:
    """The error for one caller from what CALL returned about it: the write refused, SQLSTATE and detail."""
    channel, version = row[1] or b"", row[2] or 0
    if code == "X6001" and isinstance(write, records.PutSigned):
        return double_sign(write, None if detail == "stored" else int(detail))
    if code == "X6002" and row[0] == _PUT_CHANNEL:
        return other_particulars(channel)
    if code == "X6002":
        return conflict(_ALIKE[row[0]], channel, version)
    if code == "X6003":
        return unknown_channel(channel)
    return RecordValueError(f"the database refuses a value: {detail} (SQLSTATE {code})", sqlstate=code)
