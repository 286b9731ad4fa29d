#!/usr/bin/env python3
"""What a run counts as passed decides what lands, so the rules are tested: `conformance/run --only orchestra`."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from orchestra import lines, record
from orchestra.lines import Result


class RecordTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name in ("RECORD", "EXCEPTIONS"):
            patch = mock.patch.object(record, name, Path(folder.name) / name)
            patch.start()
            self.addCleanup(patch.stop)

    def counted(self, *results, complete=False):
        return [(verdict.counts_as, verdict.result.test) for verdict in record.compared("p", results, complete)]

    def test_failure_counts_when_the_test_passed_there(self):
        record.write("p", [Result("ok", "a")])
        self.assertEqual(self.counted(Result("not ok", "a")), [("failed", "a")])

    def test_failure_counts_when_the_test_is_unknown_there(self):
        self.assertEqual(self.counted(Result("not ok", "a")), [("failed", "a")])

    def test_failure_is_excused_when_the_test_failed_there(self):
        record.write("p", [Result("not ok", "a")])
        self.assertEqual(self.counted(Result("not ok", "a")), [("excused", "a")])

    def test_failure_is_excused_when_the_test_is_unstable_there(self):
        for outcome in ("ok", "not ok", "ok"):
            record.write("p", [Result(outcome, "a"), Result("ok", "b")])
        self.assertEqual(self.counted(Result("not ok", "a"), Result("not ok", "b")), [("excused", "a"), ("failed", "b")])

    def test_failure_is_excused_when_it_is_a_listed_exception(self):
        record.write("p", [Result("ok", "a")])
        record.EXCEPTIONS.write_text('[[p]]\ntest = "a"\nreason = "on purpose"\n')
        self.assertEqual(record.compared("p", [Result("not ok", "a", "x")], False)[0].result.reason, "on purpose")

    def test_not_applicable_counts_as_failed_when_the_test_passed_there(self):
        record.write("p", [Result("ok", "a"), Result("n/a", "b")])
        self.assertEqual(self.counted(Result("n/a", "a"), Result("n/a", "b")), [("failed", "a"), ("n/a", "b")])

    def test_missing_test_counts_as_failed_in_a_complete_run_only(self):
        record.write("p", [Result("ok", "a"), Result("ok", "b")])
        self.assertEqual(self.counted(Result("ok", "a")), [("passed", "a")])
        self.assertEqual(self.counted(Result("ok", "a"), complete=True), [("passed", "a"), ("failed", "b")])

    def test_recording_some_tests_keeps_the_others(self):
        record.write("p", [Result("ok", "a"), Result("ok", "b")])
        record.write("p", [Result("not ok", "a")], whole=False)
        self.assertEqual(self.counted(Result("not ok", "a"), Result("not ok", "b")), [("excused", "a"), ("failed", "b")])

    def test_recording_one_part_keeps_the_others(self):
        record.write("q", [Result("ok", 'quote " and \\ é')])
        record.write("p", [Result("ok", "a")])
        self.assertEqual(record.load(record.RECORD)["q"]["passed"], ['quote " and \\ é'])


class LinesTest(unittest.TestCase):
    def test_contract_lines_are_told_from_other_output(self):
        said = ["ok a b\n", "  ok f\n", "okay\n", "2 passed, 1 failed\n", "not ok c -- x -- y\n", "n/a d -- none\n", "skip e -- z\n"]
        expected = [Result("ok", "a b"), Result("not ok", "c", "x -- y"), Result("n/a", "d", "none"), Result("skip", "e", "z")]
        self.assertEqual(list(lines.contract(said)), expected)

    def test_cargo_names_a_test_by_its_file(self):
        said = [
            "     Running unittests src/lib.rs (target/debug/deps/x-1)\n", "test a::b ... ok\n",
            "   Doc-tests x\n", "test src/lib.rs - c (line 3) ... FAILED\n",
        ]
        expected = [Result("ok", "src/lib.rs a::b"), Result("not ok", "doc x src/lib.rs - c (line 3)")]
        self.assertEqual(list(lines.cargo(said)), expected)

    def test_go_parent_fails_only_when_no_subtest_did(self):
        def told(**tests):
            events = [f'{{"Action": "{action}", "Test": "{name}"}}' for name, action in tests.items()]
            return [(result.outcome, result.test) for result in lines.go(events)]

        self.assertEqual(told(**{"A": "fail", "A/x": "fail", "A/y": "pass"}), [("not ok", "A/x"), ("ok", "A/y")])
        self.assertEqual(told(**{"A": "fail", "A/x": "pass"}), [("not ok", "A"), ("ok", "A/x")])


class Printer(unittest.TestResult):
    """Prints the lines of lines.py."""

    def addSuccess(self, test):
        print(Result("ok", test.id()))

    def addFailure(self, test, error):
        super().addFailure(test, error)
        print(Result("not ok", test.id(), " ".join(str(error[1]).split())[:300]))

    addError = addFailure


if __name__ == "__main__":
    printer = Printer()
    unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]).run(printer)
    sys.exit(0 if printer.wasSuccessful() else 1)
