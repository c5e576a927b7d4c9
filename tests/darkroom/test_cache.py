"""The cache: a dictionary that stays."""

from pathlib import Path

from darkroom.cache import CHUNK, Cache


def test_it_answers_as_a_dictionary_does(tmp_path: Path) -> None:
    values = {f"key {number}": {"number": number, "text": "größer"} for number in range(3 * CHUNK + 1)}
    with Cache(tmp_path / "sub" / "cache.db") as cache:
        cache.put("a", values)
        cache.put("b", {"key 1": "another table"})
        cache.put("a", {})
    with Cache(tmp_path / "sub" / "cache.db") as cache:
        assert cache.get("a", values) == values
        assert cache.get("a", iter(["key 1", "key 1", "unknown"])) == {"key 1": values["key 1"]}
        assert cache.get("b", values) == {"key 1": "another table"}
        assert cache.get("a", []) == {}
        cache.put("a", {"key 1": None})
        assert cache.get("a", ["key 1"]) == {"key 1": None}
