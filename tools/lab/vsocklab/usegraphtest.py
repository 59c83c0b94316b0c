# SPDX-License-Identifier: GPL-2.0
"""What T0 says of the use graph, and tests of usegraph: small crates, with and without a circle."""

import unittest

from . import build, checks, usegraph


def crates(files):
    return usegraph.crates(sorted(files), files.get)


def graph(files):
    """The graph of the only crate, without those that use nothing."""
    crate, = crates(files)
    return {name: used for name, used in crate.graph().items() if used}


def problems(files):
    return usegraph.problems(sorted(files), files.get)


class UseGraph(unittest.TestCase):
    def test_arrows(self):
        files = {"k/c.rs": '#[path = "c/a.rs"]\nmod a;\n#[path = "c/b.rs"]\npub mod b;\npub use a::A;\n',
                 "k/c/a.rs": "pub struct A;\n",
                 "k/c/b.rs": "use crate::{\n    a::{\n        self,\n        A as Other, //\n    },\n    b::B,\n};\n"
                             "pub struct B;\n"}
        self.assertEqual(graph(files), {"b": {"a"}})
        self.assertEqual(problems(files), [])

    def test_circle_of_two(self):
        files = {"k/c.rs": '#[path = "c/a.rs"]\nmod a;\n#[path = "c/b.rs"]\nmod b;\n',
                 "k/c/a.rs": "use crate::b::B;\npub struct A;\n",
                 "k/c/b.rs": "pub struct B;\nfn f(_: super::a::A) {}\n"}
        self.assertEqual(problems(files), ["k/c.rs: a b"])
        self.assertIn("CIRCLE with b", usegraph.draw(crates(files)[0]))

    def test_circle_by_a_name_that_the_root_passes_on(self):
        files = {"src/lib.rs": "mod a;\nmod b;\nmod c;\npub use b::B;\npub use self::c::{C, c as other};\n",
                 "src/a.rs": "use crate::{B, other};\npub struct A;\n",
                 "src/b.rs": "pub struct B;\n",
                 "src/c.rs": "pub struct C;\npub fn c(_: crate::a::A) {}\n"}
        self.assertEqual(graph(files), {"a": {"b", "c"}, "c": {"a"}})
        self.assertEqual(problems(files), ["src/lib.rs: a c"])

    def test_circle_with_the_root(self):
        files = {"src/main.rs": "mod a;\nconst N: u32 = 1;\nfn main() { a::run(); }\n",
                 "src/a.rs": "pub fn run() -> u32 { crate::N }\n"}
        self.assertEqual(problems(files), ["src/main.rs: a crate"])

    def test_circle_of_a_file_and_its_folder(self):
        files = {"src/lib.rs": "mod a;\n",
                 "src/a.rs": "mod inner;\npub use self::inner::Shown;\npub struct A(inner::Hidden);\n",
                 "src/a/inner.rs": "pub struct Hidden;\npub struct Shown;\nfn f(_: super::A) {}\n"}
        self.assertEqual(problems(files), ["src/lib.rs: a a/inner"])
        # To pass a name on is no use, but to pass it on and use it is.
        files["src/a.rs"] = "mod inner;\npub use self::inner::Shown;\npub struct A;\n"
        self.assertEqual(problems(files), [])
        files["src/a.rs"] = "mod inner;\npub use self::inner::Shown;\npub struct A(Shown);\n"
        self.assertEqual(problems(files), ["src/lib.rs: a a/inner"])

    def test_cousins_in_folders(self):
        files = {"src/lib.rs": "mod a;\nmod b;\n",
                 "src/a/mod.rs": "pub mod one;\n",
                 "src/a/one.rs": "use super::super::b::two;\npub fn f() { two::g() }\n",
                 "src/b.rs": "pub mod two;\n",
                 "src/b/two.rs": "pub fn g() { crate::a::one::f() }\n"}
        self.assertEqual(problems(files), ["src/lib.rs: a/one b/two"])

    def test_inner_modules_belong_to_their_file(self):
        files = {"src/lib.rs": "mod a;\nmod b;\n",
                 "src/a.rs": "mod given {\n    pub fn f() { super::g(); super::super::b::h() }\n}\nfn g() {}\n",
                 "src/b.rs": "pub fn h() {}\n"}
        self.assertEqual(graph(files), {"a": {"b"}})
        files["src/b.rs"] = "pub fn h() { crate::a::given::f() }\n"
        self.assertEqual(problems(files), ["src/lib.rs: a b"])

    def test_comments_strings_and_tests_are_no_use(self):
        files = {"src/lib.rs": "mod a;\nmod b;\n#[cfg(test)]\nmod tests;\n",
                 "src/a.rs": "/// See [`b`](crate::b::B).\npub const A: &str = \"crate::b::B\";\n"
                             "#[cfg(CONFIG_KUNIT = \"y\")]\nmod kunit {\n    use crate::b::B;\n}\n",
                 "src/b.rs": "use crate::a::A;\npub struct B;\n",
                 "src/tests.rs": "use crate::{a::A, b::B};\n"}
        self.assertEqual(graph(files), {"b": {"a"}})
        self.assertEqual(problems(files), [])

    def test_names_of_other_crates_are_no_use(self):
        files = {"src/lib.rs": "mod a;\npub use other as bindings;\nfn f() { a::f() }\n",
                 "src/a.rs": "use crate::bindings::sk_buff;\npub fn f() { crate::bindings::g() }\n"}
        self.assertEqual(graph(files), {"crate": {"a"}})

    def test_macros_are_where_they_are_written(self):
        files = {"src/lib.rs": "mod a;\nmod b;\n",
                 "src/a.rs": "#[macro_export]\nmacro_rules! make {\n    () => { $crate::a::f() };\n}\n",
                 "src/b.rs": "fn g() { crate::make!() }\n"}
        self.assertEqual(graph(files), {"b": {"a"}})

    def test_levels(self):
        edges = {"top": {"a", "b"}, "a": {"b", "low"}, "b": {"a"}, "low": set()}
        self.assertEqual(usegraph.levels(edges), [(0, ["low"]), (1, ["a", "b"]), (2, ["top"])])

    def test_roots(self):
        files = {"k/c.rs": '#[path = "c/a.rs"]\nmod a;\n', "k/c/a.rs": "#[cfg(test)]\nmod tests;\n",
                 "k/c/a/tests.rs": "mod more;\n", "k/c/a/tests/more.rs": "",
                 "t/src/lib.rs": "mod x;\n", "t/src/x.rs": "", "t/src/main.rs": ""}
        self.assertEqual([crate.root for crate in crates(files)], ["k/c.rs", "t/src/lib.rs", "t/src/main.rs"])


def failures():
    """What is wrong with usegraph itself, one line for each failure."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(UseGraph).run(result)
    return [f"{test.id().rsplit('.', 1)[1]}: {text.strip().splitlines()[-1]}"
            for test, text in result.failures + result.errors] or \
        ([] if result.testsRun else ["no test ran"])


def check(report):
    """No two files of a crate use each other, whatever the way; there is no list of exceptions."""
    if report.wanted("T0/tree/use-graph"):
        bad = usegraph.problems(build.tree_files(), checks.read)
        report.add("T0/tree/use-graph", "not ok" if bad else "ok",
                   f"{len(bad)} circles, see `tools/lab/lab use-graph`" if bad else "", bad)
    if report.wanted("T0/tree/use-graph-sees-circles"):
        bad = failures()
        report.add("T0/tree/use-graph-sees-circles", "not ok" if bad else "ok",
                   f"{len(bad)} tests of the use graph fail" if bad else "", bad)
