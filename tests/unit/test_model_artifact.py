"""Stored models: whole or not at all, and nothing foreign is believed."""

import collections
import errno
import hashlib
import io
import json
import os
import re
import stat
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
import skops.io
from sklearn.tree import DecisionTreeRegressor
from synthetic_windows import history

from ml_postgres_optimization.errors import ArtefactRefused, StateError
from ml_postgres_optimization.models.artifact import KEPT, load_model, read_model, save_model
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.training import ForestSettings
from ml_postgres_optimization.telemetry import VirtualClock

CLOCK = VirtualClock(datetime(2026, 5, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def past():
    return history(100, 1, log_mean=lambda number, rng: -6.0 + 0.2 * rng.normal())


@pytest.fixture(scope="module")
def model(past):
    return LatencyForest.fit(past, 1, ForestSettings(trees=5))


@pytest.fixture
def stored(model, tmp_path):
    return save_model(model, tmp_path, clock=CLOCK)


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def header_of(path):
    return json.loads(members(path)["header.json"])


def rewrite(path, changed=None, header=None, payload=None):
    """Write a file anew with other members, and with a digest that fits: what somebody skilled would do."""
    parts = members(path)
    if payload is not None:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            parts = {"header.json": parts["header.json"]} | {name: archive.read(name) for name in archive.namelist()}
    parts |= changed or {}
    digest = hashlib.sha256()
    for name in sorted(name for name in parts if name == "schema.json" or re.fullmatch(r"\d+\.npy", name)):
        digest.update(name.encode() + b"\0" + hashlib.sha256(parts[name]).digest())
    known = json.loads(parts["header.json"]) | {"members_sha256": digest.hexdigest()} | (header or {})
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, json.dumps(known) if name == "header.json" else content)


def test_the_file_is_private_numbered_and_dated(stored):
    assert stored.name == "latency-000001-20260501T000000Z.skops"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert [path.name for path in stored.parent.iterdir()] == [stored.name]


def test_the_header_tells_what_it_is(stored, model):
    header = header_of(stored)
    assert header["feature_names"] == list(model.forest.names)
    assert header["kind"] == "latency"
    assert header["created_at"] == "2026-05-01T00:00:00+00:00"
    assert header["facts"]["data_digest"] == model.data_digest
    assert header["facts"]["score"]["skill"]["error"] == model.score.skill.error
    assert set(header["libraries"]) == {"scikit-learn", "skops", "numpy"}


def test_it_is_an_ordinary_skops_file(stored, model):
    arrays = skops.io.load(stored, trusted=[])
    assert (arrays["threshold"] == model.forest.threshold).all()


def test_nothing_stored_is_none(tmp_path):
    assert load_model(LatencyForest, tmp_path) is None
    assert load_model(LatencyForest, tmp_path / "never made") is None


def test_the_newest_is_used_and_the_last_five_are_kept(model, tmp_path):
    paths = [save_model(model, tmp_path, clock=CLOCK) for _ in range(KEPT + 2)]
    assert load_model(LatencyForest, tmp_path).path == paths[-1]
    assert sorted(tmp_path.iterdir()) == paths[-KEPT:]


def test_kinds_do_not_disturb_each_other(model, past, tmp_path):
    errors = ErrorForest.fit(past, 1, ForestSettings(trees=5))
    for _ in range(KEPT + 1):
        save_model(model, tmp_path)
    save_model(errors, tmp_path)
    assert len(list(tmp_path.glob("latency-*"))) == KEPT
    assert load_model(ErrorForest, tmp_path).model.facts() == errors.facts()
    assert load_model(KnobForest, tmp_path) is None


def test_the_last_good_one_is_used_and_the_refused_are_listed(model, tmp_path):
    good, cut, empty = (save_model(model, tmp_path) for _ in range(3))
    cut.write_bytes(cut.read_bytes()[:1000])
    empty.write_bytes(b"")
    loaded = load_model(LatencyForest, tmp_path)
    assert loaded.path == good
    assert [empty.name in loaded.refused[0], cut.name in loaded.refused[1]] == [True, True]


def test_none_that_is_good_is_an_error_of_two_lines(stored):
    stored.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ArtefactRefused, match="None of the 1 stored latency models") as refusal:
        load_model(LatencyForest, stored.parent)
    assert len(str(refusal.value).splitlines()) == 2


def test_a_file_that_was_cut_anywhere_is_refused(stored):
    whole = stored.read_bytes()
    rng = np.random.default_rng(1)
    for length in [*range(40), *rng.integers(40, len(whole), 60), len(whole) - 1]:
        stored.write_bytes(whole[:length])
        with pytest.raises(ArtefactRefused):
            read_model(LatencyForest, stored)


def test_a_flipped_byte_is_refused_or_harmless(stored, model, past):
    whole = stored.read_bytes()
    expected = model.predict(past[5])
    refused = 0
    for place in np.random.default_rng(2).integers(0, len(whole), 300):
        stored.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert read_model(LatencyForest, stored).predict(past[5]) == expected
        except ArtefactRefused:
            refused += 1
    assert refused > 200


def test_another_kind_in_this_ones_place_is_refused(stored, past):
    errors = save_model(ErrorForest.fit(past, 1, ForestSettings(trees=5)), stored.parent)
    errors.rename(stored)
    with pytest.raises(ArtefactRefused, match="'latency' of ours is wanted"):
        read_model(LatencyForest, stored)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"format": 0}, "format is 0"),
        ({"format": 2}, "format is 2"),
        ({"product": "other"}, "'other'"),
        ({"feature_names": ["moon.phase"]}, "moon.phase"),
        ({"feature_names": []}, "corrupt"),
        ({"feature_names": None}, "corrupt"),
        ({"facts": {}}, "corrupt"),
        ({"members_sha256": "0"}, "altered"),
    ],
)
def test_what_is_outdated_or_foreign_is_refused(stored, header, reason):
    rewrite(stored, header=header)
    with pytest.raises(ArtefactRefused, match=reason) as refusal:
        read_model(LatencyForest, stored)
    assert "genesis-pg train" in refusal.value.next_step


def test_facts_that_make_no_interval_are_refused(stored):
    facts = header_of(stored)["facts"]
    for change in ({"factor": "x"}, {"factor": float("nan")}, {"usual": [1.0]}, {"score": {"windows": 1}}):
        rewrite(stored, header={"facts": facts | change})
        with pytest.raises(ArtefactRefused, match="corrupt"):
            read_model(LatencyForest, stored)


class Foreign:
    def __init__(self):
        self.number = 1


@pytest.mark.parametrize(
    "content",
    [
        {"roots": collections.OrderedDict(a=np.zeros(3))},
        {"roots": DecisionTreeRegressor()},
        {"roots": Foreign()},
        {"roots": np.array([{"a": 1}], dtype=object)},
        {"roots": os.system},
        {"roots": np.random.default_rng(1)},
        {"roots": 3},
    ],
    ids=["OrderedDict", "estimator", "class", "object array", "function", "generator", "number"],
)
def test_a_type_that_is_not_allowed_is_refused_before_anything_is_built(stored, content, monkeypatch):
    rewrite(stored, payload=skops.io.dumps(content))
    monkeypatch.setattr(skops.io, "loads", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(ArtefactRefused, match="not allowed"):
        read_model(LatencyForest, stored)


def test_allowed_types_that_make_no_forest_are_refused(stored):
    for content in ([np.zeros(3)], {}, {"roots": np.zeros(3)}):
        rewrite(stored, payload=skops.io.dumps(content))
        with pytest.raises(ArtefactRefused, match="corrupt"):
            read_model(LatencyForest, stored)


def test_a_schema_that_asks_for_code_is_refused(stored):
    schema = json.loads(members(stored)["schema.json"])
    attacks = [
        {"__loader__": "FunctionNode", "__module__": "os", "__class__": "system"},
        {"__loader__": "DictNode", "__module__": "builtins", "__class__": "eval", "content": {}},
        {"__loader__": "TypeNode", "__module__": "builtins", "__class__": "exec"},
        {"__loader__": "NdArrayNode", "__module__": "subprocess", "__class__": "Popen", "type": "numpy"},
    ]
    for attack in attacks:
        content = schema["content"] | {"value": attack}
        rewrite(stored, {"schema.json": json.dumps(schema | {"content": content}).encode()})
        with pytest.raises(ArtefactRefused, match=f"not allowed: {attack['__module__']}.{attack['__class__']}"):
            read_model(LatencyForest, stored)


def test_an_old_protocol_with_its_other_loaders_is_refused(stored):
    schema = json.loads(members(stored)["schema.json"])
    rewrite(stored, {"schema.json": json.dumps(schema | {"protocol": 0}).encode()})
    with pytest.raises(ArtefactRefused, match="protocol is 0"):
        read_model(LatencyForest, stored)


@pytest.mark.parametrize("name", ["../../escaped.npy", "/tmp/escaped", "evil.pkl", "1.npy.exe", "..\\1.npy"])
def test_a_member_that_does_not_belong_there_is_refused(stored, name):
    rewrite(stored, {name: b"x"})
    with pytest.raises(ArtefactRefused, match="does not belong"):
        read_model(LatencyForest, stored)
    assert not (stored.parent.parent / "escaped.npy").exists()


def test_two_members_of_one_name_are_refused(stored):
    with zipfile.ZipFile(stored, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("schema.json", "{}")
    with pytest.raises(ArtefactRefused, match="does not belong"):
        read_model(LatencyForest, stored)


def array_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def member_of(path, name):
    return json.loads(members(path)["schema.json"])["content"][name]["file"]


def test_an_array_that_claims_more_than_there_is_is_refused(stored):
    claim = array_bytes(np.zeros(16)).replace(b"(16,)", b"(10000000000000,)").replace(b" " * 12, b"", 1)
    rewrite(stored, {member_of(stored, "value"): claim})
    with pytest.raises(ArtefactRefused, match="not as large as it says"):
        read_model(LatencyForest, stored)


def test_a_tree_that_goes_round_in_circles_is_refused(stored, model):
    circle = model.forest.left.copy()
    circle[0] = 0
    rewrite(stored, {member_of(stored, "left"): array_bytes(circle)})
    with pytest.raises(ArtefactRefused, match="points outside, or back"):
        read_model(LatencyForest, stored)


def test_a_file_that_would_unpack_to_too_much_is_refused(stored):
    parts = members(stored)
    with zipfile.ZipFile(stored, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        archive.writestr("99.npy", bytes(300 * 2**20))
    assert stored.stat().st_size < 10 * 2**20
    with pytest.raises(ArtefactRefused, match="would unpack to more"):
        read_model(LatencyForest, stored)


def test_what_a_crash_left_behind_is_ignored_and_removed(model, stored):
    partial = stored.with_name(f".{stored.name}.partial")
    partial.write_bytes(b"half")
    assert load_model(LatencyForest, stored.parent).path == stored
    newer = save_model(model, stored.parent)
    assert sorted(stored.parent.iterdir()) == [stored, newer]


def test_a_full_disk_leaves_the_old_one_and_nothing_half(model, stored, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="No space left on device"):
        save_model(model, stored.parent)
    assert list(stored.parent.iterdir()) == [stored]
    assert load_model(LatencyForest, stored.parent).path == stored


def test_a_folder_that_is_none_is_told(model, tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(StateError, match="cannot be stored"):
        save_model(model, tmp_path / "models")


def test_other_files_in_the_folder_are_left_alone(model, tmp_path):
    (tmp_path / "latency-notes.txt").write_text("mine")
    os.mkfifo(tmp_path / "latency-000009-20260101T000000Z.skops")
    saved = save_model(model, tmp_path)
    assert load_model(LatencyForest, tmp_path).path == saved
    assert (tmp_path / "latency-notes.txt").read_text() == "mine"
