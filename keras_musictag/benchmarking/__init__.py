"""The benchmark suite: parameters, sizes, latency, throughput, memory and AUC of the zoo on a CPU."""

from .comparison import BenchmarkComparison as BenchmarkComparison
from .comparison import compare_runs as compare_runs
from .results import BenchmarkError as BenchmarkError
from .results import BenchmarkRun as BenchmarkRun
from .run import PRECISIONS as PRECISIONS
from .run import benchmark as benchmark
