"""The decision to keep or reject a task: rules, evaluation sets, prompt echoes if the prompt is known, novelty.

Generation and `selfinstruct filter` share this code, so a run accepts exactly what the filter would keep.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from selfinstruct_local.filters.contamination import CONTAMINATED, EvaluationSet
from selfinstruct_local.filters.echo import ECHO
from selfinstruct_local.filters.precheck import surely_kept
from selfinstruct_local.filters.rules import Rule, apply_rules
from selfinstruct_local.kernels import NoveltyIndex
from selfinstruct_local.task import KEPT, Task, Verdict

NOT_NOVEL = "not_novel"
# Returns, for each task, what it echoes of its prompt, or None.
FindEchoes: TypeAlias = Callable[[Sequence[Task]], Sequence[str | None]]


class Screen:
    """The checks that need only the task itself: the rules, then the evaluation set."""

    def __init__(self, rules: Sequence[Rule], evaluation: EvaluationSet | None = None) -> None:
        self.rules = rules
        self.evaluation = evaluation

    def judge(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return the verdict on each task; kept tasks still have to pass the novelty check."""
        sure = surely_kept(self.rules, tasks)
        verdicts = [KEPT if passes else apply_rules(self.rules, task) for passes, task in zip(sure, tasks, strict=True)]
        if self.evaluation:
            for number, refusal in enumerate(self.evaluation.refusals(tasks)):
                if refusal and verdicts[number].keep:
                    verdicts[number] = Verdict(keep=False, rule=CONTAMINATED, detail=refusal)
        return verdicts


class Decider:
    """A greedy filter over a stream of tasks: each kept task joins the index and is compared with all later ones.

    Attributes:
        screen: the rules and the evaluation set.
        index: the novelty index; `Verdict.neighbor` is a position in it.
    """

    def __init__(self, rules: Sequence[Rule], index: NoveltyIndex, evaluation: EvaluationSet | None = None) -> None:
        self.screen = Screen(rules, evaluation)
        self.index = index

    def decide(self, tasks: Sequence[Task], find_echoes: FindEchoes | None = None) -> list[Verdict]:
        """Return the verdicts on a batch, decided in order as if one by one.

        A rejected near copy names its nearest neighbour and their ROUGE-L F. Kept tasks carry no score: the index
        proves that they are novel without searching for their neighbour.

        Args:
            tasks: the batch.
            find_echoes: finds echoes of the prompt, if the prompt is known; called with the tasks that pass everything
                before novelty.
        """
        verdicts = self.screen.judge(tasks)
        if find_echoes:
            passed = [number for number, verdict in enumerate(verdicts) if verdict.keep]
            for number, echo in zip(passed, find_echoes([tasks[number] for number in passed]), strict=True):
                if echo:
                    verdicts[number] = Verdict(keep=False, rule=ECHO, detail=echo)
        passed = [number for number, verdict in enumerate(verdicts) if verdict.keep]
        if not passed:
            return verdicts
        result = self.index.filter([tasks[number].instruction for number in passed])
        for row, number in enumerate(passed):
            if not result.kept[row]:
                verdicts[number] = near_copy(int(result.neighbor[row]), float(result.score[row]))
        return verdicts


def near_copy(neighbor: int, score: float) -> Verdict:
    """Return the verdict on a task whose best score with the pool is above the threshold."""
    return Verdict(keep=False, rule=NOT_NOVEL, detail=f"ROUGE-L {score:.3f}", neighbor=neighbor, score=score)
