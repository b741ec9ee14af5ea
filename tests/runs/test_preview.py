"""What would be sent, told before anything is."""

from __future__ import annotations

from lightlink.runs import Plan, PlannedMessage
from lightlink.runs.model.preview import messages_of
from lightlink.runs.model.records import RunPlan, Target


def test_every_message_is_told_and_no_result_is_pretended() -> None:
    plan = Plan("p", params={"version": int}, targets=["a", "b"], waves=[1, "rest"])
    plan.step("ask", call="planner.plan", args={"run": "${run.id}"}, once=True)
    plan.step("one", "do.one", {"v": "${params.version}", "at": "${client_id}@${label.site}"})
    plan.step(
        "two", "do.two", ["${one.result.n}", "${params.version} of ${one.result.n}"], when=["${one.result}", "exists"]
    )
    plan.step("tell", "report", {"v": "${params.version}"}, once=True, targets=["hq"])
    run = RunPlan(run_id="r", plan=plan, params={"version": 4}, targets=[Target("a", {"site": "x"}), Target("b")])
    two = ["${one.result.n}", "4 of ${one.result.n}"]
    assert messages_of(run) == [
        PlannedMessage(0, "ask", "", "planner.plan", {"run": "${run.id}"}),
        PlannedMessage(1, "one", "a", "do.one", {"v": 4, "at": "a@x"}),
        PlannedMessage(1, "two", "a", "do.two", two, conditional=True),
        PlannedMessage(
            2,
            "one",
            "b",
            "do.one",
            {"v": "${params.version}", "at": "${client_id}@${label.site}"},
            error="${label.site}: there is no 'site'",
        ),
        PlannedMessage(2, "two", "b", "do.two", two, conditional=True),
        PlannedMessage(0, "tell", "hq", "report", {"v": 4}),
    ]
