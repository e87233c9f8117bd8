"""Random values of the YAML's types, for property tests, and the settings that these run with."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from linuxkit.config.types import AnyOf, Bool, Int, ListOf, MapOf, Object, Type

#: the same examples each time, nothing kept on disk, no verdict about a busy machine
REPEATABLE = settings(derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def values(of: Type) -> st.SearchStrategy[Any]:
    """Values of a type, and now and then of another one."""
    wrong = st.none() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})
    match of:
        case Object():
            right: st.SearchStrategy[Any] = st.lists(st.sampled_from(of.fields), max_size=3).flatmap(
                lambda some: st.fixed_dictionaries(
                    {f.name: values(f.type) for f in of.fields if f.required or f in some}))  # fmt: skip
        case ListOf():
            right = st.lists(values(of.item), max_size=2)
        case MapOf():
            right = st.dictionaries(st.text(max_size=3), values(of.value), max_size=2)
        case AnyOf():
            right = st.one_of([values(o) for o in of.of])
        case Int():
            right = st.integers(max(of.minimum, -5), min(of.maximum, 50))
        case Bool():
            right = st.booleans()
        case _:
            right = st.text(max_size=5) | st.sampled_from(["a", "v", "/x", "yaml", "oci", "no", "0644"])
    return st.integers(0, 30).flatmap(lambda n: wrong if n == 0 else right)
