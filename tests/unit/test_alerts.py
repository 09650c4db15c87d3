"""What config/alerts.yml says to a deploy and to an outage, evaluated by Prometheus's own promtool if it is there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.support.documents import ROOT

ALERTS = ROOT / "config/alerts.yml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
STOPPED_BY_DESIGN = {"up", "jobqd_claiming"}
"""What a deploy makes 0 for one daemon of several."""


def alone(node: Any) -> Iterator[str]:
    """Name the metrics that an expression looks at daemon by daemon."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from alone(node.lhs)
        yield from alone(node.rhs)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from alone(argument)
    elif isinstance(node, promql_parser.ParenExpr | promql_parser.SubqueryExpr):
        yield from alone(node.expr)


def test_nobody_is_woken_for_one_daemon_that_a_deploy_stopped() -> None:
    looked_at = {rule["alert"]: set(alone(promql_parser.parse(rule["expr"]))) for rule in RULES
                 if rule["labels"]["severity"] == "critical"}  # fmt: skip
    assert {name for name, metrics in looked_at.items() if metrics & STOPPED_BY_DESIGN} == set()


MINUTES = 180


def target(
    port: int, *, host: str = "10.0.0.1", queue: str = "job_queue", up: int = MINUTES, claiming: int = MINUTES
) -> list[dict[str, str]]:
    """The series of one target, which is up and claims for so many minutes; one that is not up tells nothing."""
    states, claims = ("1" * minutes + "0" * (MINUTES - minutes) for minutes in (up, claiming))
    labels = f'job="jobqd", instance="{host}:{port}"'
    told = {
        f'jobqd_info{{{labels}, daemon="{port}", queue="{queue}", version="0.1.0"}}': "1" * MINUTES,
        f"jobqd_claiming{{{labels}}}": claims,
    }
    return [{"series": f"up{{{labels}}}", "values": " ".join(states)}] + [
        {"series": series, "values": " ".join(values[:up] + "_" * (MINUTES - up))} for series, values in told.items()
    ]


SCENES = {
    "one of two is stopped, as after a deploy": ([*target(9464), *target(9465, up=0)], {}),
    "one has drained for long while the other works": (
        [*target(9464), *target(9465, claiming=0)],
        {"JobqdRests": {"job": "jobqd", "instance": "10.0.0.1:9465"}},
    ),
    "both are gone": (
        [*target(9464, up=100), *target(9465, up=0)],
        {
            "JobqdDown": {"host": "10.0.0.1"},
            "JobqdQueueUnserved": {"queue": "job_queue"},
            "JobqdAbsent": {},
        },
    ),
    "one host of two is gone": (
        [*target(9464), *target(9464, host="10.0.0.2", up=100)],
        {"JobqdDown": {"host": "10.0.0.2"}},
    ),
    "one queue of two on a host is gone": (
        [*target(9464), *target(9465, queue="mail:job_queue", up=100)],
        {"JobqdQueueUnserved": {"queue": "mail:job_queue"}},
    ),
    "a host of a name without a port": (
        [{"series": 'up{job="jobqd", instance="render"}', "values": "0x179"}, *target(9464)],
        {"JobqdDown": {"host": "render"}},
    ),
    "all of a queue are quiet": (
        [*target(9464, claiming=100), *target(9465, claiming=100), *target(9466, queue="mail:job_queue")],
        {"JobqdNotClaiming": {"queue": "job_queue"}},
    ),
}


@pytest.mark.parametrize("scene", SCENES)
def test_who_is_told_what(scene: str, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine: the rules are not evaluated")
    series, expected = SCENES[scene]
    about = ("JobqdDown", "JobqdQueueUnserved", "JobqdAbsent", "JobqdNotClaiming", "JobqdRests")
    rules = {rule["alert"]: rule for rule in RULES}
    checks = [
        {
            "alertname": name,
            "eval_time": "150m",
            "exp_alerts": [_firing(rules[name], expected[name])] if name in expected else [],
        }
        for name in about
    ]
    document = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": checks}],
    }
    (tmp_path / "scene.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "scene.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _firing(rule: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    summary = rule["annotations"]["summary"]
    for name, value in labels.items():
        summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
    return {"exp_labels": {"severity": rule["labels"]["severity"], **labels}, "exp_annotations": {"summary": summary}}
