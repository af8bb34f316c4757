"""A stage: one handler as a Faust agent on an in-memory channel of record batches."""

import asyncio
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass

import faust
from aiokafka.errors import KafkaError

from ctrainer.agents.records import Handler, OutputRecord, RecordBatch


class HandlerFailedError(Exception):
    """A handler raised on a batch: some record in it is poison. The cause is the handler's exception."""


class WorldFailedError(Exception):
    """A handler could not reach something it needs: the same batch may succeed later."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A batch on its way through a stage, and the place where its outputs come back."""

    batch: RecordBatch
    outputs: "asyncio.Future[Sequence[OutputRecord]]"


class Stage:
    """Hands batches to a Faust agent one after the other and returns what the handler decided.

    Batches are handled one at a time, so a handler is never called while it still works on another batch. One that
    nobody waits for any more, since its partition was given up, is cancelled: it may have hours to go.
    """

    def __init__(self, app: faust.App, *, name: str, handler: Handler) -> None:
        self.name = name
        self._handler = handler
        self._channel = app.channel(maxsize=0)
        app.agent(self._channel, name=name)(self._run)

    async def decide(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return the handler's outputs for a batch.

        Raises:
            HandlerFailedError: the handler raised: a record of the batch is poison.
            WorldFailedError: the handler could not reach what it needs.
        """
        delivery = Delivery(batch, asyncio.get_running_loop().create_future())
        await self._channel.put(delivery)  # type: ignore[arg-type] # Faust puts plain values on channels, too
        return await delivery.outputs

    async def _run(self, deliveries: AsyncIterable[Delivery]) -> None:
        async for delivery in deliveries:
            await self._answer(delivery)

    async def _answer(self, delivery: Delivery) -> None:
        """Answer a delivery. Nothing is raised here: Faust would acknowledge the batch and go on."""
        if delivery.outputs.cancelled():
            return
        try:
            handling = asyncio.ensure_future(self._handler(delivery.batch))
            delivery.outputs.add_done_callback(lambda _: handling.cancel())
            outputs = await handling
        except (KafkaError, OSError) as error:
            _fail(delivery, WorldFailedError(type(error).__name__), error)
        except asyncio.CancelledError:
            delivery.outputs.cancel()
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - any failure becomes a dead letter; native code panics outside Exception
            _fail(delivery, HandlerFailedError(type(error).__name__), error)
        else:
            if not delivery.outputs.cancelled():
                delivery.outputs.set_result(outputs)


def _fail(delivery: Delivery, failure: Exception, cause: BaseException) -> None:
    failure.__cause__ = cause
    if not delivery.outputs.cancelled():
        delivery.outputs.set_exception(failure)
