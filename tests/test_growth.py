"""How TreeVAE's tree grows: on planted groups it finds them, on one group it stays one leaf."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from helpers import QUIET
from scipy import sparse
from sklearn.metrics import normalized_mutual_info_score

import hdtree_sc as ht
from hdtree_sc.graph._neighbors import nearest_neighbors
from hdtree_sc.graph._walks import walk_information
from hdtree_sc.growth import _growth
from hdtree_sc.growth._growth import Cells, Growth
from hdtree_sc.growth._row_optimizer import train_rows
from hdtree_sc.module import TreeVAEModule

N_EMBEDDING, N_DETAIL, N_GENES = 4, 2, 12


def counts_of_a_two_level_mixture(n: int = 800, n_genes: int = 60, seed: int = 0) -> AnnData:
    """Negative binomial counts of four groups, two and two of which are alike; about 300 counts a cell."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, n)
    pairs, own = rng.normal(0, 1.2, (2, n_genes)), rng.normal(0, 0.8, (4, n_genes))
    log = rng.normal(0, 1, n_genes) + pairs[np.arange(4) // 2] + own
    share = np.exp(log) / np.exp(log).sum(1, keepdims=True)
    mean = share[group] * rng.lognormal(np.log(300), 0.3, n)[:, None]
    counts = rng.poisson(rng.gamma(5.0, mean / 5.0)).astype(np.float32)
    obs = pd.DataFrame(
        {"group": group.astype(str), "pair": (group // 2).astype(str)}, index=[f"c{i}" for i in range(n)]
    )
    return AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


@pytest.fixture(scope="module")
def mixed():
    """A model of the mixture, with cells on its tree; treat both as read-only."""
    adata = counts_of_a_two_level_mixture()
    scvi.settings.seed = 0
    ht.TreeVAE.setup_anndata(adata)
    model = ht.TreeVAE(adata, max_leaves=4, n_hidden=64)
    model.train(max_epochs=12, **QUIET)
    ht.tl.tree(adata, model)
    return model, adata


# -- a whole training ----------------------------------------------------------------------------------------


def test_groups_are_leaves_and_the_pairs_part_first(mixed):
    model, adata = mixed
    assert len(model.get_tree().leaves) == 4
    assert normalized_mutual_info_score(adata.obs["group"], adata.obs["treevae_leaf"]) > 0.9
    top = model.get_tree_paths()["level_1"].astype(str)
    assert normalized_mutual_info_score(adata.obs["pair"], top) > 0.95


def test_the_record_of_growing_tells_of_each_split(mixed):
    model, _ = mixed
    growth = model.growth
    grown = growth[growth["stage"] == "grow"]
    assert grown["n_leaves"].tolist() == [2, 3, 4]
    assert (growth["stage"] == "grow").all(), "splits that held are not taken back"
    assert grown["n_cells"].iloc[0] == len(model.train_indices)
    assert (grown["smaller"] * 2 <= grown["n_cells"]).all()
    assert (grown["information"] >= _growth.MIN_GAIN_RATIO * grown["entropy"]).all()
    np.testing.assert_allclose(grown["gain"], grown["information"] * grown["n_cells"] / len(model.train_indices))
    assert grown["gain"].is_monotonic_decreasing, "the best comes first"
    assert np.isfinite(grown["bound_gain"]).all()
    assert (grown["epoch"] == round(0.4 * 12)).all()
    assert model.history["n_leaves"].to_numpy(float).ravel()[[0, -1]].tolist() == [1.0, 4.0]


def test_the_tree_tells_how_many_training_cells_are_where(mixed):
    model, adata = mixed
    tree = model.get_tree()
    leaf = adata.obs["treevae_leaf"].iloc[np.asarray(model.train_indices)].value_counts()
    assert {name: int(tree.n_cells[tree.index(name)]) for name in tree.leaves} == leaf.to_dict()
    heights = dict(zip(tree.nodes, tree.heights, strict=True))
    assert all(heights[tree.root] > heights[name] for name in tree.nodes[1:]), "pairs lie further apart than groups"


def test_an_unknown_rule_is_named():
    adata = counts_of_a_two_level_mixture(60)
    ht.TreeVAE.setup_anndata(adata)
    model = ht.TreeVAE(adata, n_hidden=16)
    with pytest.raises(ValueError, match="split_rule: 'smallest' is none of.*gain.*largest"):
        model.train(max_epochs=1, split_rule="smallest", **QUIET)
    assert not model.is_trained_


# -- growing on embeddings that stand still ------------------------------------------------------------------


def planted(centres: list[list[float]], n: int = 400, seed: int = 0) -> tuple[TreeVAEModule, Cells, torch.Tensor]:
    """A new module, and cells whose embeddings lie about some centres; each group has genes of its own."""
    torch.manual_seed(seed)
    module = TreeVAEModule(
        N_GENES, n_latent=N_EMBEDDING, n_node_latent=3, n_detail=N_DETAIL, n_hidden=16, n_layers=1, max_nodes=16,
        n_pcs=4, n_input_pcs=4,
    ).eval()  # fmt: skip
    rng = np.random.default_rng(seed)
    group = torch.from_numpy(rng.integers(0, len(centres), n))
    points = torch.from_numpy(rng.normal(0, 0.3, (n, N_EMBEDDING + N_DETAIL))).float()
    points[:, : len(centres[0])] += torch.tensor(centres)[group]
    mean = torch.ones(n, N_GENES) + 8.0 * (torch.arange(N_GENES) % len(centres) == group.unsqueeze(1))
    x = torch.from_numpy(rng.poisson(mean.numpy())).float()
    return module, Cells(x, points, torch.zeros(n, module.covariates.width), x.sum(1, keepdim=True)), group


def growth_of(module: TreeVAEModule, cells: Cells, **options) -> Growth:
    """Growing with every fourth cell held out."""
    is_held_out = torch.arange(len(cells)) % 4 == 0
    given = {"max_leaves": 6, "max_depth": 5, "min_leaf_size": 10} | options
    return Growth(module, cells[~is_held_out], cells[is_held_out], generator=torch.Generator().manual_seed(0), **given)


@pytest.fixture
def hasty(monkeypatch):
    """New leaves are hardly taught: where splits are found does not depend on it."""
    monkeypatch.setattr(_growth, "STEPS", 3)
    monkeypatch.setattr(_growth, "DRAWS", 1)


SQUARE = [[-5.0, -1.5], [-5.0, 1.5], [5.0, -1.5], [5.0, 1.5]]


def leaves_of(module: TreeVAEModule, cells: Cells) -> torch.Tensor:
    with torch.no_grad():
        return module.likeliest(module.tree.log_shares(cells.embedding))


@pytest.mark.usefixtures("hasty")
def test_growing_ends_by_itself_when_all_groups_are_apart():
    module, cells, group = planted(SQUARE)
    records = growth_of(module, cells).run()
    assert [record["n_leaves"] for record in records] == [2, 3, 4], "though six leaves would be allowed"
    assert normalized_mutual_info_score(group, leaves_of(module, cells)) > 0.99
    first = module.tree.child[0, 0]
    with torch.no_grad():
        share = module.tree.log_shares(cells.embedding).exp()[module.tree.plan.slots == first][0]
    assert normalized_mutual_info_score(group // 2, share > 0.5) > 0.99, "what is far apart parts first"
    assert growth_of(module, cells).prune() == []


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("seed", range(3))
def test_one_group_stays_one_leaf(seed):
    module, cells, _ = planted([[0.0]], seed=seed)
    assert growth_of(module, cells).run() == []
    assert module.tree.leaf_slots().tolist() == [0]


@pytest.mark.usefixtures("hasty")
def test_the_largest_leaf_is_split_whatever_it_gains_and_pruning_takes_that_back():
    module, cells, _ = planted([[0.0]])
    records = growth_of(module, cells, rule="largest", max_leaves=4).run()
    assert len(module.tree.leaf_slots()) == 4
    assert [record["n_cells"] for record in records] == sorted((record["n_cells"] for record in records), reverse=True)
    assert max(record["information"] / record["entropy"] for record in records) < _growth.PRUNE_RATIO
    assert growth_of(module, cells, rule="largest").prune() == [], "as published nothing is taken back"
    gone = growth_of(module, cells).prune()
    assert [record["n_leaves"] for record in gone] == [3, 2, 1]
    assert len(module.tree.plan.shown) == 1


@pytest.mark.usefixtures("hasty")
def test_leaves_that_cells_have_left_are_taken_away():
    module, cells, group = planted(SQUARE)
    growth_of(module, cells).run()
    gone = growth_of(module, cells[group != 2]).prune()
    assert [record["n_leaves"] for record in gone] == [3]
    assert gone[0]["n_cells"] < 5
    assert normalized_mutual_info_score(group[group != 2], leaves_of(module, cells[group != 2])) > 0.99


@pytest.mark.usefixtures("hasty")
def test_depth_leaves_and_their_size_have_limits():
    for options, n_leaves in (({"max_depth": 1}, 2), ({"max_leaves": 3}, 3), ({"min_leaf_size": 130}, 2)):
        module, cells, _ = planted(SQUARE)
        growth_of(module, cells, **options).run()
        assert len(module.tree.leaf_slots()) == n_leaves, options


@pytest.mark.usefixtures("hasty")
def test_without_held_out_cells_training_cells_judge():
    module, cells, group = planted(SQUARE)
    generator = torch.Generator().manual_seed(0)
    growth = Growth(module, cells, cells[:0], max_leaves=6, max_depth=5, min_leaf_size=10, generator=generator)
    assert [record["n_leaves"] for record in growth.run()] == [2, 3, 4]
    assert normalized_mutual_info_score(group, leaves_of(module, cells)) > 0.99


def test_held_out_cells_gain_in_bound_by_a_split_that_is_there():
    """Groups have genes of their own, so that leaves of their own tell them better once they were taught."""
    module, cells, _ = planted([[-5.0], [5.0]])
    (record,) = growth_of(module, cells).run()
    assert record["bound_gain"] > 1.0, "nats per cell"


# -- information of walks ------------------------------------------------------------------------------------


def test_walks_tell_two_far_clusters_apart_and_random_sides_not():
    rng = np.random.default_rng(0)
    side = rng.random(400) < 0.3
    points = (rng.normal(size=(400, 3)) + 40.0 * side[:, None]).astype(np.float32)
    new_side = rng.random(200) < 0.3
    queries = (rng.normal(size=(200, 3)) + 40.0 * new_side[:, None]).astype(np.float32)
    neighbors, _ = nearest_neighbors(points, 15)
    share = side.mean()
    # sides weigh as among the cells that are linked; what 200 cells have by chance is taken off
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share) - 0.5 / 200
    assert walk_information(points, side, neighbors, queries, new_side) == pytest.approx(entropy, rel=1e-6)
    random = walk_information(points, rng.random(400) < 0.3, neighbors, queries, rng.random(200) < 0.3)
    assert 0 <= random < 0.01
    assert walk_information(points, side, neighbors, queries, ~new_side) == pytest.approx(entropy, rel=1e-6)
    assert walk_information(points, side, neighbors, queries, np.ones(200, bool)) == pytest.approx(0, abs=1e-9)


def test_a_cut_through_a_cluster_tells_less_than_one_between_clusters():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 3)).astype(np.float32)
    gap = points.copy()
    gap[:, 0] += np.where(gap[:, 0] > 0, 1.5, -1.5)
    told = []
    for cloud in (points, gap):
        neighbors, _ = nearest_neighbors(cloud[:400], 15)
        told.append(walk_information(cloud[:400], cloud[:400, 0] > 0, neighbors, cloud[400:], cloud[400:, 0] > 0))
    assert told[0] < 0.25 < 0.6 < told[1] <= np.log(2) + 1e-9


# -- teaching ------------------------------------------------------------------------------------------------


def test_teaching_changes_the_given_rows_alone():
    module, cells, _ = planted(SQUARE, n=50)
    module.tree.attach(0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    weight = module.tree.posterior.last.weight
    frozen = module.map_head.layers[-1].weight.requires_grad_(False)
    with train_rows(module, {weight: [1]}, lr=0.1) as step:
        assert [parameter is weight for parameter in module.parameters() if parameter.requires_grad] == [True]
        expected, divergence = module.bound(cells.x, cells.embedding, cells.covariates, cells.library, min_share=0.01)
        step((expected + divergence).mean())
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"tree.posterior.last.weight"}
    moved = (weight != before["tree.posterior.last.weight"]).flatten(1).any(1)
    assert moved.nonzero().squeeze(1).tolist() == [1]
    assert not frozen.requires_grad
    assert all(parameter.requires_grad for parameter in module.parameters() if parameter is not frozen)
    assert all(parameter.grad is None for parameter in module.parameters())
