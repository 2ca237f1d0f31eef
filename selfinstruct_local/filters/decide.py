"""Rules, evaluation sets, echoes of the prompt where it is known, novelty: where a task is taken in or turned away.

Generation and `selfinstruct filter` both decide here, so what a run accepts is what the filter would keep.
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
# Gives for each task what it echoes of its prompt, or None.
FindEchoes: TypeAlias = Callable[[Sequence[Task]], Sequence[str | None]]


class Screen:
    """All that looks at one task alone: the rules, then the evaluation set."""

    def __init__(self, rules: Sequence[Rule], evaluation: EvaluationSet | None = None) -> None:
        self.rules = rules
        self.evaluation = evaluation

    def judge(self, tasks: Sequence[Task]) -> list[Verdict]:
        """The verdict of each task; those that are kept have yet to prove novel."""
        sure = surely_kept(self.rules, tasks)
        verdicts = [KEPT if passes else apply_rules(self.rules, task) for passes, task in zip(sure, tasks, strict=True)]
        if self.evaluation:
            for number, refusal in enumerate(self.evaluation.refusals(tasks)):
                if refusal and verdicts[number].keep:
                    verdicts[number] = Verdict(keep=False, rule=CONTAMINATED, detail=refusal)
        return verdicts


class Decider:
    """Greedy filter over a stream of tasks: who passes joins the index and is compared with all who follow.

    Attributes:
        screen: the rules and the evaluation set.
        index: the novelty index; its positions are those of `Verdict.neighbor`.
    """

    def __init__(self, rules: Sequence[Rule], index: NoveltyIndex, evaluation: EvaluationSet | None = None) -> None:
        self.screen = Screen(rules, evaluation)
        self.index = index

    def decide(self, tasks: Sequence[Task], find_echoes: FindEchoes | None = None) -> list[Verdict]:
        """Decides a batch in order, as if one by one.

        A rejected near copy names its nearest neighbour and their ROUGE-L F. Kept tasks carry no score: the
        index proves them novel without ever looking for their neighbour.

        Args:
            tasks: the batch.
            find_echoes: asked of what passed everything before novelty, by who knows the prompt.
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
    """The verdict on a task whose best score with the pool is above the threshold."""
    return Verdict(keep=False, rule=NOT_NOVEL, detail=f"ROUGE-L {score:.3f}", neighbor=neighbor, score=score)
