"""The command line: parses, calls, prints."""

from gridsched.cli import (
    access,
    adapter,
    ahead,
    audit,
    backtest,
    demo,
    evaluate,
    invite,
    job,
    node,
    operator,
    own,
    policy,
    predict,
    replay,
    report,
)
from gridsched.cli.base import app

__all__ = ["app"]

own.register(node.app)
app.add_typer(node.app, name="node")
job.app.command()(replay.replay)
predict.register(job.app)
app.add_typer(job.app, name="job")
app.add_typer(job.datasets, name="dataset")
policy.app.command()(backtest.backtest)
app.add_typer(policy.app, name="policy")
app.add_typer(ahead.schedule, name="schedule")
app.add_typer(ahead.forecast, name="forecast")
app.add_typer(adapter.app, name="adapter")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(report.app, name="report")
app.add_typer(operator.database, name="db")
app.command()(demo.demo)
operator.register(app)
app.command()(invite.invite)
app.command()(access.withdraw)
app.add_typer(access.app, name="token")
app.command()(audit.audit)
