"""Rebuilding models as a task: what `sluice rebuild` does, from the web UI."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from sluice_airflow.steps import EngineOperator

_COMES_TO = {"apply": "applied", "undo": "undone", "accept": "accepted"}


class RebuildOperator(EngineOperator):
    """Rehearse a rebuild, or apply, undo or accept one that was rehearsed, as the run's parameters say. A try that was
    killed after its commit is done: the next finds it so."""

    def step(self, context: Any) -> int:
        """Do it, and tell it in the log. Returns the rebuild's number."""
        from sluice import rebuild

        params, by = context["params"], _who(context)
        if params["action"] == "rehearse":
            return self._rehearse(params, by)
        if not (number := params["rebuild"]):
            raise AirflowFailException(f"{params['action']} needs the number of a rebuild, which its rehearsal logged")
        if context["ti"].try_number > 1 and rebuild.is_done(number, _COMES_TO[params["action"]]):
            self.log.info("rebuild %s is %s: the try before this one came so far", number, _COMES_TO[params["action"]])
            return number
        if params["action"] == "accept":
            rebuild.accept(number, by)
            self.log.info("rebuild %s is accepted; its old rows are gone", number)
            return number
        do = rebuild.apply if params["action"] == "apply" else rebuild.undo
        self.log.info("%s", do(number, reason=params["reason"] or "", by=by))
        return number

    def _rehearse(self, params: Any, by: str) -> int:
        from sluice import rebuild
        from sluice.verify import Budget

        selection = (params["select"] or "").split()
        if not selection:
            raise AirflowFailException("select names the models, as dbt selects them; nothing was built")
        first, last = (date.fromisoformat(params[name]) if params[name] else None for name in ("from", "to"))
        budget = Budget(time=(self.execution_timeout or timedelta(hours=1)) * 0.9)
        plan = rebuild.rehearse(
            selection, rebuild.Rows.of(params["keys"] or "", first, last), budget, self.log.info, by
        )
        for change in plan.changes:
            for month in change.months:
                self.log.info("%s %s: %s rows added, %s changed, %s removed", change.relation, *month)
            for told in change.notes:
                self.log.info("%s: %s", change.relation, told)
        if plan.is_empty:
            self.log.info("Nothing would change")
        else:
            self.log.info(
                "A rehearsal: nothing was changed. Run this DAG with action=apply, rebuild=%s", plan.rebuild_id
            )
        return plan.rebuild_id


def _who(context: Any) -> str:
    return getattr(context["dag_run"], "triggering_user_name", None) or "airflow"
