from ctrainer.streams.policy.circuit_breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(failures=3, pause_seconds=5.0, clock=clock)
    for _ in range(3):
        breaker.failed()
    return breaker


def test_only_failures_in_a_row_open_it() -> None:
    breaker = CircuitBreaker(failures=2, pause_seconds=5.0, clock=Clock())
    for _ in range(5):
        breaker.failed()
        breaker.succeeded()
    assert breaker.admits()
    assert not breaker.is_open


def test_while_open_it_admits_one_call_for_each_pause() -> None:
    clock = Clock()
    breaker = broken(clock)
    admitted = []
    for second in range(16):
        clock.now = float(second)
        admitted += [second for _ in range(10) if breaker.admits()]
    assert admitted == [5, 10, 15]
    assert breaker.is_open


def test_the_call_it_admits_closes_it_by_an_answer_and_leaves_it_open_by_none() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now = 5.0
    assert breaker.admits()
    breaker.failed()
    assert not breaker.admits()
    clock.now = 10.0
    assert breaker.admits()
    breaker.succeeded()
    assert not breaker.is_open
    assert all(breaker.admits() for _ in range(10))
