"""The proof as a person sees it: what stands on the screen at one moment, with no word on how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evals.end_to_end.kills import Kill
from evals.end_to_end.mesh import Part, Progress, Question, Record
from evals.records import Invoice
from evals.sites.fault_proxy import Phase, Save

MOMENTS = {
    Phase.BEFORE_FORWARD: "before the application has it",
    Phase.AFTER_FORWARD: "after the application wrote it",
}


@dataclass(slots=True)
class Row:
    """A record: what the mesh says of it, and what was done to it."""

    invoice: Invoice
    record: Record = field(default_factory=Record)
    marks: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Process:
    """A part that can be killed."""

    pid: int = 0
    killed: bool = False


@dataclass(slots=True)
class Scene:
    """Everything shown. `began` is monotonic time; `news` are the sentences that were not shown yet."""

    site: str
    began: float
    rows: dict[str, Row]
    page: str = ""
    phase: str = "starting"
    events: int = 0
    processes: dict[Part, Process] = field(default_factory=lambda: {part: Process() for part in Part})
    question: Question | None = None
    news: list[str] = field(default_factory=list[str])

    def hear(self, progress: Progress) -> None:
        """Take over what the mesh says."""
        self.phase, self.events = progress.phase, progress.events
        for number, record in progress.records.items():
            if number in self.rows:
                self.rows[number].record = record

    def see(self, pids: Mapping[Part, int]) -> None:
        """Take over which parts run."""
        for part, pid in pids.items():
            if pid != self.processes[part].pid:
                self.processes[part] = Process(pid)

    def announce(self, kill: Kill) -> None:
        """A part is about to be killed."""
        strike = kill.strike
        self.processes[strike.part] = Process(kill.pid, killed=True)
        self.rows[strike.number].marks.append(f"{strike.part} killed mid-save")
        self.news.append(
            f"[bold red]kill -9 {kill.pid}[/] → [bold]{strike.part}[/], while {strike.number} is being saved, "
            f"{MOMENTS[strike.phase]}"
        )

    def recovered(self, kill: Kill) -> None:
        """It runs again."""
        self.processes[kill.strike.part] = Process(kill.back_pid)
        self.news.append(f"[green]{kill.strike.part} is back[/] as {kill.back_pid} after {kill.back_s:.1f} s")

    def lied(self, save: Save) -> None:
        """A save is being answered falsely."""
        number = save.fields["number"]
        self.rows[number].marks.append("false “Saved!”")
        self.news.append(
            f"[bold yellow]false “Saved!”[/] for {number}: the application's own success page, and nothing was written"
        )

    def asked(self, question: Question, number: str) -> None:
        """A person must answer."""
        self.question = question
        self.news.append(f"[bold cyan]a person is asked[/] about {number}: {question.summary}")

    def answered(self, number: str, *, granted: bool, by: str) -> None:
        """The person has answered."""
        self.question = None
        self.rows[number].marks.append(f"{'approved' if granted else 'refused'} by {by}")
        self.news.append(f"{number} was [bold]{'approved' if granted else 'refused'}[/] by {by}")

    def fresh_news(self) -> list[str]:
        """The sentences since the last call, oldest first."""
        fresh, self.news = self.news, []
        return fresh


def scene_for(invoices: Sequence[Invoice], site: str, began: float) -> Scene:
    """The scene before anything has happened."""
    return Scene(site, began, {invoice.number: Row(invoice) for invoice in invoices})
