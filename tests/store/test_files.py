import concurrent.futures

import pytest

from lth_jax.store import CorruptError, StoreError, files


def test_text_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "a.json"
    files.write_json(path, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(files, "publish", lambda *_: (_ for _ in ()).throw(OSError(28, "Full")))
        with pytest.raises(StoreError, match=r"a\.json cannot be written: Full"):
            files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    files.write_json(path, {"a": 3})
    assert files.read_json(path) == {"a": 3}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_failed_sync_is_reported_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / ".grown").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync_all", full)
        files.publish(tmp_path / ".grown", tmp_path / "node")
        concurrent.futures.wait(list(files._unsettled))
    files.settle(tmp_path / "other")
    with pytest.raises(StoreError, match="node cannot be written: No space left on device"):
        files.settle(tmp_path)
    files.settle(tmp_path)


def test_threads_publish_at_once(tmp_path):
    def write(name):
        for i in range(100):
            files.write(tmp_path / name, str(i).encode())

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(write, "abcdefgh"))
    files.settle(tmp_path)
    assert not [path for path in files._unsettled.values() if path.is_relative_to(tmp_path)]


def test_what_is_removed_before_it_is_on_the_disk_is_no_failure(tmp_path):
    for i in range(20):
        (tmp_path / ".grown").mkdir()
        (tmp_path / ".grown" / "a").write_text("a")
        files.publish(tmp_path / ".grown", tmp_path / str(i))
        files.remove(tmp_path / str(i))
    files.settle(tmp_path)


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a", float("nan"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"{", b"\xff"])
def test_what_is_no_json_is_damaged(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(CorruptError, match="a is damaged"):
        files.read_json(tmp_path / "a")


def test_a_seal_covers_every_file_and_its_own_damage(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    files.seal(tmp_path)
    files.check_seal(tmp_path)
    lines = (tmp_path / "sha256").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["b", "deep/a"]
    for text in ("", lines[0], "no hash\n", "\n".join([*lines, lines[0][:64] + "  c"])):
        (tmp_path / "sha256").write_text(text)
        with pytest.raises(CorruptError, match=r"b is|a is not listed|c is missing|sha256 cannot"):
            files.check_seal(tmp_path)
