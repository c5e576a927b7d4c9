"""What the promote flow does between a question and an answer, as tasks."""

from prefect.artifacts import create_markdown_artifact

from darkroom import champion, promotion
from darkroom import question as asking
from darkroom.artifacts import Checkpoint, Verdict
from darkroom.question import Question
from darkroom.report import chronicle
from darkroom.tracking import open_registry

from .events import announce_moves
from .pictures import show_small
from .stage import open_store, stage


@stage("look")
def look(model: str, version: str) -> Question:
    """The question about a version as it is now; a move on MLflow's page is noticed."""
    settings, store = open_store()
    registry = open_registry(settings, model)
    noticed = champion.notice(registry, model, store)
    announce_moves([noticed] if noticed else [])
    return asking.look(registry, model, version, settings, store)


@stage("ask")
def ask(question: Question, remark: str) -> str:
    """Show the question on the run's page; returns its text."""
    text = asking.markdown(question, remark)
    create_markdown_artifact(text, key="promotion", description="The question")
    for name, content in question.pictures.items():
        of = question.version if name == "challenger" else question.champion
        number = f", version {of.version}" if of else ""
        show_small(content, f"promotion-{name}", f"The {name}{number}")
    return text


@stage("checkpoint")
def checkpoint_of(question: Question) -> Checkpoint:
    """The challenger's checkpoint, from the store or from MLflow."""
    settings, store = open_store()
    return asking.checkpoint_of(open_registry(settings, question.version.model), question.version, store)


@stage("note")
def asked_for(question: Question, verdict: Verdict) -> None:
    """Write the new verdict on the version."""
    settings, _ = open_store()
    asking.asked_for(open_registry(settings, question.version.model), question.version, verdict, question.champion)


@stage("move")
def move(question: Question, who: str, why: str) -> str:
    """Make the challenger champion, upon the champion that the person saw; returns what was done."""
    settings, store = open_store()
    registry = open_registry(settings, question.version.model)
    moved = champion.move(registry, question.version, store, upon=question.champion, who=who, why=why)
    announce_moves([moved])
    chronicle.tell(registry, question.version.model, settings)
    instead = f" instead of version {moved.before.version}" if moved.before else ""
    return f"{moved.version.uri} is now the champion{instead}"


@stage("refuse")
def refuse(question: Question, who: str, why: str) -> str:
    """Take the challenger's alias away; returns what was done."""
    settings, store = open_store()
    version = question.version
    registry = open_registry(settings, version.model)
    done = promotion.refuse(registry, version.model, version.version, who, why, store)
    announce_moves(done.moves)
    chronicle.tell(registry, version.model, settings)
    return done.words


@stage("roll back")
def rollback(model: str, who: str, why: str) -> str:
    """Make the champion before the present one champion again; returns what was done."""
    settings, store = open_store()
    registry = open_registry(settings, model)
    done = promotion.rollback(registry, model, who, why, store)
    announce_moves(done.moves)
    chronicle.tell(registry, model, settings)
    return done.words
