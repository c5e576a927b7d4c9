"""The automations of `infra/automations.yaml` as Prefect has them: made and refreshed by `darkroom up`."""

import json
from collections.abc import Iterator
from string import Template
from typing import Any
from uuid import UUID

import yaml
from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.utilities.urls import url_for
from pydantic import SecretStr

from darkroom.settings import Settings

from . import notices
from .deployments import infra, ours

MARK = "Shipped with darkroom: infra/automations.yaml says what it does."


def apply(client: SyncPrefectClient, settings: Settings, alone: bool) -> list[str]:
    """Make and refresh those that are wanted here, and take away those of ours that are not; returns their names."""
    known = {one.name: one for one in shipped(client)}
    wanted = {one.name: one for one in automations(client, settings, alone)}
    for name, one in wanted.items():
        if name not in known:
            client.create_automation(one)
        elif _content(known[name]) != _content(one):
            client.update_automation(known[name].id, one.model_copy(update={"enabled": known[name].enabled}))
    for name in known.keys() - wanted.keys():
        client.delete_automation(known[name].id)
    return list(wanted)


def shipped(client: SyncPrefectClient) -> list[Automation]:
    """The automations on the server that were made from the file."""
    answer = client.request("POST", "/automations/filter", json={"limit": 200})
    found = [Automation.model_validate(one) for one in answer.json()]
    return [one for one in found if one.description == MARK]


def automations(client: SyncPrefectClient, settings: Settings, alone: bool) -> Iterator[AutomationCore]:
    """Those of the file that fit here: deployments, notifications and the database decide."""
    deployments = {f"{str(one.entrypoint).split('.')[1]}/{one.name}": one.id for one in ours(client)}
    promote = deployments.get("promote/promote")
    page = (url_for("deployment", obj_id=promote) if promote else None) or ""
    recipes = sorted(name.partition("/")[2] for name in deployments if name.startswith("retrain/"))
    notifiers = _notifiers(settings)
    text = infra("automations.yaml").read_text("utf-8")
    for entry in yaml.safe_load(text)["automations"]:
        if entry.get("needs") == "postgresql" and alone:
            continue
        for recipe in recipes if "$recipe" in entry["name"] else [""]:
            filled = json.loads(Template(json.dumps(entry)).safe_substitute(recipe=recipe, promote=page))
            actions = [made for one in filled["actions"] for made in _actions(one, deployments, notifiers)]
            if actions:
                trigger = {"type": "event", "posture": "Reactive", "threshold": 1, **filled["trigger"]}
                yield AutomationCore.model_validate(
                    {"name": filled["name"], "description": MARK, "trigger": trigger, "actions": actions}
                )


def _actions(
    action: dict[str, Any], deployments: dict[str, UUID], notifiers: dict[str, UUID]
) -> Iterator[dict[str, Any]]:
    """What Prefect does for an entry: nothing where its deployment is not here or nobody is to be told."""
    if action["type"] == "notify":
        link, text = _joined(action["link"]), _joined(f"{action['body']}\n\n{action['link']}")
        subject = (
            f"{_joined(action['subject'])}.split() | join(' ')"  # a line break would begin another header of the mail
        )
        if block := notifiers.get("webhook"):
            # The templates' values may hold quotes and line breaks: Jinja writes the JSON.
            told = {"subject": f"({subject})", "text": text, "event": "event.event", "link": link}
            payload = ", ".join(f'"{name}": {{{{ {value} | tojson }}}}' for name, value in told.items())
            yield {"type": "call-webhook", "block_document_id": str(block), "payload": f"{{{payload}}}"}
        if block := notifiers.get("mail"):
            mail = {"subject": f"{{{{ {subject} }}}}", "body": f"{{{{ {text} }}}}"}
            yield {"type": "send-notification", "block_document_id": str(block), **mail}
        return
    name = action.get("deployment")
    if name is None:
        yield action
    elif name in deployments:
        rest = {key: value for key, value in action.items() if key != "deployment"}
        yield {**rest, "source": "selected", "deployment_id": str(deployments[name])}


def _joined(text: str) -> str:
    """A text with ``{{ … }}`` in it as one Jinja expression that gives a string."""
    parts = []
    for index, part in enumerate(text.replace("{{", "\0").replace("}}", "\0").split("\0")):
        parts.append(f"({part.strip()})" if index % 2 else json.dumps(part))
    return f"({' ~ '.join(parts)})"


def _notifiers(settings: Settings) -> dict[str, UUID]:
    """The blocks that the settings ask for, refreshed; the addresses are secrets and only there."""
    found: dict[str, UUID] = {}
    if address := notices.webhook(settings):
        hook = Webhook(url=SecretStr(address), headers={"Content-Type": "application/json"})
        found["webhook"] = _saved(hook, "darkroom-webhook")
    if address := notices.mail(settings):
        # Prefect has no block for mail, and cannot save the general one of Apprise. This one, which every server knows,
        # hands Apprise whatever is no address of Slack's.
        found["mail"] = _saved(SlackWebhook(url=SecretStr(address)), "darkroom-mail")
    return found


def _saved(block: Block, name: str) -> UUID:
    made = block.save(name, overwrite=True)
    assert isinstance(made, UUID), "there is no event loop here, so it was saved at once"
    return made


def _content(automation: AutomationCore) -> dict[str, Any]:
    """What of an automation is ours to decide."""
    return AutomationCore.model_validate(automation.model_dump(include={"name", "trigger", "actions"})).model_dump(
        mode="json", include={"name", "trigger", "actions"}
    )
