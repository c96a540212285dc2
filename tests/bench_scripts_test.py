"""Tests of the scripts in examples/bench that read what other programs print."""

import contextlib
import io
import math
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "bench"))

import drawn_shapes  # noqa: E402
import kernel_report  # noqa: E402
import profile_report  # noqa: E402
import shapes  # noqa: E402

PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5cleanPf' for 'sm_89'
ptxas info    : Function properties for _Z5cleanPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 9216 bytes smem, 384 bytes cmem[0]
ptxas info    : Compile time = 12.300 ms
ptxas info    : Compiling entry function '_Z7spilledPf' for 'sm_89'
ptxas info    : Function properties for _Z7spilledPf
    48 bytes stack frame, 44 bytes spill stores, 88 bytes spill loads
ptxas info    : Used 255 registers, 384 bytes cmem[0]
"""
PTX = """\
.visible .entry _Z5cleanPf(
\t.param .u64 _Z5cleanPf_param_0
)
.maxntid 128, 2, 1
{
}
.visible .entry _Z7spilledPf(
\t.param .u64 _Z7spilledPf_param_0
)
{
}
"""


class KernelReport(unittest.TestCase):
    def test_reads_registers_spills_shared_memory_and_launch_bounds(self):
        clean, spilled = kernel_report.rows_of("file", "89", PTXAS, PTX, [])
        self.assertEqual((clean["registers"], clean["static_shared"], clean["threads"]),
                         (40, 9216, 256))
        self.assertEqual(clean["spilled_bytes"], 0)
        self.assertEqual((spilled["registers"], spilled["spilled_bytes"], spilled["threads"]),
                         (255, 132, 1024))
        self.assertEqual(len(list(kernel_report.faults([clean]))), 0)

    def test_a_spill_and_a_block_that_does_not_fit_are_faults(self):
        rows = kernel_report.rows_of("file", "89", PTXAS, PTX, [])
        faults = " ".join(kernel_report.faults(rows))
        self.assertIn("spilled", faults)
        self.assertIn("132 bytes", faults)
        large = kernel_report.parse_configurations("# comment\n\nclean 89 256 100000 too large\n")
        row = kernel_report.rows_of("file", "89", PTXAS, PTX, large)[0]
        self.assertEqual(row["blocks_per_sm"], 0)
        self.assertIn("too large", " ".join(kernel_report.faults([row])))

    def test_occupancy_is_that_of_the_tightest_limit(self):
        sm_89, sm_90 = kernel_report.SMS["89"], kernel_report.SMS["90"]
        self.assertEqual(kernel_report.occupancy(sm_89, 256, 32, 0), (6, "warps"))
        self.assertEqual(kernel_report.occupancy(sm_89, 128, 168, 0), (3, "registers"))
        self.assertEqual(kernel_report.occupancy(sm_89, 128, 64, 49 * 1024), (2, "shared memory"))
        self.assertEqual(kernel_report.occupancy(sm_90, 32, 16, 0), (32, "blocks"))

    def test_configurations_choose_kernels_and_architectures(self):
        chosen = kernel_report.parse_configurations("cl.*n * 128 4096 small\nclean 80 128 0\n")
        rows = kernel_report.rows_of("file", "89", PTXAS, PTX, chosen)
        self.assertEqual([(r["configuration"], r["dynamic_shared"]) for r in rows],
                         [("small", 4096), ("", 0)])

    def test_names_lose_namespaces_and_parameters(self):
        self.assertEqual(
            kernel_report.shorten("void tenon::ops::cuda::(anonymous namespace)::pass<float, "
                                  "Chain<(bool)1> >(float*, int)"),
            "pass<float, Chain<(bool)1> >")


class DrawnShapes(unittest.TestCase):
    def test_one_seed_draws_the_same_shapes_and_another_seed_others(self):
        shapes_of_1 = drawn_shapes.draw_shapes(40, 1)
        self.assertEqual(shapes_of_1, drawn_shapes.draw_shapes(40, 1))
        self.assertEqual(shapes_of_1[:7], drawn_shapes.draw_shapes(7, 1))
        self.assertNotEqual(shapes_of_1, drawn_shapes.draw_shapes(40, 2))
        self.assertGreater(len(set(shapes_of_1)), 35)
        for shape in shapes_of_1:
            self.assertEqual(shapes.parse_shape(",".join(map(str, shape))), shape)
            self.assertLessEqual(1e-9 * shapes.forward_flop(shape), drawn_shapes.MOST_GFLOP)

    def test_the_expert_is_the_fastest_peer_that_computes_the_whole_block(self):
        def row(path, milliseconds, peer=True, whole=True):
            return {"path": path, "milliseconds": milliseconds, "peer": peer, "whole": whole,
                    "configuration": path}
        output = {"results": [{"rows": [
            row("auto", 2.0, peer=False), row("convolution", 1.0, whole=False),
            row("composition", 5.0), row("fusion", 4.0), row("failed", None),
            row("pass", 0.5, peer=False, whole=False)]}]}
        self.assertEqual(drawn_shapes.ratio_of(output), (2.0, 4.0, "auto"))
        self.assertAlmostEqual(drawn_shapes.geometric_mean([0.5, 2.0, 8.0]), 2.0)


def ncu_csv(*kernels):
    """As `ncu --csv --page raw` prints it, a program's own output around it."""
    units = {"gpu__time_duration.sum": "us", "dram__bytes_read.sum": "Mbyte",
             "dram__bytes_write.sum": "Gbyte",
             "launch__shared_mem_per_block_dynamic": "Kbyte/block"}
    front = ["ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream",
             "Block Size", "Grid Size", "Device", "CC"]
    metrics = [m for m in profile_report.METRICS.values() if "local" not in m]
    rows = [front + metrics, [""] * len(front) + [units.get(m, "%") for m in metrics]]
    for i, (name, values) in enumerate(kernels):
        rows.append([str(i), "7", "bench_block", "localhost", name, "1", "7", "(256, 1, 1)",
                     "(4,096, 1, 1)", "0", "9.0"] + [values.get(m, "50.00") for m in metrics])
    table = "\n".join(",".join(f'"{cell}"' for cell in row) for row in rows)
    return f"==PROF== Connected to process 7\nwords of the program\n{table}\n"


CONVOLUTION = ("void tenon::ops::cuda::conv_kernel<float, 128>(const float *, float *)", {
    "gpu__time_duration.sum": "1,250.00", "dram__bytes_read.sum": "537.50",
    "dram__bytes_write.sum": "2.15", "dram__throughput.avg.pct_of_peak_sustained_elapsed": "81.5",
    "launch__grid_size": "4,096", "launch__registers_per_thread": "168",
    "launch__shared_mem_per_block_dynamic": "64.00", "launch__shared_mem_per_block_static": "0"})
PACK = ("pack_weights(const float *)", {
    "gpu__time_duration.sum": "2.00", "launch__grid_size": "8",
    "launch__waves_per_multiprocessor": "0.03"})


class ProfileReport(unittest.TestCase):
    def test_reads_names_units_and_thousands(self):
        convolution, pack = profile_report.parse(ncu_csv(CONVOLUTION, PACK))
        self.assertEqual(convolution["kernel"], "conv_kernel<float, 128>")
        self.assertAlmostEqual(convolution["duration"], 1.25e-3)
        self.assertAlmostEqual(convolution["bytes_read"], 537.5e6)
        self.assertAlmostEqual(convolution["bytes_written"], 2.15e9)
        self.assertEqual((convolution["blocks"], convolution["registers"]), (4096, 168))
        self.assertEqual(convolution["dynamic_shared"], 64000)
        self.assertTrue(math.isnan(pack["local_loads"]), "a metric that was not measured")

    def test_rates_are_of_the_convolution_and_its_bytes(self):
        kernels = profile_report.parse(ncu_csv(CONVOLUTION, PACK))
        flop = shapes.forward_flop(shapes.parse_shape("mission"))
        profile_report.add_rates(kernels, flop)
        self.assertAlmostEqual(kernels[0]["terabytes_per_second"], 2.15, places=2)
        self.assertAlmostEqual(kernels[0]["tflop_per_second"], 123.7, places=1)
        self.assertTrue(math.isnan(kernels[1]["tflop_per_second"]))

    def test_names_the_limiter(self):
        convolution, pack = profile_report.parse(ncu_csv(CONVOLUTION, PACK))
        self.assertEqual(profile_report.limiter(convolution), "DRAM, at 82% of what it can")
        self.assertIn("too few blocks", profile_report.limiter(pack))
        waiting = convolution | {"dram_percent": 30.0, "warps_percent": 12.0, "waves": 4.0,
                                 "blocks_by_registers": 1.0, "blocks_by_shared": 3.0}
        self.assertIn("latency", profile_report.limiter(waiting))
        self.assertIn("registers holds 1 blocks an SM", profile_report.limiter(waiting))

    def test_prints_a_table_of_what_it_read(self):
        kernels = profile_report.parse(ncu_csv(CONVOLUTION, PACK))
        profile_report.add_rates(kernels, 1e12)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            profile_report.print_table("mission", kernels, 1e12)
        self.assertIn("1252.0 us in 2 kernels", out.getvalue())
        self.assertIn("limited by DRAM", out.getvalue())

    def test_input_without_a_table_ends_with_what_ncu_said(self):
        with self.assertRaisesRegex(SystemExit, "ERR_NVGPUCTRPERM"):
            profile_report.parse("==ERROR== ERR_NVGPUCTRPERM\n")


class Shapes(unittest.TestCase):
    def test_names_and_numbers(self):
        self.assertEqual(shapes.parse_shape("1,2,3,4,5,6,7,8,9"), (1, 2, 3, 4, 5, 6, 7, 8, 9))
        self.assertEqual(shapes.forward_flop(shapes.parse_shape("mission")), 154618822656)
        for text in ("1,2,3", "nothing"):
            with self.assertRaises(ValueError):
                shapes.parse_shape(text)


if __name__ == "__main__":
    unittest.main()
