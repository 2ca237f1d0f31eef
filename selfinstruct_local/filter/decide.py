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
        verdicts = [apply_rules(self.rules, task) for task in tasks]
        if self.evaluation:
            self._decontaminate(self.evaluation, tasks, verdicts)
        passed = [number for number, verdict in enumerate(verdicts) if verdict.keep]
        if not passed:
            return verdicts
        result = self.index.filter([tasks[number].instruction for number in passed])
        for row, number in enumerate(passed):
            if not result.kept[row]:
                score = float(result.score[row])
                verdicts[number] = Verdict(
                    keep=False,
                    rule=NOT_NOVEL,
                    detail=f"ROUGE-L {score:.3f}",
                    neighbor=int(result.neighbor[row]),
                    score=score,
                )
        return verdicts

    @staticmethod
    def _decontaminate(evaluation: EvaluationSet, tasks: Sequence[Task], verdicts: list[Verdict]) -> None:
        for number, refusal in enumerate(evaluation.refusals(tasks)):
            if refusal and verdicts[number].keep:
                verdicts[number] = Verdict(keep=False, rule=CONTAMINATED, detail=refusal)

    def decide_scored(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Decides as `decide` does, and gives kept tasks their nearest neighbour and its score too.

        For the ledger of a run, where a person asks how near a task came. Costs one scan of the index for
        each task that passes the rules.
        """
        return [self._decide_scored(task) for task in tasks]

    def _decide_scored(self, task: Task) -> Verdict:
        verdict = apply_rules(self.rules, task)
        if not verdict.keep:
            return verdict
        positions, scores = self.index.nearest(task.instruction, 1)
        neighbor, score = (int(positions[0]), float(scores[0])) if len(positions) else (None, None)
        if score is not None and score > self.index.threshold:
            return Verdict(keep=False, rule=NOT_NOVEL, detail=f"ROUGE-L {score:.3f}", neighbor=neighbor, score=score)
        self.index.add([task.instruction])
        return Verdict(keep=True, neighbor=neighbor, score=score)
