"""`faust reset` and `faust tables` for an `App` of ours; other apps get Faust's own."""

import shutil
from typing import Any

from faust.cli.reset import reset as faust_reset
from faust.cli.tables import tables as faust_tables


class reset(faust_reset):  # noqa: N801  # the class name is the command's name
    """Delete the local state of this app: it is restored from the changelog at the next start."""

    async def reset_tables(self) -> None:
        """Delete the folder of the stores."""
        app: Any = self.app
        if not hasattr(app, "topology"):
            await super().reset_tables()
            return
        folder = app.state_dir / app.topology.app_id
        if folder.exists():
            shutil.rmtree(folder)
            self.say(f"Deleted {folder}; the state is restored from the changelog at the next start.")
        else:
            self.say(f"There is no local state in {folder}.")


class tables(faust_tables):  # noqa: N801
    """List the stateful operators of this app."""

    async def run(self) -> None:
        """Print one line for each."""
        app: Any = self.app
        if not hasattr(app, "topology"):
            await super().run()
            return
        rows = list(app.topology.plan().signatures.items()) if app.topology.pipelines else []
        self.say(self.tabulate(rows, title="Stateful operators", headers=["pipeline/operator", "what it keeps"]))
