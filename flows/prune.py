"""Keeping house: what champion, challenger, the newest versions, accepted data and unfinished runs need stays."""

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from darkroom.pruning.prune import lines, size
from tasks.prune import prune_prefect, prune_store


@flow(name="prune", flow_run_name="prune", persist_result=False)
def prune(dry_run: bool = False, keep: int = 5, wait: bool = True) -> dict[str, Any]:
    """Free the disk of what nobody needs, or say with ``dry_run`` what that would be.

    ``keep``: how many versions of each model are kept beside those with an alias. ``wait``: a run that is using the
    store is waited for, a few hours at most; else that is a failure.
    """
    found = prune_store(keep, dry_run, wait)
    remembered = tuple(one for one in prune_prefect(found.flow_runs, dry_run) if one.count)
    freed = (*found.freed, *remembered)
    rows: list[dict[str, Any]] = [{"what": one.kind, "count": one.count, "bytes": one.bytes} for one in freed]
    create_table_artifact(
        [*rows, {"what": "all", "count": sum(one.count for one in freed), "bytes": found.bytes}],
        key="pruned",
        description=f"{'Would free' if dry_run else 'Freed'} {size(found.bytes)}",
    )
    here = {"name": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url}
    plain = found.plain()
    return {**plain, "freed": rows, "lines": [*lines(found), *_lines(rows[len(found.freed) :])], "run": here}


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{row['count']:>8,}  {row['what']}" for row in rows]
