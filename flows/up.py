"""`darkroom up`: the servers, what is registered there, and the worker and supervisor that use it."""

from collections.abc import Callable, Sequence

from darkroom.settings import Settings

from . import notices, servers, services


def up(settings: Settings, recipes: Sequence[str] = (), say: Callable[[str], None] = print) -> list[services.Service]:
    """Bring all of it up. Safe to repeat; when a part cannot start, the servers that this call started end again."""
    notices.guard(settings)
    before = {one.name for one in services.status(settings) if one.pid is not None}
    services.up(settings, say)
    alone = services.alone(settings)
    try:
        with servers.prefect_api(settings):
            from .deployments import register

            found = register(settings, recipes, alone)
        say(f"deployments: {', '.join(spec.full_name for spec in found)}")
        return services.up(settings, say, services.CREW)
    except BaseException:
        services.end(settings, [name for name in services.SERVERS if name not in before])
        raise
