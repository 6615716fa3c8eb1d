"""The tree as a value: what can be asked of it, how it is cut, and every format there and back."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cut_tree, linkage

import hdtree_sc as ht
from hdtree_sc import Tree

NAMES = ["root", "0", "1", "0.0", "0.1", "1.0", "1.1"]
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def seven() -> Tree:
    """Heights and cells of a tree that a reader can draw.

    ::

              root 3.0 (20)
             /             \\
          0 2.0 (12)      1 1.0 (8)
          /     \\          /     \\
       0.0 (3) 0.1 (9)  1.0 (7) 1.1 (1)
    """
    return Tree(
        NAMES,
        [-1, 0, 0, 1, 1, 2, 2],
        heights=[3, 2, 1, 0, 0, 0, 0],
        n_cells=[20, 12, 8, 3, 9, 7, 1],
        codebook=np.arange(14).reshape(7, 2),
    )


@st.composite
def trees(draw, max_nodes=25):
    """Any shape, nodes given in any order, heights that grow towards the root, some cells in every leaf."""
    n = draw(st.integers(1, max_nodes))
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    labels = draw(st.lists(text, min_size=n, max_size=n, unique=True))
    above = np.array([-1, *(draw(st.integers(0, i - 1)) for i in range(1, n))])
    steps = draw(st.lists(st.floats(0, 100), min_size=n, max_size=n))
    leaf = ~np.isin(np.arange(n), above)
    heights, cells = np.zeros(n), np.where(leaf, draw(st.lists(st.integers(1, 50), min_size=n, max_size=n)), 0)
    for node in range(n - 1, 0, -1):
        heights[above[node]] = max(heights[above[node]], heights[node] + steps[node])
        cells[above[node]] += cells[node]
    order = np.array(draw(st.permutations(range(n))))
    position = np.argsort(order)
    parents = np.where(above[order] < 0, -1, position[above[order]])
    return Tree(labels, parents, heights=heights[order], n_cells=cells[order])


class TestQuestions:
    def test_nodes_stand_in_depth_first_order(self):
        tree = Tree(["0.1", "1", "0", "root", "0.0"], [2, 3, 3, -1, 2])
        assert tree.nodes == ("root", "1", "0", "0.1", "0.0")  # children as given, not sorted
        assert tree.leaves == ("1", "0.1", "0.0")
        assert tree.root == "root"
        np.testing.assert_array_equal(tree.parents, [-1, 0, 0, 2, 2])
        np.testing.assert_array_equal(tree.levels, [0, 1, 1, 2, 2])
        np.testing.assert_array_equal(tree.sizes, [5, 1, 3, 1, 1])
        assert tree.depth == 2

    def test_kinship(self, seven):
        assert seven.parent("0.1") == "0"
        assert seven.parent("root") is None
        assert seven.children("root") == ("0", "1")
        assert seven.children("0.1") == ()
        assert seven.path("0.1") == ("0", "0.1")
        assert seven.path("root") == ()
        assert seven.lca("0.0", "0.1") == "0"
        assert seven.lca("0.0", "1.1") == "root"
        assert seven.lca("1", "1.1") == seven.lca("1.1", "1") == "1"
        assert seven.is_leaf("1.1")
        assert not seven.is_leaf("1")
        assert seven.subtree_leaves("1") == ("1.0", "1.1")
        assert seven.subtree_leaves("0.0") == ("0.0",)
        assert len(seven) == 7
        assert "0.1" in seven
        assert "2" not in seven
        assert 0 not in seven
        assert repr(seven) == "Tree of 7 nodes: 4 leaves, depth 2, 20 cells"

    def test_arrays_follow_the_nodes(self, seven):
        assert seven.nodes == ("root", "0", "0.0", "0.1", "1", "1.0", "1.1")
        np.testing.assert_array_equal(seven.heights, [3, 2, 0, 0, 1, 0, 0])
        np.testing.assert_array_equal(seven.n_cells, [20, 12, 3, 9, 8, 7, 1])
        np.testing.assert_array_equal(seven.codebook[seven.index("1")], [4, 5])
        np.testing.assert_array_equal(seven.lengths, [np.nan, 1, 2, 2, 2, 1, 1])

    def test_positions_of_many_names(self, seven):
        cells = ["0.1", "1.1", "0.1"]
        for names in (cells, np.array(cells), pd.Series(cells), pd.Categorical(cells), iter(cells), pd.Index(cells)):
            np.testing.assert_array_equal(seven.index(names), [3, 6, 3])
        np.testing.assert_array_equal(seven.leaf_index(cells), [1, 3, 1])
        assert seven.index("1") == 4
        assert seven.index([]).shape == (0,)

    def test_levels_and_codes(self, seven):
        np.testing.assert_array_equal(seven.ancestors_at(1), [-1, 1, 1, 1, 4, 4, 4])
        np.testing.assert_array_equal(seven.codes(), [[-1, -1], [0, -1], [0, 0], [0, 1], [1, -1], [1, 0], [1, 1]])

    def test_without_heights_they_count_edges(self):
        tree = Tree(["r", "a", "b", "c"], [-1, 0, 0, 1])
        np.testing.assert_array_equal(tree.heights, [2, 1, 0, 0])
        assert tree.lengths is None

    def test_a_root_alone_is_a_tree(self):
        tree = Tree(["root"], [-1])
        assert (tree.leaves, tree.depth, tree.path("root"), tree.lca("root", "root")) == (("root",), 0, (), "root")
        assert tree.codes().shape == (1, 0)
        assert tree.to_newick() == "root;"

    @given(trees())
    @QUICK
    def test_paths_are_prefixes(self, tree):
        for name in tree.nodes[1:]:
            path = tree.path(name)
            assert path[-1] == name
            assert path[:-1] == tree.path(tree.parent(name))
            assert len(path) == tree.levels[tree.index(name)]
            assert tree.ancestors_at(1)[tree.index(name)] == tree.index(path[0])

    @given(trees(), st.randoms(use_true_random=False))
    @QUICK
    def test_lca_is_symmetric_and_the_lowest_above_both(self, tree, random):
        a, b = random.choice(tree.nodes), random.choice(tree.nodes)
        both = [n for n, m in zip((tree.root, *tree.path(a)), (tree.root, *tree.path(b)), strict=False) if n == m]
        assert tree.lca(a, b) == tree.lca(b, a) == both[-1]

    @given(trees())
    @QUICK
    def test_children_partition_the_leaves_of_their_parent(self, tree):
        for name in tree.nodes:
            children = tree.children(name)
            if children:
                assert sum((tree.subtree_leaves(c) for c in children), ()) == tree.subtree_leaves(name)


class TestValue:
    def test_equal_if_everything_is(self, seven):
        other = Tree(seven.nodes, seven.parents, seven.heights, seven.n_cells, seven.codebook)
        assert other == seven
        assert hash(other) == hash(seven)
        assert Tree(seven.nodes, seven.parents, seven.heights, seven.n_cells) != seven
        assert Tree(seven.nodes, seven.parents, seven.heights + 1, seven.n_cells, seven.codebook) != seven
        assert seven != "tree"

    def test_cannot_be_changed(self, seven):
        with pytest.raises(AttributeError, match="cannot be changed"):
            seven.depth = 3
        with pytest.raises(ValueError, match="read-only"):
            seven.heights[0] = 1

    def test_copies_and_pickles(self, seven):
        for tree in (seven, Tree(["a"], [-1]), Tree.from_newick("(a,b);")):
            assert pickle.loads(pickle.dumps(tree)) == copy.deepcopy(tree) == tree

    def test_arrays_of_the_caller_stay_theirs(self):
        heights = np.array([1.0, 0, 0])
        tree = Tree(["r", "a", "b"], [-1, 0, 0], heights=heights)
        heights[0] = 5
        assert tree.heights[0] == 1

    def test_deep_trees_need_no_recursion(self):
        n = 3_000
        tree = Tree([str(i) for i in range(n)], np.arange(n) - 1, heights=np.arange(n)[::-1])
        assert Tree.from_newick(tree.to_newick()).to_newick() == tree.to_newick()
        assert tree.lca(str(n - 1), "5") == "5"
        assert Tree.from_networkx(tree.to_networkx()) == tree

    def test_import_needs_neither_torch_nor_networkx(self):
        heavy = "('torch', 'networkx', 'anndata', 'scanpy', 'sklearn')"
        code = (
            f"import sys, hdtree_sc as ht; ht.Tree, ht.get, ht.metrics; print([m for m in {heavy} if m in sys.modules])"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestCut:
    def test_lowest_first(self, seven):
        assert seven.cut(n_leaves=4) is seven
        assert seven.cut(n_leaves=3).leaves == ("0.0", "0.1", "1")
        assert seven.cut(n_leaves=2).leaves == ("0", "1")
        assert seven.cut(n_leaves=1).nodes == ("root",)

    def test_what_stays_keeps_its_values(self, seven):
        cut = seven.cut(n_leaves=3)
        assert cut.nodes == ("root", "0", "0.0", "0.1", "1")
        np.testing.assert_array_equal(cut.n_cells, [20, 12, 3, 9, 8])
        np.testing.assert_array_equal(cut.heights, [3, 2, 0, 0, 0])
        np.testing.assert_array_equal(cut.codebook, seven.codebook[[0, 1, 2, 3, 4]])
        assert cut.to_newick() == "((0.0:2.0,0.1:2.0)0:1.0,1:3.0)root;"

    def test_small_leaves_go_into_their_parent(self, seven):
        assert seven.cut(min_cells=2).leaves == ("0.0", "0.1", "1")  # 1.1 has one cell
        assert seven.cut(min_cells=8).leaves == ("0", "1")
        assert seven.cut(min_cells=9).leaves == ("root",)  # "1" has 8: it goes, and "0" with it
        assert seven.cut(n_leaves=2, min_cells=2).leaves == ("0", "1")

    def test_stops_before_the_wanted_number_where_nodes_have_many_children(self):
        tree = Tree.from_newick("((a:1,b:1,c:1)x:2,(d:2,e:2,f:2)y:1)r;")
        assert tree.cut(n_leaves=5).leaves == tree.leaves  # 6 leaves; the next cut leaves 4
        assert tree.cut(n_leaves=4).leaves == ("x", "d", "e", "f")
        assert tree.cut(n_leaves=3).leaves == ("x", "d", "e", "f")

    def test_own_branch_lengths_stay(self):
        tree = Tree.from_newick("((a:1,b:2)x:5,c:1)r;")
        assert tree.cut(n_leaves=2).to_newick() == "(x:5.0,c:1.0)r;"

    def test_project_finds_the_leaf_that_holds_a_cell(self, seven):
        cut = seven.cut(n_leaves=3)
        held = cut.project(pd.Categorical(["1.1", "0.1", "1.0", "0"]), seven)
        assert held.tolist() == ["1", "0.1", "1", "0"]

    def test_project_needs_the_tree_that_was_cut(self, seven):
        with pytest.raises(KeyError, match="no such node: 'elsewhere'"):
            seven.cut(2).project(["elsewhere"], seven)
        with pytest.raises(ValueError, match="'x' has no ancestor in this tree"):
            seven.project(["x"], Tree(["x"], [-1]))

    @given(trees(), st.randoms(use_true_random=False))
    @QUICK
    def test_cuts_partition_and_nest_and_stay_monotone(self, tree, random):
        n = random.randint(1, len(tree.leaves))
        cut = tree.cut(n_leaves=n)
        assert len(cut.leaves) >= n
        assert sum((tree.subtree_leaves(leaf) for leaf in cut.leaves), ()) == tree.leaves
        assert (cut.heights[cut.parents[1:]] >= cut.heights[1:]).all()
        assert set(cut.project(tree.leaves, tree)) == set(cut.leaves)
        coarser = tree.cut(n_leaves=random.randint(1, n))
        assert set(coarser.nodes) <= set(cut.nodes)

    @given(trees(), st.integers(1, 60))
    @QUICK
    def test_min_cells_leaves_no_smaller_leaf(self, tree, wanted):
        wanted = min(wanted, tree.n_cells[0])
        cut = tree.cut(min_cells=wanted)
        assert cut.n_cells[cut.is_leaf_mask].min() >= wanted
        assert cut.n_cells[cut.is_leaf_mask].sum() == tree.n_cells[0]

    def test_of_a_dendrogram_is_that_of_scipy(self):
        points = np.random.default_rng(0).normal(size=(40, 3))
        merges = linkage(points, "ward")
        names = [str(i) for i in range(79)]
        parents = np.full(79, -1)
        for row, pair in enumerate(merges[:, :2].astype(int)):
            parents[pair] = 40 + row
        tree = Tree(names, parents, heights=np.append(np.zeros(40), merges[:, 2]))
        for k in (2, 7, 23):
            cut = tree.cut(n_leaves=k)
            ours = cut.leaf_index(cut.project(names[:40], tree))
            theirs = cut_tree(merges, k)[:, 0]
            assert len({*zip(ours, theirs, strict=True)}) == k

    def test_out_of_range(self, seven):
        for n in (0, 5, -1):
            with pytest.raises(ValueError, match=rf"n_leaves={n} is out of range: the tree has 4 leaves, so 1 to 4"):
                seven.cut(n_leaves=n)
        with pytest.raises(ValueError, match="min_cells=21 is out of range: the tree holds 20 cells"):
            seven.cut(min_cells=21)
        with pytest.raises(ValueError, match="no n_cells; use n_leaves"):
            Tree(["r", "a"], [-1, 0]).cut(min_cells=1)
        with pytest.raises(ValueError, match="n_leaves= .* or min_cells="):
            seven.cut()


class TestNewick:
    def test_names_and_lengths(self, seven):
        text = "((0.0:2.0,0.1:2.0)0:1.0,(1.0:1.0,1.1:1.0)1:2.0)root;"
        assert seven.to_newick() == text
        back = Tree.from_newick(text)
        assert back.nodes == seven.nodes
        np.testing.assert_array_equal(back.heights, seven.heights)

    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("(A,B)C;", "(A,B)C;"),
            (" ( A , B ) C ; ", "(A,B)C;"),
            ("(A,B)C", "(A,B)C;"),
            ("(A:1,B:1e-3)C:0.5;", "(A:1.0,B:0.001)C:0.5;"),
            ("(A[&R]:1,B)[note]C;", "(A:1.0,B)C;"),
            ("('T cell','it''s (a): [x];')x_y;", "('T cell','it''s (a): [x];')'x_y';"),
            ("(,(,));", "(0,(1.0,1.1)1)root;"),
            ("(1,0,);", "(1,0,2)root;"),
            ("(,0);", "('0_1',0)root;"),
            ("((a))b;", "((a)0)b;"),
            ("A;", "A;"),
        ],
    )
    def test_foreign_text(self, text, written):
        assert Tree.from_newick(text).to_newick() == written

    @pytest.mark.parametrize(
        "name", ["AWC_ON", "it's", "a,b (c)", 'x"y"', "{a}", "k=1", "a\\b", "$x_1$", "5%", "T cells+", "\u03b2", "a\nb"]
    )
    def test_names_that_other_readers_misread_are_quoted(self, name):
        text = Tree.from_parents({name: "P", "0.1-b": "P"}).to_newick()
        quoted = name.replace("'", "''")
        assert text == f"('{quoted}',0.1-b)P;"
        assert Tree.from_newick(text).leaves == (name, "0.1-b")

    @pytest.mark.parametrize(
        ("text", "names", "support"),
        [
            ("(((a:1,b:1)100:1,c:2)100:1,d:3);", "root 0 0.0 a b c d", {"0": 100, "0.0": 100}),
            ("((a,b)95,(c,d)Mammalia)1.0;", "root 0 a b Mammalia c d", {"root": 1, "0": 95}),
            ("((a,b)1,(c,d)1);", "root 0 a b 1 c d", {"0": 1, "1": 1}),
            ("((a,b).5:1,(c,d)9e-1:2);", "root 0 a b 1 c d", {"0": 0.5, "1": 0.9}),
            ("((1,2)100,(3,4)100);", "root 0 1 2 1_1 3 4", {"0": 100, "1_1": 100}),  # no two nodes are called 100
            ("((a,b)'95',c);", "root 95 a b c", {}),
            ("((0.0,0.1)0,1)root;", "root 0 0.0 0.1 1", {}),  # paths
            ("((a,b)0,c)root;", "root 0 a b c", {}),
            ("((3,4)1,(5,6)2)0;", "0 1 3 4 2 5 6", {}),  # numbers are names here
            ("((a,b)nan,c)inf;", "inf nan a b c", {}),
        ],
    )
    def test_numbers_at_inner_nodes_are_support(self, text, names, support):
        tree = Tree.from_newick(text)
        assert " ".join(tree.nodes) == names
        known = {} if tree.support is None else dict(zip(tree.nodes, tree.support.tolist(), strict=True))
        assert {name: value for name, value in known.items() if not np.isnan(value)} == support
        assert Tree.from_newick(tree.to_newick()) == tree
        assert Tree.from_frame(tree.to_frame()) == Tree.from_networkx(tree.to_networkx()) == tree
        assert pickle.loads(pickle.dumps(tree)) == tree

    def test_support_is_written_where_it_was_read_and_goes_with_its_node(self):
        tree = Tree.from_newick("(((a:1,b:1)100:1,c:2)97.5:1,d:3);")
        assert tree.to_newick() == "(((a:1.0,b:1.0)100:1.0,c:2.0)97.5:1.0,d:3.0)root;"
        np.testing.assert_array_equal(tree.cut(n_leaves=3).support, [np.nan, 97.5, 100, np.nan, np.nan])
        named = Tree(["r", "x", "a", "b", "c"], [-1, 0, 1, 1, 0], support=[np.nan, 90, np.nan, np.nan, np.nan])
        assert named.to_newick() == "((a,b)x,c)r;"  # a name of its own is not lost

    def test_inner_names_that_would_be_read_as_support_are_quoted(self):
        tree = Tree(["r", "8", "a", "b"], [-1, 0, 1, 1])
        assert tree.to_newick() == "((a,b)'8')r;"
        assert Tree.from_newick(tree.to_newick()).nodes == tree.nodes

    def test_names_of_a_deep_tree_without_names_take_little_memory(self):
        n = 20_000
        tree = Tree.from_newick("(" * n + ")" * n + ";")
        assert len(tree) == n + 1
        assert tree.nodes[:3] == ("root", "0", "0.0")
        assert max(map(len, tree.nodes)) <= 60
        assert "node31" in tree

    @pytest.mark.parametrize(("text", "says"), [(b"(a,b);", "got bytes; decode it"), (None, "NoneType"), (3, "int")])
    def test_only_text_is_read(self, text, says):
        with pytest.raises(TypeError, match=says):
            Tree.from_newick(text)

    def test_heights_of_foreign_lengths_are_the_longest_way_down(self):
        tree = Tree.from_newick("((a:1,b:3)x:1,c:2)r;")
        assert dict(zip(tree.nodes, tree.heights.tolist(), strict=True)) == {"r": 4, "x": 3, "a": 0, "b": 0, "c": 0}

    @given(trees())
    @QUICK
    def test_round_trip(self, tree):
        text = tree.to_newick()
        back = Tree.from_newick(text)
        assert back.to_newick() == text
        assert back.nodes == tree.nodes
        np.testing.assert_array_equal(back.parents, tree.parents)
        np.testing.assert_allclose(back.heights, tree.heights, atol=1e-9)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "there is no tree"),
            (";", "there is no tree"),
            ("((a,b);", "unexpected ';'"),
            ("((a,b)", r"'\(' is not closed"),
            ("(a,b));", r"unexpected '\)'.*character 5"),
            ("a,b;", "unexpected ','"),
            ("(a b,c);", "unexpected 'b'; names with blanks .* need single quotes"),
            ("(a:x,b);", "'x' is no branch length"),
            ("(a:nan,b);", "'nan' is no branch length"),
            ("(a,b):", "a branch length is missing"),
            ("(a:1:2,b);", "unexpected ':'"),
            ("('a,b);", "quote or comment is not closed"),
            ("(a,b);(c,d);", "give one tree at a time"),
            ("(a,a);", "'a' used more than once"),
        ],
    )
    def test_what_is_no_tree(self, text, says):
        with pytest.raises(ValueError, match=says):
            Tree.from_newick(text)


class TestNetworkx:
    def test_nodes_edges_and_what_they_carry(self, seven):
        graph = seven.to_networkx()
        assert nx.is_arborescence(graph)
        assert list(graph.successors("root")) == ["0", "1"]
        assert graph.nodes["1"] == {"level": 1, "height": 1.0, "n_cells": 8}
        assert graph.edges["1", "1.1"] == {"length": 1.0}

    @given(trees())
    @QUICK
    def test_round_trip(self, tree):
        assert Tree.from_networkx(tree.to_networkx()) == tree

    def test_a_bare_graph_with_numbers_as_nodes(self):
        tree = Tree.from_networkx(nx.balanced_tree(2, 2, create_using=nx.DiGraph))
        assert tree.to_newick() == "((3,4)1,(5,6)2)0;"

    def test_lca_is_that_of_networkx(self):
        rng = np.random.default_rng(0)
        tree = Tree([f"n{i}" for i in range(60)], [-1, *(int(rng.integers(i)) for i in range(1, 60))])
        graph = tree.to_networkx()
        for a, b in rng.choice(tree.nodes, (30, 2)):
            assert tree.lca(a, b) == nx.lowest_common_ancestor(graph, a, b)

    def test_what_is_no_tree(self):
        for nothing in (None, "graph"):
            with pytest.raises(TypeError, match="graph: a networkx.DiGraph is wanted"):
                Tree.from_networkx(nothing)
        with pytest.raises(ValueError, match="undirected"):
            Tree.from_networkx(nx.Graph([(0, 1)]))
        with pytest.raises(ValueError, match="more than one parent: '2'"):
            Tree.from_networkx(nx.DiGraph([(0, 1), (0, 2), (1, 2)]))
        with pytest.raises(ValueError, match="one root, found 2: '0', '2'"):
            Tree.from_networkx(nx.DiGraph([(0, 1), (2, 3)]))
        with pytest.raises(ValueError, match="cycle"):
            Tree.from_networkx(nx.DiGraph([(0, 1), (1, 0)]))


class TestFrame:
    def test_columns(self, seven):
        frame = seven.to_frame()
        assert list(frame.columns) == ["parent", "level", "n_cells", "is_leaf", "height"]
        assert list(frame.index) == list(seven.nodes)
        assert frame.index.name is None
        assert frame.loc["root", "parent"] == ""
        assert frame.loc["1.1"].tolist() == ["1", 2, 1, True, 0.0]
        assert frame["level"].dtype == frame["n_cells"].dtype == np.int64

    @given(trees())
    @QUICK
    def test_round_trip(self, tree):
        assert Tree.from_frame(tree.to_frame()) == tree

    @pytest.mark.parametrize("text", ["(A,B)C;", "((a:1,b:2)x:5,c)r:1;", "A:2;"])
    def test_lengths_of_their_own_get_a_column(self, text):
        tree = Tree.from_newick(text)
        assert Tree.from_frame(tree.to_frame()) == tree

    @pytest.mark.parametrize("root", ["", None, np.nan, pd.NA, "nan", "None"])
    def test_ways_to_say_no_parent(self, root):
        frame = pd.DataFrame({"parent": [root, "r", "r"]}, index=["r", "a", "b"])
        assert Tree.from_frame(frame).to_newick() == "(a,b)r;"
        assert Tree.from_frame(frame.astype("category")).leaves == ("a", "b")
        assert Tree.from_frame(frame.astype("string")).leaves == ("a", "b")

    def test_bad_tables(self):
        with pytest.raises(TypeError, match="nodes: a DataFrame .* got NoneType"):
            Tree.from_frame(None)
        with pytest.raises(TypeError, match="parents: a mapping .* got NoneType"):
            Tree.from_parents(None)
        with pytest.raises(ValueError, match="non-empty string as its name, got ''"):
            Tree.from_frame(pd.DataFrame({"parent": ["", "r"]}, index=["r", np.nan]))
        with pytest.raises(ValueError, match="a column 'parent'.*'up'"):
            Tree.from_frame(pd.DataFrame({"up": [""]}, index=["r"]))
        with pytest.raises(ValueError, match="parent 'q' of node 'a' is not a node; they are 'r', 'a'"):
            Tree.from_frame(pd.DataFrame({"parent": ["", "q"]}, index=["r", "a"]))


class TestAnnData:
    @pytest.fixture
    def adata(self, seven):
        adata = ad.AnnData(np.zeros((2, 1), dtype=np.float32))
        adata.uns["hdtree"] = {"nodes": seven.to_frame(), "codebook": np.array(seven.codebook), "params": {"depth": 2}}
        return adata

    def test_get(self, adata, seven):
        assert ht.get.tree(adata) == Tree.from_adata(adata, "hdtree") == seven

    @pytest.mark.parametrize("strings", [object, "category", "string"])
    def test_through_files(self, adata, seven, strings, tmp_path):
        nodes = adata.uns["hdtree"]["nodes"]
        adata.uns["hdtree"]["nodes"] = nodes.astype({"parent": strings})
        if strings == "string":
            ad.settings.allow_write_nullable_strings = True
        try:
            adata.write_h5ad(tmp_path / "a.h5ad")
            adata.write_zarr(tmp_path / "a.zarr")
        finally:
            ad.settings.reset("allow_write_nullable_strings")
        for read in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
            assert ht.get.tree(read) == seven

    def test_codebook_follows_its_names(self, adata, seven):
        order = [3, 1, 6, 0, 5, 2, 4]
        stored = adata.uns["hdtree"]
        stored["nodes"], stored["codebook"] = stored["nodes"].iloc[order], stored["codebook"][order]
        tree = ht.get.tree(adata)
        for name in seven.nodes:
            np.testing.assert_array_equal(tree.codebook[tree.index(name)], seven.codebook[seven.index(name)])

    def test_no_tree(self, adata):
        with pytest.raises(KeyError, match=r"adata.uns has no 'treevae': run hdtree_sc.tl.tree.*It has: 'hdtree'"):
            ht.get.tree(adata, "treevae")
        adata.uns["pca"] = {"variance": np.ones(2)}
        with pytest.raises(KeyError, match="'pca'.* holds no tree"):
            ht.get.tree(adata, "pca")


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (([], []), "at least one node"),
            ((["a", ""], [-1, 0]), "non-empty string as its name, got ''"),
            ((["a", 3], [-1, 0]), r"got 3 \(int\)"),
            ((["a", "b", "b"], [-1, 0, 0]), "'b' used more than once"),
            ((["a", "b"], [-1]), r"shape \(2,\); got shape \(1,\)"),
            ((["a", "b"], [-1, 0.5]), "one integer position a node"),
            ((["a", "b"], [-1, 2]), r"parent of node 'b' does not exist: position 2 is not in \[0, 1\]"),
            ((["a", "b"], [-1, -1]), "one root, found 2: 'a', 'b'"),
            ((["a", "b"], [1, 0]), "no root .* cycle"),
            ((["a", "b", "c"], [-1, 2, 1]), "they form a cycle: 'b', 'c'"),
            ((["a", "b"], [-1, 0], [1, np.nan]), "heights: NaN or infinite"),
            ((["a", "b"], [-1, 0], [1]), r"heights: one number a node wanted, shape \(2,\)"),
            ((["a", "b"], [-1, 0], None, [1, -1]), "n_cells: cells are counted.*-1"),
            ((["a", "b"], [-1, 0], None, None, np.ones((3, 2))), r"codebook: .* shape \(2, d\); got shape \(3, 2\)"),
        ],
    )
    def test_what_is_no_tree(self, arguments, says):
        with pytest.raises(ValueError, match=says):
            Tree(*arguments)

    def test_names_that_are_not_there(self, seven):
        for ask in (seven.parent, seven.children, seven.path, seven.is_leaf, seven.subtree_leaves, seven.index):
            with pytest.raises(KeyError, match=r"no such node: '7'. The tree's nodes are 'root', '0'"):
                ask("7")
        with pytest.raises(KeyError, match="no such node: 'nan'"):
            seven.index(pd.Categorical(["0", np.nan]))
        with pytest.raises(KeyError, match="'0' are inner nodes; the leaves are '0.0'"):
            seven.leaf_index(["0", "0.0"])
