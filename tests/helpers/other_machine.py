"""A machine that has none of the files of a run: a process, while the files of the run have another name.

Called with three paths: pickled work and task, the folder in which the files of the run are now, what it answers.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

from decoderbench import CellEvent, CellOutcome, CellTask, DecoderBenchError, Node, TravelingWork


@dataclass(frozen=True)
class Question:
    """What the machine gets.

    Attributes:
        traveling: the work.
        task: a task of it.
        home: the folder of the run's files on the machine of the run.
        files: what an earlier attempt has left.
        stop: whether to stop the cell after its first validation.
    """

    traveling: TravelingWork
    task: CellTask
    home: Path
    files: dict[str, bytes]
    stop: bool


@dataclass(frozen=True)
class Answer:
    """What came back; `error` if nothing could be run."""

    sees_results: bool
    missing: tuple[Path, ...]
    events: tuple[CellEvent, ...] = ()
    outcome: CellOutcome | None = None
    files: dict[str, bytes] | None = None
    error: str = ""


def answer(question: Question, away: Path) -> Answer:
    """Run the task as an executor would do it."""
    traveling, events = question.traveling, list[CellEvent]()
    node = Node(traveling)
    try:
        for file in node.missing:
            content = (away / file.relative_to(question.home)).read_bytes()
            middle = len(content) // 2
            node.put(file, content[:middle], last=False)
            node.put(file, content[middle:], last=True)

        def why_stop() -> str:
            return "stopped" * any(event.hook == "cell_validated" for event in events if question.stop)

        node.open(events.append, stopping=why_stop)
        node.put_files(question.task.cell, question.files)
        outcome = node.run(question.task)
        files = None if node.sees_results else node.take_files(question.task.cell)
        return Answer(node.sees_results, node.missing, tuple(events), outcome, files)
    except DecoderBenchError as error:
        return Answer(node.sees_results, node.missing, error=str(error))
    finally:
        node.close()


if __name__ == "__main__":
    from helpers.other_machine import Answer, Question, answer  # of the module that the test knows, not of __main__

    given, away, answered = map(Path, sys.argv[1:])
    answered.write_bytes(pickle.dumps(answer(pickle.loads(given.read_bytes()), away)))
