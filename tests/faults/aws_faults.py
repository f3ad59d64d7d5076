"""A proxy that makes AWS calls fail: microburst in front of the embedded AWS, with its certificate."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, TCPConnector, web
from microburst.app import make_app  # type: ignore[import-untyped]
from microburst.core.pipeline import Microburst  # type: ignore[import-untyped]

from sandbox.embedded_aws import EmbeddedAws


class AwsFaults:
    """A running proxy, which applies rules to AWS calls.

    Microburst's own command serves only plain HTTP, which the queues' policies refuse, so this module serves its
    application with TLS. Microburst uses the global random numbers: seed them to repeat a run.

    Parameters
    ----------
    url
        The value for the functions' AWS_ENDPOINT_URL.
    """

    def __init__(self, proxy: Microburst, url: str) -> None:
        self._proxy = proxy
        self.url = url

    @contextlib.contextmanager
    def rules(self, *rules: dict[str, Any]) -> Iterator[list[Any]]:
        """Let calls fail, and yield the rules with their `fired_count`."""
        try:
            yield self._proxy.engine.set_rules(list(rules))
        finally:
            self._proxy.engine.set_rules([])


@contextlib.contextmanager
def aws_faults(aws: EmbeddedAws) -> Iterator[AwsFaults]:
    """Run the proxy."""
    # Not an error: a client that does not wait for a slow answer.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    proxy = Microburst(aws.endpoint)
    loop = asyncio.new_event_loop()
    runner = loop.run_until_complete(_serve(proxy, aws))
    thread = threading.Thread(target=loop.run_forever, name="aws-faults", daemon=True)
    thread.start()
    try:
        yield AwsFaults(proxy, f"https://{_host(runner)}")
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _serve(proxy: Microburst, aws: EmbeddedAws) -> web.AppRunner:
    runner = web.AppRunner(make_app(proxy), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await proxy.upstream.session.close()
    trust = ssl.create_default_context(cafile=str(aws.ca_bundle))

    async def keep_host(request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        # The function signed this host; the proxy would send the host of the embedded AWS.
        request.headers["Host"] = _host(runner)
        return await send(request)

    proxy.upstream.session = ClientSession(
        connector=TCPConnector(ssl=trust), auto_decompress=False, middlewares=(keep_host,)
    )
    certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load_cert_chain(aws.ca_bundle, aws.ca_bundle.with_name("key.pem"))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate).start()
    return runner


def _host(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"{host}:{port}"
