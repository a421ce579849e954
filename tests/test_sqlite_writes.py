import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

# Two transactions, as Prefect's server begins them; the second writes between the first one's reading and writing.
RACE = """
import asyncio
import sys
from sqlalchemy import text
from volcast.flows.prefect_processes import write_from_the_beginning
from prefect.server.database import provide_database_interface

async def main():
    db = provide_database_interface()

    async def transaction(wait_before, wait_between):
        await asyncio.sleep(wait_before)
        async with db.session_context(begin_transaction=True) as session:
            count = (await session.execute(text("select n from counter"))).scalar()
            await asyncio.sleep(wait_between)
            await session.execute(text(f"update counter set n = {count + 1}"))

    async with db.session_context(begin_transaction=True) as session:
        await session.execute(text("create table counter (n)"))
        await session.execute(text("insert into counter values (0)"))
    await asyncio.gather(transaction(0, 1), transaction(0.5, 0))
    async with db.session_context() as session:
        print((await session.execute(text("select n from counter"))).scalar())

if sys.argv[1] == "from the beginning":
    write_from_the_beginning()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("writes", "status", "said"),
    [
        ("from the beginning", 0, "2\n"),
        ("in the middle", 1, ""),  # Prefect by itself
    ],
)
def test_a_transaction_waits_for_the_one_before_it(tmp_path: Path, writes: str, status: int, said: str) -> None:
    environment = {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", RACE, writes]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if writes == "in the middle":
        assert done.returncode, "Prefect waits for the place by itself now: drop the work-around and this file"
    assert (done.returncode, done.stdout) == (status, said), done.stderr
    assert ("database is locked" in done.stderr) == (status == 1)
