"""What docs/operations.md and the files in config/ say about metrics, compared with what a daemon really tells."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.support.documents import ROOT, Document
from tests.support.scrape import Asker, Scrape
from tests.support.servers import newest_server
from tests.support.waiting import eventually
from tests.support.workshop import workshop

OPERATIONS = Document("docs/operations.md")
ALERTS = ROOT / "config/alerts.yml"
DASHBOARD = json.loads((ROOT / "config/grafana.json").read_text())
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
PANELS = DASHBOARD["panels"]
EXPRESSIONS = [
    *((rule["alert"], rule["expr"]) for rule in RULES),
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
]
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that Prometheus adds to every sample, and the one of buckets."""
VARIABLES = {"$__rate_interval": "5m", "$instance": "a", "$queue": "q"}
HANDLERS = """
@handlers.job(concurrency=1)
async def film(job: Job):
    ledger.note("film")
    await ledger.gate("film")
"""


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scrape]:
    """One scrape of a daemon that has something to tell under every name."""
    directory = tmp_path_factory.mktemp("app")
    with newest_server() as server, workshop(server, directory, HANDLERS) as place:
        daemon = place.start(metrics="127.0.0.1:0")
        for job_id in ("one", "two"):
            place.producer.put(job_id, "film")
        place.ledger.wait_for("film")
        place.producer.put("raw", "unknown")
        asker = Asker(daemon.wait_for("metrics.listening")["address"])
        wanted = "jobqd_queue_oldest_held_seconds"
        eventually(lambda: asker.scrape().get(wanted, queue="job_queue", reason="type:film") is not None, wanted)
        yield asker.scrape()


def parsed(expression: str) -> Any:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return promql_parser.parse(expression)


def selectors(node: Any) -> Iterator[Any]:
    """Every selection of samples in an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument)
    elif isinstance(node, promql_parser.AggregateExpr | promql_parser.ParenExpr | promql_parser.SubqueryExpr):
        yield from selectors(node.expr)


def documented(nth: int) -> list[str]:
    return [cell.strip("`") for cell in OPERATIONS.column("metric", nth)]


def test_the_document_names_every_metric_and_no_other(scrape: Scrape) -> None:
    told = scrape.metrics
    tables = [documented(0), documented(1)]
    assert sorted(name for table in tables for name in table) == sorted(told)
    of_the_queue = {name for name in told if name.startswith("jobqd_queue_")} | {"jobqd_redis_up"}
    assert set(tables[1]) == of_the_queue


def test_the_document_names_the_labels_of_each_metric(scrape: Scrape) -> None:
    rows = re.findall(r"^\| `((?:jobqd|process)_\w+)` \| (.*?) \|", OPERATIONS.text, re.MULTILINE)
    for name, cell in rows:
        family = next(family for family in scrape.families if name in (family.name, f"{family.name}_total"))
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert set(re.findall(r"`(\w+)`", cell)) == labels, name


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_every_expression_asks_for_what_a_daemon_tells(scrape: Scrape, where: str, expression: str) -> None:
    found = list(selectors(parsed(expression)))
    assert found
    for selector in found:
        if selector.name == "up":
            continue
        assert selector.name in scrape.names, where
        known = scrape.labels(selector.name) | OF_PROMETHEUS
        for matcher in selector.matchers.matchers:
            assert matcher.name in known, f"{where}: {selector.name} has no label {matcher.name}"
            told = [sample.labels.get(matcher.name) for family in scrape.families for sample in family.samples
                    if sample.name == selector.name]  # fmt: skip
            if matcher.name not in OF_PROMETHEUS and matcher.value not in VARIABLES.values():
                values = matcher.value.split("|")
                assert set(values) <= set(told), f"{where}: no {selector.name} has {matcher.name}={values}"
            if matcher.name == "le":
                assert matcher.value in told, f"{where}: {selector.name} has no bucket {matcher.value}"


def test_texts_of_alerts_use_labels_that_are_left() -> None:
    for rule in RULES:
        kept = set(re.findall(r"\bby \(([^)]*)\)", rule["expr"])[:1])
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        allowed = {name.strip() for names in kept for name in names.split(",")} if kept else {"instance"}
        assert used <= allowed, rule["alert"]


def test_every_alert_says_how_bad_it_is_and_the_document_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert re.fullmatch(r"Jobqd[A-Z][A-Za-z]+", rule["alert"])
    assert [cell.strip("`") for cell in OPERATIONS.column("alert")] == [rule["alert"] for rule in RULES]


def test_prometheus_itself_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine: the rules were parsed without it")
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_has_what_grafana_needs_of_one() -> None:
    assert DASHBOARD["title"] == DASHBOARD["uid"] == "jobqd"
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert "id" not in DASHBOARD, "the id belongs to one Grafana's database"
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["type"] in ("timeseries", "stat")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted(set(references))
        assert all(target["legendFormat"] for target in panel["targets"])


def test_panels_of_the_dashboard_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_declares_the_variables_that_it_uses() -> None:
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == declared


def test_variables_of_the_dashboard_are_labels_of_the_daemon(scrape: Scrape) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
            assert label in scrape.labels(metric) | OF_PROMETHEUS


def test_legends_name_labels_that_are_left() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            kept = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            allowed = {name.strip() for name in kept[0].split(",")} if kept else {"instance"}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= allowed, panel["title"]


def test_the_shipped_files_lie_where_the_document_says() -> None:
    for path in ("config/alerts.yml", "config/grafana.json"):
        assert f"`{path}`" in OPERATIONS.text
        assert Path(ROOT / path).exists()
