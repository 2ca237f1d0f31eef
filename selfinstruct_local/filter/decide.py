"""Rules, then evaluation sets, then novelty: the one place where a task is taken in or turned away.

Generation and `selfinstruct filter` both decide here, so what a run accepts is what the filter would keep.
"""

from collections.abc import Sequence

from selfinstruct_local.filter.contamination import CONTAMINATED, EvaluationSet
from selfinstruct_local.filter.rules import Rule, apply_rules
from selfinstruct_local.kernels import NoveltyIndex
from selfinstruct_local.tasks import Task, Verdict

NOT_NOVEL = "not_novel"


class Decider:
    """Greedy filter over a stream of tasks: who passes joins the index and is compared with all who follow.

    Attributes:
        index: the novelty index; its positions are those of `Verdict.neighbor`.
    """

    def __init__(self, rules: Sequence[Rule], index: NoveltyIndex, evaluation: EvaluationSet | None = None) -> None:
        self.rules = rules
        self.index = index
        self.evaluation = evaluation

    def decide(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Decides a batch in order, as if one by one.

        A rejected near copy names its nearest neighbour and their ROUGE-L F. Kept tasks carry no score: the
        index proves them novel without ever looking for their neighbour.
        """
        verdicts = self._screen(tasks)
        passed = [number for number, verdict in enumerate(verdicts) if verdict.keep]
        if not passed:
            return verdicts
        result = self.index.filter([tasks[number].instruction for number in passed])
        for row, number in enumerate(passed):
            if not result.kept[row]:
                verdicts[number] = _near_copy(int(result.neighbor[row]), float(result.score[row]))
        return verdicts

    def decide_scored(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Decides as `decide` does, and gives kept tasks their nearest neighbour and its score too.

        For the ledger of a run, where a person asks how near a task came. Costs one scan of the index for
        each task that passes the rules.
        """
        screened = zip(tasks, self._screen(tasks), strict=True)
        return [self._compare(task) if verdict.keep else verdict for task, verdict in screened]

    def _screen(self, tasks: Sequence[Task]) -> list[Verdict]:
        """The verdicts of all that looks at one task alone: the rules, then the evaluation set."""
        verdicts = [apply_rules(self.rules, task) for task in tasks]
        if self.evaluation:
            for number, refusal in enumerate(self.evaluation.refusals(tasks)):
                if refusal and verdicts[number].keep:
                    verdicts[number] = Verdict(keep=False, rule=CONTAMINATED, detail=refusal)
        return verdicts

    def _compare(self, task: Task) -> Verdict:
        positions, scores = self.index.nearest(task.instruction, 1)
        neighbor, score = (int(positions[0]), float(scores[0])) if len(positions) else (None, None)
        if neighbor is not None and score is not None and score > self.index.threshold:
            return _near_copy(neighbor, score)
        self.index.add([task.instruction])
        return Verdict(keep=True, neighbor=neighbor, score=score)


def _near_copy(neighbor: int, score: float) -> Verdict:
    return Verdict(keep=False, rule=NOT_NOVEL, detail=f"ROUGE-L {score:.3f}", neighbor=neighbor, score=score)
