"""A person's decision on a challenger: the flow asks in Prefect's own form, and waits without holding anything.

While it waits the run is suspended: no process, no memory, no GPU. The answer starts it again from the top, where it
reads everything anew, so an answer counts only for the question that was shown: another champion or another verdict is
another question, and is asked.
"""

from collections import Counter
from typing import Any, Literal

from prefect import flow, suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import Field

from darkroom.errors import ChampionMoved, RecipeError
from darkroom.question import Question, count_of, with_more
from tasks.evaluate import compare, evaluate
from tasks.preprocess import preprocess
from tasks.promote import ask, asked_for, checkpoint_of, look, move, refuse
from tasks.recall import recall
from tasks.stage import ledger


class Approval(RunInput):
    """The answer, as Prefect's form asks for it."""

    decision: Literal["approve", "refuse", "more_samples"] = Field(
        title="Decision",
        description="approve: it becomes the champion. refuse: it does not. more_samples: look again.",
    )
    name: str = Field(title="Your name", min_length=1, max_length=100, description="Kept in the model's history.")
    reason: str = Field("", title="Reason", max_length=1000, description="Why, for those who come later.")
    count: int | None = Field(
        None,
        title="Pictures",
        ge=50,
        le=1_000_000,
        description="For more_samples: of each model at most. Empty: 4 times as many as before.",
    )


@flow(name="promote", flow_run_name="promote {model} {version}", persist_result=False)
def promote(model: str, version: str) -> dict[str, Any]:
    """Ask a person whether a version that waits may become the champion of its model, and do what they say.

    Without a deployment nobody can be asked: it says how to decide instead.

    Args:
        model: The model's name in MLflow.
        version: The number of the version that waits, or "challenger".
    """
    asked: Counter[str] = Counter()
    remark = ""
    with ledger() as book:
        while True:
            question = look(model, version)
            if question.settled:
                return _outcome("nothing_to_decide", question, question.settled, book.seconds)
            if not deployment.id:
                name = f"{model} {question.version.version}"
                words = f"it waits: `darkroom promote {name}` or `darkroom refuse {name} --why REASON` decides"
                return _outcome("waiting", question, words, book.seconds)
            if question.stale:
                remark = _compared_again(question, None) or remark
                question = look(model, version)
            asked[question.key] += 1
            answer = _answer(question, remark, f"{question.key}-{asked[question.key]}")
            why = answer.reason.strip() or "no reason was given"
            try:
                if answer.decision == "approve":
                    return _outcome("promoted", question, move(question, answer.name, why), book.seconds)
                if answer.decision == "refuse":
                    return _outcome("refused", question, refuse(question, answer.name, why), book.seconds)
                remark = _compared_again(question, answer.count) or f"compared again, as {answer.name} asked"
            except ChampionMoved as error:
                remark = str(error)


def _answer(question: Question, remark: str, key: str) -> Approval:
    """The person's answer; suspends the run where there is none yet."""
    text = ask(question, remark)
    return suspend_flow_run(wait_for_input=Approval.with_initial_data(description=text), key=key)


def _compared_again(question: Question, asked: int | None) -> str | None:
    """Compare with today's champion, on more pictures where a person asked for them; what hindered it."""
    try:
        known = recall(question.version.uri)
        plan = with_more(known.plan, known.plan.gate.count if question.stale else count_of(question, asked))
        shards = preprocess(known.checked, plan)
        checkpoint = checkpoint_of(question)
        evaluation = evaluate(checkpoint, shards, plan, {})
        asked_for(question, compare(checkpoint, evaluation, shards, plan, {}))
    except RecipeError as error:
        return f"it was not compared again: {error}"
    return None


def _outcome(
    decision: Literal["promoted", "refused", "waiting", "nothing_to_decide"],
    question: Question,
    reason: str,
    seconds: dict[str, float],
) -> dict[str, Any]:
    version, champion = question.version, question.champion
    return {
        "decision": decision,
        "reason": reason,
        "model": {"name": version.model, "version": version.version, "uri": version.uri},
        "champion_before": champion.version if champion else None,
        "seconds": seconds,
        "run": {"name": flow_run.name, "id": flow_run.id, "url": flow_run.ui_url},
    }
