import os
import signal

from redis import Redis

from ctrainer.streams.embedded.process import started_at
from ctrainer.streams.embedded.redis_server import RedisServer, answers
from tests.integration.embedded.listeners import listening_addresses


def pid_of(server: RedisServer) -> int:
    pid = server.process.pid()
    assert pid is not None
    return pid


def test_redis_keeps_values_while_it_runs(own_redis: RedisServer) -> None:
    with Redis.from_url(own_redis.start()) as client:
        client.set("name", "value")
    with Redis.from_url(own_redis.start()) as client:
        assert client.get("name") == b"value"


def test_killed_redis_starts_again_empty_at_the_same_address(own_redis: RedisServer) -> None:
    url = own_redis.start()
    with Redis.from_url(url) as client:
        client.set("name", "value")
    os.kill(pid_of(own_redis), signal.SIGKILL)
    assert own_redis.start() == url
    with Redis.from_url(url) as client:
        assert client.get("name") is None


def test_starting_a_redis_that_runs_changes_nothing(own_redis: RedisServer) -> None:
    pid, url = pid_of(own_redis), own_redis.url
    assert RedisServer(folder=own_redis.folder).start() == url
    assert pid_of(own_redis) == pid


def test_redis_listens_on_loopback_only(own_redis: RedisServer) -> None:
    (address,) = listening_addresses(pid_of(own_redis))
    assert address.is_loopback


def test_stopped_redis_is_gone_and_answers_no_more(own_redis: RedisServer) -> None:
    pid, url = pid_of(own_redis), own_redis.start()
    own_redis.stop()
    assert started_at(pid) is None
    assert own_redis.url is None
    assert not answers(url)
