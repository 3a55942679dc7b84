import pytest

from ari_conf.media.cache_control import DEFAULT_FRESH_S, STALE_S, Freshness, freshness


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        (None, Freshness(DEFAULT_FRESH_S, STALE_S, True)),
        ("", Freshness(DEFAULT_FRESH_S, STALE_S, True)),
        ("public", Freshness(DEFAULT_FRESH_S, STALE_S, True)),
        ("public, max-age=600", Freshness(600, STALE_S, True)),
        ('Max-Age="600"', Freshness(600, STALE_S, True)),
        ("max-age=0", Freshness(0, STALE_S, True)),
        ("max-age=-1", Freshness(0, STALE_S, True)),
        ("max-age=²", Freshness(0, STALE_S, True)),
        ("max-age=999999999", Freshness(30 * 86400, STALE_S, True)),
        ("max-age=60, must-revalidate", Freshness(60, 0, True)),
        ("no-cache", Freshness(0, 0, True)),
        ("max-age=60, no-store", Freshness(0, 0, False)),
    ],
)
def test_lifetimes_by_cache_control(cache_control: str | None, expected: Freshness) -> None:
    assert freshness(cache_control) == expected
