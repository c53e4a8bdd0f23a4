"""The benchmark suite: parameters, sizes, latency, throughput, memory and AUC of the zoo on a CPU."""

from .benchmark_results import BenchmarkError as BenchmarkError
from .benchmark_results import BenchmarkRun as BenchmarkRun
from .comparison import BenchmarkComparison as BenchmarkComparison
from .comparison import compare_runs as compare_runs
from .suite import PRECISIONS as PRECISIONS
from .suite import benchmark as benchmark
