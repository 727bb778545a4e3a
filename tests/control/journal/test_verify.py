from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from control.journal import EventDraft, Journal, RunHead, RunNotFound
from control.journal.audit import verify_all
from control.journal.heads import Head, SignedHeads, check_heads, checking_key, export_heads, signing_key
from infra.errors import DataLoss
from tests.control.journal.world import World, opened

COLUMNS = ("seq", "append_id", "epoch", "kind", "ts_ms", "payload", "payload_digest", "prev_hash", "hash", "run_id")


async def filled(world: World, runs: int, appends: int) -> list[RunHead]:
    """Runs of events of many kinds and sizes, two of them forks' worth of bytes apart."""
    random = Random(11)
    heads: list[RunHead] = []
    for _ in range(runs):
        run = await world.owned()
        for _ in range(appends):
            drafts = [
                EventDraft(random.randrange(1, 26), random.randbytes(random.choice((0, 1, 40, 200))))
                for _ in range(random.randrange(1, 4))
            ]
            await world.journal.append(world.result(run, *drafts))
            run = await world.journal.head(run.run_id)
            await world.clock.advance(0.01)
        heads.append(run)
    return heads


async def execute(world: World, statement: str, *values: object) -> None:
    spelled = statement.replace("?", "%s").replace("x'00'", "'\\x00'::bytea") if world.db.system.shared else statement
    await world.db.transact(lambda connection: connection.exec_driver_sql(spelled, values))


def flips(value: object, column: str) -> list[object]:
    """The value with one bit of each of its bytes turned, of numbers all but the first, which holds the sign."""
    if isinstance(value, bytes):
        return [value[:i] + bytes([value[i] ^ 1 << i % 8]) + value[i + 1 :] for i in range(len(value))]
    if isinstance(value, str):
        return [value[:i] + chr(ord(value[i]) ^ 1) + value[i + 1 :] for i in range(len(value))]
    assert isinstance(value, int)
    return [value ^ 1 << 8 * byte for byte in range(3 if column == "kind" else 7)]


async def test_a_journal_as_it_was_written_is_sound(world: World) -> None:
    heads = await filled(world, runs=3, appends=20)
    found = [verification async for verification in verify_all(world.journal)]
    assert [(each.run_id, each.events, each.bad_seq) for each in found] == [
        (head.run_id, head.head_seq, None) for head in heads
    ]


@pytest.mark.parametrize("column", COLUMNS)
async def test_every_flipped_byte_of_an_event_is_located(tmp_path: Path, column: str) -> None:
    async with opened(tmp_path / "journal.db", synchronous="NORMAL") as world:
        await locate_every_flip(world, column)


async def locate_every_flip(world: World, column: str) -> None:
    (head,) = await filled(world, runs=1, appends=6)
    for event in await world.journal.read(head.run_id):
        value = getattr(event, {"ts_ms": "time_ms"}.get(column, column))
        where = "WHERE run_id = ? AND seq = ?"
        for wrong in flips(value, column):
            key = (
                wrong if column == "run_id" else head.run_id,
                wrong if column == "seq" else event.seq,
            )
            if column == "seq" and 0 < int(str(wrong)) <= head.head_seq:
                continue  # another event has that number: the database itself refuses it
            await execute(world, f"UPDATE run_events SET {column} = ? {where}", wrong, head.run_id, event.seq)
            found = await world.journal.verify(head.run_id)
            assert found.bad_seq == event.seq, (event.seq, value, wrong, found)
            await execute(world, f"UPDATE run_events SET {column} = ? {where}", value, *key)
    assert (await world.journal.verify(head.run_id)).bad_seq is None


async def test_among_ten_thousand_events_one_flipped_byte_is_located(world: World) -> None:
    random = Random(5)
    new = replace(
        world.new_run(),
        events=tuple(
            EventDraft(random.randrange(1, 26), random.randbytes(random.randrange(300))) for _ in range(10_000)
        ),
    )
    await world.journal.create_run(new)
    for _ in range(40):
        seq = random.randrange(1, 10_001)
        (event,) = await world.journal.read(new.run_id, after_seq=seq - 1, limit=1)
        column = random.choice(["append_id", "epoch", "kind", "ts_ms", "payload_digest", "prev_hash", "hash"])
        value = getattr(event, {"ts_ms": "time_ms"}.get(column, column))
        wrong = random.choice(flips(value, column))
        change = f"UPDATE run_events SET {column} = ? WHERE run_id = ? AND seq = ?"
        await execute(world, change, wrong, new.run_id, seq)
        found = await world.journal.verify(new.run_id)
        assert (found.bad_seq, found.run_id) == (seq, new.run_id), (column, found)
        await execute(world, change, value, new.run_id, seq)
    assert (await world.journal.verify(new.run_id)).events == 10_000


@pytest.mark.parametrize(
    ("damage", "bad_seq"),
    [
        ("DELETE FROM run_events WHERE seq = 3", 3),
        ("DELETE FROM run_events WHERE seq = (SELECT head_seq FROM runs)", 7),
        ("UPDATE runs SET head_seq = head_seq - 1", 7),
        ("UPDATE runs SET head_hash = x'00'", 7),
        ("UPDATE run_events SET payload = NULL, payload_digest = x'00' WHERE seq = 2", 2),
        ("UPDATE run_events SET epoch = -1 WHERE seq = 4", 4),
    ],
)
async def test_what_is_missing_or_changed_is_located(world: World, damage: str, bad_seq: int) -> None:
    run = await world.owned()
    await world.journal.append(world.result(run, *[EventDraft(7, b"payload")] * 6))
    await execute(world, damage)
    assert (await world.journal.verify(run.run_id)).bad_seq == bad_seq


@pytest.mark.parametrize(
    "damage",
    [
        "hash = 'text'",
        "ts_ms = 'text'",
        "append_id = 5",
        "payload = 'text'",
        "payload_digest = 7",
    ],
)
async def test_what_is_of_another_type_is_located(tmp_path: Path, damage: str) -> None:
    """Only SQLite lets a column hold anything."""
    async with opened(tmp_path / "journal.db") as world:
        run = await world.owned()
        await world.journal.append(world.result(run, *[EventDraft(7, b"payload")] * 6))
        await execute(world, f"UPDATE run_events SET {damage} WHERE seq = 4")
        assert (await world.journal.verify(run.run_id)).bad_seq == 4


async def test_two_events_that_changed_places_are_located(world: World) -> None:
    run = await world.owned()
    await world.journal.append(world.result(run, *[EventDraft(7, b"payload")] * 6))
    for change in ("-1 WHERE seq = 3", "3 WHERE seq = 4", "4 WHERE seq = -1"):
        await execute(world, f"UPDATE run_events SET seq = {change}")
    assert (await world.journal.verify(run.run_id)).bad_seq == 3


async def test_an_event_beyond_the_head_is_located(world: World) -> None:
    run = await world.owned()
    written = await world.journal.append(world.result(run))
    await execute(world, "UPDATE runs SET head_seq = 1, head_hash = (SELECT hash FROM run_events WHERE seq = 1)")
    assert (await world.journal.verify(run.run_id)).bad_seq == written.seq


async def test_an_erased_payload_leaves_the_chain_sound_and_nothing_derived(world: World) -> None:
    run = await world.ended(EventDraft(7, b"personal"), EventDraft(7, b"other"))
    await world.journal.erase(world.erase(run, 2))
    assert [event.payload for event in await world.journal.read(run.run_id)] == [b"created", None, b"other"]
    assert (await world.journal.verify(run.run_id)).bad_seq is None
    shown = (await world.journal.listing(run.run_id, tenant=run.tenant)).projection
    assert shown is not None
    assert b"summary" not in shown.body


async def test_a_run_that_does_not_exist_cannot_be_verified(world: World) -> None:
    with pytest.raises(RunNotFound):
        await world.journal.verify(world.ids.ulid())


async def test_a_flipped_byte_in_the_file_itself_is_never_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with opened(path) as world:
        (head,) = await filled(world, runs=1, appends=8)
        events = await world.journal.read(head.run_id)
    sound = path.read_bytes()
    for event in events:
        for needle in (event.hash, event.payload_digest):
            # Every copy of it, because the file also holds what a split page had before.
            flipped = needle[:9] + bytes([needle[9] ^ 4]) + needle[10:]
            path.write_bytes(sound.replace(needle, flipped))
            try:
                async with opened(path) as world:
                    assert (await world.journal.verify(head.run_id)).bad_seq is not None
            except DataLoss:
                pass
            path.write_bytes(sound)


async def statement(world: World, folder: Path) -> SignedHeads:
    return await export_heads(world.journal, signing_key(folder), world.clock)


async def lost(journal: Journal, signed: SignedHeads, folder: Path) -> tuple[str, ...]:
    return await check_heads(journal, signed, checking_key(folder / "journal.ed25519.pub.pem"))


async def test_signed_heads_hold_while_runs_only_grow(world: World, tmp_path: Path) -> None:
    run = await world.owned()
    signed = SignedHeads.from_json((await statement(world, tmp_path)).to_json())
    await world.journal.append(world.result(run))
    await world.created()
    assert await lost(world.journal, signed, tmp_path) == ()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM run_events WHERE seq = 2",
        "DELETE FROM run_events",
        "UPDATE run_events SET hash = x'00' WHERE seq = 2",
    ],
)
async def test_signed_heads_show_a_tail_that_is_gone_or_another(world: World, tmp_path: Path, damage: str) -> None:
    run = await world.owned()
    await world.journal.append(world.result(run))
    signed = await statement(world, tmp_path)
    await execute(world, damage)
    (found,) = await lost(world.journal, signed, tmp_path)
    assert run.run_id in found


async def test_changed_heads_are_refused(world: World, tmp_path: Path) -> None:
    await world.owned()
    signed = await statement(world, tmp_path)
    for forged in (replace(signed, heads=()), replace(signed, signature="00"), replace(signed, signature="no hex")):
        with pytest.raises(DataLoss) as refused:
            await lost(world.journal, forged, tmp_path)
        assert refused.value.reason == "HEADS_FORGED"


async def test_heads_of_another_key_are_refused(world: World, tmp_path: Path) -> None:
    signed = await statement(world, tmp_path / "mine")
    signing_key(tmp_path / "theirs")
    with pytest.raises(DataLoss):
        await lost(world.journal, signed, tmp_path / "theirs")


async def test_the_signing_key_is_made_once_and_private(tmp_path: Path) -> None:
    first, second = signing_key(tmp_path), signing_key(tmp_path)
    assert first.private_bytes_raw() == second.private_bytes_raw()
    assert (tmp_path / "journal.ed25519.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"heads": [{}]}'])
def test_what_is_no_export_of_heads_is_refused(text: str) -> None:
    with pytest.raises(DataLoss) as refused:
        SignedHeads.from_json(text)
    assert refused.value.reason == "HEADS_UNREADABLE"


def test_heads_are_signed_as_every_statement_so_far_was() -> None:
    signed = SignedHeads(5, 2, (Head("R", 7, "0f"),), "5157")
    heads = '{"heads":[{"hash":"0f","run_id":"R","seq":7}],"log_generation":2,"signature":'
    assert signed.signed_bytes().decode() == heads + '"","time_ms":5}'
    assert signed.to_json() == heads + '"5157","time_ms":5}'
    assert SignedHeads.from_json(signed.to_json()) == signed


@pytest.mark.parametrize("kind", ["private", "public"])
def test_a_key_of_another_kind_is_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pem, public = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "journal.ed25519.pem").write_bytes(other.private_bytes(pem, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "public.pem").write_bytes(other.public_key().public_bytes(pem, public))
    with pytest.raises(DataLoss) as refused:
        signing_key(tmp_path) if kind == "private" else checking_key(tmp_path / "public.pem")
    assert refused.value.reason == "KEY_UNREADABLE"


def test_a_new_signing_key_lies_in_a_folder_of_its_owner_alone(tmp_path: Path) -> None:
    signing_key(tmp_path / "deep" / "keys")
    assert (tmp_path / "deep" / "keys").stat().st_mode & 0o777 == 0o700
    assert {file.name for file in (tmp_path / "deep" / "keys").iterdir()} == {
        "journal.ed25519.pem",
        "journal.ed25519.pub.pem",
    }
