"""Choosing a server: a plain function of values and `now`."""

from hypothesis import given
from hypothesis import strategies as st

from msearchd.inference.worker.engines.servers import Server, after_failure, after_success, choose

SERVERS = st.lists(
    st.builds(
        Server,
        url=st.uuids().map(str),
        in_flight=st.integers(0, 5),
        failures=st.integers(0, 9),
        rests_until=st.floats(0, 100),
        served=st.integers(0, 99),
    ),
    max_size=6,
)


@given(SERVERS, st.floats(0, 100), st.integers(0, 3))
def test_a_resting_or_tried_server_is_never_chosen_and_the_least_loaded_always_is(servers, now, tried):
    without = frozenset(one.url for one in servers[:tried])
    chosen = choose(servers, without=without, now=now)
    usable = [one for one in servers if one.url not in without and one.rests_until <= now]
    if chosen is None:
        assert not usable
    else:
        assert chosen in usable
        assert chosen.in_flight == min(one.in_flight for one in usable)


def test_rests_grow_to_a_minute_and_end_with_the_first_success():
    server, rests = Server(url="a"), []
    for _ in range(9):
        server = after_failure(server, now=100.0)
        rests.append(server.rests_until - 100.0)
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert after_success(server) == Server(url="a", served=1)


def test_a_server_that_says_how_long_is_believed():
    assert after_failure(Server(url="a"), now=0.0, told_s=7.0).rests_until == 7.0
