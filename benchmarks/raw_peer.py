"""vLLM's `LLM`, used as in its documentation, with requests as lines of JSON: the peer of `bench_generate.py engine`.

It is a separate program because vLLM cannot start on a CPU in a process that has imported numba. Each line has the
requests and the number of requests per call; the reply has the tokens generated and the seconds taken.
"""

import json
import os
import sys
import time

from selfinstruct_local.engines.settings import EngineSettings
from selfinstruct_local.engines.vllm_engine import cpu_arguments
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.models import prepare_embedded
from selfinstruct_local.offline import go_offline

IN_FLIGHT = 32
MAX_TOKENS = 384


def settings() -> GenerateSettings:
    """Return the settings of the measured runs."""
    return GenerateSettings(num=10**9, max_tokens=MAX_TOKENS, engine=EngineSettings(in_flight=IN_FLIGHT, memory_gb=2))


def main() -> None:
    """Load the model, and reply on stdout to each line of stdin."""
    answers, sys.stdout = sys.stdout, sys.stderr  # vLLM prints to stdout
    go_offline()
    chosen = settings()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(round(chosen.engine.memory_gb))
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(prepare_embedded().path),
        max_model_len=chosen.max_model_len,
        max_num_seqs=chosen.engine.in_flight,
        enable_prefix_caching=True,
        disable_log_stats=True,
        **cpu_arguments(chosen.engine.dtype, chosen.max_model_len),
    )
    for line in sys.stdin:
        question = json.loads(line)
        prompts = [request["prompt"] for request in question["requests"]]
        sampling = [SamplingParams(**request["sampling"]) for request in question["requests"]]
        llm.reset_prefix_cache()  # no prompt is cached by an earlier call
        tokens = 0
        started = time.perf_counter()
        for first in range(0, len(prompts), question["batch"]):
            last = first + question["batch"]
            outputs = llm.generate(prompts[first:last], sampling[first:last], use_tqdm=False)
            tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
        answer = {"tokens": tokens, "seconds": time.perf_counter() - started}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
