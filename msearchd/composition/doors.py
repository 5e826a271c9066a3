"""Where calls come in: the control socket, the models' gateway on it, and the TCP listener where it is switched on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from msearchd.api.network import Network, network, token_in
from msearchd.api.server import ControlServer
from msearchd.composition.children import Children
from msearchd.composition.desk import Desk
from msearchd.composition.life import Life
from msearchd.control.gateway import GatewayHealth
from msearchd.gateway.pictures import PictureReader
from msearchd.gateway.service import ModelGateway
from msearchd.settings.address import parse_address

log = structlog.get_logger(__name__)

#: A request of many texts has so many times the time of one batch.
_BATCHES_OF_A_REQUEST = 10


def make_doors(life: Life, children: Children, desk: Desk) -> Callable[[], ControlServer]:
    """A maker of servers: one that fell is spent, and the next start needs a new one."""
    gateway, listener = _gateway(life, children), _listener(life)

    def make_server() -> ControlServer:
        return ControlServer(desk.control, life.settings.api, gateway=gateway, network=listener)

    return make_server


def _gateway(life: Life, children: Children) -> ModelGateway:
    settings = life.settings
    pictures = PictureReader(settings.extract, nice=settings.limits.nice)
    life.stack.push_async_callback(pictures.close)

    async def health() -> GatewayHealth:
        """The models answer while the daemon runs: they load on demand."""
        return GatewayHealth(status="unwell", reason="stopping") if life.ends() else GatewayHealth(status="ok")

    return ModelGateway(
        children.pool,
        settings.inference,
        health=health,
        deadline_s=settings.inference.request_timeout_s * _BATCHES_OF_A_REQUEST,
        decode_picture=pictures.read,
        decode_sound=pictures.hear,
    )


def _listener(life: Life) -> Network | None:
    api = life.settings.api
    if not api.listen:
        return None
    address = parse_address(api.listen)
    file = Path(api.token_file).expanduser() if api.token_file else life.settings.data_dir / "api.token"
    if not address.is_local:
        log.warning("models are served beyond this machine, without encryption", address=str(address))
    return network(address, token=token_in(file), hosts=api.hosts)
